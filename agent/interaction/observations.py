"""The parts of an observation in Gymnasium's form, by name: which array holds pixels and which holds sensors.

An observation is one array or a dict; the agent perceives `pixels` (..., C, H, W) uint8 and `sensors` (..., S). This is
the only place that tells the two apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

NAMES = ("pixels", "sensors")


def is_picture(part: NDArray | spaces.Space) -> bool:
    """Whether an array, or a space, holds pictures: uint8 with at least three axes, (..., C, H, W)."""
    return part.dtype == np.uint8 and len(part.shape or ()) >= 3


def named(observation: Any, index: int | None = None) -> dict[str, NDArray]:
    """The parts of an observation that the agent perceives, by name.

    Args:
        observation: an array, or a dict of which `pixels` and `sensors` are taken and everything else is left out.
        index: the environment to take out of a batch; None takes the observation as it is.

    Returns:
        Arrays under `pixels` and `sensors`. They share memory with the observation: copy what is kept, because an
        environment may write its next observation into the same array.
    """
    if isinstance(observation, dict):
        return {k: np.asarray(v if index is None else v[index]) for k, v in observation.items() if k in NAMES}
    array = np.asarray(observation if index is None else observation[index])
    return {"pixels" if is_picture(array) else "sensors": array}
