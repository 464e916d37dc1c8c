"""What each command will be able to do in an environment, and with which settings."""

from __future__ import annotations

from typing import Any

from agent.config import Config
from agent.derive import Reason, known_in, purpose
from agent.evaluation.episodes import RADIUS
from agent.inspection.check_exploration import Walk
from agent.inspection.sight import Sight
from agent.interaction.environment import Environment
from envs.senses import ENDED

COMMANDS = ("train", "evaluate", "imagine", "ablate", "report", "collect")
PICTURES = {
    "map": "pictures beside a map",
    "nothing": "nothing: a Simulator needs Goals and View for it (docs/worlds.md)",
    "pixels": "decoded pixels",
    "body": "the body, in the pose that the imagined sensors give",
    "curves": "curves of the imagined sensors",
}


def offered(environment: Environment, config: Config, reasons: list[Reason], walk: Walk | None) -> dict[str, Any]:
    """What the environment offers, as plain data.

    Args:
        environment: any.
        config: with which the agent would be trained.
        reasons: of `derive.settings`; none where there is a preset.
        walk: an exploration, off which rewards and success are read.
    """
    has_goals = environment.asks or environment.goals is not None
    by, why = _measure(environment, walk)
    acting = config.configurator
    horizon = acting.horizon if config.critic.enabled else acting.horizon_without_critic
    collect, block = config.collect, config.world_model.action_block
    return {
        "train": reasons[0].why if reasons else purpose(environment, "", ())[1],
        "tasks": [task.name for task in known_in(environment)] + ["goal"] * has_goals + ["reward"],
        "evaluate": {"by": by, "why": why},
        "imagine": _pictures(environment),
        "sensors": [name for name in environment.spec.observation.sensor_names if name != ENDED],
        "settings": {
            "action_block": block,
            "horizon": horizon,
            "length": collect.length,
            "steps": collect.steps or collect.episodes * collect.length * block,
            "drives": list(config.cost.drives),
            "derived": bool(reasons),
        },
    }


def works(environment: Environment) -> list[str]:
    """The commands that work there once it can be trained in."""
    without: set[str] = set()
    if environment.truth is not None and environment.goals is None:
        without |= {"evaluate", "ablate"}
    if _pictures(environment) == "nothing":
        without.add("imagine")
    return [command for command in COMMANDS if command not in without]


def _measure(environment: Environment, walk: Walk | None) -> tuple[str, str]:
    """What evaluation compares agents by, and why."""
    if environment.truth is not None:
        if environment.goals is None:
            return "nothing", "this Simulator has no tasks: write sample_tasks and success (docs/worlds.md)"
        return "success", "it has tasks of its own, with a success test"
    if walk is not None and walk.tells_success:
        return "success", "its info tells success"
    seen = environment.spec.observation
    if environment.asks and seen.goal_proprio:
        names = ", ".join(seen.proprio_names[i] for i in seen.goal_proprio)
        return "success", f"it gives goals: one is reached within {RADIUS} of the scales of {names}"
    if walk is None or walk.rewards is None:
        return "return", "nothing tells what success is, so the sum of its reward counts"
    low, high = walk.rewards
    told = f"from {low:.4g} to {high:.4g} a step" if high > low else f"which was {low:.4g} at every step so far"
    return "return", f"nothing tells what success is, so the sum of its reward counts, {told}"


def _pictures(environment: Environment) -> str:
    if environment.truth is not None:
        return "map" if environment.view is not None and environment.goals is not None else "nothing"
    with Sight(environment) as sight:
        return sight.kind


def lines(offers: dict[str, Any], flags: str) -> list[str]:
    """The same for people; flags: those of `train` that name the environment."""
    sensors, settings = offers["sensors"], offers["settings"]
    tasks = ", ".join(offers["tasks"])
    some = ", ".join(sensors[:8]) + (f", ... ({len(sensors)} in all)" if len(sensors) > 8 else "")
    blocks = f"{settings['action_block']} action{'s' if settings['action_block'] > 1 else ''}"
    return [
        f"  train     wanted is {offers['train']}; --task takes {tasks}, or FILE:FUNCTION of your own",
        f"  evaluate  by {offers['evaluate']['by']}: {offers['evaluate']['why']}",
        f"  imagine   {PICTURES[offers['imagine']]}",
        *([f"  sensors   {some}"] if sensors else []),
        f"  settings  imagined steps of {blocks}, plans of {settings['horizon']} of them, {settings['steps']} steps of "
        f"exploration, {f'derived: train {flags} --explain' if settings['derived'] else 'of the preset for it'}",
    ]
