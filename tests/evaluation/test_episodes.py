"""Promise: episodes are scored as by hand, from reset seeds that never change, and a failed one is left out."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.build import build
from agent.config import Config
from agent.derive import derive
from agent.evaluation.episodes import evaluate_episodes, play, references, seed_list
from agent.interaction.driver import Moment
from agent.interaction.environment import Environment, environment_of


class Line(gym.Env):
    """Position on a line from the reset seed; the reward is the position, the episode terminates beyond 1."""

    observation_space = spaces.Dict({"position": spaces.Box(-2, 2, (1,), np.float32)})
    action_space = spaces.Box(-0.5, 0.5, (1,), np.float32)

    def __init__(self, breaks_at: float = np.inf) -> None:
        self.breaks_at = breaks_at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-0.5, 0.5))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position += float(action[0])
        if self.position > self.breaks_at:
            raise RuntimeError("out of order")
        return self._seen(), self.position, self.position > 1, False, {}

    def _seen(self) -> dict[str, np.ndarray]:
        return {"position": np.array([self.position], np.float32)}


gym.register("Line-v0", entry_point=Line, max_episode_steps=6)


def line(**changes: Any) -> tuple[Config, Environment]:
    config = Config(env="Line-v0", **changes)
    return config, environment_of(config)


def push(by: float) -> Any:
    return lambda moment: (np.full((len(moment.is_first), 1), by, np.float32), None)


def starts(seeds: list[int]) -> np.ndarray:
    env = Line()
    return np.array([env.reset(seed=seed)[0]["position"][0] for seed in seeds])


def test_returns_lengths_and_survival_are_those_of_the_episodes():
    _, environment = line()
    seeds = seed_list(5)[0]
    still = play(environment, push(0.0), seeds, 100)
    assert np.allclose(still.returns, 6 * starts(seeds), atol=1e-5)
    assert still.lengths.tolist() == [6] * 5 and still.survived.all() and still.success is None
    pushed = play(environment, push(0.5), seeds, 100)
    for start, total, length in zip(starts(seeds), pushed.returns, pushed.lengths, strict=True):
        path = start + 0.5 * np.arange(1, 7)
        steps = int(np.argmax(path > 1)) + 1
        assert length == steps and np.isclose(total, path[:steps].sum(), atol=1e-5)
    assert not pushed.survived.any()


def test_the_limit_cuts_an_episode():
    assert play(line()[1], push(0.0), seed_list(2)[0], 3).lengths.tolist() == [3, 3]


def test_the_seeds_are_frozen():
    """Changing the list would make results incomparable: a new list needs a new name."""
    seeds, digest = seed_list(3)
    assert seeds == seed_list(10)[0][:3] and digest == seed_list(3)[1] != seed_list(4)[1]
    assert digest == "1ca59d0138bc914057e58deeca85d5bc128ec9ce6dacaf9ef4c6f9a24323117d"


def test_a_goal_in_readings_is_reached_by_distance():
    config, environment = line(goal=("position=0.9",))
    agent = build(derive(config, environment)[0], environment.spec)
    result, outcome = evaluate_episodes(agent, environment, 3, 6)
    assert result["measure"] == "success" and outcome.success is not None
    assert result["ci_low"] <= result["success"] <= result["ci_high"]


def test_faulty_episodes_are_counted_and_left_out():
    config = Config(env="Line-v0", env_options=("breaks_at=0.2",))
    outcome = play(environment_of(config), push(0.0), seed_list(8)[0], 10)
    broken = int((starts(seed_list(8)[0]) > 0.2).sum())
    assert 0 < broken < 8 and outcome.faults == broken and len(outcome.returns) == 8 - broken


def test_an_agent_is_evaluated_beside_references_and_repeats_exactly():
    config, environment = line(seed=1)
    config, _ = derive(config, environment, task="reward")
    agent = build(config, environment.spec)
    results = [evaluate_episodes(agent, environment, 4, 6, planner_seeds=2)[0] for _ in range(2)]
    for result in results:
        for name in [name for name in result if name.startswith("plan_ms") or name == "seconds"]:
            del result[name]
    assert results[0] == results[1]
    wanted = {"return_mean", "return_ci_low", "return_ci_high", "success", "cost_mean", "length_mean", "episodes"}
    assert wanted | {"seed_list_sha256", "reference", "survival"} <= set(results[0])
    assert len(results[0]["planner_seeds"]["return_mean"]) == 2
    zero = references(environment, seed_list(4)[0], 6, 0)["zero"]
    assert np.isclose(results[0]["reference"]["zero"], zero.returns.mean())
    assert np.isclose(zero.returns.mean(), 6 * starts(seed_list(4)[0]).mean(), atol=1e-4)


def test_the_budget_and_first_moment_of_each_episode_reach_the_controller():
    firsts: list[np.ndarray] = []

    def act(moment: Moment) -> tuple[np.ndarray, None]:
        firsts.append(moment.is_first.copy())
        return np.zeros((len(moment.is_first), 1), np.float32), None

    play(line()[1], act, seed_list(2)[0], 100)
    assert firsts[0].all() and not np.any(firsts[1:])
