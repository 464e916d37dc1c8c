"""The table of commands: what is imported when, help, interruptions, and numbers that are not finite."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.cli import ablate, evaluate, imagine, runs, train
from agent.cli.main import COMMANDS, is_non_finite
from agent.presets import PRESETS
from tests.helpers import tiny, train_tiny

ROOT = Path(__file__).resolve().parents[2]
SLOW = ("torch", "gymnasium", "matplotlib")
INTERRUPTED = 130


def python(code: str, *arguments: str, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    found = os.pathsep.join(str(p) for p in (*path, ROOT))
    environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)


def imported(*arguments: str) -> list[str]:
    """Which slow packages a command imports."""
    code = (
        f"import sys, run_agent; run_agent.main(sys.argv[1:]); print('\\n', *(m for m in {SLOW} if m in sys.modules))"
    )
    return python(code, *arguments).stdout.splitlines()[-1].split()


# Imports


@pytest.mark.parametrize("arguments", [(), ("--help",), ("trian",)])
def test_help_and_a_mistyped_command_import_nothing_slow(arguments):
    assert imported(*arguments) == []


def test_report_imports_neither_torch_nor_gymnasium(tmp_path):
    shutil.copytree(ROOT / "docs" / "ablations" / "two_rooms_terms", tmp_path / "comparison")
    assert not {"torch", "gymnasium"} & {*imported("report", str(tmp_path / "comparison"))}
    assert (tmp_path / "comparison" / "report.html").exists()


# Help


def test_help_lists_the_flags_of_every_command(call):
    for name in COMMANDS:
        code, out, _ = call(name, "--help")
        assert code == 0 and "--out" in out and "--json" in out and "--no-json" not in out, name


def test_the_help_of_train_has_the_defaults_of_the_preset(call):
    budget = {}
    for name, arguments in {
        "two_rooms": (),
        "point_maze": ("point_maze",),
        "point_maze_medium": ("point-maze-medium",),
    }.items():
        code, out, _ = call("train", *arguments, "--help")
        words = " ".join(out.replace("│", " ").split())
        assert code == 0 and "point_maze_medium" in words, "the presets are listed"
        budget[name] = int(words.split("primitive actions. (default: ")[1].split(")")[0])
    assert budget == {name: PRESETS[name]().max_steps for name in budget}


def test_the_help_of_ablate_says_what_a_placebo_is(call):
    assert "A placebo is a control: it keeps the part but makes it meaningless." in " ".join(
        call("ablate", "--help")[1].split()
    )


def test_a_preset_may_be_left_out(monkeypatch, tmp_path):
    assert train.parse(["--seed", "3"], "p") == dataclasses.replace(
        train.parse(["two_rooms"], "p"), config=dataclasses.replace(PRESETS["two_rooms"](), seed=3)
    )
    assert train.parse(["debug", "--seed", "3"], "p").folder == Path("runs/debug__seed3")
    assert train.parse(["debug", "--out", str(tmp_path)], "p").folder == tmp_path


def test_a_mistyped_planner_has_a_hint_and_leaves_standard_output_empty(call, trained_run):
    code, out, err = call("evaluate", trained_run, "--planner", "mpi", "--json")
    assert code == 2 and "did you mean 'mppi'" in err and not out


def test_a_reader_that_stops_reading_gets_no_traceback():
    command = [sys.executable, str(ROOT / "run_agent.py"), "check", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=30) == 1


# Ctrl-C


@pytest.mark.parametrize(
    ("module", "command", "words"),
    [
        (train, ("train", "debug"), "rerun the same command to resume"),
        (ablate, ("ablate", "debug"), "rerun the same command to resume"),
        (evaluate, ("evaluate", "x"), "nothing is lost: run it again"),
        (imagine, ("imagine", "x"), "nothing is lost: run it again"),
    ],
)
def test_an_interruption_says_what_is_kept(call, monkeypatch, module, command, words):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", interrupted)
    code, out, err = call(*command)
    assert code == INTERRUPTED and words in err and "Traceback" not in out + err
    assert ("resume" in err) == (command[0] in ("train", "ablate"))


SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("importing", flush=True)
            try:
                time.sleep(20)
            except KeyboardInterrupt:
                raise ImportError("as some packages do") from None
sys.meta_path.insert(0, Slow())
"""


def test_an_interruption_while_importing_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "run_agent.py"), "evaluate", "x"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == INTERRUPTED and err == "interrupted\n"


# Numbers that are not finite


@pytest.mark.parametrize(
    "error",
    [
        np.linalg.LinAlgError("SVD did not converge"),
        torch.linalg.LinAlgError("linalg.svd: The algorithm failed to converge"),
        FloatingPointError("energies: 3 are not finite"),
        ValueError("cannot convert float NaN to integer"),
        RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"),
    ],
)
def test_errors_of_numbers_that_are_not_finite_are_recognised(error):
    assert is_non_finite(error)


@pytest.mark.parametrize("error", [ValueError("bananas"), RuntimeError("infer the shape"), KeyError("info")])
def test_other_errors_keep_their_traceback(error):
    assert not is_non_finite(error)


def test_weights_that_are_not_finite_are_named(call, trained_run, monkeypatch, tmp_path):
    load = runs.load

    def spoiled(*arguments):
        agent = load(*arguments)
        with torch.no_grad():
            for weight in agent.perception.parameters():
                weight.fill_(float("nan"))
        return agent

    monkeypatch.setattr(runs, "load", spoiled)
    for command in ("evaluate", "imagine"):
        flags = ("--tasks", "2", "--budget", "2", "--record", "0") if command == "evaluate" else ()
        code, out, err = call(command, trained_run, *flags, "--out", tmp_path)
        assert code == 2 and "not finite" in err and "Traceback" not in out + err, (command, out, err)


def test_a_learning_rate_that_is_far_too_large_is_named(call, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "debug", tiny)
    code, out, err = call("train", "debug", "--learn.learning-rate", "1e30", "--out", tmp_path / "run")
    assert code == 2 and "not finite" in err and "learning rate" in err and "Traceback" not in out + err


def test_a_policy_that_is_not_trained_is_named_whoever_asks_for_it(call, tmp_path):
    config = tiny()
    learn = dataclasses.replace(config.learn, policy_steps=0)
    reflex = dataclasses.replace(config.configurator, mode=1)
    train_tiny(dataclasses.replace(config, learn=learn, configurator=reflex), tmp_path / "run")
    for flags in ((), ("--mode", "1")):
        code, _, err = call("evaluate", tmp_path / "run", "--tasks", "2", *flags)
        assert code == 2 and "--learn.policy-steps 0" in err and "--mode 2" in err
    code, out, err = call("evaluate", tmp_path / "run", "--tasks", "2", "--budget", "2", "--mode", "2", "--json")
    assert code == 0 and json.loads(out)["mode"] == 2, err
