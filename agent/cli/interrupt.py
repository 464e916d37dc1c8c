"""Ctrl-C: exit code 130 and one line, at any moment. Only the standard library, so that it can be imported first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT = 130
"""128 + SIGINT, by the convention of shells."""


@contextmanager
def while_importing() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once.

    A KeyboardInterrupt that is raised while packages are imported is not safe to catch: the import system and some
    packages swallow it, print a traceback, or are left half imported. Nothing has been computed by then.
    """
    theirs = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or theirs is not signal.default_int_handler:
        yield  # another thread cannot set handlers, and a handler of the caller's own stays in charge
        return
    signal.signal(signal.SIGINT, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, theirs)


@contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noticed, so that what is under way can be completed; the next one interrupts.

    Gives a function that says whether there was one.
    """
    theirs = signal.getsignal(signal.SIGINT)
    seen = threading.Event()
    if threading.current_thread() is not threading.main_thread() or theirs is not signal.default_int_handler:
        yield seen.is_set  # as in while_importing
        return

    def notice(*_: object) -> None:
        seen.set()
        signal.signal(signal.SIGINT, theirs)

    signal.signal(signal.SIGINT, notice)
    try:
        yield seen.is_set
    finally:
        signal.signal(signal.SIGINT, theirs)


def _exit(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(EXIT)
