"""Variants of an agent: a part left out, a sham in its place, another setting; and what each has to learn for itself.

A variant is a function Config -> Config. A training is named by a digest of the settings that it reads, so variants
share trainings up to the first phase in which they differ.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from typing import Any, Literal

from agent.console import warn
from agent.errors import UserError, nearest
from agent.presets import PRESETS, Config, check, from_dict, options_of
from agent.run import config_diff
from agent.worlds import open_world

FULL = "full"
Change = Callable[[Config], Config]


def where(applies: Callable[[Config], bool], change: Change) -> Change:
    """A change that is made only where there is something to change."""
    return lambda config: change(config) if applies(config) else config


def setting(path: str, value: Any) -> Change:
    """Config -> Config with one dotted field changed. UserError for a field that does not exist."""

    def change(config: Config) -> Config:
        leaf(config, path)
        return replaced(config, path, value)

    return change


def field(config: Any, path: str) -> Any:
    """The value of a dotted field. UserError for a field that does not exist."""
    for name in path.split("."):
        if not dataclasses.is_dataclass(config):
            raise UserError(f"{path!r} is not one field of the configuration: nothing is below the dot of .{name}")
        known = [f.name for f in dataclasses.fields(config)]
        if name not in known:
            raise UserError(f"no field {path!r}{_meant(path)}; known here: {', '.join(known)}")
        config = getattr(config, name)
    return config


def leaf(config: Any, path: str) -> Any:
    """The value of a dotted field that is no group of others. UserError for one that is, or does not exist."""
    value = field(config, path)
    if dataclasses.is_dataclass(value):
        raise UserError(f"{path!r} is not one field of the configuration: give a whole path, configurator.samples")
    return value


def _meant(path: str) -> str:
    """A hint for a mistyped path, or for one with the right field in the wrong group."""
    paths: dict[str, str] = {}  # last word -> path
    for group in dataclasses.fields(Config):
        inner = getattr(PRESETS["debug"](), group.name)
        for f in dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ():
            paths[f.name] = f"{group.name}.{f.name}"
        paths.setdefault(group.name, group.name)
    close = difflib.get_close_matches(path.rpartition(".")[2], paths, n=1)
    return f" (did you mean {paths[close[0]]!r}?)" if close else ""


def replaced(config: Any, path: str, value: Any) -> Any:
    """The configuration with another value, or another whole part, at a dotted path."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: replaced(getattr(config, name), rest, value) if rest else value})


def together(*changes: Change) -> Change:
    """One change after the other."""

    def change(config: Config) -> Config:
        for one in changes:
            config = one(config)
        return config

    return change


def _keeps_apart_by(kind: str) -> Callable[[Config], bool]:
    """Whether this is what keeps the representation from collapsing: the other kind's terms are not in the loss."""
    return lambda config: config.objectives.anticollapse == kind


def _has_slots(config: Config) -> bool:
    return bool(open_world(config.env, options_of(config)).senses.slot_names)


ABLATIONS: dict[str, Change] = {
    # The modules, each with a variant of its own that does nothing.
    "perception": setting("perception.latent", "raw"),
    "world-model": setting("world_model.predictor", "none"),
    "cost": together(setting("configurator.goal_weight", 0.0), setting("configurator.critic_weight", 0.0)),
    "critic": setting("learn.critic_steps", 0),
    # Whatever is learned from memory goes with it: the critic, and the policy that is taught from remembered states.
    "memory": together(
        *(setting("memory.capacity", 0), setting("learn.critic_steps", 0), setting("learn.policy_steps", 0)),
        setting("configurator.mode", 2),
    ),
    "planner": setting("configurator.planner", "random"),
    "configurator": setting("configurator.adaptive", False),
    # Terms of the loss.
    "prediction": setting("objectives.prediction", 0.0),
    "slots": where(_has_slots, setting("objectives.slots", 0.0)),
    "variance": where(_keeps_apart_by("vicreg"), setting("objectives.variance", 0.0)),
    "covariance": where(_keeps_apart_by("vicreg"), setting("objectives.covariance", 0.0)),
    "sigreg": where(_keeps_apart_by("sigreg"), setting("objectives.sigreg", 0.0)),
    "temporal": setting("objectives.temporal", 0.0),
    "inverse-dynamics": setting("objectives.inverse", 0.0),
    "within-episode-variance": setting("objectives.within_episode", 0.0),
    "multi-step": setting("objectives.multi_step", False),
    # Drives, and ways of acting.
    "goal-drive": setting("configurator.goal_weight", 0.0),
    "effort-drive": setting("configurator.effort_weight", 0.0),
    "contact-drive": setting("configurator.contact_weight", 0.0),
    "warm-start": setting("configurator.warm_start", False),
    "mode2": setting("configurator.mode", 1),
}
"""What an agent can do without, by name."""

SHAMS: dict[str, Change] = {
    "critic-labels": setting("learn.shuffle_critic_labels", True),
    "actions": setting("learn.shuffle_actions", True),
    "encoder": setting("learn.train_encoder", False),
    "subgoals": setting("configurator.random_subgoals", True),
}
"""Parts that are there and mean nothing, by name: shuffled labels or actions, an encoder as it was drawn, random aims.

A part that is worth no more than its sham is not worth anything.
"""


