# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Small nets and feature maps that several modules are built from.

Shapes: B batch, C F F feature map, S numbers.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

MapShape = tuple[int, int, int]
"""(C, rows, columns) of a spatial latent."""


def device_of(module: object) -> torch.device:
    """Where the weights of a module live; the CPU for what has none."""
    if isinstance(module, nn.Module):
        for held in (module.parameters(), module.buffers()):
            for tensor in held:
                return tensor.device
    return torch.device("cpu")


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers with SiLU between them: sizes[0] -> ... -> sizes[-1]."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def flatten_map(x: Tensor) -> Tensor:
    """(B, C, F, F) -> (B, F*F*C). Channels last is how the convolutions hold their data, so nothing is copied."""
    return x.permute(0, 2, 3, 1).flatten(1)


def unflatten_map(x: Tensor, shape: MapShape) -> Tensor:
    """The inverse of `flatten_map`: (B, F*F*C) -> (B, C, F, F), a view in the memory format that is fastest."""
    channels, rows, columns = shape
    return x.unflatten(-1, (rows, columns, channels)).permute(0, 3, 1, 2)


def fourier_features(x: Tensor, octaves: int) -> Tensor:
    """(..., S) in [-1, 1] -> (..., S * (1 + 2 * octaves)): x beside sin and cos of pi x, 2 pi x, 4 pi x, ...

    What changes within a small part of a range can then be told apart (arXiv 2006.10739).
    """
    waves = [2**k * torch.pi * x for k in range(octaves)]
    return torch.cat([x, *(w.sin() for w in waves), *(w.cos() for w in waves)], -1)
