"""What the agent has to know of its environment: what it perceives there and what it can do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.errors import UserError, nearest
from modules.actions import BoxActions, DiscreteActions
from modules.types import Actions, Observation, ObservationSpec


@dataclass(frozen=True)
class EnvSpec:
    """Observations and actions of an environment. Saved with every checkpoint, so that an agent can be loaded alone."""

    observation: ObservationSpec
    actions: Actions

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        actions = self.actions
        assert isinstance(actions, BoxActions | DiscreteActions), f"{type(actions).__name__} cannot be saved yet"
        # Discrete actions name their own kind: discrete, or multi.
        return {"observation": asdict(self.observation), "actions": {"kind": "box", **asdict(actions)}}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> EnvSpec:
        """The inverse of `to_json`. ValueError for anything else."""
        try:
            seen, given = _tuples(value["observation"]), _tuples(value["actions"])
            kind = given.pop("kind")
            if kind not in ("box", "discrete", "multi"):
                raise ValueError(f"unknown kind of actions in {value['actions']}")
            actions = BoxActions(**given) if kind == "box" else DiscreteActions(**given, kind=kind)
            return EnvSpec(ObservationSpec(**seen), actions)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the spec of an environment: {error}") from error


def goal_of(given: Sequence[str], seen: ObservationSpec) -> dict[str, float]:
    """A goal `name=value ...` by name. UserError for what is not a reading of the body."""
    goal: dict[str, float] = {}
    known = [name for name, i in zip(seen.proprio_names, seen.proprio_index, strict=True) if i not in seen.unseen]
    for item in given:
        name, equals, value = item.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not equals or not math.isfinite(number):
            raise UserError(f"--goal takes name=value, such as {(known or ['position'])[0]}=0.5, got {item!r}")
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "it has none"
            raise UserError(f"--goal {item}: this environment has no sensor {name!r}{nearest(name, known)}; {there}")
        goal[name] = number
    return goal


def aimed(spec: EnvSpec, goal: Sequence[str]) -> EnvSpec:
    """The spec with goals given in the readings that `goal` names; the same without any."""
    if not goal:
        return spec
    seen = spec.observation
    index = tuple(seen.proprio_names.index(name) for name in goal_of(goal, seen))
    return EnvSpec(replace(seen, goal_proprio=index), spec.actions)


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, which JSON has in place of tuples, as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in dict(value).items()}


NAMES = ("pixels", "sensors")
"""What an observation may hold: pixels (..., C, H, W) uint8 and/or sensors (..., S)."""


def is_picture(part: Any) -> bool:
    """Whether an array, or a space, holds pictures: uint8 with at least three axes, (..., C, H, W)."""
    return part.dtype == np.uint8 and len(part.shape or ()) >= 3


def named(observation: Any) -> dict[str, NDArray[Any]]:
    """The parts of an observation in Gymnasium's form (an array, or a dict) that the agent perceives, by name.

    The only place that tells pixels from sensors. The arrays share memory with the observation: copy what is kept,
    because an environment may write its next observation into the same array.
    """
    if isinstance(observation, dict):
        return {name: np.asarray(part) for name, part in observation.items() if name in NAMES}
    array = np.asarray(observation)
    return {"pixels" if is_picture(array) else "sensors": array}


def as_tensors(observation: Any) -> Observation:
    """An observation in Gymnasium's form as tensors."""
    parts = named(observation)
    pixels, sensors = parts.get("pixels"), parts.get("sensors")
    return Observation(
        None if pixels is None else torch.from_numpy(np.ascontiguousarray(pixels)),
        None if sensors is None else torch.from_numpy(np.ascontiguousarray(sensors, np.float32)),
    )


def checked(observation: Observation, spec: ObservationSpec) -> tuple[Observation, bool]:
    """The observation, and whether it has no batch axis.

    Raises:
        ValueError: it has another shape or type than the spec says, or is not finite.
    """
    single = False
    for name, x, shape in (
        ("pixels", observation.pixels, spec.pixel_shape or ()),
        ("sensors", observation.sensors, (len(spec.sensor_low),) if spec.sensor_low else ()),
    ):
        if shape and (x is None or tuple(x.shape[-len(shape) :]) != shape or x.dim() > len(shape) + 1):
            other = observation.pixels if observation.sensors is None else observation.sensors
            given = x if x is not None or other is None else other
            got = "none" if given is None else f"{tuple(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
            raise ValueError(f"this agent perceives {name} of shape {shape} (or a batch of them), and was given {got}")
        if shape and x is not None:
            single = x.dim() == len(shape)
    if observation.pixels is not None and observation.pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 from 0 to 255, got {observation.pixels.dtype}")
    if observation.sensors is not None and not torch.isfinite(observation.sensors).all():
        raise ValueError(f"the observation's sensors are not finite: {observation.sensors.tolist()}")
    return observation, single
