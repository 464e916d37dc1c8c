"""OpenGL contexts of MuJoCo environments, of which one is current in a process."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def make_current(env: gym.Env) -> None:
    """Let what is drawn from now on be drawn in the context of this environment, where it has one of MuJoCo's.

    Each copy has its own, which Gymnasium makes current only when it creates it: what the copies before it draw
    afterwards goes into a context that is not theirs, and is black once that one is closed.
    """
    inner: Any = env.unwrapped
    owner = getattr(inner, "point_env", inner)  # gymnasium-robotics' PointMaze renders through an environment inside
    viewer: Any = getattr(getattr(owner, "mujoco_renderer", None), "viewer", None)
    if hasattr(viewer, "make_context_current"):
        viewer.make_context_current()
