"""Known tasks of known environments: each a short cost over named sensors, which a trained world model can plan for.

A task is separate from the world: one world model of CartPole serves `cartpole-balance` as well as `cartpole-left`.

    task = task_of("Pendulum-v1")
    DRIVES[task.name] = task_cost(task.cost)

A cost is 0 where the task is done as well as can be, about 1 where it is not done at all, and has a gradient almost
everywhere. It follows the reward of the environment where that is dense. Where the reward only counts steps until the
end, the cost also prefers to stay far from the end. Names of sensors are those of `envs/names.py`; numbers are in the
units of the environment. The action is the one that led to the state.

Shapes: H imagined steps, A action; every cost maps readings (..., H) to (..., H).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.drives import DRIVES, Readings, TaskCost, task_cost


@dataclass(frozen=True)
class KnownTask:
    """A task by name, the environments that it fits, and where its form comes from."""

    name: str
    cost: TaskCost
    envs: tuple[str, ...]
    """Patterns of Gymnasium ids, as in a shell: `HalfCheetah-v[45]`."""
    source: str
    ends_well: bool = False
    """Whether an episode ends because the task is done. The drive `survive`, for which an end is bad, must then weigh
    nothing."""

    def fits(self, env_id: str) -> bool:
        """Whether the sensors of an environment have the names that the cost reads. `module:Id-v0` is Id-v0."""
        return any(fnmatchcase(env_id.rpartition(":")[2], pattern) for pattern in self.envs)


def known_for(env_id: str) -> list[KnownTask]:
    """All tasks of an environment, its default task first; none for an environment that is not known."""
    return [task for task in TASKS.values() if task.fits(env_id)]


def task_of(env_id: str) -> KnownTask | None:
    """The default task of an environment: what its own reward asks for."""
    return next(iter(known_for(env_id)), None)


# Parts


def _bounded(x: Tensor) -> Tensor:
    """From 0 up -> [0, 1), 1/2 at 1. Its gradient fades slowly, so that a search far away still finds the way."""
    return x / (1 + x)


def _below(speed: Tensor, top: float) -> Tensor:
    """1 at rest, 0.17 at the top speed, towards 0 beyond, above 1 backwards.

    Nearly linear up to the top, so that the mean cost of a plan is the way that it covers, as the mean reward is; a
    softplus keeps a gradient beyond.
    """
    return F.softplus(4 * (1 - speed / top)) / math.log1p(math.exp(4))


def _outside(x: Tensor, low: float, high: float, margin: float) -> Tensor:
    """0 well between low and high, 1/2 at either, 1 far outside; `margin` is the width of the slope."""
    return torch.sigmoid((low - x) / margin) + torch.sigmoid((x - high) / margin)


def _norm(*parts: Tensor) -> Tensor:
    """Euclidean length, with a gradient at 0 too."""
    return (torch.stack(parts).square().sum(0) + 1e-8).sqrt()


def _effort(x: Readings) -> Tensor:
    """Sum of squared actions."""
    return x.action.square().sum(-1)


# Classic control


def pendulum_upright(x: Readings) -> Tensor:
    """The negative reward of Pendulum-v1, divided by its largest value: angle^2 + 0.1 velocity^2 + 0.001 torque^2."""
    angle = torch.atan2(x["sin_angle"], x["cos_angle"])
    return (angle.square() + 0.1 * x["angular_velocity"].square() + 0.001 * _effort(x)) / 16.2736


def _cartpole(x: Readings, target: float, width: float) -> Tensor:
    """Half for the pole, in units of its limit of 12 degrees, half for the way of the cart to the target."""
    angle, cart = x["angle"] / math.radians(12), (x["position"] - target) / width
    return (_bounded(angle.square()) + _bounded(cart.square())) / 2


def cartpole_balance(x: Readings) -> Tensor:
    """The limits of CartPole-v1 (12 degrees, 2.4 units), beyond which its reward of 1 per step ends, as squares."""
    return _cartpole(x, 0.0, 2.4)


def cartpole_left(x: Readings) -> Tensor:
    """Balance one unit left of the middle. This project's own; CartPole-v1 has no such reward."""
    return _cartpole(x, -1.0, 1.0)


def cartpole_right(x: Readings) -> Tensor:
    """Balance one unit right of the middle. This project's own; CartPole-v1 has no such reward."""
    return _cartpole(x, 1.0, 1.0)


