"""Checkpoints that are whole or absent: tensors and JSON on disk, a digest of each file, published by one rename.

    <folder>/00001200/tensors.safetensors   every tensor, bit for bit
                      meta.json             everything else, plain JSON
                      manifest.json         format version, step, SHA-256 and size of the two files, SHA-256 of itself
    <folder>/last                           the name of the newest, for people

A checkpoint is staged in a hidden sibling, synchronised to disk and renamed, so that a kill at any moment leaves the
previous one as it was. Nothing is used before its digest matches, and nothing read here can run code: it holds neither
pickles nor class names. A folder has one writer (`Run` holds a lock); readers may come at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from agent.console import warn
from agent.errors import DamagedFile, UserError
from agent.storage.files import disk_errors, remove, sync_folder, write_durable, write_synced

FORMAT = 1


KEEP = 2


TENSORS, META, MANIFEST = "tensors.safetensors", "meta.json", "manifest.json"


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step`, then drop those it makes superfluous.

    Args:
        folder: the checkpoints folder; created if absent.
        step: a count that grows along the whole run, over all phases. Checkpoints of later steps than this one belong
            to a future that was abandoned by resuming before it, and are dropped with the old ones.
        tensors: name -> tensor of any shape, dtype and device.
        meta: JSON-able; tuples come back as lists.

    Returns:
        The folder of the new checkpoint, durable on disk.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    assert step >= 0, f"a checkpoint's step must not be negative, got {step}"
    contents = {TENSORS: _encode_tensors(tensors), META: json.dumps(meta, indent=1).encode()}
    files = {name: {"sha256": _digest(data), "bytes": len(data)} for name, data in contents.items()}
    contents[MANIFEST] = encode_manifest(step, files)
    final = folder / f"{step:08d}"
    staged, displaced = folder / f".tmp.{final.name}", folder / f".old.{final.name}"
    with disk_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".tmp.*"):  # left by a kill; removed first because they may be what fills the disk
            remove(stale)
        try:
            staged.mkdir()
            for name, data in contents.items():
                write_synced(staged / name, data)
            sync_folder(staged)
            if final.exists():  # the same step again: a folder cannot be replaced in one rename, but _found knows .old
                remove(displaced)
                os.rename(final, displaced)
            os.rename(staged, final)
            sync_folder(folder)
        except BaseException:
            remove(staged)
            if displaced.exists() and not final.exists():
                os.rename(displaced, final)
            raise
    write_durable(folder / "last", f"{final.name}\n".encode())
    for old in folder.glob(".old.*"):
        if old.with_name(old.name.removeprefix(".old.")).exists():
            remove(old)
    kept = [number for number in checkpoint_steps(folder) if number <= step][-KEEP:]
    for number, path in _found(folder).items():
        if number not in kept:
            _discard(path)
    return final


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint in `folder`, ascending; whether they are good is seen on loading."""
    return sorted(_found(folder))


def load_checkpoint(
    folder: Path, step: int | None = None, tell: Callable[[str], None] = warn
) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Read the newest good checkpoint, or exactly the one of `step`.

    Args:
        folder: the checkpoints folder.
        step: None for the newest that is whole. A given step is never replaced by another.
        tell: called with one message for each newer checkpoint that is damaged and was passed over.

    Returns:
        The tensors (on the CPU), the meta dictionary, and the step.

    Raises:
        UserError: there is no checkpoint, or none of `step`.
        DamagedFile: none is whole; says what is wrong with each file of each.
    """
    found = _found(folder)
    if not found:
        raise UserError(f"no checkpoint in {folder}: nothing was saved there yet.")
    if step is not None and step not in found:
        raise UserError(f"no checkpoint of step {step} in {folder}; there is {', '.join(map(str, sorted(found)))}.")
    damage: dict[int, str] = {}
    for number in sorted(found, reverse=True) if step is None else [step]:
        try:
            tensors, meta = _read(found[number], number)
        except DamagedFile as error:
            damage[number] = str(error)
            continue
        for bad, why in damage.items():
            tell(f"the checkpoint of step {bad} is damaged and was not used ({why}); using step {number} instead.")
        return tensors, meta, number
    if _found(folder) != found:  # a training that is still running has replaced what was listed: look again
        return load_checkpoint(folder, step, tell)
    listing = "\n".join(f"  step {number}: {why}" for number, why in damage.items())
    raise DamagedFile(f"no good checkpoint in {folder}:\n{listing}\nRestore one from a copy, or delete the folder.")


def encode_manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The manifest's bytes: canonical JSON that holds its own digest, so that any changed byte shows.

    Args:
        step: the checkpoint's step.
        files: name -> {"sha256": hexadecimal digest, "bytes": size}.
    """
    body = {"format": FORMAT, "step": step, "files": files}
    return json.dumps({**body, "sha256": _digest(json.dumps(body, sort_keys=True).encode())}, indent=1).encode()


