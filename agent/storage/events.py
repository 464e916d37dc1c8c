"""What TensorBoard shows of a run: scalars, pictures and films in its folder tb/."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.storage.files import disk_errors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

QUEUE = 1000  # events that wait for the thread that writes them


class Events:
    """The event files in `folder`, open for writing."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Prepare; nothing is opened before the first event.

        first_step: TensorBoard hides what earlier files hold of this step and later ones. They belong to a training
        that was interrupted, and whose steps are computed again.
        """
        self._folder, self._first_step = folder, first_step
        self._writer: SummaryWriter | None = None

    def scalars(self, step: int, wall_time: float, values: Mapping[str, float]) -> None:
        """Add named numbers."""
        with disk_errors(self._folder):
            for name, value in values.items():
                self._open().add_scalar(name, value, step, wall_time)

    def picture(self, tag: str, data: bytes, height: int, width: int, step: int) -> None:
        """Add an encoded PNG or GIF; TensorBoard shows both, and a GIF moves."""
        # add_image takes no encoded bytes, and add_video needs a package that this project does not use.
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        with disk_errors(self._folder):
            self._open()._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
            self._open().flush()

    def flush(self) -> None:
        """Wait until all events are written. UserError when one could not be."""
        if self._writer is not None:
            with disk_errors(self._folder):
                self._writer.flush()

    def close(self) -> None:
        """Close the file; call `flush` before, which reports errors."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # imported here because it loads slowly

            _leave_errors_to_flush()
            earlier = any(self._folder.glob("events.out.tfevents.*"))
            self._writer = SummaryWriter(
                str(self._folder), purge_step=self._first_step if earlier else None, max_queue=QUEUE
            )
        return self._writer


@cache
def _leave_errors_to_flush() -> None:
    """Do not print the traceback of a writing thread that fails: its error is raised again by the next call."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if type(arguments.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
            before(arguments)

    threading.excepthook = hook
