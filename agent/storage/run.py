"""The run folder: what a training leaves behind, and what the same command needs to resume it.

    config.json     the configuration; the same command with the same one resumes, with another one is refused
    command.txt     each command line that worked on this run
    versions.json   what it was started with: this program, python, packages, platform, threads
    metrics.jsonl   one JSON object a line: phase, step, time and the logged values (see metrics.py)
    tb/             the same values, and pictures, for TensorBoard
    checkpoints/    see checkpoint.py
    summary.json    written at the end of training (see summary.py)
    lock            held while a training writes here

An interrupted and resumed run ends with the same (phase, step) lines as one that was never interrupted: a checkpoint
stores the length of metrics.jsonl, and resuming cuts the file back to that length.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from agent.console import warn
from agent.drawing.media import encode_gif, encode_png
from agent.errors import DamagedFile, NonFinite, UserError, nearest, not_finite
from agent.storage.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from agent.storage.files import check_writable, disk_errors, read_json, to_json, write_durable
from agent.storage.lock import FolderLock
from agent.storage.metrics import Metrics, read_metrics
from agent.storage.provenance import config_diff, versions
from agent.storage.summary import read_summary

_OWNED = {"config.json", "command.txt", "versions.json", "metrics.jsonl", "lock", "tb", "checkpoints"}


class Run:
    """A run folder, open for training (`create_or_resume`, then `resume`) or for reading (`open`). A context manager.

    Attributes:
        folder: where it is.
        config: the configuration as it came back from JSON.
        out: where write_json and write_bytes write; the run folder, unless `open` was given another one.
        phase: the part of training that the next `log` lines belong to; set it freely.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], notify: Callable[[str], None], out: Path | None = None
    ) -> None:
        """Use `create_or_resume` or `open`."""
        self.folder, self.config, self.phase = folder, config, ""
        self.out = out or folder
        self._notify = notify
        self._lock: FolderLock | None = None
        self._metrics: Metrics | None = None

    # Opening and closing

    @classmethod
    def create_or_resume(
        cls, folder: Path, config: Mapping[str, Any], command: Sequence[str], notify: Callable[[str], None] = warn
    ) -> Run:
        """Take `folder` for training: new, or one that holds a run of the same configuration.

        Args:
            folder: created if absent.
            config: JSON-able; the order of keys does not matter, other types are stored as text.
            command: the command line, for the record.
            notify: receives warnings: other versions than before, a damaged checkpoint passed over.

        Raises:
            UserError: it holds something else, or a run of another configuration (with the difference) or of an older
                version; another process is training in it; or it cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; a run needs a folder: give another --out.")
        names = os.listdir(folder) if folder.exists() else []
        # A kill in the first moments leaves a lock and half a config.json; that is no reason to refuse.
        foreign = [name for name in names if name != "lock" and not name.startswith(".tmp.")]
        if foreign and "config.json" not in names:
            raise UserError(f"{folder} is not empty and holds no run: give another --out, it will be created.")
        wanted = json.loads(json.dumps(config, default=str))
        run = cls(folder, wanted, notify)
        try:
            run._lock = FolderLock(folder, "training", notify)
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
            checkpoint_steps(folder / "checkpoints")  # those of an older version are refused now, before the work
            run._record(command)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, folder: Path, notify: Callable[[str], None] = warn, out: Path | None = None) -> Run:
        """Open an existing run for reading. The folder may be read-only; nothing is written to it by opening.

        Args:
            folder: of the run.
            notify: receives warnings: a damaged checkpoint passed over, an incomplete summary.
            out: another folder for the results that write_json and write_bytes write.

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
        return cls(folder, _read_config(folder), notify, out)

    def resume(self) -> tuple[dict[str, Tensor], dict[str, Any], int] | None:
        """Go back to the newest good checkpoint, or to the beginning, and open the logs there.

        Call it once, before the first `log`. Metrics from after the checkpoint are cut off, and TensorBoard hides
        them: every step that is logged from now on must be later than the checkpoint's.

        Returns:
            (tensors, meta, step) as given to save_checkpoint, or None when nothing was saved yet.

        Raises:
            DamagedFile: there are checkpoints, but none is whole; or config.json has changed since.
            NonFinite: the checkpoint holds values that are not finite.
        """
        assert self._lock is not None, "only a run from create_or_resume can be resumed"
        assert self._metrics is None, "resume was called before"
        if not checkpoint_steps(self.folder / "checkpoints"):
            self._metrics = Metrics(self.folder, 0, 0, self._notify)
            return None
        tensors, meta, step, length = self._load(None)
        self._metrics = Metrics(self.folder, length, step + 1, self._notify)
        return tensors, meta, step

    def close(self) -> None:
        """Write what is pending, close the files and release the lock. May be called twice."""
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
        # An error while closing must not hide the one that ended the block.
        with contextlib.suppress(UserError) if kind else contextlib.nullcontext():
            self.close()

    # Checkpoints

    def save_checkpoint(self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
        """Save a checkpoint (see checkpoint.save_checkpoint), and with it the length of the logs."""
        assert not {"log_bytes", "config_sha256"} & set(meta), "these keys of meta are reserved"
        logs = self._logs()
        logs.flush(sync=True)
        own = {"log_bytes": logs.length(), "config_sha256": self._fingerprint()}
        return save_checkpoint(self.folder / "checkpoints", step, tensors, {**meta, **own})

    def load_checkpoint(self, step: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
        """Read a checkpoint (see checkpoint.load_checkpoint) and leave the run as it is.

        Raises:
            UserError, DamagedFile, NonFinite: as for `resume`; also when there is no checkpoint, or none of `step`.
        """
        tensors, meta, step, _ = self._load(step)
        return tensors, meta, step

    def _load(self, step: int | None) -> tuple[dict[str, Tensor], dict[str, Any], int, int]:
        """Tensors, meta, step, and the length of the logs; checked against the configuration and for finite values."""
        folder = self.folder / "checkpoints"
        tensors, meta, step = load_checkpoint(folder, step, self._notify)
        if meta.pop("config_sha256", self._fingerprint()) != self._fingerprint():
            raise DamagedFile(
                f"{self.folder / 'config.json'} has changed since the checkpoint was trained. Restore it from a copy; "
                "to train with other settings, start a new run in another folder."
            )
        if found := not_finite(tensors):
            raise NonFinite(
                f"the checkpoint of step {step} in {folder} holds values that are not finite: {'; '.join(found)}. "
                "They were saved like this. Delete that file to use the checkpoint before it, or train again."
            )
        return tensors, meta, step, meta.pop("log_bytes", 0)

    # Logs

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Log named numbers at a step of the current phase: one line of metrics.jsonl, one TensorBoard scalar each.

        Tensors must have one element. They are copied but not read until the next flush, so logging costs no wait.
        """
        self._logs().add(self.phase, step, values)

    def flush(self) -> None:
        """Write the logged lines now. Otherwise they are written every few seconds and at each checkpoint."""
        self._logs().flush()

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl in order, without a half-written last one."""
        return read_metrics(self.folder / "metrics.jsonl")

    def image(self, tag: str, image: np.ndarray, step: int) -> bytes:
        """Show one picture in TensorBoard: uint8, (H, W, 3), (H, W, 4) or (H, W). Returns it as PNG bytes."""
        data = encode_png(image)
        self._logs().events.picture(tag, data, image.shape[0], image.shape[1], step)
        return data

    def gif(self, tag: str, frames: Sequence[np.ndarray], step: int, fps: float = 10.0) -> bytes:
        """Show a film in TensorBoard: frames as for `image`, `fps` of them a second. Returns it as GIF bytes."""
        data = encode_gif(frames, fps)
        self._logs().events.picture(tag, data, frames[0].shape[0], frames[0].shape[1], step)
        return data

    def summary(self) -> dict[str, Any] | None:
        """summary.json, checked (see summary.read_summary); None when training has not come to its end."""
        return read_summary(self.folder, self._notify)

    # Files

    def check_writable(self) -> None:
        """Find out before the work whether write_json and write_bytes can write. UserError says why not."""
        check_writable(self.out)

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file into `out` in one step; tensors and arrays become lists, NaN and infinities null."""
        return self.write_bytes(name, to_json(value))

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file into `out` in one step.

        Args:
            name: relative, such as "imagination/plan.gif": letters, digits, ".", "_" and "-" in each part.
            data: its whole content.

        Raises:
            UserError: the name could leave the run folder or belongs to the run itself; or the disk refuses.
        """
        parts = name.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) for part in parts) or parts[0] in _OWNED:
            raise UserError(f"'{name}' cannot be the name of a file in a run: use letters, digits, '.', '_' and '-'.")
        path = self.out.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(self.out.resolve()):
            raise UserError(f"{path.parent} is a link that leads out of {self.out}: remove it.")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, data)
        return path

    # Inside

    def _fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def _logs(self) -> Metrics:
        assert self._metrics is not None, "call resume() before logging or saving; a run from open() cannot do either"
        return self._metrics

    def _record(self, command: Sequence[str]) -> None:
        with disk_errors(self.folder / "command.txt"), open(self.folder / "command.txt", "a", encoding="utf-8") as file:
            file.write(shlex.join(command) + "\n")
        path, now = self.folder / "versions.json", versions()
        try:
            difference = config_diff(read_json(path), now)
        except (FileNotFoundError, DamagedFile):  # only a record, not worth stopping for
            write_durable(path, to_json(now))
            return
        if difference:
            self._notify(f"this run began with other versions (- then, + now); the last bits may differ:\n{difference}")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "config.json")
    except DamagedFile as error:
        raise DamagedFile(f"{error}. Restore it from a copy, or start a new run.") from error


def _runs_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/config.json"))
