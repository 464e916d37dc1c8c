"""A map of the latent space in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.api import Array

MAPPED, NEIGHBOURS = 500, 8  # states in the map of the latent, and how many of them each is joined to


def project(perceived: Tensor, imagined: Tensor, places: Array, paths: int) -> dict[str, Any]:
    """A map of the latent space in two dimensions, with imagined paths beside the perceived ones.

    Isomap (Tenenbaum, de Silva and Langford, Science 2000): what counts is the way from one state to another through
    states in between, so a sheet that is rolled up in many dimensions is laid out flat.

    Args:
        perceived: (M, T, D) latents at every moment.
        imagined: (M, H, D) latents imagined from moment T - H - 1 on.
        places: (M * T, 2) where the agent was, on the map.
        paths: of how many episodes the perceived and imagined paths are laid beside each other.

    Returns:
        {"points": [[u, v], ...], "places": [[x, y], ...] of the same states on the map, each from 0 to 1, "explained":
        shares of the distances along u and v, "paths": [{"perceived": [[u, v], ...], "imagined": [[u, v], ...]}, ...]}.
    """
    every = perceived.flatten(0, 1)
    some = np.random.default_rng(0).permutation(len(every))[:MAPPED]
    known = every[torch.from_numpy(some)].double().cpu()
    direct = torch.cdist(known, known)
    far = direct.kthvalue(min(NEIGHBOURS + 1, len(known)), 1).values
    way = torch.where((direct <= far[:, None]) | (direct <= far), direct, torch.inf)
    for i in range(len(way)):  # all shortest ways (Floyd and Warshall)
        way = torch.minimum(way, way[:, i : i + 1] + way[i])
    way = torch.where(way.isfinite(), way, 1.5 * way[way.isfinite()].max())  # between pieces that nothing joins
    squared = way.square()
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1, keepdim=True) + squared.mean())
    values, axes = torch.linalg.eigh(centred)
    values, axes = values.clamp(min=1e-9).flip(0), axes.flip(1)[:, :2]
    roots, explained = values[:2].sqrt(), values[:2] / values.sum()

    def seen(x: Tensor) -> list[list[float]]:
        """States (N, D) by their ways to the known ones (landmark scaling, de Silva and Tenenbaum 2004)."""
        step, near = torch.cdist(x.double().cpu(), known).topk(min(NEIGHBOURS, len(known)), largest=False)
        ways = (step[..., None] + way[near]).amin(1)
        at = -0.5 * (ways.square() - squared.mean(0)) @ (axes / roots)
        return [[float(f"{float(u):.4g}"), float(f"{float(v):.4g}")] for u, v in at]

    low, high = places.min(0), places.max(0)
    now = perceived.shape[1] - imagined.shape[1] - 1
    imagined = torch.cat([perceived[:, now : now + 1], imagined], 1)
    return {
        "points": seen(known),
        "places": [[round(float(x), 3) for x in p] for p in (places[some] - low) / np.maximum(high - low, 1e-9)],
        "explained": [round(float(x), 4) for x in explained],
        "paths": [{"perceived": seen(perceived[e, now:]), "imagined": seen(imagined[e])} for e in range(paths)],
    }
