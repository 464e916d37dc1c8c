"""Promises of agent/storage/files.py: files are replaced whole, read within limits, and errors name the file."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.errors import DamagedFile, UserError
from agent.storage.files import JSON_LIMIT, check_writable, read_json, to_json, write_durable

ROOT = Path(__file__).resolve().parents[2]


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*_args, **_kwargs):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_write_durable_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durable(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match="free some space"):
            write_durable(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
    write_durable(path, b"ne", memoryview(b"wer"))
    assert path.read_bytes() == b"newer"


def test_json_is_read_back(tmp_path):
    value = {"a": (np.float32(0.5), torch.ones(2), float("nan"), Path("p")), 3: np.arange(2)}
    write_durable(tmp_path / "x", to_json(value))
    assert read_json(tmp_path / "x") == {"a": [0.5, [1.0, 1.0], None, "p"], "3": [0, 1]}
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert read_json(tmp_path / "link") == read_json(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting"),
        (b"", "Expecting"),
        (b"\xff", "decode"),
        (b"[]", "expected an object, found list"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_what_is_not_a_json_object_is_named(tmp_path, content, why):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=rf"x\.json is damaged: .*{why}"):
        read_json(tmp_path / "x.json")


def test_a_file_that_is_too_large_is_refused_without_being_read(tmp_path):
    path = tmp_path / "x.json"
    path.touch()
    os.truncate(path, 2**40)  # a hole of 1 TB
    with pytest.raises(DamagedFile, match=r"x\.json: 1048576 MB, it may have at most 10 MB"):
        read_json(path)
    path.write_bytes(b"{" + b" " * (JSON_LIMIT - 2) + b"}")
    assert read_json(path) == {}
    with pytest.raises(DamagedFile, match="at most 1 MB"):
        read_json(path, limit=2**20)


@pytest.mark.timeout(10)
def test_pipes_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(DamagedFile, match="not a regular file, refused"):
            read_json(tmp_path / name)


def test_an_error_while_reading_is_named(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x.json").write_bytes(b"{}")
    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(DamagedFile, match=r"x\.json: cannot be read: Input/output error"):
        read_json(tmp_path / "x.json")


def test_a_writable_folder_is_created_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.parametrize(
    ("call", "fault", "advice"),
    [
        ("builtins.open", read_only, "read-only: give another --out"),
        ("pathlib.Path.mkdir", read_only, "read-only: give another --out"),
        ("os.fsync", full_disk, "free some space"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_out(tmp_path, monkeypatch, call, fault, advice):
    with monkeypatch.context() as patch:
        patch.setattr(call, fault)
        with pytest.raises(UserError, match=rf"cannot write {tmp_path}: .*{advice}"):
            check_writable(tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "file")


def test_reading_a_run_folder_for_the_report_loads_no_torch():
    code = (
        "import sys, agent.storage.files, agent.storage.recording, agent.storage.summary; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