def acrobot_swing_up(x: Readings) -> Tensor:
    """How far the tip is below the line at which Acrobot-v1 ends with success, 1 link above the hinge, in 0..1.

    The height of the tip is that of `AcrobotEnv._terminal`: -cos(angle1) - cos(angle1 + angle2).
    """
    cos_both = x["cos_angle1"] * x["cos_angle2"] - x["sin_angle1"] * x["sin_angle2"]
    return (1 + x["cos_angle1"] + cos_both).clamp(min=0) / 3


def mountain_car_flag(x: Readings) -> Tensor:
    """The mechanical energy that is missing to reach the flag, and with a small weight the way to it.

    The reward is sparse, and the way alone misleads: the car has to go back first. Gravity is that of Gymnasium's
    `step`, -0.0025 cos(3 x), so the potential is 0.0025 / 3 sin(3 x). The flag of MountainCar-v0 stands at 0.5, that of
    MountainCarContinuous-v0 at 0.45, on the way.
    """
    flag, gravity = 0.5, 0.0025 / 3
    energy = x["velocity"].square() / 2 + gravity * torch.sin(3 * x["position"])
    most = gravity * math.sin(3 * flag)
    missing = ((most - energy) / (most + gravity)).clamp(min=0)
    way = (flag - x["position"]).clamp(min=0) / 1.7
    return 0.8 * missing + 0.2 * way


# MuJoCo: balance


def inverted_pendulum_balance(x: Readings) -> Tensor:
    """The limit of InvertedPendulum (0.2 rad), beyond which its reward of 1 per step ends, and the rail (1 m)."""
    return (_bounded((x["hinge"] / 0.2).square()) + _bounded(x["slider"].square())) / 2


def inverted_double_pendulum_balance(x: Readings) -> Tensor:
    """The penalties of InvertedDoublePendulum-v5: 0.01 x^2 + (y - 2)^2 + 0.001 v1^2 + 0.005 v2^2, (x, y) the tip.

    Less what they are upright and at rest (y = 1.2), in units of what they are where the episode ends (y = 1).
    """
    sin1, cos1, sin2, cos2 = x["sin_hinge"], x["cos_hinge"], x["sin_hinge2"], x["cos_hinge2"]
    tip_x = x["slider"] + 0.6 * sin1 + 0.6 * (sin1 * cos2 + cos1 * sin2)
    tip_y = 0.6 * cos1 + 0.6 * (cos1 * cos2 - sin1 * sin2)
    speed = 0.001 * x["hinge_velocity"].square() + 0.005 * x["hinge2_velocity"].square()
    upright = 0.8**2
    penalty = 0.01 * tip_x.square() + (tip_y - 2).square() - upright + speed
    # Predicted sines and cosines may give a tip above 1.2, which no pendulum reaches.
    return _bounded(penalty.clamp(min=0) / (1 - upright))


# MuJoCo: reach and push


def reacher_touch(x: Readings) -> Tensor:
    """The negative reward of Reacher-v5: distance of fingertip and target + squared action. 0.4 m is the most."""
    return _norm(x["fingertip_from_target_x"], x["fingertip_from_target_y"]) + _effort(x)


def pusher_push(x: Readings) -> Tensor:
    """The negative reward of Pusher-v5: object to goal + 0.5 tip to object + 0.1 squared action."""
    goal = _norm(*(x[f"object_{axis}"] - x[f"goal_{axis}"] for axis in "xyz"))
    near = _norm(*(x[f"object_{axis}"] - x[f"tip_{axis}"] for axis in "xyz"))
    return goal + 0.5 * near + 0.1 * _effort(x)


# MuJoCo: run. Rewards are speed - weight * squared action (+ 1 while healthy); here in units of a top speed.


def cheetah_run(x: Readings) -> Tensor:
    """HalfCheetah-v5: speed - 0.1 squared action; 10 m/s is what Tassa et al. (2018) call running."""
    return _below(x["rootx_velocity"], 10) + 0.1 / 10 * _effort(x)


def cheetah_back(x: Readings) -> Tensor:
    """As `cheetah_run`, backwards."""
    return _below(-x["rootx_velocity"], 10) + 0.1 / 10 * _effort(x)


def hopper_run(x: Readings) -> Tensor:
    """Hopper-v5: speed - 0.001 squared action; half of the cost is to be healthy (above 0.7 m, within 0.2 rad)."""
    fallen = torch.maximum(_outside(x["rooty"], -0.2, 0.2, 0.03), _outside(x["rootz"], 0.7, 100, 0.05))
    return 0.5 * _below(x["rootx_velocity"], 4) + 0.5 * fallen + 0.001 / 8 * _effort(x)


