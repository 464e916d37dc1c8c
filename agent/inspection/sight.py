"""How a moment of an environment without a map is shown: its pixels, the body in the pose of its readings, or curves.

Shapes: S sensors (the last one, `ended`, left out), rows and columns of pictures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.agent import Agent
from agent.drawing.colours import Picture
from agent.drawing.frames import SIDE, to_rgb
from agent.errors import UserError
from agent.interaction.environment import Environment, find_senses
from envs.body import Body, body_of, frame
from envs.opengl import close
from envs.senses import ENDED
from modules.types import State


class Sight:
    """Pictures of what is perceived and imagined in a Gymnasium environment; a context manager that closes it."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        seen = environment.spec.observation
        self.names = tuple(name for name in seen.sensor_names if name != ENDED)
        """(S,) of the readings."""
        self.env: gym.Env | None = None
        """A copy that renders, where the environment can."""
        self.body: Body | None = None
        """What is posed and drawn, where readings determine it: another copy."""
        self._posed_env: gym.Env | None = None
        self._part = slice(None)
        if environment.one is not None:
            with contextlib.suppress(UserError, ValueError):
                self.env = _quick(environment.one(render_mode="rgb_array"))
            if self.env is not None and seen.pixel_shape is None:
                self.body = self._body(environment)

    @property
    def kind(self) -> Literal["pixels", "body", "curves"]:
        """How imagined moments are shown."""
        if self.environment.spec.observation.pixel_shape is not None:
            return "pixels"
        return "curves" if self.body is None else "body"

    def perceived(self, observation: Mapping[str, NDArray[Any]]) -> Picture | None:
        """One observation, (C, H, W) and (S + 1,), as a picture; None where there are only curves."""
        if "pixels" in observation:
            return small(to_rgb(np.asarray(observation["pixels"])))
        return self.posed(np.asarray(observation["sensors"])[:-1])

    def imagined(self, agent: Agent, states: State) -> list[Picture] | None:
        """States (N, ...) as pictures: decoded pixels, or the imagined body; None where there are only curves."""
        if self.kind == "pixels":
            pixels = agent.decoder.picture(states).pixels
            assert pixels is not None
            return [small(picture) for picture in to_rgb(pixels.cpu().numpy())]
        if self.kind == "curves":
            return None
        return [picture for one in self.readings(agent, states) if (picture := self.posed(one)) is not None]

    def readings(self, agent: Agent, states: State) -> NDArray[np.float32]:
        """States (..., I) -> readings (..., S) in the environment's units."""
        seen = agent.spec.observation
        scale, offset = (np.array(x, np.float32) for x in (seen.proprio_scale, seen.proprio_offset))
        return (states.proprio.detach().cpu().numpy() * scale + offset)[..., :-1]

    def posed(self, readings: NDArray[Any], side: int = 2 * SIDE) -> Picture | None:
        """The body in the pose of readings (S,), no larger than `side`; None without a body."""
        if self.body is None:
            return None
        return small(self.body.picture(np.asarray(readings)[self._part]), side)

    def begin(self, seed: int) -> None:
        """Put what no reading shows, such as the target of a maze, where it is after a reset with this seed."""
        if self._posed_env is not None:
            self._posed_env.reset(seed=seed)

    def rendered(self) -> Picture | None:
        """The frame of `env` as it is now; None where it cannot render."""
        return None if self.env is None else small(frame(self.env))

    def close(self) -> None:
        """Close the copies."""
        for env in (self.env, self._posed_env):
            if env is not None:
                with contextlib.suppress(Exception):  # nothing is lost if a renderer fails to close
                    close(env)

    def __enter__(self) -> Sight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _body(self, environment: Environment) -> Body | None:
        assert environment.one is not None
        env = _quick(environment.one(render_mode="rgb_array"))
        senses = find_senses(env)
        key = "observation" if senses.is_goal_env else ""
        body = None
        with contextlib.suppress(Exception):  # a body that cannot be posed is shown as curves
            env.reset(seed=0)
            frame(env)  # a camera that does not track looks for good at what it sees first: as in a real episode
            body = body_of(senses.env, key)
            if body is not None:
                begins = next((p for p in senses.numbers if not key or p.path[0] == key), None)
                first = sum(len(p.names) for p in senses.numbers[: senses.numbers.index(begins)]) if begins else 0
                self._part = slice(first, first + len(begins.names)) if begins else slice(None)
                body.picture(np.zeros(self._part.stop - first if begins else len(self.names)))
        if body is None:
            env.close()
        else:
            self._posed_env = env
        return body


def _quick(env: gym.Env) -> gym.Env:
    """MuJoCo draws five times faster with smaller shadows and without smoothing; the pictures are reduced anyway."""
    quality = getattr(getattr(getattr(env.unwrapped, "model", None), "vis", None), "quality", None)
    if quality is not None:
        quality.shadowsize, quality.offsamples = min(quality.shadowsize, 1024), 0
    return env


def small(picture: Picture, side: int = 2 * SIDE) -> Picture:
    """A picture no larger than two frames, or than `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.array(image)
