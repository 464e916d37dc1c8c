"""The growing files of a run: metrics.jsonl for programs, tb/ (TensorBoard) for people; numbers, pictures, films.

Both only grow. `lengths` says how long they are, which a checkpoint stores, and opening them again with those lengths
cuts off whatever was written later: a resumed run computes it again, and no line appears twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from agent.errors import DamagedFile
from agent.storage.files import disk_errors, to_json

FLUSH_LINES, FLUSH_SECONDS = 200, 10.0


class Metrics:
    """The logs of the run in `folder`, open for writing.

    A line of metrics.jsonl is {"phase", "step", "time", and the values by name}; time is in seconds since 1970, a value
    that is not finite is null. TensorBoard gets the same values under the same names.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int], tell: Callable[[str], None]) -> None:
        """Open the logs, cut back to `lengths` (what `lengths` returned at a checkpoint; empty: from the beginning)."""
        self._folder, self._path = folder, folder / "metrics.jsonl"
        self._pending: list[tuple[dict[str, Any], dict[str, float | Tensor]]] = []
        self._flushed = time.monotonic()
        self._events: IO[bytes] | None = None
        with disk_errors(folder):
            (folder / "tb").mkdir(parents=True, exist_ok=True)
            self._path.touch()
            self._cut_back(lengths, tell)
            self._lines = open(self._path, "ab")

    def add(self, phase: str, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Note one line. Tensors of one element are copied now and read at the next flush, so nothing waits here."""
        copies: dict[str, float | Tensor] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                assert value.numel() == 1, f"{name}: expected one element, got shape {tuple(value.shape)}"
                # A copy, because the caller may go on accumulating into the same tensor.
                copies[name] = value.detach().to(torch.float64, copy=True).reshape(())
            else:
                copies[name] = float(value)
        self._pending.append(({"phase": phase, "step": int(step), "time": round(time.time(), 3)}, copies))
        if len(self._pending) >= FLUSH_LINES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self, sync: bool = False) -> None:
        """Write what is pending; all its tensors are read at once, one transfer per device. `sync`: onto the disk."""
        self._flushed = time.monotonic()
        pending, self._pending = self._pending, []
        by_device: dict[torch.device, list[tuple[dict[str, float | Tensor], str, Tensor]]] = {}
        for _, values in pending:
            for name, value in values.items():
                if isinstance(value, Tensor):
                    by_device.setdefault(value.device, []).append((values, name, value))
        for waiting in by_device.values():
            numbers = torch.stack([value for _, _, value in waiting]).tolist()
            for (values, name, _), number in zip(waiting, numbers, strict=True):
                values[name] = number
        with disk_errors(self._path):
            self._lines.write(b"".join(to_json({**line, **values}, indent=None) + b"\n" for line, values in pending))
            self._lines.flush()
            if sync:
                os.fsync(self._lines.fileno())
        for line, values in pending:
            self._event(line["step"], line["time"], [{"tag": name, "simple_value": v} for name, v in values.items()])

    def picture(self, tag: str, data: bytes, height: int, width: int, step: int) -> None:
        """Add an encoded PNG or GIF to TensorBoard, which shows both; a GIF moves."""
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": data}
        self._event(step, time.time(), [{"tag": tag, "image": image}])

    def lengths(self) -> dict[str, int]:
        """The bytes in each growing file, by its name relative to the run; call flush before."""
        return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in self._files()}

    def close(self) -> None:
        """Close the files, also when the last flush fails."""
        try:
            self.flush()
        finally:
            for file in (self._lines, self._events):
                with suppress(OSError):  # what could not be written has been reported by flush
                    if file is not None:
                        file.close()

    def _files(self) -> list[Path]:
        return [self._path, *sorted((self._folder / "tb").glob("events.out.tfevents.*"))]

    def _cut_back(self, lengths: Mapping[str, int], tell: Callable[[str], None]) -> None:
        for path in self._files():
            length, size = lengths.get(path.relative_to(self._folder).as_posix(), 0), path.stat().st_size
            if size < length:
                tell(f"{path} is shorter than when the checkpoint was saved: some earlier lines are lost.")
            if path == self._path:
                # The last line ends at a newline: a kill may have left half of one.
                os.truncate(path, path.read_bytes().rfind(b"\n", 0, length) + 1)
            elif length == 0:
                path.unlink()  # begun after the checkpoint
            elif length < size:
                os.truncate(path, length)

    def _event(self, step: int, wall_time: float, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter  # imported here because they load slowly

        with disk_errors(self._folder / "tb"):
            if self._events is None:  # one file per start: a TensorBoard that is watching loses its place in a cut one
                self._events = open(self._folder / "tb" / f"events.out.tfevents.{time.time_ns()}", "ab")
                header = Event(wall_time=time.time(), file_version="brain.Event:2")
                RecordWriter(self._events).write(header.SerializeToString())
            event = Event(wall_time=wall_time, step=step, summary=Summary(value=[Summary.Value(**v) for v in values]))
            RecordWriter(self._events).write(event.SerializeToString())
            self._events.flush()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl in order. A last line without its end (a kill, or a training now) is left out.

    Raises:
        DamagedFile: a line is not JSON; names it.
    """
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else [], start=1):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DamagedFile(f"{path}, line {number}: not JSON: {error}") from error
