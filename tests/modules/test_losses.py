"""Promises of modules/losses.py: every loss equals numpy, and every anti-collapse term moves its gauge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.inspection.gauges import collapse
from agent.learning.world_model import WorldModelUpdate
from modules import losses
from tests.helpers import born, explored, tiny, tiny_maze


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(30, 7), (30, 5, 7)])
@pytest.mark.parametrize("scale", [0.3, 0.9, 2.0])
def test_variance_is_the_hinge_of_vicreg(shape, scale):
    x = draw(*shape, scale=scale)
    std = np.sqrt(x.numpy().var(0, ddof=1) + 1e-4)
    assert losses.variance(x).item() == pytest.approx(np.maximum(0, 1 - std).mean(), abs=1e-12)


def test_variance_of_a_collapsed_latent_and_of_a_wide_one():
    assert losses.variance(torch.ones(10, 3)).item() == pytest.approx(1 - 0.01, abs=1e-6)
    assert losses.variance(draw(50, 3, scale=9)).item() == 0


def test_covariance_is_the_mean_square_off_the_diagonal():
    x = draw(40, 6)
    x[:, 1] = 0.5 * x[:, 0] + x[:, 1]
    c = np.cov(x.numpy().T)
    expected = (c[~np.eye(6, dtype=bool)] ** 2).mean()
    assert losses.covariance(x).item() == pytest.approx(expected, rel=1e-9)


def test_covariance_per_place_never_mixes_places():
    x = draw(40, 3, 5)
    x[:, 2] = x[:, 0]  # the same at two places: no covariance between channels of one place comes from it
    each = []
    for p in range(3):
        c = np.cov(x[:, p].numpy().T)
        each.append((c[~np.eye(5, dtype=bool)] ** 2).mean())
    assert losses.covariance(x).item() == pytest.approx(np.mean(each), rel=1e-9)
    assert losses.covariance(x[:, :1]).item() == pytest.approx(losses.covariance(x[:, 0]).item(), rel=1e-9)


def test_within_episode_looks_along_time_and_not_over_the_batch():
    x = draw(6, 5, 4, scale=0.05)
    std = np.sqrt(x.numpy().var(1, ddof=1) + 1e-4)
    expected = np.maximum(0, 0.1 - std.mean(-1)).mean()
    assert expected > 0
    assert losses.within_episode(x, 0.1).item() == pytest.approx(expected, rel=1e-9)
    static = draw(6, 1, 4).expand(-1, 5, -1)  # differs between episodes only: batch variance would be satisfied
    assert losses.variance(static.flatten(0, 1)) < 0.3
    assert losses.within_episode(static, 0.1).item() == pytest.approx(0.1 - 0.01, abs=1e-9)


def test_temporal_is_the_mean_square_of_differences():
    x = draw(6, 5, 4)
    assert losses.temporal(x).item() == pytest.approx(np.square(np.diff(x.numpy(), axis=1)).mean(), rel=1e-9)


def test_sigreg_is_the_integral_over_characteristic_functions():
    x = draw(50, 4)
    x[:, 0] = x[:, 0].abs()
    directions = torch.randn(4, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    t = np.linspace(-4, 4, 17)
    empirical = np.exp(1j * (x.numpy() @ directions)[..., None] * t).mean(0)
    gauss = np.exp(-(t**2) / 2)
    values = np.abs(empirical - gauss) ** 2 * gauss
    expected = (np.diff(t) * (values[:, 1:] + values[:, :-1]) / 2).sum(1).mean() * np.sqrt(50)
    found = losses.sigreg(x, torch.Generator().manual_seed(3))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_sigreg_is_least_for_a_normal_latent():
    generator = torch.Generator().manual_seed(0)
    normal, line, point = draw(500, 8), draw(500, 1).expand(-1, 8), torch.zeros(500, 8, dtype=torch.float64)
    values = [losses.sigreg(x, generator).item() for x in (normal, line, point)]
    assert values[0] < 0.2 * values[1] and values[0] < 0.2 * values[2]


def descend(x: torch.Tensor, loss, steps: int = 60, rate: float = 0.05) -> torch.Tensor:
    x = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()
    return x.detach()


@pytest.mark.parametrize(
    ("name", "loss", "gauge", "up"),
    [
        ("variance", lambda x: losses.variance(x.flatten(0, 1)), "feature_std_min", True),
        ("covariance", lambda x: losses.covariance(x.flatten(0, 1)), "effective_rank", True),
        (
            "sigreg",
            lambda x: losses.sigreg(x.flatten(0, 1), torch.Generator().manual_seed(0)),
            "effective_rank",
            True,
        ),
        ("within_episode", lambda x: losses.within_episode(x, 0.5), "within_episode_std", True),
        ("temporal", losses.temporal, "within_episode_std", False),
    ],
)
def test_every_term_moves_its_gauge(name, loss, gauge, up):
    scene = 0.3 * draw(12, 1, 1) * torch.ones(1, 6, 8) + 0.03 * draw(12, 6, 8, seed=1)  # nearly one number an episode
    before, after = (collapse(x)[gauge].item() for x in (scene, descend(scene, loss)))
    assert after > 1.2 * before if up else after < 0.8 * before


def test_gauges_against_numpy():
    x = draw(9, 4, 6).float()
    flat = x.numpy().reshape(-1, 6)
    found = {k: float(v) for k, v in collapse(x).items()}
    s = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    p = s / s.sum()
    assert found["feature_std"] == pytest.approx(flat.std(0, ddof=1).mean(), rel=1e-4)
    assert found["feature_std_min"] == pytest.approx(flat.std(0, ddof=1).min(), rel=1e-4)
    assert found["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert found["within_episode_std"] == pytest.approx(x.numpy().std(1, ddof=1).mean(), rel=1e-4)


def test_effective_rank_of_known_spectra():
    line = draw(100, 2, 1) * torch.ones(1, 1, 6)
    assert collapse(line)["effective_rank"].item() == pytest.approx(1, abs=0.01)
    assert collapse(draw(2500, 2, 6))["effective_rank"].item() == pytest.approx(6, abs=0.05)


@pytest.mark.parametrize("multi_step", [True, False])
@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_world_model_loss_is_the_weighted_sum_of_independent_terms(make, multi_step):
    """Prediction, proprio and inverse dynamics, recomputed step by step from the same batch."""
    weights = losses.Config(
        prediction=1.5, proprio=3.0, variance=2.0, covariance=0.5, within_episode=0.7, temporal=0.9, inverse=1.1,
        multi_step=multi_step,
    )  # fmt: skip
    config = dataclasses.replace(make(), losses=weights)
    agent, _ = born(config)
    data = explored(config)
    update = WorldModelUpdate(agent.perception, agent.world_model, agent.inverse, data, config.losses, config.learn)
    seed, batch, window = 5, config.learn.batch, config.learn.window
    loss, terms = update.loss(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    episode = torch.randint(data.episodes, (batch,), generator=generator)
    begin = int(torch.randint(data.length + 2 - window, (1,), generator=generator))

    space = agent.spec.actions
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    model, square = agent.world_model, lambda a, b: float((a - b).detach().square().double().mean())
    states = [agent.perception.encode(data.observe(episode, torch.tensor(begin + t))) for t in range(window)]
    found = {k: [] for k in ("prediction", "proprio", "inverse", "temporal")}
    imagined = states[0]
    for t in range(window - 1):
        action = data.actions[episode, begin + t]
        imagined = model.predict(imagined if multi_step else states[t], action)
        found["prediction"].append(square(imagined.latent, states[t + 1].latent))
        found["proprio"].append(square(imagined.proprio, states[t + 1].proprio))
        found["temporal"].append(square(states[t].latent, states[t + 1].latent))
        wanted = (2 * action - low - high) / (high - low)
        found["inverse"].append(square(agent.inverse(states[t], states[t + 1]), wanted.flatten(1)))
    expected = {k: np.mean(v) for k, v in found.items()}
    if not states[0].proprio.shape[-1]:
        del expected["proprio"]
    latents = torch.stack([s.latent for s in states], 1)
    expected["within_episode"] = losses.within_episode(latents, 0.1).item()
    x = latents.flatten(0, 1)
    if agent.perception.map_shape is not None:
        x = x.unflatten(-1, (-1, agent.perception.map_shape[0]))
    expected |= {"variance": losses.variance(x).item(), "covariance": losses.covariance(x).item()}
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4, abs=1e-7), name
    assert loss.item() == pytest.approx(sum(getattr(weights, k) * v for k, v in expected.items()), rel=1e-4)


def test_a_weight_of_zero_removes_a_term():
    config = tiny()
    assert set(losses.anticollapse(draw(4, 3, 12), losses.Config(variance=0), None)) == {"covariance"}
    assert set(losses.anticollapse(draw(4, 3, 12), losses.Config(covariance=0), (3, 2, 2))) == {"variance"}
    assert set(losses.anticollapse(draw(4, 3, 12), losses.Config(anticollapse="sigreg"), None)) == {"sigreg"}
    assert config.losses.within_episode == 0
