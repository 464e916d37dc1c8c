"""The configurator: reads the task and a digest of every module, and emits the Directive that all of them obey.

In this first form its choices are rules, not learned (LeCun 2022, sections 3 and 8.1 leave its learning open). It may
reweight intrinsic drives, never change what they measure; guardrail drives have a floor that no task can go below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modules.types import Directive, EnergyName, PlannerName, State, Task


@dataclass(frozen=True)
class Config:
    """What the directive says when neither task nor statuses ask for something else."""

    goal_weight: float = 1.0
    """Weight of the goal-distance drive."""
    effort_weight: float = 0.0
    """Weight of the action-effort drive."""
    contact_weight: float = 0.0
    """Weight of the wall-contact drive, in worlds with a slot named contact."""
    contact_floor: float = 0.0
    """The contact drive is a guardrail: no task can weigh it less than this."""
    critic_weight: float = 1.0
    """Weight of the trainable cost at the end of a plan; 0 plans by the intrinsic cost alone."""
    discount: float = 0.95
    """gamma per action block."""
    energy: EnergyName = "terminal"
    """terminal: IC at every step, then the critic. literal: both at every step. last: only the end of the plan."""
    mode: Literal[1, 2] = 2
    """1: policy, 2: planning."""
    planner: PlannerName = "cem"
    """Search method of Mode-2."""
    horizon: int = 4
    """Action blocks a plan looks ahead when a critic stands at its end."""
    horizon_without_critic: int = 10
    """Action blocks when no critic has been trained, or it is turned off."""
    samples: int = 64
    """Candidate plans per iteration."""
    iterations: int = 3
    """Iterations of the search."""
    replan_every: int = 4
    """Primitive actions executed before the next plan."""
    warm_start: bool = True
    """Begin the search from the shifted last plan."""
    adaptive: bool = True
    """Listen to the task's weights and to what the modules say of themselves; off, the settings above hold whatever
    the task and however little was learned."""
    random_subgoals: bool = False
    """Pursue states drawn from memory, a new one with every plan, in place of the goal: a placebo to compare with."""


class Configurator:
    """(task, statuses) -> Directive."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def configure(self, task: Task, goal: State | None, statuses: Mapping[str, Mapping[str, float]]) -> Directive:
        """The directive for this task, given its encoded goal and what every module says of itself."""
        c = self.config
        if not c.adaptive:
            task, statuses = Task(task.goal), {"cost": {"critic_trained": 1.0}, "actor": {"policy_trained": 1.0}}
        weights = {"goal": c.goal_weight, "effort": c.effort_weight, "contact": c.contact_weight, **task.weights}
        weights["contact"] = max(weights["contact"], c.contact_floor)
        # A critic that has learned nothing, or a policy that has not, would mislead: do without it.
        critic_weight = c.critic_weight if statuses.get("cost", {}).get("critic_trained", 0.0) else 0.0
        mode = c.mode if statuses.get("actor", {}).get("policy_trained", 0.0) else 2
        return Directive(
            goal=goal,
            weights=weights,
            critic_weight=critic_weight,
            discount=c.discount,
            energy=c.energy,
            mode=mode,
            planner=c.planner,
            horizon=c.horizon if critic_weight else c.horizon_without_critic,
            samples=c.samples,
            iterations=c.iterations,
            replan_every=c.replan_every,
            warm_start=c.warm_start,
        )
