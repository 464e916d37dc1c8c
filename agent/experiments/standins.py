"""Stand-ins, with the same signatures, for what agent.storage offers.

read_json and check_writable are of storage.files, FolderLock of storage.lock; summary_of(run) is
`read_summary(run) or {}` of storage.summary.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from agent.errors import DamagedFile, UserError

JSON_LIMIT = 64 * 2**20
"""Bytes of a JSON file that is read at all."""


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read, is larger than `limit` bytes, or is not a JSON object.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"it has more than {limit} bytes")
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, found {type(value).__name__}")
        return value
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error


def summary_of(run: Path) -> dict[str, Any]:
    """What training wrote when it had finished; empty before that, or when the file is damaged."""
    try:
        return read_json(run / "summary.json")
    except (FileNotFoundError, DamagedFile):
        return {}


def check_writable(folder: Path) -> None:
    """Create the folder if it is absent. UserError, before any work, when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror or error}. Give --out FOLDER, one that can be written"
        ) from error


class FolderLock:
    """Held while a command writes into a folder; a second process is refused at once. A context manager."""

    def __init__(self, folder: Path, doing: str) -> None:
        """doing: what the holder does, for the message of the one who is refused: "comparing"."""
        self.folder, self.doing = folder, doing
        self._file: IO[bytes] | None = None

    def __enter__(self) -> FolderLock:
        check_writable(self.folder)
        file = open(self.folder / "lock", "a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().decode(errors="replace").strip() or "unknown"
            file.close()
            raise UserError(
                f"process {owner} is {self.doing} in {self.folder}: wait for it, or give another --out"
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        self._file = file
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
