"""Promises of modules/actions.py: whatever a verb gives can be executed, and features are a change of units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modules.actions import BoxActions, DiscreteActions
from modules.types import Actions

SQUARE = BoxActions((-2.0, -2.0), (2.0, 2.0))
UNEVEN = BoxActions((-1.0, 0.5, -3.0), (1.0, 4.0, 0.0))
BALL = BoxActions((-2.0, -2.0), (2.0, 2.0), max_norm=2.0)
UNEVEN_BALL = BoxActions((-1.0, 0.0), (3.0, 4.0), max_norm=1.5)
"""The middle of this box, (1, 2), is outside the ball."""
SPACES = [SQUARE, UNEVEN, BALL, UNEVEN_BALL]
names = ["square", "uneven", "ball", "uneven ball"]
boxes = pytest.mark.parametrize("space", SPACES, ids=names)
few = settings(max_examples=25, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)


def draw(space: BoxActions, seed: int, scale: float = 4.0, count: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, space.size, generator=generator, dtype=torch.float64)


def inside(space: BoxActions, actions: Tensor, slack: float = 1e-6) -> bool:
    """The definition, in numpy."""
    a = actions.double().numpy()
    box = (a >= np.array(space.low) - slack).all() and (a <= np.array(space.high) + slack).all()
    return bool(box and (space.max_norm is None or (np.linalg.norm(a, axis=-1) <= space.max_norm + slack).all()))


def of(space: Actions) -> Actions:
    """The type checker's word that a box is an action space."""
    return space


# Project


@boxes
@given(seed=seeds)
@few
def test_project_gives_what_can_be_executed_and_leaves_it_alone(space, seed):
    projected = of(space).project(draw(space, seed))
    assert inside(space, projected)
    assert torch.allclose(space.project(projected), projected, rtol=0, atol=1e-12)
    within = space.project(draw(space, seed, 0.01) + space.rest(projected))
    assert inside(space, within)


@pytest.mark.parametrize("space", [SQUARE, UNEVEN], ids=["square", "uneven"])
@given(seed=seeds)
@few
def test_project_into_a_box_is_the_nearest_action(space, seed):
    wanted = draw(space, seed)
    found = (space.project(wanted) - wanted).norm(dim=-1)
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    others = low + (high - low) * torch.rand(500, space.size, generator=torch.Generator().manual_seed(seed)).double()
    assert (found[:, None] <= torch.cdist(wanted, others) + 1e-9).all()


@pytest.mark.parametrize("space", [BALL, UNEVEN_BALL], ids=["ball", "uneven ball"])
@given(seed=seeds)
@few
def test_of_what_the_box_allows_the_nearest_in_the_ball_is_kept(space, seed):
    low, high = torch.tensor(space.low).double(), torch.tensor(space.high).double()
    generator = torch.Generator().manual_seed(seed)
    wanted, others = (low + (high - low) * torch.rand(n, 2, generator=generator).double() for n in (50, 2000))
    others = others[others.norm(dim=-1) <= space.max_norm]
    found = (space.project(wanted) - wanted).norm(dim=-1)
    assert len(others) > 50 and (found[:, None] <= torch.cdist(wanted, others) + 1e-9).all()


def test_a_batch_is_projected_action_by_action():
    actions = draw(UNEVEN, 3).view(5, 10, 3)
    each = torch.stack([torch.stack([UNEVEN.project(a) for a in row]) for row in actions])
    assert torch.equal(UNEVEN.project(actions), each)


def test_gradients_pass_where_nothing_is_cut():
    actions = torch.tensor([[0.5, -0.5], [9.0, 0.5]], requires_grad=True)
    SQUARE.project(actions).sum().backward()
    assert actions.grad is not None and actions.grad.tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_a_ball_outside_the_box_is_refused():
    """Scaled back into the ball, an action would leave the box."""
    with pytest.raises(ValueError, match=r"max_norm=1.0.*around 0"):
        BoxActions((0.5, -1.0), (2.0, 1.0), max_norm=1.0)


# Units


@boxes
@given(seed=seeds)
@few
def test_scale_is_the_inverse_of_features(space, seed):
    actions = draw(space, seed)
    assert torch.allclose(space.scale(space.features(actions)), actions, atol=1e-12)
    features = draw(space, seed, 1.0)
    assert torch.allclose(space.features(space.scale(features)), features, atol=1e-12)


@boxes
def test_features_are_one_at_the_limits_and_zero_in_the_middle(space):
    low, high = (torch.tensor(x, dtype=torch.float64) for x in (space.low, space.high))
    ones = torch.ones(space.size, dtype=torch.float64)
    assert torch.allclose(space.features(high), ones) and torch.allclose(space.features(low), -ones)
    assert torch.equal(space.features((low + high) / 2), 0 * ones)


