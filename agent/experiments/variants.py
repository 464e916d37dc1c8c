"""Variants of an agent: a part removed, a placebo in its place, or another setting.

A variant is made by a function Config -> Config. A training is named by a digest of the settings that it reads, so
variants share trainings up to the first phase in which they differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from operator import getitem
from typing import Literal

from agent.config import Config, check, from_dict
from agent.console import warn
from agent.errors import UserError, nearest
from agent.experiments.fields import Change, field, leaf, setting, together, where
from agent.experiments.reuse import READ, trainings
from agent.interaction.environment import environment_of
from agent.presets import PRESETS
from agent.storage.run import config_diff

FULL = "full"


def _anticollapse_is(kind: str) -> Callable[[Config], bool]:
    """Whether the loss has this kind of anti-collapse terms; those of the other kind are not in it."""
    return lambda config: config.losses.anticollapse == kind


def _has_proprio(config: Config) -> bool:
    """Whether the environment has proprio to predict. It is only opened where the loss has the term at all."""
    return config.losses.proprio > 0 and _proprio_of(config.env, config.env_options, config.wrappers)


@lru_cache(maxsize=16)
def _proprio_of(env: str, env_options: tuple[str, ...], wrappers: tuple[str, ...]) -> bool:
    config = Config(env=env, env_options=env_options, wrappers=wrappers)
    return bool(environment_of(config).spec.observation.proprio_names)


def _drive(name: str) -> Change:
    """The drive weighs nothing, where there is one; the critic's head stays."""
    return where(lambda config: name in config.cost.drives, setting(f"cost.weights.{name}", 0.0))


ABLATIONS: dict[str, Change] = {
    # The modules, each replaced by one that does nothing.
    "perception": together(setting("perception.latent", "raw"), setting("perception.carry", "none")),
    "world-model": setting("world_model.predictor", "none"),
    "cost": together(_drive("goal"), setting("configurator.critic_weight", 0.0)),
    "critic": setting("learn.critic_steps", 0),
    # Critic and policy learn from memory, so they are removed with it.
    "memory": together(
        *(setting("memory.capacity", 0), setting("learn.critic_steps", 0), setting("learn.policy_steps", 0)),
        setting("configurator.mode", 2),
    ),
    "planner": setting("configurator.planner", "random"),
    "configurator": setting("configurator.adaptive", False),
    # Terms of the loss.
    "prediction": setting("losses.prediction", 0.0),
    "proprio": where(_has_proprio, setting("losses.proprio", 0.0)),
    "variance": where(_anticollapse_is("vicreg"), setting("losses.variance", 0.0)),
    "covariance": where(_anticollapse_is("vicreg"), setting("losses.covariance", 0.0)),
    "sigreg": where(_anticollapse_is("sigreg"), setting("losses.sigreg", 0.0)),
    "temporal": setting("losses.temporal", 0.0),
    "inverse-dynamics": setting("losses.inverse", 0.0),
    "within-episode-variance": setting("losses.within_episode", 0.0),
    "multi-step": setting("losses.multi_step", False),
    # Drives, and ways of acting.
    # The goal's intrinsic cost at every step; its critic stands at the end of a plan as before.
    "goal-drive": where(lambda config: "goal" in config.cost.drives, setting("configurator.energy", "last")),
    "effort-drive": _drive("effort"),
    "survive-drive": _drive("survive"),
    "contact-drive": _drive("contact"),
    "warm-start": setting("configurator.warm_start", False),
    "mode2": setting("configurator.mode", 1),
}
"""Name -> the change that removes this part."""


PLACEBOS: dict[str, Change] = {
    "critic-labels": setting("learn.shuffle_critic_labels", True),
    "actions": setting("learn.shuffle_actions", True),
    "encoder": setting("learn.train_encoder", False),
    "subgoals": setting("configurator.random_subgoals", True),
}
"""Name -> the change that replaces this part by a placebo: a control that keeps the part but makes it meaningless.

The critic learns shuffled targets, the world model actions of other episodes, the encoder keeps its random initial
weights, subgoals are drawn at random. A part that is worth no more than its placebo contributes nothing.
"""


def _place(config: Config) -> tuple[str | tuple[str, ...], ...]:
    """What the tasks of an evaluation depend on."""
    return config.env, config.env_options, config.wrappers, config.goal


