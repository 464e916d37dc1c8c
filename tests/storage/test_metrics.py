"""Promises of the logs: a line per log, nothing lost or doubled by an interruption, a full disk is said."""

import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

import agent.storage.metrics as metrics_module
from agent.errors import DamagedFile, NonFinite, UserError, check_finite
from agent.storage.checkpoint import checkpoint_steps, save_checkpoint
from agent.storage.run import Run
from tests.storage.common import events, lines, silent, start


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


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("what", ["scalars", "a picture"])
def test_a_full_disk_for_tensorboard_is_told_and_nothing_else_is_printed(tmp_path, monkeypatch, capfd, begun, what):
    """Its files are written by a thread, whose traceback would say the same once more and worse."""
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

    with start(tmp_path) as run:
        run.resume()
        if begun:
            run.log(1, {"a": 1.0})
            run.flush()
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"tb: the disk is full: free some space"):
            patch.setattr(LocalFileSystem, "_write", full_disk)
            if what == "scalars":
                run.log(2, {f"a{n}": 1.0 for n in range(3)})
                run.save_checkpoint(2, {}, {})
            else:
                run.image("plan", np.zeros((4, 4, 3), np.uint8), 2)
        assert checkpoint_steps(tmp_path / "checkpoints") == []
        run.log(3, {"a": 3.0})  # there is room again
    assert [event for event in events(tmp_path) if event[1] != 2] == [("a", 1, 1.0)] * begun + [("a", 3, 3.0)]
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_at_the_end_does_not_hide_the_first_error(tmp_path, monkeypatch):
    for error, expected in ((None, UserError), (KeyError("first"), KeyError)):
        with monkeypatch.context() as patch, pytest.raises(expected), start(tmp_path) as run:
            run.resume()
            patch.setattr(metrics_module, "to_json", full_disk)
            run.log(1, {})
            if error:
                raise error
    start(tmp_path).close()  # and the lock was given back


def train(folder: Path, stop: tuple[str, int] | None = None, snapshot: Path | None = None, notify=silent) -> None:
    """Two phases, a checkpoint every 4 steps; at `stop` the disk is copied, as a kill leaves it."""
    with start(folder, notify=notify) as run:
        state = run.resume()
        tensors, meta, done = state or ({"sum": torch.zeros(())}, {}, 0)
        assert meta == {"done": done} if state else not meta
        total = tensors["sum"]
        schedule = [("world model", step) for step in range(10)] + [("critic", step) for step in range(7)]
        for count, (run.phase, step) in enumerate(schedule[done:], start=done + 1):
            total = total + count
            run.log(count, {"losses/total": total, "losses/step": step})
            if count % 5 == 0:
                run.image("picture", np.full((4, 4, 3), count, np.uint8), count)
            if snapshot and (run.phase, step) == stop:
                run.flush()
                shutil.copytree(folder, snapshot)
                return
            if count % 4 == 0:
                run.save_checkpoint(count, {"sum": total}, {"done": count})


def without_time(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "time"} for line in lines(folder)]


@pytest.fixture(autouse=True)
def event_files_in_order(monkeypatch):
    """TensorBoard names files by second and a count, and reads them in the order of their names: 10 before 9."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))


def torn(folder: Path) -> None:
    """As a kill in the middle of a line and of an event leaves them."""
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"phase": "world mo')
    newest = max((folder / "tb").glob("events.out.tfevents.*"))  # half an event
    newest.write_bytes(newest.read_bytes() + b"\x20\x00\x00")


@pytest.mark.parametrize("stop", [("world model", 1), ("world model", 7), ("critic", 0), ("critic", 5)], ids=str)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop):
    train(tmp_path / "whole")
    train(tmp_path / "broken", stop, tmp_path / "copy")
    torn(tmp_path / "copy")
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
    path = tmp_path / "c" / "checkpoints" / "00000012.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    messages = []
    train(tmp_path / "c", notify=messages.append)
    assert len(messages) == 1 and "step 12" in messages[0] and "00000012.safetensors" in messages[0]
    assert without_time(tmp_path / "c") == without_time(tmp_path / "whole")
    assert events(tmp_path / "c") == events(tmp_path / "whole")


def test_resume_refuses_when_all_checkpoints_are_damaged(tmp_path):
    train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=r"step 12: 00000012.safetensors: \d+ bytes instead of"):
        train(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lost_metrics_are_told(tmp_path):
    train(tmp_path / "a", ("critic", 3), tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text('{"phase": "world model", "step": 0}\n{"ph')
    messages = []
    train(tmp_path / "b", notify=messages.append)
    assert len(messages) == 1 and "metrics.jsonl is shorter" in messages[0]
    assert [line["step"] for line in lines(tmp_path / "b")] == [0, *range(13, 18)]


def test_load_checkpoint_leaves_the_run_as_it_is(tmp_path):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run = Run.open(tmp_path, silent)
    tensors, meta, step = run.load_checkpoint()
    assert (tensors["sum"], meta, step) == (136, {"done": 16}, 16)
    assert run.load_checkpoint(12)[2] == 12
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["decoder.out.weight", "memory.latent", "perception.bias"])
def test_weights_that_are_not_finite_are_named(tmp_path, name):
    """With a digest that matches: they were saved like this."""
    bad = torch.zeros(2, 3)
    bad[0, 1], bad[1, 1] = torch.nan, torch.inf
    with start(tmp_path) as run:
        run.resume()
        run.save_checkpoint(7, {name: bad, "good": torch.ones(2), "count": torch.tensor([1])}, {})
        with pytest.raises(NonFinite) as caught:
            run.load_checkpoint()
    text = str(caught.value)
    assert f"step 7 in {tmp_path / 'checkpoints'}" in text and f"{name} (2, 3): 1 NaN and 1 infinite of 6" in text
    assert "good" not in text
    with start(tmp_path) as run, pytest.raises(NonFinite):
        run.resume()
    assert (tmp_path / "checkpoints" / "00000007.safetensors").exists()


def test_a_checkpoint_from_elsewhere_loads_too(tmp_path):
    start(tmp_path).close()
    save_checkpoint(tmp_path / "checkpoints", 3, {}, {"a": 1})
    assert Run.open(tmp_path).load_checkpoint() == ({}, {"a": 1}, 3)


@pytest.mark.parametrize("bad", ['{"a"', "[" * 100_000, "[1]", " " * 2**21])
def test_a_broken_line_in_the_middle_is_named(tmp_path, bad):
    start(tmp_path).close()
    (tmp_path / "metrics.jsonl").write_text(f'{{"a": 1}}\n{bad}\n{{"a": 3}}\n')
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