def ablated(name: str, preset: Config, parts: dict[str, Change] = ABLATIONS) -> Config | None:
    """The preset without a part, or with its sham; None, and a remark, where there is no such part to begin with.

    UserError for an unknown name, which lists the known ones.
    """
    if name not in parts:
        what = "leave out" if parts is ABLATIONS else "make a sham of"
        raise UserError(f"cannot {what} {name!r}{nearest(name, parts)}; known: {', '.join(parts)}")
    changed = parts[name](preset)
    same_acts = all(field(changed, path) == field(preset, path) for path in READ["acting"])
    if same_acts and trainings(changed, preset) == trainings(preset, preset):
        warn(f"this agent has no {name} to leave out or to change: the table goes without that row")
        return None
    return changed


def varied(text: str, preset: Config, flag: str = "--vary") -> dict[str, Config]:
    """`configurator.samples=16,32` -> one configuration per value, by name."""
    path, _, values = text.partition("=")
    if not path or not values:
        raise UserError(f"{flag} wants a field and its values, configurator.samples=16,32, got {text!r}")
    if path == "seed":
        raise UserError(f"{flag} seed: every variant has all training seeds, --seeds says how many")
    out = {}
    *groups, name = path.split(".")
    # A list is one value of a field that holds several.
    for value in [values] if isinstance(leaf(preset, path), tuple) else values.split(","):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        try:
            # By way of JSON, which checks the type and makes of 1 what the field holds, 1.0.
            plain = json.loads(json.dumps(dataclasses.asdict(preset)))
            reduce(getitem, groups, plain)[name] = parsed
            changed = from_dict(Config, plain)
            check(changed)
        except (TypeError, ValueError) as error:
            raise UserError(f"{flag} {path}={value}: {str(error).removeprefix('config.json has ')}") from error
        if flag == "--vary" and (changed.env, changed.env_options) != (preset.env, preset.env_options):
            raise UserError(f"--vary {path}: tasks of different worlds cannot be compared; --set changes it for all")
        out[f"{path}={value}"] = changed
    return out


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table: an agent, and what imagines and judges in it."""

    config: Config
    dynamics: Literal["learned", "oracle"] = "learned"
    cost: Literal["latent", "true"] = "latent"
    flags: tuple[str, ...] = ()
    """What asks for this row on the command line."""


def variants(
    preset: str,
    without: Sequence[str] = (),
    against: Sequence[str] = (),
    vary: Sequence[str] = (),
    sham: Sequence[str] = (),
    settings: Sequence[str] = (),
    diagnose: bool = False,
) -> dict[str, Variant]:
    """All variants by name, the full agent first. settings, `field=value` each, hold for all of them."""
    for name in (preset, *against):
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}")
    full = with_settings(PRESETS[preset](), settings)
    out = {FULL: Variant(full)}
    for flag, parts, names in (("--without", ABLATIONS, without), ("--sham", SHAMS, SHAMS if "all" in sham else sham)):
        for name in names:
            if (changed := ablated(name, full, parts)) is not None:
                out[f"{flag[2:]} {name}"] = Variant(changed, flags=(flag, name))
    for name in against:
        other = with_settings(PRESETS[name](), settings)
        if (other.env, other.env_options) != (full.env, full.env_options):
            raise UserError(f"{name} lives in another world than {preset}: their tasks cannot be compared")
        out[name] = Variant(other, flags=("--against", name))
    for text in vary:
        out |= {name: Variant(config, flags=("--vary", name)) for name, config in varied(text, full).items()}
    out |= diagnosis(full) if diagnose else {}
    for name, variant in out.items():
        if variant.config.configurator.mode == 1 and not variant.config.learn.policy_steps:
            raise UserError(f"{name} acts by the policy alone, and with learn.policy_steps=0 there is no policy")
    return out


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The configuration with `field=value` settings, each with one value."""
    for text in settings:
        several = varied(text, config, "--set")
        if len(several) > 1:
            raise UserError(f"--set {text} has several values: --vary compares them")
        (config,) = several.values()
    return config


def diagnosis(full: Config) -> dict[str, Variant]:
    """{learned, oracle} dynamics x {latent, true} cost, but for the full agent's own cell."""
    if full.configurator.planner == "gradient":
        raise UserError("--diagnose needs a planner without gradients, which the truth has not: use cem or mppi")
    cells = (Variant(full, cost="true"), Variant(full, "oracle"), Variant(full, "oracle", "true"))
    named = {f"{cell.dynamics} dynamics, {cell.cost} cost": cell for cell in cells}
    return {name: dataclasses.replace(cell, flags=("--diagnose",)) for name, cell in named.items()}


READ: dict[str, tuple[str, ...]] = {
    "critic": (
        *("cost.goal_scale", "cost.saturate", "memory.capacity", "configurator.discount"),
        *("learn.critic_steps", "learn.critic_rate", "learn.critic_records", "learn.critic_far"),
        *("learn.critic_scenes", "learn.critic_follow", "learn.shuffle_critic_labels"),
    ),
    "policy": ("learn.policy_steps", "learn.policy_rate", "learn.plan_episodes"),
    "decoder": ("learn.decoder_steps", "learn.decoder_rate", "decoder"),
    "acting": (
        *("configurator", "planner", "max_steps", "learn.checkpoint_seconds", "learn.gauge_every"),
        *("memory.temperature", "memory.gamma", "memory.top_k"),
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
        "critic": config.cost.critic and learn.critic_steps > 0 and modulated.critic_weight > 0,
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


def changes(full: Variant, variant: Variant) -> str:
    """The difference as lines of dotted fields."""
    before, after = (
        {**dataclasses.asdict(v.config), "dynamics": v.dynamics, "judged by": v.cost} for v in (full, variant)
    )
    return config_diff(before, after)


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
