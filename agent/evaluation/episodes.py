"""Evaluation in whole episodes of any Gymnasium environment: return, success, survival and the agent's own cost.

Episodes begin from a frozen, hashed list of reset seeds that training never uses. What the reward is counts for this
yardstick only: the agent does not see it.

Shapes: E episodes that act together, n episodes, A action, S sensors.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.console import Progress
from agent.errors import UserError
from agent.evaluation.statistics import mean_interval, wilson
from agent.evaluation.tasks import LISTED, TASK_SEED
from agent.interaction.driver import Act, Listener, Moment, Transition, drive
from agent.interaction.environment import Environment
from agent.spec import named
from envs.gym_env import as_observation
from modules.types import Actions, Decision

BATCH = 20  # episodes that act together
RADIUS = 0.1
"""Distance from a goal in readings at which it counts as reached, in units of their scales (half of their range)."""


def seed_list(count: int) -> tuple[list[int], str]:
    """The first `count` of the frozen reset seeds, and their SHA-256: results on equal lists can be compared."""
    whole = np.random.default_rng(TASK_SEED).integers(2**31, size=max(LISTED, count))[:count]
    return [int(seed) for seed in whole], hashlib.sha256(whole.astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What n episodes came to, faulty ones left out."""

    returns: NDArray[np.float64]
    """(n,) sums of the environment's reward."""
    lengths: NDArray[np.int64]
    """(n,) primitive actions."""
    survived: NDArray[np.bool_]
    """(n,) whether the episode did not terminate before its limit."""
    success: NDArray[np.bool_] | None
    """(n,) whether the goal was reached at some moment; None where nothing says what success is."""
    final: NDArray[np.bool_] | None
    """(n,) whether it was at the last step."""
    cost: NDArray[np.float64]
    """(n,) the agent's own cost, mean over the episode's steps; NaN for a controller that has none."""
    surprise: NDArray[np.float64]
    """(n,) mean one-step prediction error; NaN likewise."""
    steps: NDArray[np.int64]
    """(n,) primitive actions to success, -1 without."""
    milliseconds: list[float]
    """Latency of each decision that planned, for a whole batch."""
    faults: int = 0
    """Episodes that were dropped because the environment failed."""

    @property
    def measured(self) -> NDArray[np.float64]:
        """(n,) what episodes are compared by: success where there is such a thing, else the return."""
        return self.returns if self.success is None else self.success.astype(np.float64)


