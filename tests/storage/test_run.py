"""Promises of agent/run.py, metrics.py, errors.py, console.py: a run resumes as if never interrupted, or says why."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

import agent.storage.metrics as metrics_module
from agent import console
from agent.errors import DamagedFile, NonFinite, UserError, check_finite, nearest
from agent.storage.checkpoint import save_checkpoint
from agent.storage.run import Run, config_diff

CONFIG = {"seed": 0, "world_model": {"latent": 128, "layers": [64, 64], "name": None}, "steps": 10}
COMMAND = ["run_agent.py", "train", "--out", "a folder"]
OWN = ["checkpoints", "command.txt", "config.json", "lock", "metrics.jsonl", "tb", "versions.json"]


def silent(message: str) -> None:
    raise AssertionError(f"unexpected message: {message}")


def start(folder: Path, config: dict = CONFIG, tell=silent) -> Run:
    return Run.create_or_resume(folder, config, COMMAND, tell)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[tuple]:
    """(tag, step, value) of every scalar and picture, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    tags = reader.Tags()
    scalars = [(tag, e.step, e.value) for tag in tags["scalars"] for e in reader.Scalars(tag)]
    return scalars + [(tag, e.step, e.encoded_image_string) for tag in tags["images"] for e in reader.Images(tag)]


# Errors


def test_check_finite_names_tensor_step_and_place():
    good = {"loss": torch.ones(3), "count": torch.tensor([1]), "mask": torch.tensor(True), "none": torch.empty(0)}
    check_finite(good, 1, "world model")
    bad = torch.zeros(2, 4)
    bad[0, 1], bad[1, 2], bad[1, 3] = float("nan"), float("inf"), -float("inf")
    with pytest.raises(NonFinite) as caught:
        check_finite(good | {"prediction": bad, "variance": torch.tensor(float("nan"))}, 123, "world model")
    text = str(caught.value)
    assert text.startswith("world model, step 123: not finite: ")
    assert "prediction (2, 4): 1 NaN and 2 infinite of 8" in text and "variance ()" in text and "loss" not in text
    assert isinstance(caught.value, UserError)


def test_nearest():
    assert nearest("wrold", ["world", "critic"]) == " (did you mean 'world'?)"
    assert nearest("xyz", ["world", "critic"]) == ""


# The folder


def test_a_new_run_has_its_files(tmp_path):
    folder = tmp_path / "runs" / "first"
    with start(folder) as run:
        assert run.resume() is None
    assert sorted(os.listdir(folder)) == OWN
    assert json.loads((folder / "config.json").read_text()) == CONFIG == run.config
    assert (folder / "command.txt").read_text() == "run_agent.py train --out 'a folder'\n"
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["torch"] == torch.__version__ and versions["threads"] == torch.get_num_threads()
    assert set(versions) == {"python", "platform", "torch", "gymnasium", "mujoco", "numpy", "threads"}


def test_same_config_resumes_whatever_the_order_of_keys(tmp_path):
    config = CONFIG | {"bounds": (0, float("inf")), "threshold": float("nan"), "out": Path("x")}
    start(tmp_path, config).close()
    start(tmp_path, dict(reversed(config.items()))).close()
    assert len((tmp_path / "command.txt").read_text().splitlines()) == 2


def test_another_config_is_refused_with_the_difference(tmp_path):
    start(tmp_path).close()
    other = {"seed": 0, "world_model": {"latent": 64, "layers": [64, 32], "name": None}, "extra": {"deep": True}}
    before = sorted(tmp_path.iterdir()), (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError) as caught:
        start(tmp_path, other)
    text = str(caught.value)
    assert (
        "\n+ extra.deep: true\n- steps: 10\n- world_model.latent: 128\n+ world_model.latent: 64\n"
        "- world_model.layers: [64, 64]\n+ world_model.layers: [64, 32]\n" in text
    )
    assert "--out" in text and "seed" not in text
    assert before == (sorted(tmp_path.iterdir()), (tmp_path / "config.json").read_bytes())
    start(tmp_path).close()  # the refusal gave the lock back


