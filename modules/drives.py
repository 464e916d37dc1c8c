# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Intrinsic drives: the hard-wired costs IC_j, functions without parameters of what is imagined (LeCun 2022, 3.2).

A new drive is one function in `DRIVES` and its name in the preset's `cost.drives`:

    DRIVES["energy"] = lambda imagined, goal, body: 1 - imagined.states.proprio[..., 3]
    cost.Config(drives=("goal", "energy"), weights={"energy": 0.5}, floors={"energy": 0.1})

Values from 0 (nothing to complain about) to 1 (as bad as can be) keep weights comparable, and the critic can learn a
head for such a drive.

The cost of a task is such a function too, over the readings of the body by name (`Readings`):

    def upright(x: Readings) -> Tensor:
        return (1 - x["cos_angle"]) / 2

    DRIVES["upright"] = task_cost(upright)

Shapes: E episodes, H imagined steps, K primitive actions a step, A action, D latent, I proprio.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from modules.types import BodySpec, Drive, Imagined, State

Measure = Callable[[Imagined, State | None, BodySpec], Tensor]
"""(imagined (..., H, D), goal that broadcasts against it or None, body) -> (..., H)."""


class Readings:
    """What the body reads in imagined states, by the sensors' names and in the environment's units.

    A task's cost looks at nothing else. Everything is differentiable.
    """

    def __init__(self, imagined: Imagined, body: BodySpec) -> None:
        self.imagined, self.body = imagined, body

    def __getitem__(self, name: str) -> Tensor:
        """(..., H). KeyError, with the nearest name, for what the body does not read."""
        names = self.body.proprio_names
        if name not in names:
            near = get_close_matches(name, names, 1)
            raise KeyError(f"no sensor {name!r}{f', did you mean {near[0]!r}?' if near else ''} (it has {list(names)})")
        i = names.index(name)
        value = self.imagined.states.proprio[..., i]
        if not self.body.proprio_scale:
            return value
        return value * self.body.proprio_scale[i] + self.body.proprio_offset[i]

    @property
    def action(self) -> Tensor:
        """(..., H, A) mean action of the block that led to each state, as the environment takes it; rest for none."""
        if self.imagined.actions is not None:
            return self.imagined.actions.mean(-2)
        latent = self.imagined.states.latent
        return self.body.actions.rest(latent).expand(*latent.shape[:-1], -1)


TaskCost = Callable[[Readings], Tensor]
"""Readings -> cost of each imagined step, (..., H); 0 is as good as can be, about 1 as bad."""


def task_cost(cost: TaskCost) -> Measure:
    """A drive that is the cost of a task."""

    def measure(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
        return cost(Readings(imagined, body))

    measure.__wrapped__ = cost  # pyright: ignore[reportFunctionMemberAccess]
    return measure


def goal_distance(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
    """How far from the goal: (..., H, D) states -> (..., H), 0 at the goal; 0 everywhere without a goal."""
    states = imagined.states
    if goal is None:
        return torch.zeros_like(states.latent[..., 0])
    if body.goal_proprio:
        index = list(body.goal_proprio)
        d = (states.proprio[..., index] - goal.proprio[..., index]).square().sum(-1)
    else:
        d = (states.latent - goal.latent).square().mean(-1)
    d = d / body.goal_scale
    return 1 - torch.exp(-d) if body.saturate else d


def effort(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
    """Mean squared action in units of half its range, measured from rest: (..., H, K, A) -> (..., H)."""
    if imagined.actions is None:
        return torch.zeros_like(imagined.states.latent[..., 0])
    return body.actions.features(imagined.actions).square().mean((-1, -2))


def contact(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
    """The proprio named `contact`, from 0 to 1, where the body has one; 0 elsewhere: (..., H, I) -> (..., H)."""
    if "contact" not in body.proprio_names:
        return torch.zeros_like(imagined.states.latent[..., 0])
    return imagined.states.proprio[..., body.proprio_names.index("contact")].clamp(0, 1)


def survive(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
    """The proprio named `ended`, 1 once the episode has terminated; 0 where there is none: (..., H, I) -> (..., H)."""
    if "ended" not in body.proprio_names:
        return torch.zeros_like(imagined.states.latent[..., 0])
    return Readings(imagined, body)["ended"].clamp(0, 1)


DRIVES: dict[str, Measure] = {"goal": goal_distance, "effort": effort, "contact": contact, "survive": survive}
"""The intrinsic drives by name."""


@dataclass(frozen=True)
class IntrinsicDrive:
    """One drive of one body (Protocol `types.Drive`)."""

    name: str
    weight: float
    floor: float
    measure: Measure
    body: BodySpec

    def __call__(self, imagined: Imagined, goal: State | None) -> Tensor:
        """Imagined (..., H, D) -> (..., H)."""
        return self.measure(imagined, goal, self.body)


def compose(
    names: Sequence[str], weights: Mapping[str, float], floors: Mapping[str, float], body: BodySpec
) -> tuple[IntrinsicDrive, ...]:
    """The drives of a preset, in its order. ValueError for a name that is not in DRIVES."""
    unknown = [name for name in names if name not in DRIVES]
    if unknown:
        raise ValueError(f"unknown drive {unknown[0]!r}: the drives are {', '.join(DRIVES)}")
    return tuple(IntrinsicDrive(n, weights.get(n, 1.0), floors.get(n, 0.0), DRIVES[n], body) for n in names)


def intrinsic_hash(drives: Sequence[Drive]) -> str:
    """SHA-256 over source and constants of the intrinsic cost: the same before and after any run."""
    parts = "".join(
        f"{d.name}{_source(d.measure)}{d.body}" if isinstance(d, IntrinsicDrive) else f"{d.name}{_source(type(d))}{d}"
        for d in drives
    )
    return hashlib.sha256(parts.encode()).hexdigest()


def _source(f: Measure | type) -> str:
    try:
        return inspect.getsource(f)
    except OSError:  # typed into an interpreter: the compiled form names it as well
        return f.__code__.co_code.hex() if inspect.isfunction(f) else f.__qualname__
