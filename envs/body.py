"""Pictures of what was imagined: readings put back into the physics of an environment, which then renders them.

A world model of sensors predicts numbers. Where these numbers determine how the body lies, the environment itself can
draw it: MuJoCo from `qpos`, classic control from `state`. Nothing is simulated and no decoder is needed.

Two traits of Gymnasium's MuJoCo frames matter where both are shown. Their geometry is one physics step older than the
observation; that of the pictures here is not. And a camera that does not track the body (HalfCheetah's, say) looks for
good at where the body was in the first frame, so both series should begin at the same pose.

Shapes: S sensors, Q numbers of the physical state, P positions that the observation leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.names import Sensor, sensors_of, skipped_positions
from envs.opengl import make_current


def body_of(env: gym.Env, key: str = "") -> Body | None:
    """The body of an environment, to be posed and drawn.

    Args:
        env: made with render_mode="rgb_array", and used for nothing else: posing it spoils its episode. What no sensor
            shows (the target of a maze) stays as the last reset left it.
        key: which part of a Dict observation holds the sensors; empty for a Box.

    Returns:
        None if the physics is neither MuJoCo nor classic control, or if the observation does not determine the pose.

    Raises:
        ValueError: env has another render_mode.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"{env} has render_mode={env.render_mode!r}: make it with render_mode='rgb_array'")
    space = env.observation_space[key] if key else env.observation_space  # pyright: ignore[reportIndexIssue]
    if len(space.shape or ()) != 1:  # pixels; a Dict has no shape
        return None
    inner: Any = env.unwrapped
    sensors = sensors_of(env, key)
    if isinstance(getattr(inner, "model", None), mujoco.MjModel):  # pyright: ignore[reportAttributeAccessIssue]
        size, left_out = inner.model.nq, skipped_positions(env)
    else:  # sensors that show a state without a model are those of classic control, which show all of it
        size, left_out = 1 + max((sensor.state for sensor in sensors if sensor.state is not None), default=-1), 0
    complete = size > 0 and all(i < left_out or _shown(i, sensors) for i in range(size))
    return Body(env, sensors, size, left_out) if complete else None


def _shown(i: int, sensors: Sequence[Sensor]) -> bool:
    """Whether the sensors determine number i of the state: by its value, or by both its cosine and its sine."""
    forms = {sensor.form for sensor in sensors if sensor.state == i}
    return "value" in forms or {"cos", "sin"} <= forms


class Body:
    """A body that takes the pose of any readings. Made by `body_of`."""

    def __init__(self, env: gym.Env, sensors: Sequence[Sensor], size: int, skipped: int) -> None:
        """The first `skipped` of the `size` numbers of the state are not among the sensors."""
        self._env: Any = env.unwrapped  # without wrappers: one of them insists on a reset before it renders
        self._sensors, self._size = tuple(sensors), size
        self.skipped = skipped
        """P: positions that the observation leaves out, such as the way that was run."""

    def state(self, sensors: ArrayLike, skipped: ArrayLike | None = None) -> NDArray[np.float64]:
        """The physical state that gives these readings, (Q,): `qpos` in MuJoCo, `state` in classic control.

        Args:
            sensors: (S,) in the units of the environment. Cosine and sine need not lie on the unit circle.
            skipped: (P,) what the observation leaves out; zeros if not given.

        Raises:
            ValueError: either has another shape.
        """
        readings = np.asarray(sensors, np.float64)
        start = np.zeros(self.skipped) if skipped is None else np.asarray(skipped, np.float64)
        if readings.shape != (len(self._sensors),) or start.shape != (self.skipped,):
            raise ValueError(
                f"a picture needs {len(self._sensors)} readings and {self.skipped} skipped positions, "
                f"got shapes {readings.shape} and {start.shape}"
            )
        state, cos, sin = np.zeros(self._size), np.zeros(self._size), np.zeros(self._size)
        state[: self.skipped] = start
        for value, sensor in zip(readings, self._sensors, strict=True):
            if sensor.state is None:
                continue
            if sensor.form == "value":
                state[sensor.state] = value - sensor.offset
            else:
                (cos if sensor.form == "cos" else sin)[sensor.state] = value
                state[sensor.state] = np.arctan2(sin[sensor.state], cos[sensor.state])  # complete with the second
        return state

    def picture(self, sensors: ArrayLike, skipped: ArrayLike | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) the body in the pose of the readings, (S,); arguments as of `state`."""
        state = self.state(sensors, skipped)
        if hasattr(self._env, "model"):
            self._env.data.qpos[:] = state
            mujoco.mj_forward(self._env.model, self._env.data)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self._env.state = state
            self._env.last_u = None  # Pendulum draws its last torque, which no sensor shows
        return frame(self._env)


def frame(env: gym.Env) -> NDArray[np.uint8]:
    """(H, W, 3) what `env.render()` returns, right even if several MuJoCo environments are rendered in turn."""
    make_current(env)
    inner: Any = env.unwrapped
    return np.array(inner.render(), np.uint8)