def test_config_diff_tells_apart_what_python_calls_equal():
    assert config_diff({"a": True}, {"a": 1}) == "- a: true\n+ a: 1"
    assert config_diff({"a": {}}, {"a": {"b": 1}}) == "- a: {}\n+ a.b: 1"
    assert config_diff({"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2, "x": 1}]}) == ""


def test_a_folder_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no run"):
        start(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_kill_while_creating_does_not_block_the_folder(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / ".tmp.99.config.json").write_text("{")
    start(tmp_path).close()


def test_open_says_what_is_wrong(tmp_path):
    start(tmp_path / "walk-1").close()
    assert Run.open(tmp_path / "walk-1").config == CONFIG
    with pytest.raises(UserError, match=r"there is no run .*walk_1 \(did you mean 'walk-1'\?\)"):
        Run.open(tmp_path / "walk_1")
    with pytest.raises(UserError, match=r"is not a run: it has no config.json; it contains the runs walk-1"):
        Run.open(tmp_path)
    for text in ("{", "[]", "\xff"):
        (tmp_path / "walk-1" / "config.json").write_bytes(text.encode("latin-1"))
        for use in (Run.open, start):
            with pytest.raises(DamagedFile, match=r"config.json is damaged"):
                use(tmp_path / "walk-1")


def test_other_versions_are_told(tmp_path):
    start(tmp_path).close()
    path = tmp_path / "versions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    messages = []
    start(tmp_path, tell=messages.append).close()
    assert len(messages) == 1 and f'- torch: "1.0"\n+ torch: "{torch.__version__}"' in messages[0]
    path.write_text("{")
    start(tmp_path).close()


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/../../x", "", ".", "a//b", "a\\b", ".hidden", "x\n", "config.json", "checkpoints/x"]
)
def test_no_name_leaves_the_run_or_replaces_its_own_files(tmp_path, name):
    start(tmp_path / "run").close()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be the name"):
        Run.open(tmp_path / "run").write_json(name, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_files_are_written_and_links_out_are_refused(tmp_path):
    start(tmp_path / "run").close()
    run = Run.open(tmp_path / "run")
    path = run.write_json("eval/result_1.json", {"a": (np.float32(0.5), torch.ones(2), float("nan"), Path("p"))})
    assert json.loads(path.read_text()) == {"a": [0.5, [1.0, 1.0], None, "p"]}
    assert run.write_bytes("plan.gif", b"GIF").read_bytes() == b"GIF"
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out"):
        run.write_bytes("out/x", b"")
    assert not (tmp_path / "x").exists()


# The lock


def test_two_trainings_cannot_share_a_run(tmp_path):
    with start(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} is training"):
        start(tmp_path)
    start(tmp_path).close()


def test_a_killed_training_gives_the_lock_back(tmp_path):
    start(tmp_path).close()
    hold = (
        "import fcntl, os, sys, time; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB);"
        "f.truncate(0); f.write(str(os.getpid())); f.flush(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / "lock"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid} is training"):
            start(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
        start(tmp_path).close()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    run = start(tmp_path)
    (ready, tell_ready), (wait, end) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
        child = os.fork()
    if child == 0:
        os.close(end)
        os.write(tell_ready, b".")
        os.read(wait, 1)  # lives until the parent closes its end
        os._exit(0)
    try:
        os.read(ready, 1)
        with pytest.raises(UserError, match="is training"):  # the child's leaving it did not unlock the parent's
            start(tmp_path)
        run.close()
        start(tmp_path).close()
    finally:
        for descriptor in (ready, tell_ready, wait, end):
            os.close(descriptor)
        os.waitpid(child, 0)


# Logs


def test_a_line_holds_phase_step_time_and_values(tmp_path):
    with start(tmp_path) as run:
        run.resume()
        run.phase = "world model"
        total = torch.tensor(1.0, dtype=torch.float64)
        run.log(1, {"losses/a": total, "losses/b": 0.25, "n": 3, "np": np.float64(0.5)})
        total += 1  # accumulating on must not change what was logged
        trained = total.float().requires_grad_()
        run.log(2, {"losses/a": trained, "bad": float("nan"), "worse": torch.tensor([torch.inf])})
        assert (tmp_path / "metrics.jsonl").read_text() == ""  # nothing is read before the flush
        run.flush()
        first, second = run.metrics()
    assert list(first) == ["phase", "step", "time", "losses/a", "losses/b", "n", "np"]
    assert first.pop("time") > 1e9
    assert first == {"phase": "world model", "step": 1, "losses/a": 1.0, "losses/b": 0.25, "n": 3, "np": 0.5}
    assert (second["losses/a"], second["bad"], second["worse"]) == (2.0, None, None)
    assert ("losses/b", 1, 0.25) in events(tmp_path) and ("losses/a", 2, 2.0) in events(tmp_path)


def test_tensors_are_read_once_per_flush(tmp_path, monkeypatch):
    reads = []
    for name in ("item", "tolist", "__float__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, n=name, r=real: (reads.append(n), r(self))[1])
    with start(tmp_path) as run:
        run.resume()
        for step in range(50):
            run.log(step, {"a": torch.tensor(float(step)), "b": torch.tensor(step)})
        assert reads == []
        run.flush()
        assert reads == ["tolist"]
    assert [line["a"] for line in lines(tmp_path)] == [line["b"] for line in lines(tmp_path)] == list(range(50))


def test_flushes_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_module, "FLUSH_LINES", 3)
    with start(tmp_path) as run:
        run.resume()
        for step in range(7):
            run.log(step, {})
        assert len(lines(tmp_path)) == 6
        monkeypatch.setattr(metrics_module, "FLUSH_SECONDS", -1.0)
        run.log(7, {})
        assert len(lines(tmp_path)) == 8


def test_an_exception_does_not_lose_the_last_lines(tmp_path):
    with pytest.raises(NonFinite), start(tmp_path) as run:
        run.resume()
        run.log(1, {"a": 1.0})
        check_finite({"loss": torch.tensor(torch.nan)}, 1, "here")
    assert [line["step"] for line in lines(tmp_path)] == [1]


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    with start(tmp_path) as run:
        run.resume()
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"metrics.jsonl: the disk is full"):
            patch.setattr(os, "fsync", full_disk)  # the lines must be on the disk before a checkpoint counts on them
            run.save_checkpoint(1, {}, {})
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_full_disk_at_the_end_does_not_hide_the_first_error(tmp_path, monkeypatch):
    for error, expected in ((None, UserError), (KeyError("first"), KeyError)):
        with monkeypatch.context() as patch, pytest.raises(expected), start(tmp_path) as run:
            run.resume()
            patch.setattr(metrics_module, "to_json", full_disk)
            run.log(1, {})
            if error:
                raise error
    start(tmp_path).close()  # and the lock was given back


def train(folder: Path, stop: tuple[str, int] | None = None, snapshot: Path | None = None, tell=silent) -> None:
    """Two phases with steps of their own, a checkpoint every 4; at `stop` the disk is copied, as a kill leaves it."""
    with start(folder, tell=tell) as run:
        state = run.resume()
        tensors, meta, done = state or ({"sum": torch.zeros(())}, {}, 0)
        assert meta == {"done": done} if state else not meta
        total = tensors["sum"]
        schedule = [("world model", step) for step in range(10)] + [("critic", step) for step in range(7)]
        for count, (run.phase, step) in enumerate(schedule[done:], start=done + 1):
            total = total + count
            run.log(step, {"losses/total": total, "losses/step": step})
            if count % 5 == 0:
                run.image("picture", np.full((4, 4, 3), count, np.uint8), step)
            if snapshot and (run.phase, step) == stop:
                run.flush()
                shutil.copytree(folder, snapshot)
                return
            if count % 4 == 0:
                run.save_checkpoint(count, {"sum": total}, {"done": count})


def without_time(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "time"} for line in lines(folder)]


@pytest.mark.parametrize("stop", [("world model", 1), ("world model", 7), ("critic", 0), ("critic", 5)], ids=str)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop):
    train(tmp_path / "whole")
    train(tmp_path / "broken", stop, tmp_path / "copy")
    with open(tmp_path / "copy" / "metrics.jsonl", "ab") as file:
        file.write(b'{"phase": "world mo')  # a kill in the middle of a line
    half = [line["step"] for line in Run.open(tmp_path / "copy").metrics()]
    assert half and len(half) < 17
    train(tmp_path / "copy")
    assert without_time(tmp_path / "copy") == without_time(tmp_path / "whole")
    assert len(lines(tmp_path / "whole")) == 17
    assert events(tmp_path / "copy") == events(tmp_path / "whole")
    assert len(events(tmp_path / "whole")) == 2 * 17 + 3


def test_interrupted_twice_with_a_damaged_checkpoint_equals_uninterrupted(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "a", ("critic", 3), tmp_path / "b")
    train(tmp_path / "b", ("critic", 4), tmp_path / "c")
    path = tmp_path / "c" / "checkpoints" / "00000012" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    messages = []
    train(tmp_path / "c", tell=messages.append)
    assert len(messages) == 1 and "step 12" in messages[0] and "tensors.safetensors" in messages[0]
    assert without_time(tmp_path / "c") == without_time(tmp_path / "whole")
    assert events(tmp_path / "c") == events(tmp_path / "whole")


def test_resume_refuses_when_all_checkpoints_are_damaged(tmp_path):
    train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "checkpoints").glob("*/meta.json"):
        path.unlink()
    with pytest.raises(DamagedFile, match=r"step 12: meta.json: missing"):
        train(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lost_metrics_are_told(tmp_path):
    train(tmp_path / "a", ("critic", 3), tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text('{"phase": "world model", "step": 0}\n{"ph')
    messages = []
    train(tmp_path / "b", tell=messages.append)
    assert len(messages) == 1 and "metrics.jsonl is shorter" in messages[0]
    assert [line["step"] for line in lines(tmp_path / "b")] == [0, *range(2, 7)]


def test_load_checkpoint_leaves_the_run_as_it_is(tmp_path):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run = Run.open(tmp_path, silent)
    tensors, meta, step = run.load_checkpoint()
    assert (tensors["sum"], meta, step) == (136, {"done": 16}, 16)
    assert run.load_checkpoint(12)[2] == 12
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_checkpoint_from_elsewhere_loads_too(tmp_path):
    start(tmp_path).close()
    save_checkpoint(tmp_path / "checkpoints", 3, {}, {"a": 1})
    assert Run.open(tmp_path).load_checkpoint() == ({}, {"a": 1}, 3)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    start(tmp_path).close()
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(DamagedFile, match=r"metrics.jsonl, line 2"):
        list(Run.open(tmp_path).metrics())


def test_pictures_and_films_are_readable(tmp_path):
    frames = [np.zeros((6, 8, 3), np.uint8) for _ in range(5)]
    for index, frame in enumerate(frames):
        frame[:, index] = (255, 128, 0)
    with start(tmp_path) as run:
        run.resume()
        film = run.gif("imagination/openloop", frames, 7, fps=20)
        picture = run.image("plan", frames[2], 8)
        grey = run.image("grey", np.eye(4, dtype=np.uint8) * 255, 9)
    found = {tag: (step, value) for tag, step, value in events(tmp_path)}
    assert found == {"imagination/openloop": (7, film), "plan": (8, picture), "grey": (9, grey)}
    read = GifImageFile(io.BytesIO(film))
    assert (read.format, read.n_frames, read.size, read.info["duration"]) == ("GIF", 5, (8, 6), 50)
    for index, frame in enumerate(frames):
        read.seek(index)
        assert np.array_equal(np.asarray(read.convert("RGB")), frame)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), frames[2])


