"""Promise: sensors without believable limits are scaled by what was seen, robustly; the others keep their limits."""

from __future__ import annotations

import numpy as np
import torch

from agent.interaction.environment import scaled
from agent.interaction.replay import Replay
from agent.interaction.scaling import fitted
from agent.spec import EnvSpec
from modules.actions import BoxActions
from modules.types import ObservationSpec

NAMES = ("free", "bounded", "vast", "still", "ended")


def spec() -> EnvSpec:
    inf = float("inf")
    seen = ObservationSpec(
        sensor_low=(-inf, -2.0, -1000.0, -inf, 0.0),
        sensor_high=(inf, 4.0, 1000.0, inf, 1.0),
        proprio_names=NAMES,
        proprio_index=(0, 1, 2, 3, 4),
        sensor_names=NAMES,
        unseen=(4,),
    )
    return EnvSpec(scaled(seen), BoxActions((-1.0,), (1.0,)))


def replay(outlier: float = 0.0) -> Replay:
    rng = np.random.default_rng(0)
    sensors = np.zeros((50, 21, 5), np.float32)
    sensors[..., 0] = rng.uniform(10, 30, (50, 21))
    sensors[..., 1] = rng.uniform(-1, 3, (50, 21))
    sensors[..., 2] = rng.uniform(-5, 5, (50, 21))
    sensors[..., 3] = 7
    sensors[:5, -3:, 4] = 1
    sensors[0, 0, 0] += outlier
    held = Replay()
    held.append({"actions": torch.zeros(50, 20, 1, 1), "sensors": torch.from_numpy(sensors), "scene": np.zeros(50)})
    return held


def test_scales_come_from_data_where_limits_say_nothing():
    found = fitted(spec(), replay()).observation
    low, high = np.array(found.sensor_low), np.array(found.sensor_high)
    assert np.allclose([low[0], high[0]], [10, 30], atol=0.5), "no limits: what was seen"
    assert (low[1], high[1]) == (-2, 4), "limits that fit are kept"
    assert np.allclose([low[2], high[2]], [-5, 5], atol=0.5), "limits a hundred times too wide are not believed"
    assert (low[3], high[3]) == (6, 8), "what never changes has the scale 1"
    assert (low[4], high[4]) == (0, 1) and found.proprio_offset[4] == 0 and found.proprio_scale[4] == 1
    assert np.allclose(found.proprio_offset[:4], (low + high)[:4] / 2)
    assert np.allclose(found.proprio_scale[:4], (high - low)[:4] / 2)


def test_one_outlier_does_not_set_the_scale():
    plain, odd = (fitted(spec(), replay(x)).observation.sensor_high[0] for x in (0.0, 1e6))
    assert abs(plain - odd) < 0.5