@boxes
@given(seed=seeds)
@few
def test_from_features_is_scale_and_can_be_executed(space, seed):
    features = draw(space, seed, 2.0)
    found = space.from_features(features)
    assert inside(space, found) and torch.allclose(found, space.project(space.scale(features)), atol=1e-12)


def test_unit_and_rest_by_hand():
    like = torch.zeros(1, dtype=torch.float64)
    assert UNEVEN.unit(like).tolist() == [1.0, 1.75, 1.5] and UNEVEN.rest(like).tolist() == [0.0, 2.25, -1.5]
    assert BALL.unit(like).tolist() == [2.0, 2.0] and BALL.rest(like).tolist() == [0.0, 0.0]
    assert UNEVEN_BALL.unit(like).tolist() == [1.5, 1.5], "the ball is the tighter bound"
    assert UNEVEN.rest(like).dtype == UNEVEN.unit(like).dtype == torch.float64


@boxes
def test_rest_can_be_executed(space):
    assert inside(space, space.rest(torch.zeros(1)))


def test_distance_is_in_half_ranges():
    a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    b[0] = torch.tensor([1.0, 1.75, 0.0])
    assert UNEVEN.distance(a, b).item() == pytest.approx(2 / 6)
    assert UNEVEN.distance(b, b).item() == 0


# Primitives


@boxes
def test_primitives_are_rest_then_full_then_half_strength_all_executable(space):
    found = space.primitives()
    directions = 8 if space.size == 2 else 2 * space.size
    assert found.shape == (1 + 2 * directions, space.size) and found.dtype == torch.float32
    assert inside(space, found)
    rest, full, half = found[0], found[1 : 1 + directions], found[1 + directions :]
    assert torch.equal(rest, space.rest(torch.zeros(1)))
    assert torch.allclose(half, (rest + full) / 2)
    assert len({tuple(x) for x in full.round(decimals=4).tolist()}) == directions, "each direction is another action"


def test_full_strength_meets_a_limit():
    box = UNEVEN.features(UNEVEN.primitives()[1:7])
    assert torch.allclose(box, torch.cat([torch.eye(3), -torch.eye(3)]), atol=1e-6)
    assert torch.allclose(BALL.primitives()[1:9].norm(dim=-1), torch.full((8,), 2.0))


def test_the_environment_gets_the_numbers_themselves():
    actions = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert UNEVEN.to_env(actions) is actions


# Choices

ONE = DiscreteActions((5,), (-2,))
LONE = DiscreteActions((1,))
TWO = DiscreteActions((2, 3), kind="multi")
MANY = DiscreteActions((5, 4, 4), (1, 0, 2), kind="multi")
"""80 combinations: too many to be primitives."""
CHOICES = [ONE, LONE, TWO, MANY]
choices = pytest.mark.parametrize("space", CHOICES, ids=["one", "lone", "two", "many"])


def chosen(space: DiscreteActions, actions: Tensor) -> bool:
    """Exactly one of every group is 1, all else 0."""
    groups = actions.split(space.counts, -1)
    return bool(((actions == 0) | (actions == 1)).all()) and all(bool((x.sum(-1) == 1).all()) for x in groups)


@choices
@given(seed=seeds)
@few
def test_the_largest_number_of_every_group_is_chosen(space, seed):
    wanted = torch.randn(4, 7, space.size, generator=torch.Generator().manual_seed(seed))
    found = of(space).project(wanted)
    assert chosen(space, found) and found.dtype == wanted.dtype and torch.equal(space.project(found), found)
    for x, y in zip(wanted.split(space.counts, -1), found.split(space.counts, -1), strict=True):
        assert torch.equal(x.argmax(-1), y.argmax(-1))


