# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Decoder: state -> what the senses gave, trained afterwards, for people to look at.

It never takes part in training perception or world model: it reads detached states.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.blocks import MapShape, unflatten_map
from modules.types import Observation, State


@dataclass(frozen=True)
class Config:
    """Settings of the decoder."""

    hidden: int = 256
    """Hidden units."""
    width: int = 32
    """Hidden channels of the convolutions."""


class Decoder(nn.Module):
    """Pixels by patches that are added up where they overlap; sensors by an MLP."""

    def __init__(
        self,
        config: Config,
        latent: int,
        proprio: int,
        map_shape: MapShape | None,
        pixel_shape: tuple[int, int, int] | None,
        sensors: int,
    ) -> None:
        super().__init__()
        self.pixel_shape = pixel_shape
        if pixel_shape is not None:
            channels, height, width = pixel_shape
            self.cells = map_shape or (config.width, 9, 9)
            rows, columns = self.cells[1:]
            self.spread = None
            if map_shape is None:
                size = self.cells[0] * rows * columns
                self.spread = nn.Sequential(nn.Linear(latent, config.hidden), nn.SiLU(), nn.Linear(config.hidden, size))
            # Patches of this stride cover the picture; the rest of the side is made up by the kernel.
            stride = (height // rows, width // columns)
            kernel = (height - stride[0] * (rows - 1), width - stride[1] * (columns - 1))
            self.paint = nn.Sequential(
                nn.Conv2d(self.cells[0], 2 * config.width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(2 * config.width, 2 * config.width, 1),
                nn.SiLU(),
                nn.ConvTranspose2d(2 * config.width, channels, kernel, stride),
            )
        self.sense = None
        if sensors:
            layers = (nn.Linear(latent + proprio, config.hidden), nn.SiLU(), nn.Linear(config.hidden, sensors))
            self.sense = nn.Sequential(*layers)

    def forward(self, state: State) -> tuple[Tensor | None, Tensor | None]:
        """State (B, ...) -> picture logits (B, C, H, W) and sensors (B, S), each None where the world has none."""
        pixels = sensors = None
        if self.pixel_shape is not None:
            latent = state.latent if self.spread is None else self.spread(state.latent)
            pixels = self.paint(unflatten_map(latent, self.cells))
        if self.sense is not None:
            sensors = self.sense(torch.cat([state.latent, state.proprio], -1))
        return pixels, sensors

    @torch.no_grad()
    def picture(self, state: State) -> Observation:
        """State (B, ...) -> Observation with uint8 pixels and float sensors."""
        pixels, sensors = self(state)
        if pixels is not None:
            pixels = (pixels.sigmoid() * 255).round().to(torch.uint8)
        return Observation(pixels, sensors)


def decoder_loss(decoder: Decoder, state: State, observation: Observation) -> Tensor:
    """Cross-entropy of pixels in [0, 1] and squared error of sensors, from detached states (B, ...)."""
    pixels, sensors = decoder(state.detach())
    loss = state.latent.new_zeros(())
    if pixels is not None and observation.pixels is not None:
        truth = observation.pixels.to(pixels.dtype) / 255
        # Sparse bright things weigh as much as the background, or the dot would never be painted; so does what is
        # beside them, or it would be painted with a halo.
        weight = 1 + 20 * nn.functional.max_pool2d(truth, 5, stride=1, padding=2)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(pixels, truth, weight)
    if sensors is not None and observation.sensors is not None:
        loss = loss + (sensors - observation.sensors).square().mean()
    return loss