class EpisodeScore:
    """A listener that scores the first episode of each of E environments."""

    def __init__(self, count: int, environment: Environment, goal: NDArray | None = None) -> None:
        """goal: (E, S) or None; reaching it is success where the environment does not say what is."""
        self.environment, self.goal = environment, goal
        self.returns, self.cost, self.surprise = (np.zeros(count) for _ in range(3))
        self.lengths, self.surprises = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.costs = np.zeros(count, np.int64)
        self.done, self.terminated, self.faulty = (np.zeros(count, bool) for _ in range(3))
        self.success, self.final, self.known = (np.zeros(count, bool) for _ in range(3))
        self.steps = np.full(count, -1)
        self.milliseconds: list[float] = []

    def add(self, step: Transition) -> None:
        """One step of all episodes; what follows the end of an episode is ignored."""
        now = ~self.done & step.real
        self.returns[now] += step.reward[now]
        self.lengths[now] += 1
        success = self._success(step)
        if success is not None:
            self.known |= now
            self.steps[now & success & (self.steps < 0)] = self.lengths[now & success & (self.steps < 0)]
            self.success |= now & success
            self.final[now] = success[now]
        self.terminated |= now & step.terminated
        faults = step.info.get("fault")
        if faults is not None:
            self.faulty |= now & np.asarray(step.info.get("_fault", np.ones(len(now), bool)), bool)
        if isinstance(step.decision, Decision):
            self._judge(step.decision, now)
        self.done |= now & step.ended

    def _success(self, step: Transition) -> NDArray[np.bool_] | None:
        if "success" in step.info:
            told = np.asarray(step.info["success"], bool)
            return told & np.asarray(step.info.get("_success", np.ones(len(told), bool)), bool)
        seen = self.environment.spec.observation
        if self.goal is None or not seen.goal_proprio:
            return None
        index = list(seen.goal_proprio)
        scale = np.array(seen.proprio_scale)[index]
        apart = (named(step.observation)["sensors"][:, index] - self.goal[:, index]) / scale
        return np.linalg.norm(apart, axis=1) <= RADIUS

    def _judge(self, decision: Decision, now: NDArray[np.bool_]) -> None:
        if decision.replanned:
            self.milliseconds.append(decision.milliseconds)
        paid = decision.cost.energy - decision.cost.critic.sum(-1)
        self.cost[now] += paid.double().cpu().numpy()[now]
        self.costs[now] += 1
        if decision.surprise is not None:
            error = decision.surprise.double().cpu().numpy()
            told = now & np.isfinite(error)
            self.surprise[told] += error[told]
            self.surprises[told] += 1

    def outcome(self) -> Outcome:
        """What it came to."""
        good = ~self.faulty
        with np.errstate(invalid="ignore", divide="ignore"):
            cost, surprise = self.cost / self.costs, self.surprise / self.surprises
        judged = self.known[good].any()
        return Outcome(
            self.returns[good],
            self.lengths[good],
            ~self.terminated[good],
            self.success[good] if judged else None,
            self.final[good] if judged else None,
            cost[good],
            surprise[good],
            self.steps[good],
            self.milliseconds,
            int(self.faulty.sum()),
        )


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Outcomes one after the other."""
    whole: dict[str, Any] = {}
    for one in fields(Outcome):
        values = [getattr(part, one.name) for part in parts]
        if one.name == "faults":
            whole[one.name] = sum(values)
        elif one.name == "milliseconds":
            whole[one.name] = [m for v in values for m in v]
        else:
            whole[one.name] = None if any(v is None for v in values) else np.concatenate(values)
    return Outcome(**whole)


class AgentPlays:
    """An agent as a controller (`driver.Act`) that takes each episode's goal as it comes."""

    def __init__(self, agent: Agent, environment: Environment) -> None:
        self.agent, self.environment = agent, environment
        self.goal: NDArray | None = None
        """(E, S) sensors of the goals under way."""
        self._begun = False
        self._goals: dict[str, NDArray] | None = None

    def __call__(self, moment: Moment) -> tuple[NDArray, Decision]:
        """One decision of E episodes."""
        if not self._begun:
            self.begin(moment)
        elif self._goals is not None and moment.is_first.any():
            self._renew(moment)
        self._begun = True
        _, decision = self.agent.act(moment.observation, moment.is_first)
        return decision.action.cpu().numpy(), decision

    def begin(self, moment: Moment) -> None:
        """New episodes with the goals of this moment."""
        self._goals = goal_percepts(moment, self.environment)
        self.agent.set_goal(self._goals)
        self.goal = None if self._goals is None else self._goals.get("sensors")

    def _renew(self, moment: Moment) -> None:
        """The goals of episodes that begin now; the others keep theirs."""
        fresh = goal_percepts(moment, self.environment)
        if fresh is None or self._goals is None:
            return
        for name, goals in self._goals.items():
            goals[moment.is_first] = fresh[name][moment.is_first]
        self.agent.task = replace(self.agent.task, goal=self.agent.sense(self._goals)[0])
        self.agent.weights_changed()

    def again(self) -> None:
        """The next call begins new episodes."""
        self._begun = False


def goal_percepts(moment: Moment, environment: Environment) -> dict[str, NDArray] | None:
    """The goals of E episodes as they would be perceived: named by the configuration, or told by the environment."""
    if environment.wanted:
        names = environment.spec.observation.sensor_names
        goal = np.array(named(moment.observation)["sensors"])
        for name, value in environment.wanted.items():
            goal[:, names.index(name)] = value
        return {**named(moment.observation), "sensors": goal}
    truth = environment.truth
    if truth is not None:
        return named(as_observation(truth.observe(moment.info["goal"]))) if environment.goals is not None else None
    told = moment.info.get("goal_percept")
    if not isinstance(told, dict):
        return None
    return {name: np.array(x) for name, x in told.items() if not name.startswith("_")}


