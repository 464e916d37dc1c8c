# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Heads: what critic, policy and probes read of a state, and of a goal.

Shapes: D latent, I proprio, C F F feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.blocks import MapShape, flatten_map, fourier_features
from modules.types import State


class StateEmbedding(nn.Module):
    """A state as one vector of `size`, for heads that need the whole scene at once; each head owns its own.

    A spatial latent goes through one strided convolution, then all places at once through one linear layer.
    """

    def __init__(self, latent: int, proprio: int, map_shape: MapShape | None, size: int, width: int = 32) -> None:
        super().__init__()
        self.map_shape = map_shape
        seen = latent
        if map_shape is not None:
            channels, rows, columns = map_shape
            self.look = nn.Conv2d(channels, width, 3, stride=2, padding=1)
            seen = width * ((rows + 1) // 2) * ((columns + 1) // 2)
        self.head = nn.Linear(seen + proprio, size)

    def forward(self, state: State) -> Tensor:
        """State (..., D), (..., I) -> (..., size)."""
        seen = state.latent
        if self.map_shape is not None:
            channels, rows, columns = self.map_shape
            cells = seen.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)
            seen = flatten_map(nn.functional.silu(self.look(cells))).unflatten(0, state.batch_shape)
        return self.head(torch.cat([seen, state.proprio], -1) if state.proprio.shape[-1] else seen)


class ProprioEmbedding(nn.Module):
    """The same for a goal that is given in proprio: nothing else of its state is read."""

    def __init__(self, index: tuple[int, ...], size: int, octaves: int = 0) -> None:
        super().__init__()
        self.index, self.octaves = list(index), octaves
        self.head = nn.Linear(len(index) * (1 + 2 * octaves), size)

    def forward(self, goal: State) -> Tensor:
        """State (..., I) -> (..., size)."""
        return self.head(fourier_features(goal.proprio[..., self.index], self.octaves))
