"""The logs of a run: metrics.jsonl for programs, tb/ (TensorBoard) for people.

metrics.jsonl only grows. A checkpoint stores its length, and resuming cuts off what was written later: a resumed run
computes it again, and no line appears twice. TensorBoard is told to hide the same steps.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.errors import DamagedFile
from agent.storage.events import Events
from agent.storage.files import disk_errors, open_regular, to_json

FLUSH_LINES, FLUSH_SECONDS = 200, 10.0
LINE_LIMIT = 2**20


class Metrics:
    """The logs of the run in `folder`, open for writing.

    A line of metrics.jsonl is {"phase", "step", "time", and the values by name}; time is in seconds since 1970, a value
    that is not finite is null. TensorBoard gets the same values under the same names.
    """

    def __init__(self, folder: Path, length: int, first_step: int, notify: Callable[[str], None]) -> None:
        """Open the logs.

        Args:
            folder: of the run.
            length: bytes of metrics.jsonl to keep: what `length` returned at the checkpoint, 0 without one.
            first_step: the first step that is logged from now on.
            notify: receives a message when the file is shorter than that.
        """
        self._path = folder / "metrics.jsonl"
        self._pending: list[tuple[dict[str, Any], dict[str, float | Tensor]]] = []
        self._flushed = time.monotonic()
        self.events = Events(folder / "tb", first_step)
        with disk_errors(self._path):
            self._path.touch()
            self._cut_back(length, notify)
            self._lines = open(self._path, "ab")

    def add(self, phase: str, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Add one line. Tensors of one element are copied now and read at the next flush, so nothing waits here."""
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
        """Write what is pending. `sync`: and wait until metrics.jsonl is on the disk."""
        self._flushed = time.monotonic()
        pending, self._pending = self._pending, []
        lines = _read_tensors(pending)
        with disk_errors(self._path):
            self._lines.write(b"".join(to_json({**line, **values}, indent=None) + b"\n" for line, values in lines))
            self._lines.flush()
            if sync:
                os.fsync(self._lines.fileno())
        for line, values in lines:
            self.events.scalars(line["step"], line["time"], values)
        self.events.flush()

    def length(self) -> int:
        """The bytes of metrics.jsonl; call flush before."""
        return self._path.stat().st_size

    def close(self) -> None:
        """Write what is pending and close the files, also when writing fails."""
        try:
            self.flush()
        finally:
            with suppress(OSError):  # what could not be written has been reported by flush
                self._lines.close()
            self.events.close()

    def _cut_back(self, length: int, notify: Callable[[str], None]) -> None:
        data = self._path.read_bytes()
        if len(data) < length:
            notify(f"{self._path} is shorter than when the checkpoint was saved: some earlier lines are lost.")
        # The last line ends at a newline: a kill may have left half of one.
        os.truncate(self._path, data.rfind(b"\n", 0, length) + 1)


def _read_tensors(
    pending: list[tuple[dict[str, Any], dict[str, float | Tensor]]],
) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """The same lines with numbers in place of tensors, which are read with one transfer per device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for _, values in pending:
        for value in values.values():
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, []).append(value)
    numbers = {device: iter(torch.stack(tensors).tolist()) for device, tensors in by_device.items()}
    return [
        (line, {name: next(numbers[v.device]) if isinstance(v, Tensor) else v for name, v in values.items()})
        for line, values in pending
    ]


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl in order. A last line without its end (a kill, or a training now) is left out.

    Raises:
        DamagedFile: a line is not a JSON object, or longer than LINE_LIMIT; names it.
    """
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), start=1):
                if line.endswith(b"\n"):
                    yield _parse(line, f"{path}, line {number}")
                elif len(line) > LINE_LIMIT:
                    raise DamagedFile(f"{path}, line {number}: longer than the {LINE_LIMIT} bytes that it may have")
    except FileNotFoundError:
        return


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFile(f"{where}: expected an object, found {type(value).__name__}")
    return value
