"""What TensorBoard shows of a run: scalars, pictures and films in its folder tb/."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
        that was interrupted, and its steps are computed again.
        """
        self._folder = folder
        self._purge: int | None = first_step
        self._writer: SummaryWriter | None = None

    def scalars(self, step: int, wall_time: float, values: Mapping[str, float]) -> None:
        """Add named numbers."""
        with self._writing() as writer:
            for name, value in values.items():
                writer.add_scalar(name, value, step, wall_time)

    def picture(self, tag: str, data: bytes, height: int, width: int, step: int) -> None:
        """Add an encoded PNG or GIF; TensorBoard shows both, and a GIF moves."""
        # add_image takes no encoded bytes, and add_video needs a package that this project does not use.
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        with self._writing() as writer:
            writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
            writer.flush()

    def flush(self) -> None:
        """Wait until all events are written. UserError when one could not be."""
        if self._writer is not None:
            with self._writing() as writer:
                writer.flush()

    def close(self) -> None:
        """Close the file; call `flush` before, which reports errors."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _writing(self) -> Iterator[SummaryWriter]:
        """The writer; a UserError for what cannot be written, after which the next event begins a new file."""
        with disk_errors(self._folder):
            try:
                if self._writer is None:
                    self._writer = self._open()
                yield self._writer
            except OSError:
                self._writer = None  # its thread has ended, and it would raise the same error forever
                raise

    def _open(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter  # imported here because it loads slowly

        _leave_errors_to_flush()
        purge = self._purge if any(self._folder.glob("events.out.tfevents.*")) else None
        writer = SummaryWriter(str(self._folder), purge_step=purge, max_queue=QUEUE)
        self._purge = None
        return writer


@cache
def _leave_errors_to_flush() -> None:
    """Do not print the traceback of a writing thread that fails: its error is raised again by the next call."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if type(arguments.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
            before(arguments)

    threading.excepthook = hook