def ablated(name: str, preset: Config, parts: dict[str, Change] = ABLATIONS) -> Config | None:
    """The preset without a part, or with its placebo; None, and a warning, where the part is inactive.

    UserError for an unknown name, which lists the known ones.
    """
    if name not in parts:
        flag = "--without" if parts is ABLATIONS else "--placebo"
        raise UserError(f"{flag} {name!r} is unknown{nearest(name, parts)}; known: {', '.join(parts)}")
    changed = parts[name](preset)
    same_acts = all(field(changed, path) == field(preset, path) for path in READ["acting"])
    if same_acts and trainings(changed, preset) == trainings(preset, preset):
        warn(f"{name} is inactive in this configuration; row skipped")
        return None
    return changed


def varied(text: str, preset: Config, flag: str = "--vary") -> dict[str, Config]:
    """`configurator.samples=16,32` -> one configuration per value, by name."""
    path, _, values = text.partition("=")
    if not path or not values:
        raise UserError(f"{flag} takes a field and its values, such as configurator.samples=16,32, got {text!r}")
    if path == "seed":
        raise UserError(f"{flag} seed: all variants are trained with the same seeds, and --seeds says how many")
    out = {}
    *groups, name = path.split(".")
    # A list is one value of a field that holds several.
    for value in [values] if isinstance(leaf(preset, path), tuple) else values.split(","):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        try:
            # Through JSON, which checks the type and turns 1 into 1.0 for a field of type float.
            plain = json.loads(json.dumps(dataclasses.asdict(preset)))
            reduce(getitem, groups, plain)[name] = parsed
            changed = from_dict(Config, plain)
            check(changed)
        except (TypeError, ValueError) as error:
            raise UserError(f"{flag} {path}={value}: {str(error).removeprefix('config.json has ')}") from error
        if flag == "--vary" and _place(changed) != _place(preset):
            raise UserError(
                f"--vary {path}: different environments have different tasks; --set changes it for all rows"
            )
        out[f"{path}={value}"] = changed
    return out


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table: a configuration, and the dynamics and cost that it plans with."""

    config: Config
    dynamics: Literal["learned", "oracle"] = "learned"
    cost: Literal["latent", "true"] = "latent"
    flags: tuple[str, ...] = ()
    """The flags of this row on the command line."""


def variants(
    preset: str,
    without: Sequence[str] = (),
    against: Sequence[str] = (),
    vary: Sequence[str] = (),
    placebo: Sequence[str] = (),
    settings: Sequence[str] = (),
    diagnose: bool = False,
    base: Config | None = None,
) -> dict[str, Variant]:
    """All variants by name, the full agent first.

    Args:
        preset: name of the full agent's preset.
        base: the full agent's configuration, in place of a preset.
        without: names of ABLATIONS.
        against: names of other presets of the same environment.
        vary: `field=value,value`, one variant for each value.
        placebo: names of PLACEBOS, or "all".
        settings: `field=value` each, for all variants.
        diagnose: add {learned, oracle} dynamics x {latent, true} cost.

    Raises:
        UserError: an unknown name or field, or variants that cannot be compared.
    """
    for name in against if base is not None else (preset, *against):
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}")
    full = with_settings(PRESETS[preset]() if base is None else base, settings)
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
        if _place(other) != _place(full):
            raise UserError(f"--against {name} has another environment than {preset}: their tasks cannot be compared")
        out[name] = Variant(other, flags=("--against", name))
    for text in vary:
        out |= {name: Variant(config, flags=("--vary", name)) for name, config in varied(text, full).items()}
    out |= diagnosis(full) if diagnose else {}
    for name, variant in out.items():
        if variant.config.configurator.mode == 1 and not variant.config.learn.policy_steps:
            raise UserError(f"{name} acts by the policy alone (mode 1), which learn.policy_steps=0 does not train")
    return out


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The configuration with `field=value` settings, each with one value."""
    for text in settings:
        several = varied(text, config, "--set")
        if len(several) > 1:
            raise UserError(f"--set {text} has several values: give one, or compare them with --vary")
        (config,) = several.values()
    return config


def diagnosis(full: Config) -> dict[str, Variant]:
    """{learned, oracle} dynamics x {latent, true} cost, without the full agent's own combination."""
    if full.configurator.planner == "gradient":
        raise UserError("--diagnose cannot use the planner gradient: an oracle has no gradients; use cem or mppi")
    cells = (Variant(full, cost="true"), Variant(full, "oracle"), Variant(full, "oracle", "true"))
    named = {f"{cell.dynamics} dynamics, {cell.cost} cost": cell for cell in cells}
    return {name: dataclasses.replace(cell, flags=("--diagnose",)) for name, cell in named.items()}


def changes(full: Variant, variant: Variant) -> str:
    """The difference to the full agent, as lines "- field: before" and "+ field: after"."""
    before, after = (
        {**dataclasses.asdict(v.config), "dynamics": v.dynamics, "cost of plans": v.cost} for v in (full, variant)
    )
    return config_diff(before, after)
