"""Promises of modules/configurator.py: a guardrail cannot be undercut, and nothing untrained is relied upon."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from modules.actions import BoxActions
from modules.configurator import Config, Overridden, RandomSubgoals, RuleConfigurator, compose
from modules.drives import IntrinsicDrive
from modules.drives import compose as drives_of
from modules.memory import Config as MemoryConfig
from modules.memory import EpisodicMemory
from modules.types import BodySpec, Directive, Goal, Situation, State, Task

READY = {"cost": {"critic_trained": 1.0}, "actor": {"policy_trained": 1.0}}
BODY = BodySpec(BoxActions((-1.0,), (1.0,)), ("contact",))
WEIGHTS = {"goal": 1.0, "effort": 0.1, "contact": 0.4}
BLOCK = 4


def drives(weights: Mapping[str, float] = WEIGHTS, **floors: float) -> tuple[IntrinsicDrive, ...]:
    return drives_of(tuple(weights), weights, floors, BODY)


def state(n: int, fill: float = 0.0) -> State:
    return State(torch.full((n, 4), fill), torch.zeros(n, 1))


def situation(asked: Mapping[str, float] | None = None, status: Mapping = READY, **changes: Any) -> Situation:
    base = Situation(state(2), Task(None, asked or {}), Goal(state(2, 1.0)), status)
    return dataclasses.replace(base, **changes)


def configured(config: Config, asked=None, status=READY, of=None, **changes: Any) -> Directive:
    return RuleConfigurator(config, of or drives(), BLOCK).configure(situation(asked, status, **changes))


# Weights


@pytest.mark.parametrize(("asked", "floor", "got"), [(0.0, 0.5, 0.5), (-3.0, 0.5, 0.5), (2.0, 0.5, 2.0), (0, 0, 0)])
@pytest.mark.parametrize("drive", list(WEIGHTS))
def test_no_task_weighs_a_drive_below_its_floor(drive, asked, floor, got):
    directive = configured(Config(), {drive: asked}, of=drives(**{drive: floor}))
    assert directive.weights == {**WEIGHTS, drive: got}


def test_the_configured_weight_meets_the_floor_too():
    assert configured(Config(), of=drives(contact=0.5)).weights["contact"] == 0.5


def test_a_task_may_reweight_drives():
    directive = configured(Config(), {"goal": 3.0, "effort": 0.2})
    assert directive.weights == {"goal": 3.0, "effort": 0.2, "contact": 0.4}


def test_a_drive_that_the_task_names_but_the_body_lacks_is_named():
    with pytest.raises(ValueError, match=r"unknown drive 'pain'.*goal, effort, contact"):
        configured(Config(), {"pain": 1.0})


@pytest.mark.parametrize("critic_weight", [1.0, 0.5])
def test_a_task_that_reweights_a_drive_reweights_its_head_alike(critic_weight):
    plain = configured(Config(critic_weight=critic_weight)).critic_weights
    assert set(plain) == set(WEIGHTS) and plain["goal"] == critic_weight
    asked = configured(Config(critic_weight=critic_weight), {"goal": 3.0, "contact": 0.2}).critic_weights
    ratios = {name: asked[name] / plain[name] for name in WEIGHTS}
    assert ratios == pytest.approx({"goal": 3.0, "effort": 1.0, "contact": 0.5})


def test_a_floor_holds_for_the_head_too():
    of = drives(contact=0.2)
    plain, asked = configured(Config(), of=of), configured(Config(), {"contact": 0.0}, of=of)
    assert asked.weights["contact"] == 0.2
    assert asked.critic_weights["contact"] / plain.critic_weights["contact"] == pytest.approx(0.5)


# What has been learned


@pytest.mark.parametrize("status", [{}, {"actor": {"policy_trained": 0.0}}, {"actor": {}}])
def test_an_untrained_policy_means_mode_2(status):
    assert configured(Config(mode=1), status=status).mode == 2


def test_a_trained_policy_is_used_when_asked_for():
    assert configured(Config(mode=1)).mode == 1
    assert configured(Config(mode=2)).mode == 2


@pytest.mark.parametrize("status", [{}, {"cost": {"critic_trained": 0.0}}])
def test_an_untrained_critic_is_not_asked_and_plans_look_further(status):
    config = Config(horizon=4, horizon_without_critic=9)
    directive = configured(config, status=status)
    assert not any(directive.critic_weights.values()) and directive.horizon == 9
    directive = configured(config)
    assert directive.critic_weights["goal"] == 1.0 and directive.horizon == 4
    off = configured(dataclasses.replace(config, critic_weight=0.0))
    assert not any(off.critic_weights.values()) and off.horizon == 9


def test_all_other_settings_reach_the_directive():
    changed = {
        "discount": 0.5,
        "energy": "literal",
        "planner": "mppi",
        "samples": 7,
        "iterations": 5,
        "replan_every": 2,
        "warm_start": False,
    }
    asked = situation()
    directive = RuleConfigurator(Config(**changed), drives(), BLOCK).configure(asked)
    assert {k: getattr(directive, k) for k in changed} == changed
    assert isinstance(directive, Directive) and directive.goal is asked.goal
    assert configured(Config(), goal=None).goal is None


def test_plans_are_renewed_after_one_block_unless_told_otherwise():
    assert configured(Config()).replan_every == BLOCK
    assert configured(Config(replan_every=3)).replan_every == 3


def test_without_a_configurator_the_settings_hold_whatever_is_asked_or_learned():
    config = Config(mode=1, horizon=4, horizon_without_critic=9, adaptive=False)
    directive = configured(config, {"goal": 7.0, "contact": 3.0}, status={}, of=drives(contact=0.5))
    assert directive.weights == {"goal": 1.0, "effort": 0.1, "contact": 0.5}
    assert (directive.mode, directive.horizon) == (1, 4)
    assert directive.critic_weights["goal"] == 1.0


# Around the rules


def remembered(count: int = 20) -> EpisodicMemory:
    memory = EpisodicMemory(MemoryConfig())
    for k in range(count):
        memory.write(k, 0, state(1, float(k)), torch.zeros(1, BLOCK, 1), imagined=False)
    return memory


def test_random_subgoals_are_remembered_and_renewed_only_in_episodes_that_plan():
    configurator = RandomSubgoals(RuleConfigurator(Config(), drives(), BLOCK))
    here = {"memory": remembered(), "generator": torch.Generator().manual_seed(0), "state": state(6)}
    goal = Goal(state(6, -1.0))
    first = configurator.configure(situation(goal=goal, replan=torch.ones(6, dtype=torch.bool), **here))
    assert first.goal is not None and (first.goal.state.latent >= 0).all(), "states of the memory, not the goal"
    kept = configurator.configure(situation(goal=goal, replan=torch.zeros(6, dtype=torch.bool), last=first, **here))
    assert kept.goal is first.goal
    due = torch.tensor([True, False, True, False, True, False])
    some = configurator.configure(situation(goal=goal, replan=due, last=first, **here))
    assert some.goal is not None
    changed = (some.goal.state.latent != first.goal.state.latent).any(1)
    assert changed.any() and not changed[~due].any()


def test_random_subgoals_without_goal_or_memory_are_the_rules():
    rules = RuleConfigurator(Config(), drives(), BLOCK)
    for case in (situation(memory=EpisodicMemory(MemoryConfig())), situation(goal=None, memory=remembered())):
        assert RandomSubgoals(rules).configure(case) == rules.configure(case)


def test_overridden_changes_some_fields_and_leaves_the_rest():
    rules = RuleConfigurator(Config(), drives(), BLOCK)
    asked = situation()
    found = Overridden(rules, {"planner": "mppi", "samples": 3}).configure(asked)
    assert found == rules.configure(asked).but(planner="mppi", samples=3)
    assert rules.configure(asked).planner == "cem"


def test_the_configuration_decides_which_configurator_it_is():
    assert isinstance(compose(Config(), drives(), BLOCK), RuleConfigurator)
    assert isinstance(compose(Config(random_subgoals=True), drives(), BLOCK), RandomSubgoals)
