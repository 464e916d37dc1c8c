"""Promises of modules/drives.py: what the drives measure, by hand, and that nothing can change it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.build import load
from modules import drives
from modules.actions import BoxActions
from modules.cost import CostModule
from modules.drives import DRIVES, compose, contact, effort, goal_distance, intrinsic_hash
from modules.types import BodySpec, Directive, Goal, Imagined, State
from tests.helpers import born, tiny, train_tiny

SPACE = BoxActions((-2.0, -2.0), (2.0, 2.0))
BODY = BodySpec(SPACE, goal_scale=0.5)


def draw(*batch: int, latent: int = 6, proprio: int = 3, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.randn(*batch, latent, generator=generator, dtype=torch.float64),
        torch.randn(*batch, proprio, generator=generator, dtype=torch.float64),
    )


def acted(actions: torch.Tensor) -> Imagined:
    """Actions (..., H, K, A) and states that do not matter."""
    return Imagined(State(torch.zeros(*actions.shape[:-2], 1), torch.zeros(*actions.shape[:-2], 0)), actions)


def by_hand(actions: torch.Tensor, low: list[float], high: list[float]) -> np.ndarray:
    """Mean squared action in half ranges from the middle of the box, in numpy: (..., H, K, A) -> (..., H)."""
    a, low_, high_ = actions.numpy().astype(float), np.array(low), np.array(high)
    return np.square((2 * a - low_ - high_) / (high_ - low_)).mean((-1, -2))


# Goal


@pytest.mark.parametrize("proprio", [(), (0, 2)])
@pytest.mark.parametrize("saturate", [True, False])
def test_goal_distance_is_zero_at_the_goal_and_grows(proprio, saturate):
    body = BodySpec(SPACE, goal_proprio=proprio, goal_scale=0.5, saturate=saturate)
    goal = draw(5)

    def away(by: float) -> torch.Tensor:
        return goal_distance(Imagined(goal.map(lambda x: x + by), None), goal, body)

    assert away(0.0).tolist() == [0.0] * 5
    steps = [away(by) for by in (0.1, 0.2, 0.4)]
    assert (steps[0] > 0).all() and (steps[1] > steps[0]).all() and (steps[2] > steps[1]).all()
    d = 0.4**2 * (len(proprio) or 1) / 0.5
    assert steps[2][0].item() == pytest.approx(1 - np.exp(-d) if saturate else d)


def test_goals_in_proprio_leave_the_latent_alone():
    goal = draw(4)
    elsewhere = State(goal.latent + 5, goal.proprio + torch.tensor([0.0, 9.0, 0.0]))
    body = BodySpec(SPACE, goal_proprio=(0, 2))
    assert goal_distance(Imagined(elsewhere, None), goal, body).tolist() == [0.0] * 4


def test_without_a_goal_the_goal_costs_nothing():
    assert goal_distance(Imagined(draw(2, 3), None), None, BODY).tolist() == [[0.0] * 3] * 2


# Effort


def test_effort_by_hand():
    actions = torch.tensor([[[[2.0, 0.0], [1.0, -2.0]]]])
    assert effort(acted(actions), None, BODY).tolist() == [[(1 + 0 + 0.25 + 1) / 4]]


@pytest.mark.parametrize(
    ("low", "high"), [([-1.0, 0.0], [1.0, 4.0]), ([-3.0, -2.0], [0.0, 0.0]), ([-0.5, 1.0], [2.5, 2.0])]
)
def test_effort_of_an_asymmetric_box_is_measured_from_rest_in_half_ranges(low, high):
    """Also where a limit is 0, in which nothing can be measured."""
    space = BoxActions(tuple(low), tuple(high))
    body = BodySpec(space)
    corners = torch.tensor([low, high, [low[0], high[1]]], dtype=torch.float64)
    still = space.rest(corners)
    assert effort(acted(still.expand(2, 3, 2)), None, body).tolist() == [0.0, 0.0], "rest costs nothing"
    held = corners[:, None].expand(3, 4, 2)
    assert torch.allclose(effort(acted(held), None, body), torch.ones(3).double()), "full strength costs 1"
    generator = torch.Generator().manual_seed(0)
    actions = space.project(3 * torch.randn(5, 3, 4, 2, generator=generator, dtype=torch.float64))
    found = effort(acted(actions), None, body)
    np.testing.assert_allclose(found.numpy(), by_hand(actions, low, high), rtol=1e-12)
    assert (found <= 1).all()


def test_a_state_that_no_action_has_reached_took_no_effort():
    assert effort(Imagined(draw(2, 3), None), None, BODY).tolist() == [[0.0] * 3] * 2


# Contact


def test_contact_by_hand():
    states = State(torch.zeros(3, 2), torch.tensor([[9.0, -0.5], [9.0, 0.5], [9.0, 1.5]]))
    body = BodySpec(SPACE, ("energy", "contact"))
    assert contact(Imagined(states, None), None, body).tolist() == [0.0, 0.5, 1.0]
    assert contact(Imagined(states, None), None, BODY).tolist() == [0.0] * 3, "a body that feels none"


# Composition


def test_drives_are_composed_in_their_order_with_weights_and_floors():
    found = compose(("contact", "goal"), {"goal": 2.0}, {"contact": 0.5}, BODY)
    assert [(d.name, d.weight, d.floor) for d in found] == [("contact", 1.0, 0.5), ("goal", 2.0, 0.0)]


def test_an_unknown_drive_is_named():
    with pytest.raises(ValueError, match=r"unknown drive 'gaol'.*goal, effort, contact"):
        compose(("goal", "gaol"), {}, {}, BODY)


def test_a_new_drive_is_a_function_and_a_name(monkeypatch):
    monkeypatch.setitem(DRIVES, "low", lambda imagined, goal, body: 1 - imagined.states.proprio[..., 1])
    (drive,) = compose(("low",), {"low": 0.5}, {}, BODY)
    states = draw(2, 3)
    found = drive(Imagined(states, None), None)
    assert torch.equal(found, 1 - states.proprio[..., 1])
    directive = Directive(None, {"low": 0.5}, {}, 0.9, "terminal", 2, "cem", 3, 4, 2, 1)
    energy = CostModule((drive,)).trajectory(Imagined(states, None), directive).energy
    assert torch.allclose(energy, 0.5 * (1 - states.proprio[..., 1]).sum(1))


# Immutability


def test_the_intrinsic_cost_has_no_parameters_and_is_differentiable():
    assert not any(isinstance(f, torch.nn.Module) for f in DRIVES.values())
    names = ("goal", "effort", "contact", "survive")  # known tasks need sensors of their own
    body = BodySpec(SPACE, ("a", "b", "contact"), goal_scale=0.5)
    cost = CostModule(compose(names, {}, {}, body))
    assert list(cost.parameters()) == []
    states, actions = draw(2, 3).map(lambda x: x.requires_grad_()), torch.ones(2, 3, 4, 2, requires_grad=True)
    weights = dict.fromkeys(names, 1.0)
    directive = Directive(Goal(draw(2, seed=1)), weights, {}, 0.9, "terminal", 2, "cem", 3, 4, 2, 1)
    cost.trajectory(Imagined(states, actions), directive).energy.sum().backward()
    assert states.latent.grad is not None and (states.latent.grad.abs().sum(-1) > 0).all()
    assert actions.grad is not None and (actions.grad > 0).all()
    assert states.proprio.grad is not None
    felt = (states.proprio[..., 2] > 0) & (states.proprio[..., 2] < 1)
    assert felt.any() and (states.proprio.grad[..., 2][felt] == 1).all()


def test_the_hash_of_the_intrinsic_cost_survives_training(tmp_path):
    config = tiny()
    before = intrinsic_hash(list(born(config)[0].cost.drives.values()))
    train_tiny(config, tmp_path / "run")
    assert intrinsic_hash(list(load(tmp_path / "run").cost.drives.values())) == before


def test_the_hash_of_the_intrinsic_cost_sees_functions_and_constants_and_not_weights(monkeypatch):
    body = BodySpec(SPACE, ("contact",), goal_scale=0.5)
    names = ("goal", "contact")

    def hash_of(names=names, weights=None, floors=None, body=body) -> str:
        return intrinsic_hash(compose(names, weights or {}, floors or {}, body))

    before = hash_of()
    assert hash_of() == before and hash_of(weights={"goal": 3.0}, floors={"goal": 1.0}) == before
    others = [dataclasses.replace(body, goal_scale=1.0), dataclasses.replace(body, saturate=False),
              dataclasses.replace(body, proprio_names=("pain",)), dataclasses.replace(body, goal_proprio=(0,)),
              dataclasses.replace(body, actions=BoxActions((-1.0, -1.0), (1.0, 1.0)))]  # fmt: skip
    assert len({before, hash_of(("goal",)), *(hash_of(body=b) for b in others)}) == 2 + len(others)
    monkeypatch.setitem(drives.DRIVES, "goal", effort)
    assert hash_of() != before
