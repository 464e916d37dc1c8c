"""Perception: s[0] = Enc(x). Pixels, sensors or both become a State (LeCun 2022, section 3, "Perception").

Two shapes of latent stand behind the same Protocol: `vector` (one vector for the whole scene) and `spatial` (a feature
map, flattened, in which what is local in the picture stays local). Interoceptive proprio are copied from the sensors,
scaled, and have no parameters, so that a hard-wired cost keeps its meaning while the latent drifts in training.

Shapes: B batch, C H W channels/rows/columns, F feature map side, D latent, S sensors, I proprio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from modules.types import Observation, State


@dataclass(frozen=True)
class Config:
    """Settings of the encoder."""

    latent: Literal["vector", "spatial", "raw"] = "vector"
    """Shape of the latent: one vector, or a feature map (needs pixels). raw: nothing is learned, the latent is what the
    senses give: sensors scaled, pixels averaged over the cells of the map."""
    size: int = 128
    """D of a vector latent."""
    channels: int = 16
    """Channels of a spatial latent."""
    width: int = 32
    """Hidden channels of the convolutions."""
    hidden: int = 256
    """Hidden units of the sensor MLP and of a vector latent's head."""
    patch: int = 9
    """Side of the first convolution's patches, in pixels."""
    stride: int = 7
    """Distance between patches, in pixels."""
    fourier_features: int = 0
    """Sensors are also seen as sines and cosines of this many octaves, so that what changes within a small part of
    their range (at a wall, round a corner) can be told apart (Fourier features, arXiv 2006.10739)."""


@dataclass(frozen=True)
class Senses:
    """What the world offers to perceive: sizes, and which sensors are interoceptive."""

    pixel_shape: tuple[int, int, int] | None = None
    sensor_low: tuple[float, ...] = ()
    sensor_high: tuple[float, ...] = ()
    proprio_names: tuple[str, ...] = ()
    proprio_index: tuple[int, ...] = ()
    proprio_offset: tuple[float, ...] = ()
    proprio_scale: tuple[float, ...] = ()
    goal_proprio: tuple[int, ...] = ()
    """Positions, among the proprio, of those in which a goal may be given."""


def flatten_map(x: Tensor) -> Tensor:
    """(B, C, F, F) -> (B, F*F*C). Channels last is how the convolutions hold their data, so nothing is copied."""
    return x.permute(0, 2, 3, 1).flatten(1)


def fourier_features(x: Tensor, octaves: int) -> Tensor:
    """(..., S) in [-1, 1] -> (..., S * (1 + 2 * octaves)): x beside sin and cos of pi x, 2 pi x, 4 pi x, ..."""
    waves = [2**k * torch.pi * x for k in range(octaves)]
    return torch.cat([x, *(w.sin() for w in waves), *(w.cos() for w in waves)], -1)


