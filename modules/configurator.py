# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The configurator: reads the situation and emits the Directive that every other module obeys.

In this form its choices are rules, not learned (LeCun 2022, sections 3 and 8.1 leave its learning open). It may
reweight intrinsic drives, never change what they measure; a drive's floor is a weight that no task can go below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from modules.types import Configurator, Directive, Drive, EnergyName, Goal, Situation, State


@dataclass(frozen=True)
class Config:
    """What the directive says when neither the task nor the status of the modules asks for something else."""

    critic_weight: float = 1.0
    """Weight of the trainable cost at the end of a plan; 0 plans by the intrinsic cost alone."""
    discount: float = 0.95
    """gamma per action block."""
    energy: EnergyName = "terminal"
    """terminal: IC at every step, then the critic. literal: both at every step. last: only the end of the plan."""
    mode: Literal[1, 2] = 2
    """1: policy, 2: planning."""
    planner: str = "cem"
    """Search method of Mode-2: cem, mppi, gradient, or random (one random plan, the baseline)."""
    horizon: int = 4
    """Action blocks a plan looks ahead when a critic stands at its end."""
    horizon_without_critic: int = 10
    """Action blocks when no critic has been trained, or it is turned off."""
    samples: int = 64
    """Candidate plans per iteration."""
    iterations: int = 3
    """Iterations of the search."""
    replan_every: int | None = None
    """Primitive actions executed before the next plan; None: one action block."""
    warm_start: bool = True
    """Begin the search from the shifted last plan."""
    adaptive: bool = True
    """If false, ignore the task's weights and whether critic and policy were trained (ablation)."""
    random_subgoals: bool = False
    """Plan for states drawn from memory, a new one with every plan, in place of the goal (placebo)."""


class RuleConfigurator:
    """Fixed rules from Situation to Directive (Protocol `types.Configurator`)."""

    def __init__(self, config: Config, drives: Sequence[Drive], action_block: int, reward: float = 0.0) -> None:
        """drives: their weights and floors hold unless a task says otherwise. action_block: K. reward: weight of the
        environment's own reward."""
        self.config, self.drives, self.reward = config, tuple(drives), reward
        self.replan_every = config.replan_every or action_block

    def configure(self, situation: Situation) -> Directive:
        """The directive for this situation.

        The head of a drive weighs what the drive weighs: v_j = critic_weight * u_j. A task may change u_j.
        """
        c, asked, status = self.config, situation.task.weights, situation.status
        if not c.adaptive:
            asked, status = {}, {"cost": {"critic_trained": 1.0}, "actor": {"policy_trained": 1.0}}
        unknown = set(asked) - {drive.name for drive in self.drives} if asked else ()
        if unknown:
            known = ", ".join(drive.name for drive in self.drives)
            raise ValueError(f"unknown drive {min(unknown)!r} in the task's weights: the drives are {known}")
        weights = {d.name: max(asked.get(d.name, d.weight), d.floor) for d in self.drives}
        # A critic that has learned nothing, or a policy that has not, would mislead: do without it.
        critic = c.critic_weight if _reported(status, "cost", "critic_trained") else 0.0
        # A head is learned without its drive's weight, so that it can be weighed like the drive whenever it is used.
        critic_weights = {name: critic * weight for name, weight in weights.items()}
        if self.reward and _reported(status, "cost", "reward_trained"):
            critic_weights["reward"] = self.reward
        return Directive(
            goal=situation.goal,
            weights=weights,
            critic_weights=critic_weights,
            discount=c.discount,
            energy=c.energy,
            mode=c.mode if _reported(status, "actor", "policy_trained") else 2,
            planner=c.planner,
            horizon=c.horizon if critic else c.horizon_without_critic,
            samples=c.samples,
            iterations=c.iterations,
            replan_every=self.replan_every,
            warm_start=c.warm_start,
        )


class RandomSubgoals:
    """Any remembered state in place of the goal, another with every plan: a placebo of purposeful subgoals."""

    def __init__(self, rules: Configurator) -> None:
        """rules: decide everything else."""
        self.rules = rules

    def configure(self, situation: Situation) -> Directive:
        """As the rules, with a subgoal for each episode that plans now; the others keep theirs."""
        directive = self.rules.configure(situation)
        if directive.goal is None or not situation.memory.size:
            return directive
        assert situation.generator is not None
        last, replan = situation.last and situation.last.goal, situation.replan
        if last is not None and replan is not None and not bool(replan.any()):
            return directive.but(goal=last)
        drawn = situation.memory.sample(len(situation.state.latent), situation.generator).state
        if last is not None and replan is not None:
            now = replan[:, None]
            drawn = State(
                torch.where(now, drawn.latent, last.state.latent), torch.where(now, drawn.proprio, last.state.proprio)
            )
        return directive.but(goal=Goal(drawn))


def _reported(status: Mapping[str, Mapping[str, float]], module: str, name: str) -> float:
    return status.get(module, {}).get(name, 0.0)


class Overridden:
    """Any configurator, with some fields of its directives replaced: settings of one evaluation."""

    def __init__(self, inner: Configurator, changes: Mapping[str, Any]) -> None:
        """changes: fields of Directive by name: planner, mode, samples, horizon, ..."""
        self.inner, self.changes = inner, dict(changes)

    def configure(self, situation: Situation) -> Directive:
        """As the inner configurator, with the changes."""
        return self.inner.configure(situation).but(**self.changes)


def compose(config: Config, drives: Sequence[Drive], action_block: int, reward: float = 0.0) -> Configurator:
    """The configurator that a configuration asks for."""
    rules = RuleConfigurator(config, drives, action_block, reward)
    return RandomSubgoals(rules) if config.random_subgoals else rules