def play(
    environment: Environment, act: Act, seeds: Sequence[int], limit: int, listeners: Sequence[Listener] = ()
) -> Outcome:
    """One episode from each seed, all at once, for at most `limit` primitive actions."""
    envs = environment.make(len(seeds))
    score = EpisodeScore(len(seeds), environment)
    taken = 0

    def heed(step: Transition) -> None:  # the goal is known once the first decision was made
        if isinstance(act, AgentPlays):
            score.goal = act.goal

    def stop(_: Transition) -> bool:
        nonlocal taken
        taken += 1
        return bool(score.done.all()) or taken >= limit

    try:
        to_env = environment.spec.actions.to_env
        drive(envs, act, stop, [heed, score.add, *listeners], seed=[*seeds], to_env=to_env)
    finally:
        envs.close()
    return score.outcome()


def play_all(
    environment: Environment,
    acts: AgentPlays,
    seeds: Sequence[int],
    limit: int,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """An episode of the agent from each seed, in batches; listener: sees the first batch."""
    parts: list[Outcome] = []
    if progress is not None:
        progress.start("evaluate", len(seeds), unit="episodes")
    for first in range(0, len(seeds), BATCH):
        acts.again()
        heard = [listener] if listener is not None and first == 0 else []
        parts.append(play(environment, acts, seeds[first : first + BATCH], limit, heard))
        if progress is not None:
            told = f"return {np.concatenate([p.returns for p in parts]).mean():.1f}"
            progress.update(min(first + BATCH, len(seeds)), told)
    return joined(parts)


def references(environment: Environment, seeds: Sequence[int], limit: int, seed: int) -> dict[str, Outcome]:
    """Controllers that learn nothing: random actions, and the action of rest."""
    actions = environment.spec.actions
    rng = np.random.default_rng([seed, 7])
    rest = actions.rest(torch.zeros(actions.size)).numpy()
    acts: dict[str, Act] = {
        "random": lambda m: (at_random(actions, rng, len(m.is_first)), None),
        "zero": lambda m: (np.repeat(rest[None], len(m.is_first), 0), None),
    }
    return {
        name: joined([play(environment, act, seeds[i : i + BATCH], limit) for i in range(0, len(seeds), BATCH)])
        for name, act in acts.items()
    }


def at_random(actions: Actions, rng: np.random.Generator, count: int) -> NDArray:
    """Actions drawn evenly from all there are, (count, A)."""
    drawn = actions.from_features(torch.from_numpy(rng.uniform(-1, 1, (count, actions.size)).astype(np.float32)))
    return drawn.numpy()


def evaluate_episodes(
    agent: Agent,
    environment: Environment,
    episodes: int,
    limit: int,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    planner_seeds: int = 1,
    progress: Progress | None = None,
    watch: Callable[[Agent], Listener] | None = None,
) -> tuple[dict[str, Any], Outcome]:
    """Return, success, survival, length, cost and prediction error with 95 % intervals, beside references.

    Args:
        agent: is not changed.
        environment: of Gymnasium.
        episodes: n, from the start of the frozen list of reset seeds.
        limit: most primitive actions of an episode that the environment does not end.
        changes: fields of the directive other than the run's own.
        seed: of the search.
        planner_seeds: how often everything is repeated with another seed of the search; the spread is reported.
        progress: is told how far it has come.
        watch: given the agent that acts, a listener that sees the first BATCH episodes.

    Raises:
        UserError: every episode failed in the environment.
    """
    environment = replace(environment, spec=agent.spec)  # with the scales that were fitted to its sensors
    seeds, digest = seed_list(episodes)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    players = [AgentPlays(agent.acting(changes, seed=seed + n), environment) for n in range(planner_seeds)]
    for number, acts in enumerate(players):
        listener = watch(acts.agent) if watch is not None and number == 0 else None
        outcomes.append(play_all(environment, acts, seeds, limit, progress, listener))
    seconds = time.monotonic() - began
    whole, count = joined(outcomes), len(outcomes[0].returns)
    if not count:
        raise UserError(f"all {episodes} episodes of {environment.name} failed: run check {environment.name}")
    single = single_times(agent.acting(changes, seed=seed), environment, seeds[0])
    last = players[-1].agent.episode
    assert last is not None and last.directive is not None
    directive = last.directive
    others = references(environment, seeds, limit, seed)
    low, high = mean_interval(whole.returns)
    out: dict[str, Any] = {
        "measure": "return" if whole.success is None else "success",
        "return_mean": float(whole.returns.mean()),
        "return_ci_low": low,
        "return_ci_high": high,
        "return_median": float(np.median(whole.returns)),
        **shares(whole),
        "cost_mean": _mean(whole.cost),
        "cost_ci95": list(mean_interval(whole.cost)) if np.isfinite(whole.cost).all() else None,
        "prediction_error": _mean(whole.surprise),
        "length_mean": float(whole.lengths.mean()),
        "episodes": episodes,
        "faults": whole.faults,
        "seed_list_sha256": digest,
        "budget": limit,
        "reference": {name: float(one.measured.mean()) for name, one in others.items()},
        "reference_return": {name: float(one.returns.mean()) for name, one in others.items()},
        "planner_seeds": {
            "seeds": [seed + n for n in range(planner_seeds)],
            "return_mean": [float(one.returns.mean()) for one in outcomes],
            "success": [None if one.success is None else float(one.success.mean()) for one in outcomes],
        },
        "plan_ms_median": float(np.median(single)) if single else 0.0,
        "plan_ms_p95": float(np.quantile(single, 0.95)) if single else 0.0,
        "plan_ms_batch": float(np.median(whole.milliseconds)),
        "plan_batch": min(BATCH, episodes),
        "seconds": seconds,
        "episode_returns": whole.returns.tolist(),
        "episode_lengths": whole.lengths.tolist(),
        "mode": directive.mode,
        "planner": directive.planner,
        "dynamics": "learned",
        "cost": "latent",
        "weights": dict(directive.weights),
        "samples": directive.samples,
        "iterations": directive.iterations,
        "horizon": directive.horizon,
        "replan_every": directive.replan_every,
        "seed": seed,
    }
    return out, whole


def shares(outcome: Outcome) -> dict[str, Any]:
    """Success and survival with their intervals."""
    n = len(outcome.returns)
    survival = float(outcome.survived.mean())
    low, high = wilson(survival, n)
    out: dict[str, Any] = {"survival": survival, "survival_ci95": [low, high]}
    if outcome.success is None or outcome.final is None:
        return {**out, "success": None, "success_final": None, "ci_low": None, "ci_high": None}
    share = float(outcome.success.mean())
    low, high = wilson(share, n)
    return {**out, "success": share, "success_final": float(outcome.final.mean()), "ci_low": low, "ci_high": high}


def single_times(
    agent: Agent, environment: Environment, seed: int, decisions: int = 30, warmup: int = 5
) -> list[float]:
    """Milliseconds of single decisions of one episode on one thread, without those of the warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[float] = []
    taken = 0

    def stop(step: Transition) -> bool:
        nonlocal taken
        taken += 1
        if step.decision.replanned:
            times.append(step.decision.milliseconds)
        return len(times) >= decisions + warmup or taken >= 20 * (decisions + warmup)

    envs = environment.make(1)
    try:
        to_env = environment.spec.actions.to_env
        drive(envs, AgentPlays(agent, environment), stop, seed=[seed], to_env=to_env)
    finally:
        envs.close()
        torch.set_num_threads(threads)
    return times[warmup:] or times


def _mean(x: NDArray) -> float | None:
    """The mean of what is finite; None without any."""
    some = x[np.isfinite(x)]
    return float(some.mean()) if len(some) else None
