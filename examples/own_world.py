"""An environment of your own: a point in a box, as a Simulator. Every command works in it:

python examples/own_world.py check Box-v0
python examples/own_world.py train box
python examples/own_world.py evaluate runs/box__seed0

A Simulator is a few functions over arrays of states, N environments at a time. docs/worlds.md has what each of them has
to promise.
"""

import dataclasses

import numpy as np

import envs
import run_agent
from agent.presets import PRESETS, point_maze
from envs.api import ProprioSpec, Tasks


class Box:
    """A point in a square, seen by its coordinates; an action is a displacement of at most 0.1."""

    action_low, action_high, action_max_norm = np.full(2, -0.1, np.float32), np.full(2, 0.1, np.float32), 0.1
    sensor_low, sensor_high, pixel_shape = -np.ones(2, np.float32), np.ones(2, np.float32), None
    # Copied into the state; the distance to a goal is measured in them.
    proprio = (ProprioSpec("x", 0, is_goal=True), ProprioSpec("y", 1, is_goal=True))
    has_scenes, success_radius = False, 0.15

    def reset(self, rng, n):
        return rng.uniform(-1, 1, (n, 2))

    def reset_within_scene(self, rng, states):
        return self.reset(rng, len(states))

    def step(self, states, actions, rng):
        norm = np.linalg.norm(actions, axis=1, keepdims=True)
        return np.clip(states + 0.1 * actions / np.maximum(norm, 0.1), -1, 1)

    def observe(self, states):
        return {"sensors": states.astype(np.float32)}

    def sample_tasks(self, rng, n):
        start, goal = self.reset(rng, n), self.reset(rng, n)
        start[:, 0], goal[:, 0] = rng.uniform(-1, -0.3, n), rng.uniform(0.3, 1, n)
        return Tasks(start, goal)

    def success(self, states, goals):
        return np.linalg.norm(states - goals, axis=1) < self.success_radius

    def greedy_action(self, states, goals):
        return (goals - states).clip(-0.1, 0.1).astype(np.float32)

    expert_action = greedy_action

    def positions(self, states):
        return states

    def factors(self, states):
        return {"agent_x": states[:, 0], "agent_y": states[:, 1]}

    def render_map(self, state):
        return np.full((64, 64, 3), 250, np.uint8)

    def to_map(self, positions):
        return (positions + 1) * 31.5


envs.register("Box-v0", Box)  # with Gymnasium and the commands
PRESETS["box"] = lambda: dataclasses.replace(point_maze(), env="Box-v0", env_options=(), max_steps=60)

if __name__ == "__main__":
    raise SystemExit(run_agent.main())
