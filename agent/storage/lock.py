"""One writer per folder: a lock that the operating system gives back when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from agent.console import warn
from agent.errors import UserError
from agent.storage.files import disk_errors


class FolderLock:
    """Held from construction to `close`, or to the end of the process. A context manager.

    with FolderLock(out):
        ...  # no other process computes in this folder
    """

    def __init__(self, folder: Path, doing: str = "computing", notify: Callable[[str], None] = warn) -> None:
        """Take the lock of a folder, without waiting.

        Args:
            folder: created if absent. The lock is its file `lock`, which stays there and holds the process id.
            doing: what the holder does, for the message to others.
            notify: receives one message where the file system has no locks; the work goes on unlocked.

        Raises:
            UserError: another process holds it, with its id; or the disk refuses.
        """
        path = folder / "lock"
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            self.close()
            raise UserError(f"process {owner} is {doing} in {folder}: wait for it, or give another --out.") from None
        except OSError as error:  # some network file systems have no locks; working there is still fine
            notify(f"{path} cannot be locked ({error.strerror}): let only one process write here.")
        _HELD.add(self)
        with disk_errors(path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()


# A forked child (a vectorised environment's worker) inherits the lock and would keep it after its parent was killed.
_HELD: weakref.WeakSet[FolderLock] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in list(_HELD)])
