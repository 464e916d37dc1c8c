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


@pytest.fixture(autouse=True)
def one_thread():
    """Threads and numerics as they were, and one thread meanwhile: the last bits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A run folder trained to the end; read it, never write into it."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    torch.set_num_threads(1)
    train_tiny(tiny(), folder)
    return folder
