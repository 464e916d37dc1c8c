"""Which trainings variants share: a training is named by a digest of the settings that it reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from agent.config import Config
from agent.experiments.fields import field, replaced

READ: dict[str, tuple[str, ...]] = {
    "critic": (
        *("cost.goal_scale", "cost.saturate", "memory.capacity", "configurator.discount"),
        *("learn.critic_steps", "learn.critic_rate", "learn.critic_records", "learn.critic_far"),
        *("learn.critic_scenes", "learn.critic_tau", "learn.shuffle_critic_labels"),
    ),
    "policy": ("learn.policy_steps", "learn.policy_rate", "learn.plan_episodes"),
    "decoder": ("learn.decoder_steps", "learn.decoder_rate", "decoder"),
    "acting": (
        *("configurator", "planner", "max_steps", "learn.checkpoint_seconds", "learn.gauge_every"),
        *("memory.temperature", "memory.gamma", "memory.top_k", "cost.weights", "cost.floors"),
    ),
}
"""Settings by what is the first to read them. The world model reads all others."""


def trainings(config: Config, full: Config) -> list[Config]:
    """What has to be trained for this agent to act, each going on where the one before ends.

    A setting that a training does not read is the full agent's in it, so that variants which differ only later share
    it. The policy is then taught by plans as the full agent makes them.
    """
    modulated, learn = config.configurator, config.learn
    needed = {
        "world model": True,
        "critic": config.critic.enabled and learn.critic_steps > 0 and modulated.critic_weight > 0,
        "policy": modulated.mode == 1 and learn.policy_steps > 0,
    }
    out: list[Config] = []
    for last in [name for name, wanted in needed.items() if wanted]:
        order = ["world model", *READ]
        later = order[order.index(last) + 1 :]
        stage = config
        for phase in later:
            for path in READ[phase]:
                stage = replaced(stage, path, field(full, path))
        if last != "world model":
            stage = replaced(stage, "configurator.discount", modulated.discount)
        without = [name for name in order[1:4] if name in later or not needed.get(name)]
        for name in without:
            stage = replaced(stage, f"learn.{name}_steps", 0)
        out.append(stage)
    return out


def shared(config: Config, full: Config) -> str:
    """Which weights a variant has in common with the full agent."""
    mine, theirs = trainings(config, full), trainings(full, full)
    if mine == theirs:
        return "of full"
    if mine[:2] == theirs[:2] and len(mine) > 1:
        return "world model and critic of full"
    return "world model of full" if mine[0] == theirs[0] else "its own"


def digest(config: Config) -> str:
    """Twelve digits that name a configuration, whatever its seed."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=0)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
