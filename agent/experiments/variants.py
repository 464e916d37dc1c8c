"""Variants of an agent: a part left out, a placebo in its place, or another setting.

A variant is a function Config -> Config. A training is named by a digest of the settings that it reads, so variants
share trainings up to the first phase in which they differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from typing import Literal

from agent.config import Config, check, from_dict, options_of
from agent.console import warn
from agent.errors import UserError, nearest
from agent.experiments.fields import Change, field, leaf, setting, together, where
from agent.experiments.reuse import READ, trainings
from agent.interaction.environment import open_environment
from agent.presets import PRESETS
from agent.storage.run import config_diff

FULL = "full"


def _keeps_apart_by(kind: str) -> Callable[[Config], bool]:
    """Whether this is what keeps the representation from collapsing: the other kind's terms are not in the loss."""
    return lambda config: config.losses.anticollapse == kind


def _has_proprio(config: Config) -> bool:
    return bool(open_environment(config.env, options_of(config)).spec.observation.proprio_names)


def _drive(name: str) -> Change:
    """The drive weighs nothing, where there is one; the critic's head stays."""
    return where(lambda config: name in config.cost.drives, setting(f"cost.weights.{name}", 0.0))


ABLATIONS: dict[str, Change] = {
    # The modules, each with a variant of its own that does nothing.
    "perception": setting("perception.latent", "raw"),
    "world-model": setting("world_model.predictor", "none"),
    "cost": together(_drive("goal"), setting("configurator.critic_weight", 0.0)),
    "critic": setting("learn.critic_steps", 0),
    # Whatever is learned from memory goes with it: the critic, and the policy that is taught from remembered states.
    "memory": together(
        *(setting("memory.capacity", 0), setting("learn.critic_steps", 0), setting("learn.policy_steps", 0)),
        setting("configurator.mode", 2),
    ),
    "planner": setting("configurator.planner", "random"),
    "configurator": setting("configurator.adaptive", False),
    # Terms of the loss.
    "prediction": setting("losses.prediction", 0.0),
    "proprio": where(_has_proprio, setting("losses.proprio", 0.0)),
    "variance": where(_keeps_apart_by("vicreg"), setting("losses.variance", 0.0)),
    "covariance": where(_keeps_apart_by("vicreg"), setting("losses.covariance", 0.0)),
    "sigreg": where(_keeps_apart_by("sigreg"), setting("losses.sigreg", 0.0)),
    "temporal": setting("losses.temporal", 0.0),
    "inverse-dynamics": setting("losses.inverse", 0.0),
    "within-episode-variance": setting("losses.within_episode", 0.0),
    "multi-step": setting("losses.multi_step", False),
    # Drives, and ways of acting.
    "goal-drive": _drive("goal"),
    "effort-drive": _drive("effort"),
    "contact-drive": _drive("contact"),
    "warm-start": setting("configurator.warm_start", False),
    "mode2": setting("configurator.mode", 1),
}
"""What an agent can do without, by name."""


PLACEBOS: dict[str, Change] = {
    "critic-labels": setting("learn.shuffle_critic_labels", True),
    "actions": setting("learn.shuffle_actions", True),
    "encoder": setting("learn.train_encoder", False),
    "subgoals": setting("configurator.random_subgoals", True),
}
"""Parts that are there and mean nothing, by name: shuffled labels or actions, an encoder as it was drawn, random aims.

A part that is worth no more than its placebo is not worth anything.
"""


def ablated(name: str, preset: Config, parts: dict[str, Change] = ABLATIONS) -> Config | None:
    """The preset without a part, or with its placebo; None, and a remark, where there is no such part to begin with.

    UserError for an unknown name, which lists the known ones.
    """
    if name not in parts:
        what = "leave out" if parts is ABLATIONS else "make a placebo of"
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
    placebo: Sequence[str] = (),
    settings: Sequence[str] = (),
    diagnose: bool = False,
) -> dict[str, Variant]:
    """All variants by name, the full agent first. settings, `field=value` each, hold for all of them."""
    for name in (preset, *against):
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}")
    full = with_settings(PRESETS[preset](), settings)
    out = {FULL: Variant(full)}
    for flag, parts, names in (
        ("--without", ABLATIONS, without),
        ("--placebo", PLACEBOS, PLACEBOS if "all" in placebo else placebo),
    ):
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


def changes(full: Variant, variant: Variant) -> str:
    """The difference as lines of dotted fields."""
    before, after = (
        {**dataclasses.asdict(v.config), "dynamics": v.dynamics, "judged by": v.cost} for v in (full, variant)
    )
    return config_diff(before, after)
