"""Fixtures of the tests of commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import run_agent
from agent.console import set_quiet


@pytest.fixture
def call(capfd):
    """Run a command: (exit code, standard output, standard error). Any other way out than an exit fails the test."""

    def run(*arguments) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = run_agent.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else (0 if stop.code is None else 1)
        out, err = capfd.readouterr()
        return code, out, err

    yield run
    set_quiet(False)


@pytest.fixture
def run_folder(trained_run, tmp_path) -> Path:
    """A copy of the trained run, to write into."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))
