"""OpenGL contexts of MuJoCo environments, of which one is current in a process."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def make_current(env: gym.Env) -> None:
    """Let what is drawn from now on be drawn in the context of this environment, where it has one of MuJoCo's.

    Each copy has its own, which Gymnasium makes current only when it creates it: what the copies before it draw
    afterwards goes into a context that is not theirs, and is black once that one is closed.
    """
    viewer: Any = getattr(_renderer(env), "viewer", None)
    if hasattr(viewer, "make_context_current"):
        viewer.make_context_current()


def draft(env: gym.Env, side: int) -> gym.Env:
    """Before its first frame: let a MuJoCo environment draw small frames without shadows and reflections.

    Without a graphics card this takes a tenth of the time. Other environments draw as ever.
    """
    renderer = _renderer(env)
    if renderer is not None and getattr(renderer, "viewer", None) is None:
        renderer.width = renderer.height = side
        renderer.model.vis.quality.shadowsize = 0
        renderer.model.mat_reflectance[:] = 0
    return env


def close(env: gym.Env) -> None:
    """Close an environment that may have rendered.

    Gymnasium closes the context and leaves what was made in it to the garbage collector, which then frees things of
    the same numbers in whatever context is current: the frames of the next environment would be black.
    """
    viewer: Any = getattr(_renderer(env), "viewer", None)
    if hasattr(viewer, "make_context_current") and hasattr(viewer, "con"):
        viewer.make_context_current()
        viewer.con.free()
    env.close()


def _renderer(env: gym.Env) -> Any:
    """Gymnasium's MujocoRenderer of an environment, or None."""
    inner: Any = env.unwrapped
    owner = getattr(inner, "point_env", inner)  # gymnasium-robotics' PointMaze renders through an environment inside
    return getattr(owner, "mujoco_renderer", None)
