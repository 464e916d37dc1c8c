"""Files that are replaced whole and read within limits, and errors of the disk in words for the user.

Nothing here imports torch: the report reads run folders through this file.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from agent.errors import DamagedFile, UserError

JSON_LIMIT = 10 * 2**20

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: give another --out",
    errno.EACCES: "permission denied: give another --out, or make the folder writable",
    errno.EPERM: "permission denied: give another --out, or make the folder writable",
}


# Writing


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing `path` into a UserError that names it and says what to do."""
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0) or error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}. What was saved before is untouched.") from error


def check_writable(folder: Path) -> None:
    """Find out before the work whether its results can be written: create `folder` if absent, and a file in it.

    Raises:
        UserError: the folder cannot be created or written to; says why and what to do.
    """
    probe = folder / f".tmp.{os.getpid()}.probe"
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_synced(probe, b"x")
        finally:
            remove(probe)


def write_durable(path: Path, *data: bytes | memoryview) -> None:
    """Replace the file `path` by `data` in one step: a reader, or a crash, sees the old bytes or the new ones.

    Args:
        path: the file; its folder exists.
        data: the new content, in one piece or in several that follow each other.

    Raises:
        UserError: the disk is full or not writable; the old file stays.
    """
    temporary = path.with_name(f".tmp.{os.getpid()}.{path.name}")
    with disk_errors(path):
        try:
            write_synced(temporary, *data)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            remove(temporary)
            raise


def write_synced(path: Path, *data: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk; its name may still be lost until `sync_folder`."""
    with open(path, "wb") as file:
        file.writelines(data)
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
    """Remove a file or a folder as far as possible, without complaint: for leftovers only."""
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
    if hasattr(value, "tolist"):  # a numpy array or scalar, or a tensor
        return _plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# Reading


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file; a symbolic link is followed.
        limit: the most bytes it may have. A larger file is refused before it is read.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is too large, not a regular file, not readable, or not a JSON object; names the file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DamagedFile(f"{path}: {size / 2**20:.0f} MB, it may have at most {limit / 2**20:g} MB")
            value = json.loads(file.read())
        if isinstance(value, dict):
            return value
        reason = f"expected an object, found {type(value).__name__}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise DamagedFile(f"{path} is damaged: {reason}")


@contextmanager
def open_regular(path: Path, follow: bool = True) -> Iterator[IO[bytes]]:
    """Open a regular file for reading. Pipes and devices, which may never end, are refused without being read.

    Args:
        path: the file.
        follow: False refuses a symbolic link.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read, or reading fails later; names the file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DamagedFile(f"{path}: not a regular file, refused")
            with open(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        link = error.errno == errno.ELOOP
        reason = "a symbolic link, refused" if link else f"cannot be read: {error.strerror or error}"
        raise DamagedFile(f"{path}: {reason}") from error
