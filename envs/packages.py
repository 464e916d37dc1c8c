"""Packages that provide environments: Gymnasium 1 knows of none before it is imported, so ids are told by their prefix.

An extra is one of this project's, in pyproject.toml: pip install '.[robotics]' in its folder.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class Package:
    """A Python package, and how to install it."""

    module: str
    """Its import registers its environments."""
    requirement: str
    """What pip calls it."""
    extra: str | None = None
    """The extra of this project that has it."""
    prefixes: tuple[str, ...] = ()
    """What the ids of its environments begin with."""

    @property
    def advice(self) -> str:
        """The command that installs it."""
        plain = f"pip install '{self.requirement}'" if "[" in self.requirement else f"pip install {self.requirement}"
        return f"pip install '.[{self.extra}]' in this project's folder, or {plain}" if self.extra else plain


ROBOTICS = ("PointMaze_", "AntMaze_", "Fetch", "HandManipulate", "HandReach", "Adroit", "FrankaKitchen")
PROVIDERS = (
    Package("minigrid", "minigrid", "minigrid", ("MiniGrid-", "BabyAI-")),
    Package("gymnasium_robotics", "gymnasium-robotics", "robotics", ROBOTICS),
    Package("shimmy", "shimmy[dm-control]", "dmc", ("dm_control/",)),
    Package("ale_py", "ale-py", None, ("ALE/",)),
)
NEEDED = (
    # What environments import besides, Gymnasium's own included.
    Package("pygame", "pygame", "gym"),
    Package("imageio", "imageio", "gym"),
    Package("Box2D", "gymnasium[box2d]"),
    Package("mujoco", "mujoco"),
    Package("dm_control", "shimmy[dm-control]", "dmc"),
    Package("cv2", "opencv-python"),
    Package("moviepy", "moviepy"),
    Package("jax", "jax"),
)


class MissingPackage(ModuleNotFoundError):
    """The package that provides an environment is not installed; the message says how to install it."""


def provider(env_id: str) -> Package | None:
    """The package that provides an environment, as far as its prefix tells; None for MODULE:ID, which names its own."""
    return next((p for p in PROVIDERS if env_id.startswith(p.prefixes)), None)


def import_for(env_id: str) -> None:
    """Import the package that registers an environment, where one is known and the id is not registered yet.

    Raises:
        MissingPackage: it is not installed, or lacks what these environments need.
    """
    package = None if env_id in gym.registry else provider(env_id)
    if package is None:
        return
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        # These packages greet, and announce what changes; to whom it matters, their documentation says it too.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            gym.register_envs(importlib.import_module(package.module))
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{env_id} is an environment of {package.module}, and the module {error.name!r} is not installed: "
            f"{package.advice if error.name == package.module else _advice(error.name)}",
            name=error.name,
        ) from error
    if not any(known.startswith(package.prefixes) for known in gym.registry):
        raise MissingPackage(
            f"{env_id} is an environment of {package.module}, which lacks something that it needs: {package.advice}",
            name=package.module,
        )


def make(env_id: str, **options: Any) -> gym.Env:
    """`gym.make`, in processes too in which nothing was imported yet."""
    import_for(env_id)
    with _without(b"settotalmass") if env_id.startswith("HalfCheetah") else contextlib.nullcontext():
        return gym.make(env_id, **options)


@contextlib.contextmanager
def _without(chatter: bytes) -> Iterator[None]:
    """Keep lines with `chatter` from stderr, also when C prints them, as MuJoCo does for each copy that is made."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            printed.seek(0)
            lines = printed.read().splitlines(keepends=True)
            kept = [line for line in lines if chatter not in line]
            if len(kept) == len(lines) or any(line.strip() for line in kept):
                os.write(stderr, b"".join(kept))
            os.close(stderr)


def install_hint(error: BaseException) -> str:
    """What is missing and how to install it, in one line.

    Args:
        error: ModuleNotFoundError or gymnasium.error.DependencyNotInstalled.
    """
    if isinstance(error, MissingPackage):
        return str(error)
    cause: Any = error if isinstance(error, ModuleNotFoundError) else error.__cause__ or error.__context__
    name = cause.name if isinstance(cause, ModuleNotFoundError) else None
    if name == "mujoco_py" or "mujoco_py" in str(error):
        return "it needs mujoco_py, which is not maintained any more: take the newest version of this environment"
    if name is None:  # Gymnasium's own words say what to install
        return " ".join(str(error).split())
    return f"the module {name!r} is not installed: {_advice(name)}"


def _advice(module: str | None) -> str:
    root = (module or "").partition(".")[0]
    known = next((p for p in (*PROVIDERS, *NEEDED) if p.module == root), None)
    if known is None:  # perhaps a mistyped module of the user's: its name need not be that of a package
        return "install the package that has it; for a module of your own, start in its folder with PYTHONPATH=."
    return known.advice
