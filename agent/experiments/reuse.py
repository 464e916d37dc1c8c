"""Which trainings variants share. A training is named by a digest of the settings that it reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from agent.config import Config, LearnConfig
from agent.experiments.fields import field, replaced

PHASES = ("world model", "critic", "policy", "decoder", "acting")
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
    acting, learn = config.configurator, config.learn
    needed = {
        "world model": True,
        "critic": config.critic.enabled and learn.critic_steps > 0 and acting.critic_weight > 0,
        "policy": acting.mode == 1 and learn.policy_steps > 0,
    }
    out: list[Config] = []
    for last in [name for name, wanted in needed.items() if wanted]:
        later = PHASES[PHASES.index(last) + 1 :]
        stage = config
        for phase in later:
            for path in READ[phase]:
                stage = replaced(stage, path, field(full, path))
        if last != "world model":
            stage = replaced(stage, "configurator.discount", acting.discount)
        without = [name for name in PHASES[1:4] if name in later or not needed.get(name)]
        for name in without:
            stage = replaced(stage, f"learn.{name}_steps", 0)
        out.append(stage)
    return out


def shared(config: Config, full: Config) -> str:
    """Which weights a variant shares with the full agent."""
    mine, theirs = trainings(config, full), trainings(full, full)
    if mine == theirs:
        return "of full"
    if mine[:2] == theirs[:2] and len(mine) > 1:
        return "world model and critic of full"
    return "world model of full" if mine[0] == theirs[0] else "its own"


def digest(config: Config) -> str:
    """Twelve hexadecimal digits that name a configuration without its seed."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=0)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
