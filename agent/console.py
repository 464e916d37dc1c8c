"""Output for people: messages, tables, one progress line per phase.

All output of the program passes through here. Results and messages go to standard output, warnings to standard error;
after `set_quiet(True)` everything goes to standard error, so that standard output holds nothing but a command's JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Send everything to standard error (True, for --json), or messages to standard output again (False)."""
    global _quiet
    _quiet = quiet


def tell(message: str) -> None:
    """Print a message."""
    _console(_quiet).print(message, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning, on standard error."""
    _console(True).print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True, style="yellow")


def fail(message: str) -> None:
    """Print an error message, on standard error."""
    _console(True).print(f"error: {message}", markup=False, highlight=False, soft_wrap=True, style="red")


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table.

    Args:
        title: the line above it.
        rows: column -> value each; columns stand in the order of their first appearance, a missing value is blank.
            Numbers are right-aligned and floats get four significant digits.
    """
    grid = Table(box=None, pad_edge=False)
    for column in dict.fromkeys(name for row in rows for name in row):
        numeric = all(isinstance(row[column], int | float) for row in rows if column in row)
        grid.add_column(Text(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(_cell(row.get(str(column.header), ""))) for column in grid.columns))
    console = _console(_quiet)
    if not console.is_terminal:  # a pipe has no width, and rich's 80 columns would cut a wide table for no reason
        console = Console(stderr=_quiet, width=1000)
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)  # rich wraps a title to its table
    console.print(grid)


class Progress:
    """The progress of a command: for each phase a bar with rate, time left and a few figures.

    Without a terminal it prints a line when a phase starts, one when it ends, and one every `every` seconds.

        with Progress() as progress:
            progress.start("world model", total=2000, done=500)    # resumed at step 500
            progress.update(501, "loss 0.123")
    """

    def __init__(
        self,
        quiet: bool = False,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        show: bool = True,
    ) -> None:
        """Prepare; nothing is shown before `start`.

        Args:
            quiet: write to standard error, whatever set_quiet says.
            every: seconds between lines when there is no terminal.
            clock: seconds from any origin; for tests.
            show: False on all but one of the processes that train together.
        """
        self._show = show
        self._console = _console(quiet or _quiet)
        self._every, self._clock = every, clock
        self._bars: Bars | None = None
        self._bar = TaskID(0)
        self._phase = self._unit = ""
        self._total = self._first = self._done = 0
        self._text = ""
        self._began = self._shown = 0.0

    def __enter__(self) -> Progress:
        if self._show and self._console.is_interactive and self._console.file.isatty():
            name, text = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[text]}"))
            figures = (MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
            self._bars = Bars(name, BarColumn(), *figures, text, console=self._console)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finish()
        if self._bars is not None:
            self._bars.stop()

    def start(self, phase: str, total: int = 0, done: int = 0, unit: str = "steps") -> None:
        """End the previous phase, if any, and begin this one: `total` steps, of which `done` are done.

        total: 0 for a phase that cannot be counted. unit: what is counted, in the plural.
        """
        self._finish()
        self._phase, self._total, self._first, self._done, self._text = phase, total, done, done, ""
        self._unit = unit
        self._began = self._shown = self._clock()
        if self._bars is not None:
            self._bar = self._bars.add_task(phase, total=total or None, completed=done, text="")
        elif total:
            self._line(f"{phase}: {total} {unit}" + (f", resumed at {done}" if done else ""))

    def update(self, n: int, text: str = "") -> None:
        """`n` steps of the phase are done; `text` holds the figures to show. Cheap enough for every step."""
        self._done, self._text = n, text
        now = self._clock()
        if now - self._shown < (0.1 if self._bars is not None else self._every):
            return
        self._shown = now
        if self._bars is not None:
            self._bars.update(self._bar, completed=n, text=text)
        else:
            rate = (n - self._first) / max(now - self._began, 1e-9)
            left = f", {(self._total - n) / rate:.0f} s left" if rate > 0 else ""
            self._line(f"{self._phase}: {n}/{self._total} ({rate:.4g} it/s{left})  {text}")

    def _finish(self) -> None:
        if not self._phase:
            return
        seconds = self._clock() - self._began
        rate = (self._done - self._first) / max(seconds, 1e-9)
        count = f"{self._done} {self._unit}" if self._done >= self._total else f"stopped at {self._done}/{self._total}"
        if self._bars is not None:
            self._bars.update(self._bar, completed=self._done, text=self._text)
            self._bars.stop_task(self._bar)
        elif not self._total:
            self._line(f"{self._phase}: {seconds:.1f} s")
        else:
            self._line(f"{self._phase}: {count} in {seconds:.1f} s ({rate:.4g} it/s)  {self._text}")
        self._phase = ""

    def _line(self, message: str) -> None:
        if not self._show:
            return
        self._console.print(message.rstrip(), markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()  # so that a log file can be followed while it grows


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.4g} it/s" if speed else "- it/s")


@cache
def _console(stderr: bool) -> Console:
    """One console per stream, shared so that a message is printed above a live bar and not through it."""
    return Console(stderr=stderr)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
