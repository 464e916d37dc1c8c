"""The run folder: what a training leaves behind, and what the same command needs to go on where it stopped.

    config.json     the configuration; the same command with the same one resumes, with another one is refused
    command.txt     each command line that worked on this run
    versions.json   what it was started with: python, packages, platform, threads
    metrics.jsonl   one JSON object a line: phase, step, time and the logged values (see metrics.py)
    tb/             the same values, and pictures, for TensorBoard
    checkpoints/    see checkpoint.py
    lock            held while a training writes here

An interrupted and resumed run ends with the same (phase, step) lines as one that was never interrupted: a checkpoint
notes how long the logs were when it was taken, and resuming cuts them back to that length.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from agent.console import warn
from agent.drawing.media import encode_gif, encode_png
from agent.errors import DamagedFile, UserError, nearest
from agent.storage.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from agent.storage.files import disk_errors, to_json, write_durable
from agent.storage.metrics import Metrics, read_metrics

PACKAGES = ("torch", "gymnasium", "mujoco", "numpy")


_OWNED = {"config.json", "command.txt", "versions.json", "metrics.jsonl", "lock", "tb", "checkpoints"}


# A forked child (a vectorised environment's worker) inherits the lock and would keep it after its parent was killed.
_LOCKS: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _LOCKS])


class Run:
    """A run folder, open for training (`create_or_resume`, then `resume`) or for reading (`open`). A context manager.

    Attributes:
        folder: where it is.
        config: the configuration as it came back from JSON.
        phase: the part of training that the next `log` lines belong to; set it freely.
    """

    def __init__(self, folder: Path, config: dict[str, Any], tell: Callable[[str], None]) -> None:
        """Use `create_or_resume` or `open`."""
        self.folder, self.config, self.phase = folder, config, ""
        self._tell = tell
        self._lock: IO[bytes] | None = None
        self._metrics: Metrics | None = None

    # Opening and closing

    @classmethod
    def create_or_resume(
        cls, folder: Path, config: Mapping[str, Any], command: Sequence[str], tell: Callable[[str], None] = warn
    ) -> Run:
        """Take `folder` for training: new, or one that holds a run of the same configuration.

        Args:
            folder: created if absent.
            config: JSON-able; the order of keys does not matter, other types are stored as text.
            command: the command line, for the record.
            tell: receives remarks: other versions than before, a damaged checkpoint passed over.

        Raises:
            UserError: it holds something else, a run of another configuration (with the difference), or another
                training is writing to it; or the disk refuses.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; a run needs a folder: give another --out.")
        names = os.listdir(folder) if folder.exists() else []
        # A kill in the first moments leaves a lock and half a config.json; that is no reason to refuse.
        foreign = [name for name in names if name != "lock" and not name.startswith(".tmp.")]
        if foreign and "config.json" not in names:
            raise UserError(f"{folder} is not empty and holds no run: give another --out, it will be created.")
        wanted = json.loads(json.dumps(config, default=str))
        run = cls(folder, wanted, tell)
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            if (folder / "config.json").exists():
                difference = config_diff(_read_config(folder), wanted)
                if difference:
                    raise UserError(
                        f"{folder} holds a run with another configuration (- there, + now):\n{difference}\n"
                        "Give another --out, or delete the folder to start over."
                    )
            else:
                write_durable(folder / "config.json", json.dumps(wanted, indent=1).encode())
            with disk_errors(folder):
                (folder / "tb").mkdir(exist_ok=True)
                (folder / "checkpoints").mkdir(exist_ok=True)
            run._record(command)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, folder: Path, tell: Callable[[str], None] = warn) -> Run:
        """Open an existing run for reading; files may be added to it (write_json, write_bytes), nothing is logged.

        Raises:
            UserError: there is no such folder, or it holds no run.
            DamagedFile: its config.json cannot be read.
        """
        if not folder.is_dir():
            raise UserError(f"there is no run {folder}{nearest(folder.name, _runs_in(folder.parent))}.")
        if not (folder / "config.json").exists():
            inside = _runs_in(folder)
            hint = f"; it contains the runs {', '.join(inside[:5])}" if inside else ""
            raise UserError(f"{folder} is not a run: it has no config.json{hint}.")
        return cls(folder, _read_config(folder), tell)

    def resume(self) -> tuple[dict[str, Tensor], dict[str, Any], int] | None:
        """Go back to the newest good checkpoint, or to the beginning, and open the logs there.

        Call it once, before the first `log`. Metrics and events from after the checkpoint are cut off.

        Returns:
            (tensors, meta, step) as given to save_checkpoint, or None when nothing was saved yet.

        Raises:
            DamagedFile: there are checkpoints, but none is whole.
        """
        assert self._lock is not None, "only a run from create_or_resume can be resumed"
        assert self._metrics is None, "resume was called before"
        if not checkpoint_steps(self.folder / "checkpoints"):
            self._metrics = Metrics(self.folder, {}, self._tell)
            return None
        tensors, meta, step = load_checkpoint(self.folder / "checkpoints", None, self._tell)
        self._check_config(meta)
        self._metrics = Metrics(self.folder, meta.pop("logs", {}), self._tell)
        return tensors, meta, step

    def close(self) -> None:
        """Write what is pending, close the files and give the lock back. May be called twice."""
        metrics, lock, self._metrics, self._lock = self._metrics, self._lock, None, None
        try:
            if metrics is not None:
                metrics.close()
        finally:
            if lock is not None:
                lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error on the way out must not hide the one that led here.
        with contextlib.suppress(UserError) if kind else contextlib.nullcontext():
            self.close()

    # Checkpoints

    def save_checkpoint(self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
        """Save a checkpoint (see checkpoint.save_checkpoint) that also knows how far the logs had come."""
        assert not {"logs", "config_sha256"} & set(meta), "these keys of meta are reserved"
        logs = self._logs()
        logs.flush(sync=True)
        return save_checkpoint(
            self.folder / "checkpoints",
            step,
            tensors,
            {**meta, "logs": logs.lengths(), "config_sha256": self._fingerprint()},
        )

    def load_checkpoint(self, step: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
        """Read a checkpoint (see checkpoint.load_checkpoint) and leave the run as it is."""
        tensors, meta, step = load_checkpoint(self.folder / "checkpoints", step, self._tell)
        self._check_config(meta)
        meta.pop("logs", None)
        return tensors, meta, step

    # Logs

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Log named numbers at a step of the current phase: one line of metrics.jsonl, one TensorBoard scalar each.

        Tensors must have one element. They are copied but not read until the next flush, so logging costs no wait.
        """
        self._logs().add(self.phase, step, values)

    def flush(self) -> None:
        """Write the logged lines now; this happens by itself every few seconds and at each checkpoint."""
        self._logs().flush()

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl in order, without a half-written last one."""
        return read_metrics(self.folder / "metrics.jsonl")

    def image(self, tag: str, image: np.ndarray, step: int) -> bytes:
        """Show one picture in TensorBoard: uint8, (H, W, 3), (H, W, 4) or (H, W). Returns it as PNG bytes."""
        data = encode_png(image)
        self._logs().picture(tag, data, image.shape[0], image.shape[1], step)
        return data

    def gif(self, tag: str, frames: Sequence[np.ndarray], step: int, fps: float = 10.0) -> bytes:
        """Show a film in TensorBoard: frames as for `image`, `fps` of them a second. Returns it as GIF bytes."""
        data = encode_gif(frames, fps)
        self._logs().picture(tag, data, frames[0].shape[0], frames[0].shape[1], step)
        return data

    # Files

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file of the run in one step; tensors and arrays become lists, NaN and infinities null."""
        return self.write_bytes(name, to_json(value))

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file of the run in one step.

        Args:
            name: relative, such as "imagination/plan.gif": letters, digits, ".", "_" and "-" in each part.
            data: its whole content.

        Raises:
            UserError: the name could leave the run folder or belongs to the run itself; or the disk refuses.
        """
        parts = name.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) for part in parts) or parts[0] in _OWNED:
            raise UserError(f"'{name}' cannot be the name of a file in a run: use letters, digits, '.', '_' and '-'.")
        path = self.folder.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{path.parent} is a link that leads out of the run: remove it.")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, data)
        return path

    # Inside

    def _fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def _check_config(self, meta: dict[str, Any]) -> None:
        trained = meta.pop("config_sha256", None)
        if trained is not None and trained != self._fingerprint():
            raise DamagedFile(
                f"{self.folder / 'config.json'} has changed since the checkpoint was trained. Restore it from a copy; "
                "to train with other settings, start a new run in another folder."
            )

    def _logs(self) -> Metrics:
        assert self._metrics is not None, "call resume() before logging or saving; a run from open() cannot do either"
        return self._metrics

    def _take_lock(self) -> None:
        path = self.folder / "lock"
        with disk_errors(path):
            lock = open(path, "a+b", buffering=0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().decode(errors="replace").strip() or "unknown"
            lock.close()
            message = f"process {owner} is training in {self.folder}: wait for it, or give another --out."
            raise UserError(message) from None
        except OSError as error:  # some network file systems have no locks; training there is still fine
            self._tell(f"{path} cannot be locked ({error.strerror}): let only one training write here.")
        self._lock = lock
        _LOCKS.add(lock)
        with disk_errors(path):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n".encode())

    def _record(self, command: Sequence[str]) -> None:
        with disk_errors(self.folder / "command.txt"), open(self.folder / "command.txt", "a", encoding="utf-8") as file:
            file.write(shlex.join(command) + "\n")
        path, now = self.folder / "versions.json", versions()
        try:
            difference = config_diff(json.loads(path.read_bytes()), now)
        except (OSError, ValueError, AttributeError):  # absent or unreadable: a record, not worth stopping for
            write_durable(path, to_json(now))
            return
        if difference:
            self._tell(f"this run began with other versions (- then, + now); the last bits may differ:\n{difference}")


def versions() -> dict[str, Any]:
    """What the numbers of a run may depend on besides its configuration."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, "threads": torch.get_num_threads()}


def config_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The difference of two nested JSON objects as lines of dotted keys, "- a.b: 1" and "+ a.b: 2"; "" if none."""
    before, after = _dotted(old), _dotted(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        # As text, because a NaN is not equal to itself and True is equal to 1.
        there, here = (json.dumps(side[key], sort_keys=True) if key in side else None for side in (before, after))
        if there != here:
            lines += [f"{sign} {key}: {text}" for sign, text in (("-", there), ("+", here)) if text is not None]
    return "\n".join(lines)


def _dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        nested = isinstance(item, Mapping) and len(item) > 0
        flat.update(_dotted(item, f"{prefix}{key}.") if nested else {f"{prefix}{key}": item})
    return flat


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if isinstance(config, dict):
            return config
        reason = f"expected an object, found {type(config).__name__}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise DamagedFile(f"{folder / 'config.json'} is damaged: {reason}. Restore it from a copy, or start a new run.")


def _runs_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/config.json"))
