"""An environment of your own, as any Gymnasium environment: a cart on a rail with a spring, and a task for it.

Nothing here knows of this project but the last function, which says what is wanted. The five commands of
docs/your-environment.md train an agent in it, evaluate it, look at what it imagines, ablate it and make a report.
"""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Cart(gym.Env):
    """A cart that a spring pulls to the middle of its rail; a motor pushes it. It is seen by position and speed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Dict(
        {"position": spaces.Box(-1.5, 1.5, (1,), np.float32), "speed": spaces.Box(-np.inf, np.inf, (1,), np.float32)}
    )
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    dt = 0.1  # seconds that an action takes; the imagined step is chosen by it

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.speed = self.np_random.uniform(-1, 1), 0.0
        return self._observation(), {}

    def step(self, action):
        self.speed += self.dt * (2 * float(action[0]) - 1.5 * self.position - 0.3 * self.speed)
        self.position = float(np.clip(self.position + self.dt * self.speed, -1.5, 1.5))
        reward = -abs(self.position - 0.8)  # a yardstick for people; the agent does not read it
        return self._observation(), reward, False, False, {}

    def _observation(self):
        return {"position": np.array([self.position], np.float32), "speed": np.array([self.speed], np.float32)}

    def render(self):
        picture = np.full((64, 160, 3), 250, np.uint8)
        picture[40:42] = 120
        at = round(80 + 50 * self.position)
        picture[28:40, max(0, at - 8) : at + 8] = (210, 50, 50)
        return picture


def hold_right(x):
    """The task: stand 0.8 m to the right. 0 is as good as can be; differentiable in what is imagined."""
    away = (x["position"] - 0.8).square() + 0.05 * x["speed"].square()
    return away / (1 + away)


gym.register("Cart-v0", entry_point=Cart, max_episode_steps=60)
