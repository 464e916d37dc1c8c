"""Scales of sensors that an environment declares no limits for, or far wider ones than it uses: taken from data.

Shapes: M pieces, T blocks, S sensors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.interaction.environment import scaled
from agent.interaction.replay import Replay
from agent.spec import EnvSpec

WIDER = 4.0
"""A declared range this many times wider than what was seen is not believed."""
TAIL = 0.005
"""Share of the data beyond the scale at each end: single outliers do not set it."""


def fitted(spec: EnvSpec, replay: Replay) -> EnvSpec:
    """The spec with limits for every sensor, by robust quantiles of what was explored, and proprio scaled by them."""
    seen = spec.observation
    if replay.sensors is None:
        return spec
    values = replay.sensors.flatten(0, 1).double().numpy()
    below, above = np.quantile(values, [TAIL, 1 - TAIL], axis=0)
    centre, half = (below + above) / 2, (above - below) / 2
    still = half <= 1e-6 * np.maximum(1.0, np.abs(centre))
    half = np.where(still, np.maximum(values.std(0), 0.0), half)  # what hardly ever changes, and then at all
    half = np.where(half <= 1e-9 * np.maximum(1.0, np.abs(centre)), 1.0, half)
    low, high = np.array(seen.sensor_low), np.array(seen.sensor_high)
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(high - low) & (high > low) & ((high - low) / 2 <= WIDER * half)
    kept[list(seen.unseen)] = True
    low, high = np.where(kept, low, centre - half), np.where(kept, high, centre + half)
    limits = replace(seen, sensor_low=tuple(low.tolist()), sensor_high=tuple(high.tolist()))
    return EnvSpec(scaled(limits), spec.actions)
