"""Fixtures that several test files share, and the check of types and shapes in every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

import tests.shapes

# Before the first import of what is checked: annotations are enforced from the moment a function is defined.
if os.environ.get("AMI_CHECK_SHAPES", "0") != "0":
    install_import_hook(tests.shapes.CHECKED, tests.shapes.CHECKER)

from tests.helpers import tiny, train_tiny

torch.set_num_threads(1)  # fixtures of a module are computed before those of a test, and the last bits depend on it


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, and numerics as they were, whatever the test before has set."""
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A run folder trained to the end; read it, never write into it."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    train_tiny(tiny(), folder)
    return folder
