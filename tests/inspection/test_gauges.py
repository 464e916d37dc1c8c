"""Promises of the gauges: probes find what is there, miss what is not, and are judged on held-out episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.build import tensors
from agent.inspection import gauges, probes
from tests.helpers import born, explored, tiny, tiny_maze


def test_ridge_equals_least_squares_without_strength():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(60, n, generator=generator) for n in (5, 2))
    weights = probes.ridge(x, y, 0.0)
    expected = np.linalg.lstsq(np.c_[x.numpy(), np.ones(60)], y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(probes.read(weights, x).numpy(), np.c_[x.numpy(), np.ones(60)] @ expected, atol=1e-4)


def test_r2_of_what_is_linear_and_of_noise():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(800, 6, generator=generator), torch.randn(800, 1, generator=generator)
    y = torch.cat([x[:, :1] * 3 + 1, noise], 1)
    linear, nothing = probes.held_out_r2(x, y, 600).tolist()
    assert linear > 0.999 and nothing < 0.05


def test_r2_is_of_the_rows_that_were_held_out():
    x, y = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)), torch.arange(20.0)[:, None]
    assert probes.held_out_r2(x, y, 15).item() < 0.5, (
        "fifteen rows in thirty dimensions fit anything, and predict nothing"
    )


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_all_gauges_are_finite_and_named(make):
    config = make()
    agent, environment = born(config)
    data = explored(config)
    found = gauges.measure(agent, data, environment, count=100)
    assert all(np.isfinite(v) for v in found.values())
    names = {"feature_std", "effective_rank", "within_episode_std", "inverse_r2", "swapped_action"}
    assert {f"collapse/{n}" for n in names} <= set(found)
    assert {f"probe/{n}_r2" for n in data.factors} <= set(found)
    assert {f"imagination/{n}/h01" for n in ("latent_mse", "persistence", "shuffled")} <= set(found)
    assert any(n.startswith("imagination/position_error/") for n in found)
    assert gauges.measure(agent, data, environment, count=100) == found, "gauges depend on the seed alone"


def test_gauges_change_neither_weights_nor_global_randomness():
    config = tiny()
    agent, environment = born(config)
    data = explored(config)
    before = {k: v.clone() for k, v in tensors(agent).items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    gauges.measure(agent, data, environment, count=40)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(v, before[k]) for k, v in tensors(agent).items())
    assert agent.memory.size == 0


def test_a_collapsed_encoder_is_seen():
    config = tiny()
    agent, environment = born(config)
    data = explored(config)
    alive = gauges.measure(agent, data, environment, count=60)
    for parameter in agent.perception.pixels[-1].parameters():
        torch.nn.init.zeros_(parameter)
    agent.perception.pixels[-1].bias.data.normal_()
    dead = gauges.measure(agent, data, environment, count=60)
    assert dead["collapse/feature_std"] < 1e-5 < 1e-3 < alive["collapse/feature_std"]
    assert dead["collapse/within_episode_std"] < 1e-5 < alive["collapse/within_episode_std"]
    assert dead["collapse/inverse_r2"] < 0.2
    assert dead["probe/agent_x_r2"] < 0.2 < alive["probe/agent_x_r2"]


def test_persistence_is_the_error_of_standing_still():
    config = tiny_maze()
    agent, environment = born(config)
    data = explored(config)
    for p in agent.world_model.change.net[-1].parameters():
        torch.nn.init.zeros_(p)
    found = gauges.measure(agent, data, environment, count=40)
    for h in ("h01", "h04"):
        assert found[f"imagination/latent_mse/{h}"] == pytest.approx(found[f"imagination/persistence/{h}"])
    assert found["collapse/swapped_action"] == 0