# The console


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.fixture(autouse=True)
def loud():
    yield
    console.set_quiet(False)


def test_progress_without_a_terminal_prints_few_lines(capsys, clock):
    with console.Progress(clock=clock) as progress:
        progress.start("world model", total=100, done=20)
        for n in range(21, 101):
            clock.now += 0.5
            progress.update(n, f"loss {n}")
        progress.start("prepare critic")
        clock.now += 7.0
        progress.start("critic", total=3, unit="games")
        clock.now += 1.0
        progress.update(2, "[red]markup stays text[/red]")
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "world model: 100 steps, resumed at 20",
        "world model: 80/100 (2 it/s, 10 s left)  loss 80",
        "world model: 100 steps in 40.0 s (2 it/s)  loss 100",
        "prepare critic: 7.0 s",
        "critic: 3 games",
        "critic: stopped at 2/3 in 1.0 s (2 it/s)  [red]markup stays text[/red]",
    ]


def test_quiet_sends_everything_to_standard_error(capsys):
    with console.Progress(quiet=True) as progress:
        progress.start("a", total=1)
    console.set_quiet(True)
    console.tell("message")
    console.table("title", [{"x": 1}])
    with console.Progress() as progress:
        progress.start("b", total=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(text in err for text in ("a: 1 steps", "message", "title", "b: 1 steps"))


def test_messages_are_neither_wrapped_nor_interpreted(capsys):
    long = "[bold] " + "word " * 60 + "end"
    console.tell(long)
    console.warn("careful")
    out, err = capsys.readouterr()
    assert out == long + "\n"
    assert err == "warning: careful\n"


def test_table_is_whole_and_aligned(capsys):
    console.table("Results", [{"name": "full" * 30, "success": 0.912345, "n": 50}, {"name": "[x]", "cost": 1.0}])
    title, header, first, second = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert title == "Results"
    assert header.split() == ["name", "success", "n", "cost"]
    assert first.split() == ["full" * 30, "0.9123", "50"]
    assert second.split() == ["[x]", "1"] and second.endswith("   1") and len(second) == len(header)


def test_progress_on_a_terminal_draws_a_bar(monkeypatch, clock):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_console", lambda _: console.Console(file=screen, force_terminal=True, width=120))
    with console.Progress(clock=clock) as progress:
        progress.start("world model", total=10)
        for n in range(1, 11):
            clock.now += 0.01  # too fast to draw each one; the last is drawn anyway
            progress.update(n, f"loss {n}")
            console.tell("above the bar")
    text = screen.getvalue()
    assert all(part in text for part in ("world model", "10/10", "it/s", "loss 10", "above the bar"))
    assert "loss 5" not in text