class Encoder(nn.Module):
    """Convolutions for pixels, an MLP for sensors, both at once when a world gives both."""

    sensor_offset: Tensor
    sensor_scale: Tensor
    proprio_index: Tensor
    proprio_offset: Tensor
    proprio_scale: Tensor

    def __init__(self, config: Config, senses: Senses) -> None:
        super().__init__()
        if senses.pixel_shape is None and not senses.sensor_low:
            raise ValueError("perception needs pixels or sensors, and this world gives neither: use a Box observation")
        if config.latent == "spatial" and senses.pixel_shape is None:
            raise ValueError("a spatial latent needs pixels, and this world has none: use --perception.latent vector")
        self.config, self.senses = config, senses
        low, high = torch.tensor(senses.sensor_low), torch.tensor(senses.sensor_high)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self.register_buffer("sensor_offset", torch.where(bounded, (low + high) / 2, torch.zeros_like(low)))
        self.register_buffer("sensor_scale", torch.where(bounded, (high - low) / 2, torch.ones_like(low)))
        self.register_buffer("proprio_index", torch.tensor(senses.proprio_index, dtype=torch.long))
        self.register_buffer("proprio_offset", torch.tensor(senses.proprio_offset))
        self.register_buffer("proprio_scale", torch.tensor(senses.proprio_scale))

        self.map_shape: tuple[int, int, int] | None = None
        """(C, F, F) of a spatial latent."""
        features = 0
        cells = None if senses.pixel_shape is None else self._cells(config, senses.pixel_shape)
        if config.latent == "raw":
            self.map_shape = cells
            self.latent_size = math.prod(cells or (len(senses.sensor_low),))
            return
        if cells is not None:
            channels, rows, columns = cells
            out = config.channels if config.latent == "spatial" else config.width
            # Non-overlapping (or nearly) patches first: a convolution at full resolution would cost more than all else.
            self.pixels = nn.Sequential(
                nn.Conv2d(channels, 2 * config.width, config.patch, config.stride),
                nn.SiLU(),
                nn.Conv2d(2 * config.width, config.width, 1),
                nn.SiLU(),
                nn.Conv2d(config.width, out, 3, padding=1),
            )
            self.map_shape = (out, rows, columns)  # flattened with the channels last, see `flatten_map`
            features += out * rows * columns
        sensors = len(senses.sensor_low)
        if sensors:
            out = self.map_shape[0] if config.latent == "spatial" and self.map_shape else config.hidden
            seen = sensors * (1 + 2 * config.fourier_features)
            self.sensors = nn.Sequential(nn.Linear(seen, config.hidden), nn.SiLU(), nn.Linear(config.hidden, out))
            features += out
        if config.latent == "vector":
            self.head = nn.Sequential(
                nn.SiLU(), nn.Linear(features, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.size)
            )
            self.map_shape = None
        self.latent_size = config.size if self.map_shape is None else math.prod(self.map_shape)

    @staticmethod
    def _cells(config: Config, pixel_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Channels of the picture, and rows and columns of its patches."""
        channels, height, width = pixel_shape
        rows, columns = ((side - config.patch) // config.stride + 1 for side in (height, width))
        if rows < 1 or columns < 1:
            raise ValueError(f"pictures of {height}x{width} are smaller than one patch of {config.patch} pixels")
        return channels, rows, columns

    @property
    def proprio_size(self) -> int:
        """I."""
        return len(self.senses.proprio_index)

    def encode(self, observation: Observation) -> State:
        """Observation (B, ...) -> State (B, ...)."""
        if self.config.latent == "raw":
            return self._raw(observation)
        features, pixel_map = [], None
        if observation.pixels is not None and self.senses.pixel_shape is not None:
            # The centred scale keeps sparse bright things (a dot on black) as salient as broad ones.
            x = observation.pixels.div(127.5).to(self.sensor_offset.dtype)
            pixel_map = self.pixels(x.contiguous(memory_format=torch.channels_last))
            features.append(flatten_map(pixel_map))
        proprio = self._proprio(observation)
        if observation.sensors is not None and self.senses.sensor_low:
            scaled = (observation.sensors - self.sensor_offset) / self.sensor_scale
            sensed = self.sensors(fourier_features(scaled, self.config.fourier_features))
            if self.map_shape is not None and pixel_map is not None:
                return State(flatten_map(pixel_map + sensed[:, :, None, None]), proprio)
            features.append(sensed)
        latent = torch.cat(features, 1)
        return State(latent if self.map_shape is not None else self.head(latent), proprio)

    def _raw(self, observation: Observation) -> State:
        if self.map_shape is not None and observation.pixels is not None:
            x = observation.pixels.div(127.5).to(self.sensor_offset.dtype)
            cells = nn.functional.adaptive_avg_pool2d(x, self.map_shape[1:])
            return State(flatten_map(cells), self._proprio(observation))
        assert observation.sensors is not None
        return State((observation.sensors - self.sensor_offset) / self.sensor_scale, self._proprio(observation))

    def _proprio(self, observation: Observation) -> Tensor:
        if observation.sensors is None or not self.proprio_size:
            return torch.zeros(observation.batch, 0, device=self.proprio_scale.device)
        return (observation.sensors[:, self.proprio_index] - self.proprio_offset) / self.proprio_scale

    def status(self) -> dict[str, float]:
        """What the configurator may know of perception."""
        return {"latent_size": float(self.latent_size), "proprio": float(self.proprio_size)}


class StateEmbedding(nn.Module):
    """A state as one vector of `size`, for heads that need the whole scene at once (critic, policy); each owns its own.

    A spatial latent goes through one strided convolution, then all places at once through one linear layer.
    """

    def __init__(
        self, latent: int, proprio: int, map_shape: tuple[int, int, int] | None, size: int, width: int = 32
    ) -> None:
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


class LastRead(nn.Module):
    """Keeps what was read last: acting reads the same goal at every step. What is kept ends when the weights change."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.reader = reader
        self._weights = tuple(reader.parameters())
        self._last: tuple[State, int, Tensor] | None = None

    def forward(self, state: State) -> Tensor:
        """As the reader's."""
        if torch.is_grad_enabled():
            return self.reader(state)
        version = sum(w._version for w in self._weights)
        if self._last is None or self._last[0] is not state or self._last[1] != version:
            self._last = state, version, self.reader(state)
        return self._last[2]
