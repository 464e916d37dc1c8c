"""What the agent has to know of its environment: what it perceives there and what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from modules.actions import BoxActions
from modules.types import Actions, Observation, ObservationSpec


@dataclass(frozen=True)
class EnvSpec:
    """Observations and actions of an environment. Saved with every checkpoint, so that an agent can be loaded alone."""

    observation: ObservationSpec
    actions: Actions

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        assert isinstance(self.actions, BoxActions), f"{type(self.actions).__name__} cannot be saved yet"
        return {"observation": asdict(self.observation), "actions": {"kind": "box", **asdict(self.actions)}}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> EnvSpec:
        """The inverse of `to_json`. ValueError for anything else."""
        try:
            seen, actions = dict(value["observation"]), dict(value["actions"])
            if actions.pop("kind") != "box":
                raise ValueError(f"unknown kind of actions in {value['actions']}")
            tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in seen.items()}
            limits: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in actions.items()}
            return EnvSpec(ObservationSpec(**tuples), BoxActions(**limits))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the spec of an environment: {error}") from error


def as_tensors(observation: Any) -> Observation:
    """An observation in Gymnasium's form (an array, or a dict of `pixels` and `sensors`) as tensors."""
    if isinstance(observation, dict):
        pixels, sensors = observation.get("pixels"), observation.get("sensors")
    else:
        array = np.asarray(observation)
        pixels, sensors = (array, None) if array.dtype == np.uint8 and array.ndim >= 3 else (None, array)
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
