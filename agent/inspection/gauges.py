"""Gauges: has the representation collapsed, what does it hold, and does the model know what walls do?

Batch statistics alone cannot see an encoder that keeps only the static scene, so every factor of the world is probed,
beside the same probe on an untrained encoder (the first line of a run's log), and the model is asked what happens when
the agent pushes against something. Gauges read privileged positions; learning never does.

Shapes: M episodes, T states, D latent, F factors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.inspection.probes import encode_some, features, held_out_r2, read, ridge
from agent.interaction.environment import Environment
from agent.interaction.replay import Replay

HORIZON = 16


@torch.no_grad()
def measure(agent: Agent, data: Replay, environment: Environment, seed: int = 0, count: int = 1500) -> dict[str, float]:
    """All gauges by scalar name; the last quarter of the episodes sampled is held out of every probe."""
    generator = torch.Generator().manual_seed(seed)
    episodes = torch.randint(data.episodes, (count,), generator=generator)
    moments = torch.randint(data.length, (count,), generator=generator)
    state = encode_some(agent.perception, data, episodes, moments)
    after = encode_some(agent.perception, data, episodes, moments + 1)
    actions = data.actions[episodes, moments].to(agent.device)
    out: dict[str, float] = {}

    windows = min(64, data.episodes)
    whole = [torch.arange(windows).repeat_interleave(data.length + 1), torch.arange(data.length + 1).repeat(windows)]
    paths = encode_some(agent.perception, data, *whole).map(lambda x: x.unflatten(0, (windows, -1)))
    out |= {f"collapse/{k}": float(v) for k, v in collapse(paths.latent[:, :8]).items()}

    train = count * 3 // 4
    model = agent.world_model
    wanted = model.actions.features(actions).mean(1)
    pairs = torch.cat([features(state), features(after)], 1)
    out["collapse/inverse_r2"] = held_out_r2(pairs, wanted, train).mean().item()

    # Does the prediction listen to the action? Its answer to another action, in units of the true step.
    swapped = model.predict(state, actions.flip(0)).latent - model.predict(state, actions).latent
    out["collapse/swapped_action"] = float(
        swapped.norm(dim=-1).mean() / (after.latent - state.latent).norm(dim=-1).mean()
    )

    if data.factors is not None:
        index = episodes.numpy(), moments.numpy()
        truth = torch.from_numpy(np.stack([f[index] for f in data.factors.values()], 1)).float().to(agent.device)
        for name, value in zip(data.factors, held_out_r2(features(state), truth, train), strict=True):
            out[f"probe/{name}_r2"] = float(value)

    horizon = min(HORIZON, data.length)
    imagined = model.rollout(paths[:, 0], data.actions[:windows, :horizon].to(agent.device)).states.latent
    shuffled = model.rollout(paths[:, 0], data.actions[:windows, :horizon].flip(0).to(agent.device)).states.latent
    true = paths.latent[:, 1 : horizon + 1]
    errors = {
        "latent_mse": (imagined - true).square().mean((0, 2)),
        "persistence": (paths.latent[:, :1] - true).square().mean((0, 2)),
        "shuffled": (shuffled - true).square().mean((0, 2)),
    }
    for name, error in errors.items():
        for h in sorted({1, 4, 8, horizon} & set(range(1, horizon + 1))):
            out[f"imagination/{name}/h{h:02d}"] = float(error[h - 1])
    if environment.truth is not None and environment.view is not None and data.positions is not None:
        out |= pushing(agent, data, environment, features(state), episodes, moments)
    return out


@torch.no_grad()
def pushing(
    agent: Agent, data: Replay, environment: Environment, x: Tensor, episodes: Tensor, moments: Tensor
) -> dict[str, float]:
    """Imagined against true position after two blocks at full strength: where the way is free, and where it is not.

    A model that walks through walls plans through walls; this gauge sees it long before success does.
    """
    simulator, view = environment.truth, environment.view
    assert simulator is not None and view is not None and data.positions is not None and data.states is not None
    index = episodes.numpy(), moments.numpy()
    probe = ridge(x, torch.from_numpy(data.positions[index]).float().to(x.device))
    start = data.states[index][:400]
    space = agent.actor.actions
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((len(start), space.size))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    block = agent.world_model.action_block
    full = space.scale(space.boundary(torch.from_numpy(direction))).numpy().astype(np.float32)
    actions = np.repeat(full[:, None], 2 * block, 1)
    states = start
    for k in range(2 * block):
        states = simulator.step(states, actions[:, k], None)
    state = encode_some(agent.perception, data, episodes[:400], moments[:400])
    chunks = torch.from_numpy(actions).to(agent.device).unflatten(1, (2, block))
    seen = read(probe, features(agent.world_model.rollout(state, chunks).states[:, -1])).cpu().numpy()
    true = view.positions(states)
    moved = np.linalg.norm(true - view.positions(start), axis=1)
    error = np.linalg.norm(seen - true, axis=1)
    blocked = moved < 0.6 * np.quantile(moved, 0.9)
    out = {}
    for name, chosen in (("blocked", blocked), ("free", ~blocked)):
        if chosen.any():
            out[f"imagination/position_error/{name}"] = float(error[chosen].mean())
    return out


def collapse(latents_BTD: Tensor, eps: float = 1e-8) -> dict[str, Tensor]:
    """Collapse gauges: per-dimension std, effective rank (exp of the spectral entropy), within-episode std."""
    x = latents_BTD.detach().flatten(0, 1).float()
    std = x.std(0)
    spectrum = torch.linalg.svdvals(x - x.mean(0)) if x.shape[1] <= 4096 else std
    p = spectrum / (spectrum.sum() + eps)
    return {
        "feature_std": std.mean(),
        "feature_std_min": std.min(),
        "effective_rank": torch.exp(-(p * (p + eps).log()).sum()),
        "within_episode_std": latents_BTD.detach().std(1).mean(),
    }