def walker_run(x: Readings) -> Tensor:
    """Walker2d-v5: speed - 0.001 squared action; half of the cost is to be healthy (0.8 to 2 m, within 1 rad)."""
    fallen = torch.maximum(_outside(x["rooty"], -1, 1, 0.1), _outside(x["rootz"], 0.8, 2, 0.05))
    return 0.5 * _below(x["rootx_velocity"], 5) + 0.5 * fallen + 0.001 / 10 * _effort(x)


def swimmer_swim(x: Readings) -> Tensor:
    """Swimmer-v5: speed of the tip along x - 0.0001 squared action.

    Already random actions swing the tip at up to 2 m/s, faster than the body travels; a lower top would hide that.
    """
    return _below(x["slider1_velocity"], 2) + 0.0001 / 2 * _effort(x)


def ant_run(x: Readings) -> Tensor:
    """Ant-v5: speed along x - 0.5 squared action; half of the cost is to be healthy (0.2 to 1 m). Without contacts."""
    fallen = _outside(x["root_z"], 0.2, 1, 0.05)
    return 0.5 * _below(x["root_velocity_x"], 5) + 0.5 * fallen + 0.5 / 10 * _effort(x)


_CONTROL = "gymnasium.envs.classic_control."
_MUJOCO = "gymnasium.envs.mujoco."
_OWN = "this project, in the form of cartpole-balance"


def _by_name(tasks: Sequence[KnownTask]) -> dict[str, KnownTask]:
    return {task.name: task for task in tasks}


TASKS: dict[str, KnownTask] = _by_name(
    (
        KnownTask("pendulum-upright", pendulum_upright, ("Pendulum-v1",), _CONTROL + "pendulum: the reward"),
        KnownTask("cartpole-balance", cartpole_balance, ("CartPole-v[01]",), _CONTROL + "cartpole: the limits"),
        KnownTask("cartpole-left", cartpole_left, ("CartPole-v[01]",), _OWN),
        KnownTask("cartpole-right", cartpole_right, ("CartPole-v[01]",), _OWN),
        KnownTask(
            "acrobot-swing-up",
            acrobot_swing_up,
            ("Acrobot-v1",),
            _CONTROL + "acrobot: the height that ends an episode",
            ends_well=True,
        ),
        KnownTask(
            "mountain-car-flag",
            mountain_car_flag,
            ("MountainCarContinuous-v0", "MountainCar-v0"),
            _CONTROL + "continuous_mountain_car: the energy of its equations, this project's own form",
            ends_well=True,
        ),
        KnownTask(
            "inverted-pendulum-balance",
            inverted_pendulum_balance,
            ("InvertedPendulum-v[45]",),
            _MUJOCO + "inverted_pendulum_v5: the limits",
        ),
        KnownTask(
            "inverted-double-pendulum-balance",
            inverted_double_pendulum_balance,
            ("InvertedDoublePendulum-v[45]",),
            _MUJOCO + "inverted_double_pendulum_v5: the reward",
        ),
        KnownTask("reacher-touch", reacher_touch, ("Reacher-v[45]",), _MUJOCO + "reacher_v5: the reward"),
        KnownTask("pusher-push", pusher_push, ("Pusher-v5",), _MUJOCO + "pusher_v5: the reward"),
        KnownTask("cheetah-run", cheetah_run, ("HalfCheetah-v[45]",), _MUJOCO + "half_cheetah_v5: the reward"),
        KnownTask("cheetah-back", cheetah_back, ("HalfCheetah-v[45]",), "cheetah-run with the other sign"),
        KnownTask("hopper-run", hopper_run, ("Hopper-v[45]",), _MUJOCO + "hopper_v5: reward and limits"),
        KnownTask("walker-run", walker_run, ("Walker2d-v[45]",), _MUJOCO + "walker2d_v5: reward and limits"),
        KnownTask("swimmer-swim", swimmer_swim, ("Swimmer-v[45]",), _MUJOCO + "swimmer_v5: the reward"),
        KnownTask("ant-run", ant_run, ("Ant-v[45]",), _MUJOCO + "ant_v5: reward and limits, without contact forces"),
    )
)
"""By name. The first task that fits an environment is its default."""

DRIVES.update({name: task_cost(task.cost) for name, task in TASKS.items()})
