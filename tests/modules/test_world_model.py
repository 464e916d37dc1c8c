"""Promises of modules/world_model.py: residual, local where it is a map, open loop, and honest about shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modules.actions import BoxActions
from modules.types import State
from modules.world_model import JEPA, Config, InverseDynamics, prediction_error

SPACE = BoxActions((-2.0, -1.0), (2.0, 3.0))
MAP = (3, 11, 11)


def model(kind: str, proprio: int = 2, depth: int = 2) -> JEPA:
    torch.manual_seed(0)
    config = Config(predictor=kind, action_block=2, hidden=16, width=8, depth=depth)
    return JEPA(config, 3 * 11 * 11 if kind == "conv" else 12, proprio, SPACE, MAP if kind == "conv" else None)


def state(kind: str, batch: int = 4, proprio: int = 2) -> State:
    generator = torch.Generator().manual_seed(1)
    size = 3 * 11 * 11 if kind == "conv" else 12
    return State(torch.randn(batch, size, generator=generator), torch.randn(batch, proprio, generator=generator))


KINDS = ["mlp", "gru", "conv"]


@pytest.mark.parametrize("proprio", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_repeated_prediction(kind, proprio):
    jepa, start = model(kind, proprio), state(kind, proprio=proprio)
    actions = torch.randn(4, 3, 2, 2)
    imagined = jepa.rollout(start, actions)
    path = imagined.states
    assert imagined.actions is actions and imagined.z is None and imagined.disagreement is None
    assert path.latent.shape == (4, 3, start.latent.shape[1]) and path.proprio.shape == (4, 3, proprio)
    now = start
    for t in range(3):
        now = jepa.predict(now, actions[:, t])
        assert torch.equal(path.latent[:, t], now.latent) and torch.equal(path.proprio[:, t], now.proprio)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_last_layer_of_zero_is_the_identity(kind):
    jepa, start = model(kind), state(kind)
    lasts = [jepa.change.net[-1]] if kind == "mlp" else [jepa.change.last, jepa.change.proprio]
    for last in lasts:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    after = jepa.predict(start, torch.randn(4, 2, 2))
    assert torch.equal(after.latent, start.latent) and torch.equal(after.proprio, start.proprio)


def test_a_closed_gate_of_the_gru_is_the_identity():
    jepa, start = model("gru"), state("gru")
    nn.init.zeros_(jepa.change.cell.weight_ih)
    nn.init.zeros_(jepa.change.cell.weight_hh)
    with torch.no_grad():
        jepa.change.cell.bias_ih.zero_()[12:24] = 100.0  # the update gate: keep the old
    after = jepa.predict(start, torch.randn(4, 2, 2))
    assert torch.allclose(after.latent, start.latent, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_action_of_the_block_matters_and_so_does_proprio(kind):
    jepa, start = model(kind), state(kind)
    actions = torch.zeros(4, 2, 2)
    base = jepa.predict(start, actions).latent
    for k in range(2):
        for a in range(2):
            other = actions.clone()
            other[:, k, a] = 1
            assert not torch.allclose(jepa.predict(start, other).latent, base)
    assert not torch.allclose(jepa.predict(State(start.latent, start.proprio + 1), actions).latent, base)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_scaled_to_one(kind):
    """The predictor sees -1 and 1 at the limits, whatever the world's units are."""
    jepa, start = model(kind), state(kind)
    seen = []
    jepa.change.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    jepa.predict(start, torch.tensor([[-2.0, -1.0], [2.0, 3.0]]).expand(4, 2, 2))
    assert torch.equal(seen[0], torch.tensor([[-1.0, -1.0, 1.0, 1.0]]).expand(4, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_of_a_batch_do_not_mix(kind):
    jepa, start = model(kind), state(kind)
    actions = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    together = jepa.rollout(start, actions).states
    alone = jepa.rollout(start[2:3], actions[2:3]).states
    assert torch.allclose(together.latent[2], alone.latent[0], atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_cell_far_from_a_change_does_not_change(depth):
    jepa, start = model("conv", proprio=0, depth=depth), state("conv", 1, proprio=0)
    cells = start.latent.unflatten(-1, (11, 11, 3)).clone()
    cells[0, 5, 5] += 1
    action = torch.randn(1, 2, 2)
    before, after = (jepa.predict(State(x, start.proprio), action).latent for x in (start.latent, cells.flatten(1)))
    change = (after - before).unflatten(-1, (11, 11, 3))[0].abs().amax(-1)
    rows, columns = torch.meshgrid(torch.arange(11), torch.arange(11), indexing="ij")
    distance = torch.maximum((rows - 5).abs(), (columns - 5).abs())
    reach = depth + 1  # one cell for every convolution
    assert change[distance > reach].max() < 1e-6
    assert (change[distance <= 1] > 1e-5).all()
    assert change[distance == reach].max() > 1e-6


def test_a_moved_map_is_predicted_moved():
    """The same local rule everywhere: prediction and translation commute away from the border."""
    jepa, start = model("conv", proprio=0), state("conv", 1, proprio=0)
    action = torch.randn(1, 2, 2)
    moved = State(start.latent.unflatten(-1, (11, 11, 3)).roll((1, 2), (1, 2)).flatten(1), start.proprio)
    here, there = (jepa.predict(s, action).latent.unflatten(-1, (11, 11, 3))[0] for s in (start, moved))
    assert torch.allclose(here.roll((1, 2), (0, 1))[5:-4, 6:-4], there[5:-4, 6:-4], atol=1e-5)


@pytest.mark.parametrize(("kind", "map_shape"), [("mlp", MAP), ("gru", MAP), ("conv", None)])
def test_a_predictor_that_does_not_fit_the_latent_is_refused(kind, map_shape):
    with pytest.raises(ValueError, match=r"--perception\.latent"):
        JEPA(Config(predictor=kind), 12, 0, SPACE, map_shape)


def test_prediction_error_is_that_of_latent_and_proprio():
    one, other = State(torch.zeros(2, 4), torch.zeros(2, 2)), State(torch.full((2, 4), 2.0), torch.ones(2, 2))
    assert prediction_error(one, other).tolist() == [5.0, 5.0]
    assert prediction_error(one, one).tolist() == [0.0, 0.0]
    bare = torch.zeros(2, 0)
    assert prediction_error(State(one.latent, bare), State(other.latent, bare)).tolist() == [4.0, 4.0]


def test_the_status_is_the_length_of_a_step():
    assert model("mlp").status() == {"action_block": 2.0}


def test_the_checkpoint_holds_nothing_of_the_action_space():
    """The limits of actions come from the environment's spec."""
    jepa = model("mlp")
    assert set(jepa.state_dict()) == {name for name, _ in jepa.named_parameters()}


@pytest.mark.parametrize("map_shape", [None, (3, 2, 2)])
def test_inverse_dynamics_reads_both_states_in_their_order(map_shape):
    torch.manual_seed(0)
    net = InverseDynamics(12, 0, 2, hidden=16, map_shape=map_shape)
    before, after = (State(torch.randn(64, 12), torch.zeros(64, 0)) for _ in range(2))
    out = net(before, after)
    assert out.shape == (64, 2)
    assert not torch.allclose(out, net(after, before))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_actions_and_parameters(kind):
    jepa, start = model(kind), state(kind)
    actions = torch.zeros(4, 3, 2, 2, requires_grad=True)
    path = jepa.rollout(start, actions).states
    (path.latent.square().sum() + path.proprio.square().sum()).backward()
    assert (actions.grad.abs().flatten(1).sum(1) > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in jepa.parameters())
