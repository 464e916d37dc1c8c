"""Checkpoints that are whole or absent: one safetensors file each, with a digest, published by one rename.

    <folder>/00001200.safetensors   every tensor, bit for bit; in its metadata the entry "ami", a JSON object:
        format      1 more than the last time the format changed
        version     of the program that wrote it
        step        of the checkpoint
        sha256      of the whole file, with these 64 digits as zeros
        meta        everything else that training needs to go on

A kill at any moment leaves the previous checkpoint as it was. Nothing is used before the digest matches, and nothing
read here can run code: the file holds neither pickles nor class names. A folder has one writer (`Run` holds a lock);
readers may come at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from agent import __version__
from agent.console import warn
from agent.errors import DamagedFile, UserError
from agent.storage.files import disk_errors, open_regular, remove, write_durable

FORMAT = 2
KEEP = 2
HEADER_LIMIT = 100 * 2**20
ENTRY, BLANK = "ami", "0" * 64


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step`, then remove the checkpoints that it replaces.

    Args:
        folder: the checkpoints folder; created if absent.
        step: a count that grows along the whole run, over all phases. Checkpoints of later steps belong to a training
            that was abandoned by resuming before them; they are removed with the old ones.
        tensors: name -> tensor of any shape, dtype and device.
        meta: JSON-able; tuples come back as lists.

    Returns:
        The file of the new checkpoint, durable on disk.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    assert step >= 0, f"a checkpoint's step must not be negative, got {step}"
    _found(folder)  # refuses a link and checkpoints of an older version before anything is written
    final = folder / f"{step:08d}.safetensors"
    with disk_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".tmp.*"):  # left by a kill; removed first because they may be what fills the disk
        remove(stale)
    write_durable(final, *_encode(step, tensors, meta))
    found = _found(folder)
    kept = sorted(number for number in found if number <= step)[-KEEP:]
    for number in found.keys() - set(kept):
        remove(found[number])
    return final


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint in `folder`, ascending; whether they are good is seen on loading."""
    return sorted(_found(folder))


def load_checkpoint(
    folder: Path, step: int | None = None, notify: Callable[[str], None] = warn
) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Read the newest good checkpoint, or exactly the one of `step`.

    Args:
        folder: the checkpoints folder.
        step: None for the newest that is whole. A given step is never replaced by another.
        notify: called with one message for each newer checkpoint that is damaged and was passed over.

    Returns:
        The tensors (on the CPU), the meta dictionary, and the step.

    Raises:
        UserError: there is no checkpoint, or none of `step`; or an older version of this program wrote them.
        DamagedFile: none is whole; says what is wrong with each.
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
        except (DamagedFile, FileNotFoundError) as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else str(error)
            damage[number] = f"{found[number].name}: {reason.removeprefix(f'{found[number]}: ')}"
            continue
        for bad, why in damage.items():
            notify(f"the checkpoint of step {bad} is damaged and was not used ({why}); using step {number} instead.")
        return tensors, meta, number
    if _found(folder) != found:  # a training that is still running has replaced what was listed: look again
        return load_checkpoint(folder, step, notify)
    listing = "\n".join(f"  step {number}: {why}" for number, why in damage.items())
    raise DamagedFile(f"no good checkpoint in {folder}:\n{listing}\nRestore one from a copy, or delete the folder.")


def _found(folder: Path) -> dict[int, Path]:
    """Step -> file of the checkpoint."""
    if folder.is_symlink():
        raise DamagedFile(f"{folder} is a symbolic link, refused: put the folder itself in its place.")
    found: dict[int, Path] = {}
    for name in os.listdir(folder) if folder.is_dir() else []:
        match = re.fullmatch(r"(\d{8,})(\.safetensors)?", name)
        if match and not match[2] and (folder / name / "manifest.json").exists():
            raise UserError(f"{folder} was written by an older version of this program: train again, in a new folder.")
        if match and match[2] and match[1] == f"{int(match[1]):08d}":
            found[int(match[1])] = folder / name
    return found


def _encode(step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> tuple[bytes, memoryview]:
    """The header and the rest of the file, with the digest of both in the header."""
    about = {"format": FORMAT, "version": __version__, "step": step, "sha256": BLANK, "meta": meta}
    data = safetensors.torch.save(_separate(tensors), {ENTRY: json.dumps(about)})
    end = 8 + int.from_bytes(data[:8], "little")
    header, body = data[:end], memoryview(data)[end:]
    return header.replace(BLANK.encode(), _digest(header, body).encode(), 1), body


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each contiguous in memory of its own: the format has neither strides nor shared memory."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def _read(path: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The verified contents of one file. DamagedFile gives the reason, without the name of the file."""
    with open_regular(path, follow=False) as file:
        size = os.fstat(file.fileno()).st_size
        end = 8 + int.from_bytes(file.read(8), "little")
        if end > min(size, HEADER_LIMIT):
            raise DamagedFile("not a safetensors file: its header has an impossible length")
        file.seek(0)
        header = file.read(end)
        about, expected = _parse(header)
        if size != expected:  # seen before the rest is read
            raise DamagedFile(f"{size} bytes instead of {expected}")
        file.seek(0)
        data = file.read()
    if _digest(header.replace(about["sha256"].encode(), BLANK.encode(), 1), memoryview(data)[end:]) != about["sha256"]:
        raise DamagedFile("its SHA-256 is not the one it was saved with")
    if about["step"] != step:
        raise DamagedFile(f"it belongs to step {about['step']}, its name says {step}")
    try:
        return safetensors.torch.load(data), about["meta"]
    except Exception as error:  # the parser has no common base class for what it may find in strange bytes
        raise DamagedFile(f"not a safetensors file: {error}") from error


def _parse(header: bytes) -> tuple[dict[str, Any], int]:
    """What the header says: the entry of the metadata, its types checked, and the size of the file."""
    try:
        fields = json.loads(header[8:])
        about = json.loads(fields.pop("__metadata__")[ENTRY])
        if about["format"] != FORMAT:
            raise DamagedFile(
                f"format {about['format']!r} of version {about['version']!r}, "
                f"this program (version {__version__}) reads {FORMAT}"
            )
        if not re.fullmatch("[0-9a-f]{64}", about["sha256"]) or not isinstance(about["meta"], dict):
            raise DamagedFile("not a checkpoint: it has no SHA-256 or no meta")
        return about, len(header) + max((field["data_offsets"][1] for field in fields.values()), default=0)
    except RecursionError:
        raise DamagedFile("not a checkpoint: its header is nested too deeply") from None
    except ValueError as error:
        raise DamagedFile(f"not a checkpoint: its header is not JSON: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedFile(f"not a checkpoint: {type(error).__name__} {error}") from error


def _digest(header: bytes, body: memoryview) -> str:
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()
