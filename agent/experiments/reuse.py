"""Which trainings variants share. A training is named by a digest of the settings that it reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from agent.config import Config, LearnConfig
from agent.experiments.fields import field, replaced
from modules.cost import REWARD

PHASES = ("world model", "critic", "reward", "policy", "decoder", "acting")
"""The phases of training in order, and what comes after them."""


def _of_phase(phase: str) -> tuple[str, ...]:
    """The fields of LearnConfig that carry the name of a phase: critic_steps, critic_rate, ..."""
    return tuple(f"learn.{f.name}" for f in dataclasses.fields(LearnConfig) if f.name.startswith(f"{phase}_"))


READ: dict[str, tuple[str, ...]] = {
    "critic": (
        *_of_phase("critic"),
        *("learn.shuffle_critic_labels", "cost.goal_scale", "cost.saturate"),
        *("memory.capacity", "configurator.discount"),
    ),
    "reward": _of_phase("reward"),
    "policy": (*_of_phase("policy"), "learn.plan_episodes"),
    "decoder": (*_of_phase("decoder"), "decoder"),
    "acting": (
        *("configurator", "planner", "max_steps", "learn.checkpoint_seconds", "learn.gauge_every"),
        *("memory.temperature", "memory.gamma", "memory.top_k", "cost.weights", "cost.floors"),
    ),
}
"""Phase -> the settings, or groups of settings, that no earlier phase reads. The world model reads all others."""


def trainings(config: Config, full: Config) -> list[Config]:
    """The trainings that this agent needs in order to act; each continues from the end of the one before.

    A setting that a training does not read has the full agent's value in it, so that variants which differ only later
    share it. The policy is therefore distilled from plans that are made as the full agent makes them.
    """
    needed, acting = _needed(config), config.configurator
    out: list[Config] = []
    for last in needed:
        later = PHASES[PHASES.index(last) + 1 :]
        stage = config
        for phase in later:
            for path in READ[phase]:
                stage = replaced(stage, path, field(full, path))
        if last != "world model":
            stage = replaced(stage, "configurator.discount", acting.discount)
        for name in [name for name in PHASES[1:-1] if name in later or name not in needed]:
            stage = replaced(stage, f"learn.{name}_steps", 0)
        out.append(stage)
    return out


def _needed(config: Config) -> list[str]:
    """The phases of `trainings`, in order."""
    acting, learn, drives = config.configurator, config.learn, config.cost.drives
    # A critic has a head for each intrinsic drive, so an agent that only wants reward has none.
    critic = config.critic.enabled and learn.critic_steps > 0 and acting.critic_weight > 0 and {*drives} != {REWARD}
    needed = {
        "world model": True,
        "critic": critic,
        "reward": REWARD in drives and learn.reward_steps > 0,
        "policy": acting.mode == 1 and learn.policy_steps > 0,
    }
    return [name for name, wanted in needed.items() if wanted]


def shared(config: Config, full: Config) -> str:
    """Which weights a variant shares with the full agent."""
    mine, theirs = trainings(config, full), trainings(full, full)
    if mine == theirs:
        return "of full"
    same = 0
    while same < min(len(mine), len(theirs)) and mine[same] == theirs[same]:
        same += 1
    if not same:
        return "its own"
    *first, last = _needed(config)[:same]
    return f"{', '.join(first)}{' and ' * bool(first)}{last} of full"


def digest(config: Config) -> str:
    """Twelve hexadecimal digits that name a configuration without its seed."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=0)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
