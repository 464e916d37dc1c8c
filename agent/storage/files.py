"""Files that are replaced whole, and errors of the disk in words for the user."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.errors import UserError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: give another --out",
    errno.EACCES: "permission denied: give another --out, or make the folder writable",
    errno.EPERM: "permission denied: give another --out, or make the folder writable",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing `path` into a UserError that names it and says what to do."""
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0) or error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}. What was saved before is untouched.") from error


def write_durable(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data` in one step: a reader, or a crash, sees the old bytes or the new ones.

    Raises:
        UserError: the disk is full or not writable; the old file stays.
    """
    temporary = path.with_name(f".tmp.{os.getpid()}.{path.name}")
    with disk_errors(path):
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            remove(temporary)
            raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk; its name may still be lost until `sync_folder`."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut: fsync of a file does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as possible, without complaint: for rubbish only."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def to_json(value: Any, indent: int | None = 1) -> bytes:
    """JSON bytes of plain data, dataclasses, paths, arrays and tensors; NaN and infinities become null.

    Null, because other readers than Python's (a browser) refuse the word NaN.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # arrays and tensors, without importing what they are of
        return _plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
