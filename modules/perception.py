# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false
"""Perception: s[0] = Enc(x). Pixels, sensors or both become a State (LeCun 2022, section 3, "Perception").

Two shapes of latent stand behind the same Protocol: `vector` (one vector for the whole scene) and `spatial` (a feature
map, flattened, in which what is local in the picture stays local). Proprio is copied from the sensors, scaled, and has
no parameters, so that a hard-wired cost keeps its meaning while the latent drifts in training.

Where one percept does not tell all (a velocity that no sensor gives), a perception has a carry from moment to moment
(Protocol `types.Perception`). `Encoder` has none; `RecurrentEncoder` puts a GRU behind it. `compose` chooses.

Shapes: B batch, E episodes, T time, C H W channels/rows/columns, F feature map side, D latent, S sensors, I proprio,
K primitive actions of a block, A numbers of one of them, R carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modules.blocks import flatten_map, fourier_features, mlp
from modules.types import Actions, Observation, ObservationSpec, Perception, State

CONTEXT = 16
"""Observations before a window with which the recurrent encoder is trained. Its carry has no limit: this is how far
back gradients reach, four times the usual window of four states."""


@dataclass(frozen=True)
class Config:
    """Settings of the encoder."""

    latent: Literal["vector", "spatial", "raw"] = "vector"
    """Shape of the latent: one vector, or a feature map (needs pixels). raw: no encoder is learned; the latent is the
    scaled sensors, or the pixels averaged over the cells of the map."""
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
    """Octaves of sines and cosines of the sensors that the encoder also sees, so that it can resolve what changes
    within a small part of their range, at a wall for instance (arXiv 2006.10739)."""
    carry: Literal["none", "gru"] = "none"
    """What passes from moment to moment: nothing, or the state of a GRU that sees percepts and executed action blocks,
    for environments in which one percept does not tell all (needs a vector latent, half of which is then the percept's
    and half its history's). A goal has no history: with gru, goals compared in the latent are weak, in proprio not."""
    carry_size: int = 128
    """Units of the GRU."""


class Encoder(nn.Module):
    """Convolutions for pixels, an MLP for sensors, both at once when an environment gives both. It has no carry."""

    context = 0

    sensor_offset: Tensor
    sensor_scale: Tensor
    proprio_index: Tensor
    proprio_offset: Tensor
    proprio_scale: Tensor

    def __init__(self, config: Config, spec: ObservationSpec) -> None:
        super().__init__()
        if config.latent == "spatial" and spec.pixel_shape is None:
            raise ValueError(
                "a spatial latent needs pixels, and this environment has none: use --perception.latent vector"
            )
        self.config, self.spec = config, spec
        self.proprio_size = len(spec.proprio_index)
        """I."""
        low, high = torch.tensor(spec.sensor_low), torch.tensor(spec.sensor_high)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self.register_buffer("sensor_offset", torch.where(bounded, (low + high) / 2, torch.zeros_like(low)))
        self.register_buffer("sensor_scale", torch.where(bounded, (high - low) / 2, torch.ones_like(low)))
        self.register_buffer("proprio_index", torch.tensor(spec.proprio_index, dtype=torch.long))
        self.register_buffer("proprio_offset", torch.tensor(spec.proprio_offset))
        self.register_buffer("proprio_scale", torch.tensor(spec.proprio_scale))

        kept = [i for i in range(len(spec.sensor_low)) if i not in spec.unseen]
        self.sensors_seen = slice(None) if not spec.unseen else kept
        """Of all sensors, those that are encoded; the others are proprio and nothing else."""
        if spec.pixel_shape is None and not kept:
            raise ValueError("perception needs pixels or sensors, and this environment has neither")

        self.map_shape: tuple[int, int, int] | None = None
        """(C, F, F) of a spatial latent."""
        features = 0
        cells = None if spec.pixel_shape is None else self._cells(config, spec.pixel_shape)
        if config.latent == "raw":
            self.map_shape = cells
            self.latent_size = math.prod(cells or (len(kept),))
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
        sensors = len(kept)
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

    def encode(self, observation: Observation) -> State:
        """Observation (B, ...) -> State (B, ...)."""
        if self.config.latent == "raw":
            return self._raw(observation)
        features, pixel_map = [], None
        if observation.pixels is not None and self.spec.pixel_shape is not None:
            # The centred scale keeps sparse bright things (a dot on black) as salient as broad ones.
            # Bytes are re-ordered before they become floats: a quarter of the memory traffic, the same values.
            x = observation.pixels.contiguous(memory_format=torch.channels_last).div(127.5)
            pixel_map = self.pixels(x.to(self.sensor_offset.dtype))
            features.append(flatten_map(pixel_map))
        proprio = self._proprio(observation)
        if observation.sensors is not None and hasattr(self, "sensors"):
            scaled = self._scaled(observation.sensors)
            sensed = self.sensors(fourier_features(scaled, self.config.fourier_features))
            if self.map_shape is not None and pixel_map is not None:
                return State(flatten_map(pixel_map + sensed[:, :, None, None]), proprio)
            features.append(sensed)
        latent = torch.cat(features, 1)
        return State(latent if self.map_shape is not None else self.head(latent), proprio)

    def initial(self, episodes: int) -> None:
        """No carry."""

    def observe(
        self, carry: None, observation: Observation, last_block: Tensor | None, is_first: Tensor
    ) -> tuple[None, State]:
        """Encode this moment alone."""
        return None, self.encode(observation)

    def encode_window(self, observations: Observation, actions: Tensor | None = None) -> State:
        """Observations (B, T, ...) -> State (B, T, ...), all moments at once."""
        first = observations.pixels if observations.pixels is not None else observations.sensors
        assert first is not None
        state = self.encode(observations.map(lambda x: x.flatten(0, 1)))
        return state.map(lambda x: x.unflatten(0, first.shape[:2]))

    def _raw(self, observation: Observation) -> State:
        if self.map_shape is not None and observation.pixels is not None:
            x = observation.pixels.div(127.5).to(self.sensor_offset.dtype)
            cells = nn.functional.adaptive_avg_pool2d(x, self.map_shape[1:])
            return State(flatten_map(cells), self._proprio(observation))
        assert observation.sensors is not None
        return State(self._scaled(observation.sensors), self._proprio(observation))

    def _scaled(self, sensors: Tensor) -> Tensor:
        """(B, S) -> those that are encoded, from about -1 to 1."""
        return ((sensors - self.sensor_offset) / self.sensor_scale)[:, self.sensors_seen]

    def _proprio(self, observation: Observation) -> Tensor:
        if observation.sensors is None or not self.proprio_size:
            return torch.zeros(observation.batch, 0, device=self.proprio_scale.device)
        return (observation.sensors[:, self.proprio_index] - self.proprio_offset) / self.proprio_scale

    def status(self) -> dict[str, float]:
        """What the configurator may know of perception."""
        return {"latent_size": float(self.latent_size), "proprio": float(self.proprio_size)}


class RecurrentEncoder(nn.Module):
    """An `Encoder` with a GRU behind it: h' = GRU([e, u], h), latent = [e, head([e, h'])].

    e are the encoder's features of the percept, u the K * A numbers of the last block as `types.Actions.features` gives
    them, zero at the first moment. Proprio is copied, as by the encoder.

    The first half of the latent is e itself, which no history can change. Without it the self-supervised losses have a
    shortcut: a latent that only repeats the last actions is varied, and the actions predict it perfectly, while nothing
    of the environment is in it. To predict e one needs what the percept hides.

    A goal is an observation without history, encoded as a first moment. The second half of its latent lacks what only a
    history tells, so goals in the latent are weak here; goals in proprio are not.
    """

    context = CONTEXT

    def __init__(self, config: Config, spec: ObservationSpec, actions: Actions, block: int) -> None:
        """block: K."""
        super().__init__()
        if config.latent != "vector":
            raise ValueError(
                f"a carry needs a vector latent, not {config.latent}: use --perception.latent vector (with "
                "--world-model.predictor mlp or gru), or --perception.carry none"
            )
        half = config.size // 2
        if not half:
            raise ValueError("with a carry the latent has two halves: use --perception.size 2 or more")
        self.encoder, self.actions, self.block = Encoder(replace(config, size=half), spec), actions, block
        self.map_shape: tuple[int, int, int] | None = None
        self.latent_size, self.proprio_size = config.size, self.encoder.proprio_size
        self.cell = nn.GRUCell(half + block * actions.size, config.carry_size)
        self.head = mlp([half + config.carry_size, config.hidden, config.size - half])

    def initial(self, episodes: int) -> Tensor:
        """(E, R) zeros."""
        return self.cell.weight_hh.new_zeros(episodes, self.cell.hidden_size)

    def observe(
        self, carry: Tensor, observation: Observation, last_block: Tensor | None, is_first: Tensor
    ) -> tuple[Tensor, State]:
        """One moment: carry (E, R), observation (E, ...), block (E, K, A), is_first (E,) -> carry, State (E, ...)."""
        percept, begins = self.encoder.encode(observation), is_first[:, None]
        done = self._done(percept.latent, last_block).masked_fill(begins, 0.0)
        carry = self.cell(torch.cat([percept.latent, done], -1), carry.masked_fill(begins, 0.0))
        return carry, self._state(percept, carry)

    def encode_window(self, observations: Observation, actions: Tensor | None = None) -> State:
        """Observations (B, T, ...), blocks between them (B, T - 1, K, A) -> State (B, T, ...), from an empty carry.

        All percepts are encoded at once; only the GRU goes from moment to moment.

        Raises:
            ValueError: there are no actions, and there is more than one moment.
        """
        percept = self.encoder.encode_window(observations)
        batch, length = percept.batch_shape
        if length > 1 and actions is None:
            raise ValueError(f"a window of {length} moments needs the {length - 1} action blocks between them")
        seen = percept.latent
        first = seen.new_zeros(batch, 1, self.block * self.actions.size)
        done = first if actions is None else torch.cat([first, self._done(seen, actions)], 1)
        carry, carries = self.initial(batch), list[Tensor]()
        for now in torch.cat([seen, done], -1).unbind(1):
            carry = self.cell(now, carry)
            carries.append(carry)
        return self._state(percept, torch.stack(carries, 1))

    def _state(self, percept: State, carry: Tensor) -> State:
        """Features of percepts (..., D / 2), carries (..., R) -> State (..., D)."""
        history = self.head(torch.cat([percept.latent, carry], -1))
        return State(torch.cat([percept.latent, history], -1), percept.proprio)

    def _done(self, like: Tensor, block: Tensor | None) -> Tensor:
        """Blocks (..., K, A) as features (..., K * A); zero where there is none."""
        if block is None:
            return like.new_zeros(len(like), self.block * self.actions.size)
        return self.actions.features(block).flatten(-2)

    def status(self) -> dict[str, float]:
        """What the configurator may know of perception."""
        return {"latent_size": float(self.latent_size), "proprio": float(self.proprio_size)}


def compose(config: Config, spec: ObservationSpec, actions: Actions, block: int) -> Encoder | RecurrentEncoder:
    """The perception that a configuration asks for; block: K primitive actions.

    Raises:
        ValueError: the configuration does not fit the environment.
    """
    return Encoder(config, spec) if config.carry == "none" else RecurrentEncoder(config, spec, actions, block)


def select_rows(mask: Tensor, new: Any, old: Any) -> Any:
    """The rows of a carry `new` where mask (E,) bool is true, those of `old` elsewhere.

    A carry is None, a tensor (E, ...), or a tuple or dict of carries. `old` may be None, as before the first moment,
    where every row is new.
    """
    if mask.all():
        return new
    if isinstance(new, Tensor):
        return torch.where(mask.to(new.device).view(-1, *[1] * (new.ndim - 1)), new, old)
    if isinstance(new, tuple):
        return tuple(select_rows(mask, a, b) for a, b in zip(new, old, strict=True))
    if isinstance(new, dict):
        return {name: select_rows(mask, a, old[name]) for name, a in new.items()}
    if new is None:
        return None
    raise TypeError(f"a carry is None, a tensor, or a tuple or dict of such, not {type(new).__name__}")


def unroll(perception: Perception, observations: Observation, actions: Tensor | None) -> State:
    """`encode_window` for any perception with a carry: observe moment by moment from an empty carry.

    observations (B, T, ...), actions (B, T - 1, K, A) -> State (B, T, ...).
    """
    first = observations.pixels if observations.pixels is not None else observations.sensors
    assert first is not None
    batch, length = first.shape[:2]
    carry, states = perception.initial(batch), []
    for t in range(length):
        last = None if t == 0 or actions is None else actions[:, t - 1]
        is_first = torch.full((batch,), t == 0, device=first.device)
        carry, state = perception.observe(carry, observations.map(lambda x, t=t: x[:, t]), last, is_first)
        states.append(state)
    return State.stack(states, 1)
