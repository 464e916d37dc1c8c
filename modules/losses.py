"""Self-supervised losses of the world model.

VICReg's variance and covariance (arXiv 2105.04906), PLDM's within-episode variance, temporal similarity and inverse
dynamics (arXiv 2502.14819), and SIGReg (arXiv 2511.08544), behind one function. Nothing here sees a reward, a goal or a
decoder. Losses return tensors; the logger turns them into numbers.

Shapes: B episodes, T states of a window, D latent, N samples, P places of a feature map, C its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from modules.blocks import MapShape
from modules.types import Float


@dataclass(frozen=True)
class Config:
    """Weights of the terms; 0 removes a term."""

    prediction: float = 1.0
    """Open-loop prediction error over the whole window."""
    proprio: float = 1.0
    """Prediction error of proprio."""
    anticollapse: Literal["vicreg", "sigreg"] = "vicreg"
    """Family of the batch regulariser."""
    variance: float = 16.0
    """Hinge on the standard deviation over the batch (VICReg)."""
    covariance: float = 8.0
    """Mean squared covariance between dimensions (VICReg)."""
    sigreg: float = 1.0
    """Distance of random 1-D projections from a normal distribution (SIGReg)."""
    within_episode: float = 0.0
    """Hinge on the standard deviation along time: batch statistics cannot see a latent that holds only the scene."""
    within_episode_target: float = 0.1
    """Standard deviation along time below which the hinge acts, on the mean over dimensions."""
    temporal: float = 1.0
    """Squared change between successive states: neighbours in time are neighbours in the latent."""
    inverse: float = 1.0
    """Error of the action read back from successive states."""
    multi_step: bool = True
    """Predict the whole window open loop from its first state; otherwise one step from every state."""


def variance(x: Float[Tensor, "N *P D"], eps: float = 1e-4) -> Float[Tensor, ""]:
    """Hinge mean_j max(0, 1 - sqrt(Var_n(x_nj) + eps)) over samples n. x: (N, ..., D) (VICReg eq. 1)."""
    return (1 - (x.var(0) + eps).sqrt()).clamp(min=0).mean()


def covariance(x: Float[Tensor, "N *P D"]) -> Float[Tensor, ""]:
    """Mean squared off-diagonal covariance. x: (N, D), or (N, P, D) for P places, each with its own matrix."""
    if x.dim() == 2:
        x = x.unsqueeze(1)
    n, _, d = x.shape
    x = (x - x.mean(0)).transpose(0, 1)  # P N D
    matrix = x.transpose(1, 2) @ x / (n - 1)
    off_diagonal = matrix.square().sum((1, 2)) - matrix.diagonal(dim1=1, dim2=2).square().sum(1)
    return (off_diagonal / (d * max(d - 1, 1))).mean()


def within_episode(x: Float[Tensor, "B T D"], target: float, eps: float = 1e-4) -> Float[Tensor, ""]:
    """Hinge on the mean over dimensions of the standard deviation along time. x: (B, T, D)."""
    return (target - (x.var(1) + eps).sqrt().mean(-1)).clamp(min=0).mean()


def temporal(x: Float[Tensor, "B T D"]) -> Float[Tensor, ""]:
    """Mean squared change between successive states. x: (B, T, D)."""
    return (x[:, 1:] - x[:, :-1]).square().mean()


def sigreg(
    x: Float[Tensor, "N D"], generator: torch.Generator | None = None, projections: int = 64, knots: int = 17
) -> Float[Tensor, ""]:
    """Epps-Pulley distance of random unit projections of x (N, D) to N(0, 1), integrated over [-4, 4]."""
    device = x.device if generator is None else generator.device
    directions = torch.randn(x.shape[-1], projections, generator=generator, dtype=x.dtype, device=device).to(x.device)
    projected = x @ (directions / directions.norm(dim=0))
    t = torch.linspace(-4, 4, knots, dtype=x.dtype, device=x.device)
    angles = projected[..., None] * t  # N P knots
    gauss = torch.exp(-0.5 * t.square())
    error = (angles.cos().mean(0) - gauss).square() + angles.sin().mean(0).square()
    return torch.trapezoid(error * gauss, t, dim=-1).mean() * x.shape[0] / math.sqrt(x.shape[0])


def anticollapse(
    latents_BTD: Float[Tensor, "B T D"],
    config: Config,
    map_shape: MapShape | None,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The unweighted batch terms by name. A spatial latent has statistics per place, over its channels."""
    x = latents_BTD.flatten(0, 1)
    if map_shape is not None:
        x = x.unflatten(-1, (-1, map_shape[0]))  # N P C
    if config.anticollapse == "sigreg":
        return {"sigreg": sigreg(x.flatten(0, -2)[:: max(1, x[..., 0].numel() // 4096)], generator)}
    terms: dict[str, Tensor] = {}
    if config.variance:
        terms["variance"] = variance(x)
    if config.covariance:
        terms["covariance"] = covariance(x)
    return terms
