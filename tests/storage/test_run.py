"""Promises of agent/storage/run.py: a folder holds one run or is left alone; what is wrong is said in words."""

import builtins
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from agent import __version__
from agent.errors import DamagedFile, UserError
from agent.storage.files import to_json
from agent.storage.provenance import config_diff
from agent.storage.run import Run
from agent.storage.summary import read_summary
from tests.storage.common import CONFIG, silent, start

OWN = ["checkpoints", "command.txt", "config.json", "lock", "metrics.jsonl", "tb", "versions.json"]


def test_a_new_run_has_its_files(tmp_path):
    folder = tmp_path / "runs" / "first"
    with start(folder) as run:
        assert run.resume() is None
    assert sorted(os.listdir(folder)) == OWN
    assert json.loads((folder / "config.json").read_text()) == CONFIG == run.config
    assert (folder / "command.txt").read_text() == "run_agent.py train --out 'a folder'\n"
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["ami"] == __version__
    assert versions["torch"] == torch.__version__ and versions["threads"] == torch.get_num_threads()
    assert set(versions) == {"ami", "python", "platform", "torch", "gymnasium", "mujoco", "numpy", "threads"}


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
    for text in ("{", "[]", "\xff", "[" * 100_000):
        (tmp_path / "walk-1" / "config.json").write_bytes(text.encode("latin-1"))
        for use in (Run.open, start):
            with pytest.raises(DamagedFile, match=r"config.json is damaged"):
                use(tmp_path / "walk-1")


def test_other_versions_are_told(tmp_path):
    start(tmp_path).close()
    path = tmp_path / "versions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    messages = []
    start(tmp_path, notify=messages.append).close()
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


def test_a_huge_configuration_is_refused_by_name(tmp_path):
    start(tmp_path).close()
    os.truncate(tmp_path / "config.json", 500 * 2**20)
    for use in (Run.open, start):
        with pytest.raises(DamagedFile, match=r"config.json: 500 MB, it may have at most 10 MB"):
            use(tmp_path)


def test_a_run_of_an_older_version_is_refused(tmp_path):
    """Else its training would begin anew, in the same folder."""
    start(tmp_path).close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    before = (tmp_path / "command.txt").read_text()
    (tmp_path / "checkpoints" / "00000010").mkdir()
    (tmp_path / "checkpoints" / "00000010" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="older version of this program: train again"):
        start(tmp_path)
    with pytest.raises(UserError, match="older version of this program: train again"):
        Run.open(tmp_path).load_checkpoint()
    assert (tmp_path / "command.txt").read_text() == before
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_checkpoints_folder_that_is_a_link_is_not_followed(tmp_path):
    with start(tmp_path / "other") as run:
        run.resume()
        run.save_checkpoint(1, {}, {})
    start(tmp_path / "run").close()
    (tmp_path / "run" / "checkpoints").rmdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "other" / "checkpoints")
    with pytest.raises(DamagedFile, match=r"checkpoints is a symbolic link, refused"):
        Run.open(tmp_path / "run").load_checkpoint()
    with pytest.raises(DamagedFile, match=r"checkpoints is a symbolic link"):
        start(tmp_path / "run")


# Reading without writing, and writing elsewhere


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_read_only_run_can_be_read_and_is_found_out_before_the_work(tmp_path, monkeypatch):
    with start(tmp_path / "run") as run:
        run.resume()
        run.log(1, {"a": 1.0})
        run.save_checkpoint(1, {"w": torch.ones(1)}, {})
        run.write_json("summary.json", SUMMARY)
    before = files(tmp_path / "run")
    real = builtins.open

    def read_only(file, mode="r", *args, **kwargs):
        """As root the tests can write anywhere: the run's folder refuses in another way."""
        if set(mode) & set("wax+") and isinstance(file, Path) and file.is_relative_to(tmp_path / "run"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", read_only)
    run = Run.open(tmp_path / "run", silent)
    assert run.load_checkpoint()[2] == 1 and run.summary() == SUMMARY and len(list(run.metrics())) == 1
    with pytest.raises(UserError, match=r"cannot write .*run: the file system is read-only: give another --out"):
        run.check_writable()
    run = Run.open(tmp_path / "run", silent, out=tmp_path / "elsewhere")
    run.check_writable()
    assert run.write_json("eval/result.json", {"a": 1}) == tmp_path / "elsewhere" / "eval" / "result.json"
    with pytest.raises(UserError, match="cannot be the name"):
        run.write_json("config.json", {})
    assert files(tmp_path / "elsewhere") == {"eval/result.json": to_json({"a": 1})}
    assert files(tmp_path / "run") == before


# The summary

SUMMARY = {
    **{"run": "runs/a", "env": "TwoRooms-v0", "seed": 3, "env_steps": 128, "train_wall_seconds": 2.5},
    **{"train_cpu_seconds": 2.0, "pictures_wall_seconds": 0.0, "peak_memory_mb": 300.0, "parameters": 12},
}


def test_a_summary_says_that_training_came_to_its_end(tmp_path):
    start(tmp_path).close()
    run = Run.open(tmp_path, silent)
    assert run.summary() is None
    run.write_json("summary.json", SUMMARY)
    assert run.summary() == SUMMARY == read_summary(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"envsteps": 128}, ["env_steps"]),
        ({"env_steps": "128"}, ["env_steps"]),
        ({"train_wall_seconds": None, "seed": True}, ["seed", "train_wall_seconds"]),
    ],
)
def test_what_is_missing_in_a_summary_is_told(tmp_path, change, named):
    start(tmp_path).close()
    held = {name: value for name, value in SUMMARY.items() if name not in named} | change
    (tmp_path / "summary.json").write_text(json.dumps(held))
    messages = []
    found = Run.open(tmp_path, messages.append).summary()
    assert len(messages) == 1 and f"summary.json does not hold {', '.join(named)} as expected" in messages[0]
    assert found == {name: value for name, value in held.items() if name not in named}


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_summary_is_told(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    messages = []
    assert read_summary(tmp_path, messages.append) == {}
    assert len(messages) == 1 and "summary.json is damaged" in messages[0]
