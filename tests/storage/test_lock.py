"""Promises of agent/storage/lock.py: one writer per folder, and no lock outlives its process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from agent.errors import UserError
from agent.storage.lock import FolderLock
from tests.storage.common import silent, start

ROOT = Path(__file__).resolve().parents[2]


def test_two_trainings_cannot_share_a_run(tmp_path):
    with start(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} is training"):
        start(tmp_path)
    start(tmp_path).close()


def test_a_killed_training_gives_the_lock_back(tmp_path):
    start(tmp_path).close()
    hold = (
        "import fcntl, os, sys, time; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB);"
        "f.truncate(0); f.write(str(os.getpid())); f.flush(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / "lock"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid} is training"):
            start(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
        start(tmp_path).close()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    run = start(tmp_path)
    (ready, tell_ready), (wait, end) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
        child = os.fork()
    if child == 0:
        os.close(end)
        os.write(tell_ready, b".")
        os.read(wait, 1)  # lives until the parent closes its end
        os._exit(0)
    try:
        os.read(ready, 1)
        with pytest.raises(UserError, match="is training"):  # the child's leaving it did not unlock the parent's
            start(tmp_path)
        run.close()
        start(tmp_path).close()
    finally:
        for descriptor in (ready, tell_ready, wait, end):
            os.close(descriptor)
        os.waitpid(child, 0)


@pytest.mark.parametrize("doing", ["computing", "training"])
def test_the_second_process_is_told_which_is_the_first(tmp_path, doing):
    out = tmp_path / "comparison"
    code = (
        "import sys; from pathlib import Path; from agent.storage.lock import FolderLock\n"
        "with FolderLock(Path(sys.argv[1]), sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, out, doing]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        expected = rf"process {other.pid} is {doing} in .*comparison: wait for it, or give another --out"
        with pytest.raises(UserError, match=expected):
            FolderLock(out, doing)
        other.communicate()
    with FolderLock(out, notify=silent), pytest.raises(UserError, match=f"process {os.getpid()} is computing"):
        FolderLock(out)
    lock = FolderLock(out)
    lock.close()
    lock.close()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    messages = []
    with FolderLock(tmp_path, notify=messages.append):
        pass
    assert len(messages) == 1 and "let only one process write here" in messages[0]


def test_a_lock_that_is_a_link_is_not_written_to(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lock").symlink_to(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        FolderLock(tmp_path / "out")
    assert (tmp_path / "file").read_text() == "precious"
