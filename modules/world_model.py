# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The world model: s[t+1] = Pred(s[t], a[t]), a joint-embedding predictive model (LeCun 2022, sections 3 and 4.4).

It predicts representations, never pictures. One step covers a block of K primitive actions, so that far futures take
few steps. Every predictor is residual: what it learns is the change.

Shapes: B batch, H steps, K primitive actions a step, A action, D latent, I proprio, C F F feature map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modules.blocks import MapShape, mlp, unflatten_map
from modules.types import Actions, Float, Imagined, State


@dataclass(frozen=True)
class Config:
    """Settings of the predictor."""

    predictor: Literal["mlp", "gru", "conv", "none"] = "mlp"
    """Residual MLP or GRU on a vector latent, residual convolutions on a spatial one; none: nothing ever changes."""
    action_block: int = 4
    """K: primitive actions in one step."""
    hidden: int = 512
    """Hidden units of the MLP predictor."""
    width: int = 32
    """Hidden channels of the convolutional predictor."""
    depth: int = 2
    """Hidden layers."""


class MLPPredictor(nn.Module):
    """Change of latent and proprio from (latent, proprio, action block)."""

    def __init__(self, config: Config, latent: int, proprio: int, action: int) -> None:
        super().__init__()
        self.net = mlp([latent + proprio + action, *[config.hidden] * config.depth, latent + proprio])
        self.split = [latent, proprio]

    def forward(self, state: State, action: Tensor) -> State:
        """State (B, ...), action (B, K*A) -> change (B, ...)."""
        latent, proprio = self.net(torch.cat([state.latent, state.proprio, action], -1)).split(self.split, -1)
        return State(latent, proprio)


class GRUPredictor(nn.Module):
    """A gated cell whose hidden state is the latent itself; proprio by a linear head on the new latent."""

    def __init__(self, config: Config, latent: int, proprio: int, action: int) -> None:
        super().__init__()
        self.inputs = nn.Sequential(nn.Linear(proprio + action, config.hidden), nn.SiLU())
        self.cell = nn.GRUCell(config.hidden, latent)
        self.proprio = nn.Linear(latent + proprio + action, proprio) if proprio else None

    def forward(self, state: State, action: Tensor) -> State:
        """State (B, ...), action (B, K*A) -> change (B, ...)."""
        new = self.cell(self.inputs(torch.cat([state.proprio, action], -1)), state.latent)
        proprio = state.proprio if self.proprio is None else self.proprio(torch.cat([new, state.proprio, action], -1))
        return State(new - state.latent, proprio)


class ConvPredictor(nn.Module):
    """Local rules: every cell of the map changes as its neighbourhood and the action say."""

    def __init__(self, config: Config, map_shape: MapShape, proprio: int, action: int) -> None:
        super().__init__()
        self.map_shape = map_shape
        channels, width = map_shape[0], config.width
        # The action is the same everywhere, so its part of the first convolution is one bias per channel.
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.condition = nn.Linear(proprio + action, width)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.depth - 1))
        self.conditions = nn.ModuleList(nn.Linear(proprio + action, width) for _ in range(config.depth - 1))
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.proprio = nn.Linear(width + proprio + action, proprio) if proprio else None

    def forward(self, state: State, action: Tensor) -> State:
        """State (B, ...), action (B, K*A) -> change (B, ...)."""
        condition = torch.cat([state.proprio, action], -1)
        x = unflatten_map(state.latent, self.map_shape)
        x = nn.functional.silu(self.first(x) + self.condition(condition)[:, :, None, None])
        for layer, bias in zip(self.middle, self.conditions, strict=True):
            x = nn.functional.silu(layer(x) + bias(condition)[:, :, None, None])
        change = self.last(x).permute(0, 2, 3, 1).flatten(1)
        proprio = state.proprio
        if self.proprio is not None:
            proprio = self.proprio(torch.cat([x.mean((2, 3)), condition], -1))
        return State(change, proprio)


class NoChange(nn.Module):
    """Baseline without a world model: the next state equals this one."""

    def forward(self, state: State, action: Tensor) -> State:
        """State (B, ...), action (B, K*A) -> no change (B, ...)."""
        return state.map(torch.zeros_like)


class JEPA(nn.Module):
    """Action-conditioned prediction in representation space. Deterministic: it has no latent variable."""

    z_size = 0

    def __init__(
        self, config: Config, latent: int, proprio: int, actions: Actions, map_shape: MapShape | None = None
    ) -> None:
        super().__init__()
        self.config, self.action_block, self.actions = config, config.action_block, actions
        if config.predictor != "none" and (config.predictor == "conv") != (map_shape is not None):
            raise ValueError(
                f"predictor {config.predictor!r} does not fit a {'vector' if map_shape is None else 'spatial'} latent: "
                "use --world-model.predictor conv with --perception.latent spatial, and mlp or gru with vector"
            )
        size = config.action_block * actions.size
        self.change: nn.Module
        if config.predictor == "none":
            self.change = NoChange()
        elif map_shape is not None:
            self.change = ConvPredictor(config, map_shape, proprio, size)
        else:
            self.change = {"mlp": MLPPredictor, "gru": GRUPredictor}[config.predictor](config, latent, proprio, size)

    def predict(
        self, state: State, actions: Float[Tensor, "B K A"], z: Tensor | None = None, context: Any = None
    ) -> State:
        """One step: state (B, ...), actions (B, K, A) in the environment's units -> state (B, ...)."""
        change = self.change(state, self.actions.features(actions).flatten(1))
        return State(state.latent + change.latent, state.proprio + change.proprio)

    def rollout(
        self, state: State, actions: Float[Tensor, "B H K A"], z: Tensor | None = None, context: Any = None
    ) -> Imagined:
        """Open loop: state (B, ...), actions (B, H, K, A) -> s[1..H], (B, H, ...)."""
        states: list[State] = []
        for block in actions.unbind(1):
            state = self.predict(state, block)
            states.append(state)
        return Imagined(State.stack(states, 1), actions)

    def status(self) -> dict[str, float]:
        """What the configurator may know of the world model."""
        return {"action_block": float(self.action_block)}


class InverseDynamics(nn.Module):
    """a[t] from (s[t], s[t+1]): keeps in the latent what the agent controls. Used in training only."""

    def __init__(
        self, latent: int, proprio: int, action: int, hidden: int = 256, map_shape: MapShape | None = None
    ) -> None:
        super().__init__()
        self.map_shape = map_shape
        if map_shape is None:
            self.net = nn.Sequential(nn.Linear(2 * (latent + proprio), hidden), nn.SiLU(), nn.Linear(hidden, action))
        else:
            # Displacement is a local matter: compare the two maps cell by cell, then pool.
            width = 32
            self.net = nn.Sequential(
                nn.Conv2d(2 * map_shape[0], width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 1),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(width, action),
            )

    def forward(self, before: State, after: State) -> Tensor:
        """Two states (B, ...) -> scaled action block (B, K*A)."""
        if self.map_shape is None:
            return self.net(torch.cat([before.latent, before.proprio, after.latent, after.proprio], -1))
        channels, rows, columns = self.map_shape
        maps = [s.latent.unflatten(-1, (rows, columns, channels)) for s in (before, after)]
        return self.net(torch.cat(maps, -1).permute(0, 3, 1, 2))


def prediction_error(imagined: State, seen: State) -> Float[Tensor, "*B"]:
    """(B,) mean squared difference between what was predicted and what came: the energy of a step."""
    error = (imagined.latent - seen.latent).square().mean(-1)
    if seen.proprio.shape[-1]:
        error = error + (imagined.proprio - seen.proprio).square().mean(-1)
    return error
