"""An id says which package it comes from; that is imported quietly, or named when it is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agent.errors import UserError
from agent.inspection.check import CheckArguments, check
from agent.interaction.environment import open_environment
from envs import packages
from envs.packages import NEEDED, PROVIDERS, MissingPackage, import_for, install_hint, provider

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("env_id", "module"),
    [
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToObj-v0", "minigrid"),
        ("PointMaze_UMaze-v3", "gymnasium_robotics"),
        ("AntMaze_Large_Diverse_GR-v5", "gymnasium_robotics"),
        ("FetchReach-v4", "gymnasium_robotics"),
        ("HandReach-v3", "gymnasium_robotics"),
        ("HandManipulateBlockFull-v1", "gymnasium_robotics"),
        ("AdroitHandDoor-v1", "gymnasium_robotics"),
        ("FrankaKitchen-v1", "gymnasium_robotics"),
        ("dm_control/cartpole-balance-v0", "shimmy"),
        ("ALE/Pong-v5", "ale_py"),
        ("PointMaze-v0", None),
        ("TwoRooms-v0", None),
        ("CartPole-v1", None),
        ("mine:MiniGrid-v0", None),
    ],
)
def test_an_id_tells_its_package(env_id: str, module: str | None):
    found = provider(env_id)
    assert (found and found.module) == module


def test_extras_are_those_of_this_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package in (*PROVIDERS, *NEEDED):
        if package.extra is not None:
            assert any(line.startswith(package.requirement) for line in extras[package.extra])


@pytest.mark.parametrize(
    ("env_id", "module"), [("MiniGrid-Empty-5x5-v0", "minigrid"), ("PointMaze_UMaze-v3", "gymnasium_robotics")]
)
def test_the_package_is_imported_without_a_word(env_id: str, module: str):
    pytest.importorskip(module)
    code = f"import envs.packages as p; p.make({env_id!r}).reset(seed=0); p.import_for({env_id!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_mujoco_prints_for_each_copy_is_left_out_and_nothing_else(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file there too
    packages.make("HalfCheetah-v5").close()
    assert capfd.readouterr().err.strip() == ""
    with packages._without(b"settotalmass"):
        os.write(2, b"WARNING: 'settotalmass' is deprecated\nsomething else\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "something else\nlater\n"


def test_nothing_is_imported_for_what_is_known_or_unknown(monkeypatch):
    monkeypatch.setattr(packages.importlib, "import_module", lambda name: pytest.fail(name))
    gym.register("MiniGrid-Mine-v0", "envs.gym_env:SimEnv")
    try:
        for env_id in ("CartPole-v1", "MiniGrid-Mine-v0", "Nothing-v0", "mine:ALE/Pong-v5"):
            import_for(env_id)
    finally:
        gym.registry.pop("MiniGrid-Mine-v0")


MISSING = [
    ("dm_control/x-v0", r"pip install '\.\[dmc\]' in this project's folder, or pip install 'shimmy\[dm-control\]'"),
    ("MiniGrid-X-v0", r"pip install '\.\[minigrid\]' in this project's folder, or pip install minigrid"),
    ("FetchX-v0", r"pip install '\.\[robotics\]' in this project's folder, or pip install gymnasium-robotics"),
    ("ALE/Pong-v5", "pip install ale-py"),
]


@pytest.fixture(params=MISSING, ids=lambda case: case[0])
def missing(request: pytest.FixtureRequest, monkeypatch) -> tuple[str, str]:
    """An id and what to install for it, where no package of others is installed."""
    for package in PROVIDERS:
        monkeypatch.setitem(sys.modules, package.module, None)
    known = {k: v for k, v in gym.registry.items() if provider(k) is None}
    monkeypatch.setattr(gym.envs.registration, "registry", known)
    monkeypatch.setattr(gym, "registry", known)
    return request.param


def test_a_missing_package_is_named_in_one_line(missing):
    env_id, advice = missing
    with pytest.raises(MissingPackage, match=advice) as caught:
        import_for(env_id)
    assert "\n" not in str(caught.value) and install_hint(caught.value) == str(caught.value)
    assert str(caught.value).startswith(f"{env_id} is an environment of ")


def test_commands_say_it_as_a_mistake_of_the_user(missing):
    env_id, advice = missing
    with pytest.raises(UserError, match=advice):
        open_environment(env_id, {})
    with pytest.raises(UserError, match=advice):
        check(CheckArguments(env_id))


def test_a_package_that_lacks_what_it_needs_is_named(monkeypatch):
    """shimmy without dm_control imports, and registers nothing."""
    monkeypatch.setitem(sys.modules, "shimmy", type(sys)("shimmy"))
    with pytest.raises(MissingPackage, match=r"lacks something that it needs: pip install '\.\[dmc\]'"):
        import_for("dm_control/cartpole-balance-v0")
    monkeypatch.setattr(
        packages.importlib,
        "import_module",
        lambda name: (_ for _ in ()).throw(ModuleNotFoundError("No module", name="dm_control.suite")),
    )
    with pytest.raises(MissingPackage, match=r"'dm_control\.suite' is not installed: pip install '\.\[dmc\]'"):
        import_for("dm_control/cartpole-balance-v0")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ModuleNotFoundError("x", name="imageio"), "'imageio' is not installed: pip install '.[gym]'"),
        (ModuleNotFoundError("x", name="mujoco"), "'mujoco' is not installed: pip install mujoco"),
        (ModuleNotFoundError("x", name="nonsuch.part"), "'nonsuch.part' is not installed: install the package"),
        (
            caused(gym.error.DependencyNotInstalled("x"), ModuleNotFoundError("x", name="pygame.sub")),
            "'pygame.sub' is not installed: pip install '.[gym]'",
        ),
        (
            caused(gym.error.DependencyNotInstalled("x"), ModuleNotFoundError("x", name="Box2D")),
            "'Box2D' is not installed: pip install 'gymnasium[box2d]'",
        ),
        (gym.error.DependencyNotInstalled("run\n  `pip install y`"), "run `pip install y`"),
        (gym.error.DependencyNotInstalled("No module named 'mujoco_py'."), "take the newest version"),
    ],
    ids=str,
)
def test_hints_name_what_to_install(error: Any, hint: str):
    assert hint in install_hint(error) and "\n" not in install_hint(error)


def test_a_missing_dependency_of_gymnasium_s_own_is_a_mistake_of_the_user():
    def broken(**_: Any) -> gym.Env:
        raise caused(gym.error.DependencyNotInstalled("x"), ModuleNotFoundError("x", name="Box2D"))

    gym.register("Broken-v0", broken)
    try:
        with pytest.raises(UserError, match=re.escape("cannot be made: the module 'Box2D' is not installed: pip")):
            open_environment("Broken-v0", {})
        with pytest.raises(UserError, match=re.escape("pip install 'gymnasium[box2d]'")):
            check(CheckArguments("Broken-v0"))
    finally:
        gym.registry.pop("Broken-v0")
