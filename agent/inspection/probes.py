"""Linear probes: what can be read out of a state.

Shapes: N states, D latent, I proprio, F factors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agent.interaction.replay import Replay
from agent.learning.records import encode_at
from modules.types import Perception, State


def ridge(x: Tensor, y: Tensor, strength: float = 1e-4) -> Tensor:
    """Weights (D + 1, F) of the linear probe y ~ [x, 1]: x (N, D), y (N, F)."""
    x = torch.cat([x, x.new_ones(len(x), 1)], 1).double()
    if x.shape[1] > 2 * len(x):  # the same weights from a matrix of samples, far smaller than one of features
        kernel = x @ x.T
        kernel += strength * x.square().sum(0).mean() * torch.eye(len(x), dtype=x.dtype, device=x.device)
        return (x.T @ torch.linalg.solve(kernel, y.double())).float()
    gram = x.T @ x
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype, device=x.device)
    return torch.linalg.solve(gram, x.T @ y.double()).float()


def read(weights: Tensor, x: Tensor) -> Tensor:
    """Apply a probe: x (..., D) -> (..., F)."""
    return x @ weights[:-1] + weights[-1]


def encode_some(perception: Perception, replay: Replay, episodes: Tensor, moments: Tensor) -> State:
    """States at (episode, moment), (N,) each, encoded in pieces."""
    return State.cat(
        [
            encode_at(perception, replay, episodes[i : i + 256], moments[i : i + 256])[0]
            for i in range(0, len(episodes), 256)
        ]
    )


def features(state: State) -> Tensor:
    """What a probe may read: (..., D + I)."""
    return torch.cat([state.latent, state.proprio], -1)


@torch.no_grad()
def position_probe(perception: Perception, data: Replay, seed: int = 0, count: int = 2000) -> Tensor:
    """A linear probe from states to positions (D + I + 1, 2), for pictures."""
    assert data.positions is not None
    generator = torch.Generator().manual_seed(seed)
    episodes = torch.randint(data.episodes, (count,), generator=generator)
    moments = torch.randint(data.length + 1, (count,), generator=generator)
    x = features(encode_some(perception, data, episodes, moments))
    return ridge(x, torch.from_numpy(data.positions[episodes.numpy(), moments.numpy()]).float().to(x.device))


def held_out_r2(x: Tensor, y: Tensor, train: int) -> Tensor:
    """Held-out R2 of a linear probe per column of y."""
    guess = read(ridge(x[:train], y[:train]), x[train:])
    rest = y[train:]
    return 1 - (guess - rest).square().mean(0) / rest.var(0, correction=0).clamp(min=1e-9)
