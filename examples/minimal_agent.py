"""Train a small agent, then let it act: python examples/minimal_agent.py runs/minimal.

The preset `debug` trains in seconds and learns little; replace it by `two_rooms` for an agent that reaches its goals.
"""

import sys
from pathlib import Path

import gymnasium as gym

import envs  # noqa: F401  (registers the environments)
from agent.build import load
from agent.learning.train import train_run
from agent.presets import debug


def main(folder: Path) -> bool:
    """Train a run in `folder` and act for one episode; whether the goal was reached."""
    train_run(debug(), folder, sys.argv)
    agent = load(folder)

    env = gym.make("TwoRooms-v0", max_steps=60)
    observation, info = env.reset(seed=1)
    agent.set_goal(env.unwrapped.goal_observation())
    done = False
    while not done:
        action, decision = agent.act(observation)
        observation, _, terminated, truncated, info = env.step(action)
        done = info["success"] or terminated or truncated
    print("goal reached:", info["success"])
    print(
        f"last decision: mode {decision.mode}, energy {decision.cost.energy.item():.2f}, {decision.milliseconds:.0f} ms"
    )
    return info["success"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