@choices
@given(seed=seeds)
@few
def test_what_is_drawn_can_be_executed_and_survives_every_change_of_units(space, seed):
    actions = torch.from_numpy(space.sample(np.random.default_rng(seed), (20, 3)))
    assert actions.shape == (20, 3, space.size) and actions.dtype == torch.float32 and chosen(space, actions)
    assert torch.allclose(space.scale(space.features(actions)), actions, atol=1e-6)
    assert torch.equal(space.from_features(space.features(actions)), actions)
    direction = torch.randn(50, space.size, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(space.boundary(direction), space.features(space.project(direction)))


@choices
def test_all_choices_are_drawn_alike_and_seen_with_mean_zero_and_unit_variance(space):
    actions = torch.from_numpy(space.sample(np.random.default_rng(0), (60_000,)))
    for x, n in zip(actions.split(space.counts, -1), space.counts, strict=True):
        assert torch.allclose(x.mean(0), torch.full((n,), 1 / n), atol=0.01)
    seen = space.features(actions)
    assert torch.allclose(seen.mean(0), torch.zeros(space.size), atol=0.03)
    if space is not LONE:
        assert torch.allclose(seen.std(0), torch.ones(space.size), atol=0.02)


def test_groups_are_drawn_independently():
    index = TWO.to_env(TWO.sample(np.random.default_rng(0), (60_000,)))
    both = np.bincount(3 * index[:, 0] + index[:, 1], minlength=6) / len(index)
    assert np.abs(both - 1 / 6).max() < 0.01


@choices
def test_rest_and_primitives_can_be_executed(space):
    like, found = torch.zeros(1, dtype=torch.float64), space.primitives()
    assert chosen(space, space.rest(like)) and space.rest(like).dtype == torch.float64
    assert space.unit(like).tolist() == [1.0] * space.size
    assert chosen(space, found) and found.dtype == torch.float32
    assert torch.equal(found[0], space.rest(torch.zeros(1))), "rest comes first"
    assert len({tuple(x) for x in found.tolist()}) == len(found), "each is another action"
    count = 1 + 4 + 3 + 3 if space is MANY else int(np.prod(space.counts))
    assert len(found) == count
    changed = torch.stack([(x != x[0]).any(-1) for x in found.split(space.counts, -1)]).sum(0)
    assert space is not MANY or changed.tolist() == [0] + [1] * 10, "beside rest, one choice changes"


def test_the_environment_gets_numbers():
    actions = torch.eye(5).numpy()
    assert ONE.to_env(actions).tolist() == [-2, -1, 0, 1, 2] and ONE.to_env(actions).dtype == np.int64
    assert ONE.to_env(actions[3]).shape == () and ONE.to_env(actions[3]) == 1
    found = MANY.to_env(np.array([[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1.0]]))
    assert found.tolist() == [[3, 0, 5]] and found.dtype == np.int64
    assert DiscreteActions((4,), kind="multi").to_env(np.eye(4)[None]).shape == (1, 4, 1)


@pytest.mark.parametrize(("space", "ours"), [
    (spaces.Discrete(5, start=-2), ONE), (spaces.MultiDiscrete([2, 3]), TWO),
    (spaces.MultiDiscrete([5, 4, 4], start=[1, 0, 2]), MANY),
])  # fmt: skip
def test_gymnasium_takes_what_the_environment_gets(space, ours):
    sent = ours.to_env(ours.sample(np.random.default_rng(0), (200,)))
    assert all(action in space for action in sent)
    assert len({tuple(np.atleast_1d(a)) for a in sent}) > (60 if ours is MANY else int(np.prod(ours.counts)) - 1)


def test_distance_counts_other_choices():
    eye = torch.eye(5)
    assert ONE.distance(eye[:2], eye[:2]).item() == 0
    assert ONE.distance(eye[:2], eye[[0, 2]]).item() == pytest.approx(2 / 10)


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
def test_a_network_learns_a_choice_from_its_distance(space):
    """As a policy is distilled from plans: what it chooses can be executed, and yet it has a gradient."""
    wanted = torch.from_numpy(space.sample(np.random.default_rng(0), (64,)))
    given = torch.randn(64, space.size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([given], 0.1)
    for _ in range(60):
        found = space.from_features(given)
        assert chosen(space, found.detach())
        optimiser.zero_grad()
        space.distance(found, wanted).backward()
        optimiser.step()
    assert torch.equal(space.from_features(given.detach()), wanted)


@pytest.mark.parametrize("broken", [
    {"counts": ()}, {"counts": (3, 0), "kind": "multi"}, {"counts": (3,), "start": (1, 2)}, {"counts": (3, 2)},
])  # fmt: skip
def test_choices_that_cannot_be_are_refused(broken):
    with pytest.raises(ValueError, match=r"choice"):
        DiscreteActions(**broken)


@pytest.mark.parametrize("space", [
    BoxActions((-1.0, 0.0), (1.0, 3.0)), DiscreteActions((3,), (5,)), DiscreteActions((3, 2), kind="multi"),
])  # fmt: skip
def test_what_the_environment_takes_is_read_back(space):
    actions = space.project(torch.rand(20, space.size, generator=torch.Generator().manual_seed(0))).numpy()
    assert np.array_equal(space.from_env(space.to_env(actions)), actions)