def _found(folder: Path) -> dict[int, Path]:
    """Step -> checkpoint folder. `.old.<name>` counts only without `<name>`: a kill fell between two renames."""
    found: dict[int, Path] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:  # ".old." sorts first and gives way
        match = re.fullmatch(r"(?:\.old\.)?(\d{8,})", name)
        if match and match[1] == f"{int(match[1]):08d}":
            found[int(match[1])] = folder / name
    return found


def _read(folder: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The verified contents of one checkpoint, or a DamagedFile that names each bad file."""
    contents: dict[str, bytes] = {}
    faults = []
    for name, entry in _read_manifest(folder, step).items():
        try:
            contents[name] = _read_regular(folder / name, entry["bytes"])
            if _digest(contents[name]) != entry["sha256"]:
                raise DamagedFile(f"{name}: its SHA-256 is not the one in the manifest")
        except DamagedFile as error:
            faults.append(str(error))
    if faults:
        raise DamagedFile("; ".join(faults))
    try:
        meta = json.loads(contents[META])
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{META}: not JSON: {error}") from error
    try:
        tensors = safetensors.torch.load(contents[TENSORS])
    except Exception as error:  # the parser has no common base class for what it may find in strange bytes
        raise DamagedFile(f"{TENSORS}: not a safetensors file: {error}") from error
    if not isinstance(meta, dict):
        raise DamagedFile(f"{META}: expected an object, found {type(meta).__name__}")
    return tensors, meta


def _read_manifest(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """Name -> {"sha256", "bytes"}, with every name a plain file name inside `folder`."""
    if folder.is_symlink():
        raise DamagedFile(f"{folder.name}: a symbolic link, refused")
    raw = _read_regular(folder / MANIFEST, None)
    try:
        manifest = json.loads(raw)
        version, files = manifest["format"], manifest["files"]
        if version != FORMAT:
            raise DamagedFile(f"{MANIFEST}: unknown format version {version!r}, this program reads {FORMAT}")
        for name in files:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise DamagedFile(f"{MANIFEST}: the file name {name!r} would leave the folder, refused")
        if not {TENSORS, META} <= set(files):
            raise DamagedFile(f"{MANIFEST}: does not list {TENSORS} and {META}")
        intact = raw == encode_manifest(manifest["step"], files) and all(
            isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values()
        )
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{MANIFEST}: not JSON: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{MANIFEST}: not a manifest: {type(error).__name__} {error}") from error
    if not intact:
        raise DamagedFile(f"{MANIFEST}: it does not match its own SHA-256")
    if manifest["step"] != step:
        raise DamagedFile(f"{MANIFEST}: it belongs to step {manifest['step']}, the folder says {step}")
    return files


def _read_regular(path: Path, size: int | None) -> bytes:
    """The bytes of a regular file of `size` bytes (None: any): no link, no pipe, and no read of a wrong size."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise DamagedFile(f"{path.name}: a symbolic link or not a regular file, refused")
        if size is not None and status.st_size != size:
            raise DamagedFile(f"{path.name}: {status.st_size} bytes instead of {size}")
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(f"{path.name}: missing") from None
    except OSError as error:
        raise DamagedFile(f"{path.name}: cannot be read: {error.strerror}") from error


def _encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes. The format has no strides and no sharing, so each tensor gets contiguous memory of its own."""
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        flat[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return safetensors.torch.save(flat)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _discard(path: Path) -> None:
    """Remove a checkpoint; renamed first, so that a kill half-way leaves rubbish rather than a damaged checkpoint."""
    rubbish = path.with_name(f".tmp.drop.{path.name.removeprefix('.old.')}")
    try:
        os.rename(path, rubbish)
    except OSError:
        return
    remove(rubbish)
