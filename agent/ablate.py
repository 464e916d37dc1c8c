"""What is a part worth? The same agent without it, on common seeds and the same tasks, with intervals.

A cell is one variant trained with one seed. What it was trained as decides where its weights live, so variants that
differ only in how they act share one training; a cell that is finished is never computed again, and one that fails is
shown as failed while the others go on.

    <out>/runs/<training>__seed<N>/     run folders, named by a digest of the configuration that was trained
    <out>/cells/<variant>__seed<N>.json outcome of every task, or the error
    <out>/comparison.json               the table, with intervals
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from agent import drawing
from agent import evaluate as evaluation
from agent.agent import Agent
from agent.collect import make_simulator
from agent.console import tell
from agent.errors import UserError, nearest
from agent.files import write_durable
from agent.metrics import encode_png
from agent.presets import PRESETS, Config, check, from_dict, options_of
from agent.run import config_diff
from agent.statistics import estimate, probability_of_improvement

FULL = "full"
Change = Callable[[Config], Config]


def setting(path: str, value: Any) -> Change:
    """Config -> Config with one dotted field changed. UserError for a field that does not exist."""

    def change(config: Config) -> Config:
        if dataclasses.is_dataclass(field(config, path)):
            raise UserError(f"{path!r} is not one field of the configuration: give a whole path, configurator.samples")
        return replaced(config, path, value)

    return change


def field(config: Any, path: str) -> Any:
    """The value of a dotted field. UserError for a field that does not exist."""
    for name in path.split("."):
        if not dataclasses.is_dataclass(config):
            raise UserError(f"{path!r} is not one field of the configuration: nothing is below the dot of .{name}")
        known = [f.name for f in dataclasses.fields(config)]
        if name not in known:
            raise UserError(f"no field {path!r}{nearest(name, known)}; known here: {', '.join(known)}")
        config = getattr(config, name)
    return config


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


ABLATIONS: dict[str, Change] = {
    # The modules, each with a variant of its own that does nothing.
    "perception": setting("perception.latent", "raw"),
    "world-model": setting("world_model.predictor", "none"),
    "cost": together(setting("configurator.goal_weight", 0.0), setting("configurator.critic_weight", 0.0)),
    "critic": setting("learn.critic_steps", 0),
    # Whatever is learned from memory goes with it: the critic, and the policy that is taught from remembered states.
    "memory": together(
        setting("memory.capacity", 0), setting("learn.critic_steps", 0), setting("learn.policy_steps", 0)
    ),
    "planner": setting("configurator.planner", "random"),
    "configurator": setting("configurator.adaptive", False),
    # Terms of the loss.
    "prediction": setting("objectives.prediction", 0.0),
    "slots": setting("objectives.slots", 0.0),
    "variance": setting("objectives.variance", 0.0),
    "covariance": setting("objectives.covariance", 0.0),
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


def ablated(name: str, preset: Config, parts: dict[str, Change] = ABLATIONS) -> Config:
    """The preset without a part, or with its sham. UserError for an unknown name, and for a part that is not there."""
    if name not in parts:
        what = "leave out" if parts is ABLATIONS else "make a sham of"
        raise UserError(f"cannot {what} {name!r}{nearest(name, parts)}; known: {', '.join(parts)}")
    changed = parts[name](preset)
    if changed == preset:
        raise UserError(f"this preset has no {name} to leave out: its weight is 0 already")
    return changed


def varied(text: str, preset: Config, flag: str = "--vary") -> dict[str, Config]:
    """`configurator.samples=16,32` -> one configuration per value, by name."""
    path, _, values = text.partition("=")
    if not path or not values:
        raise UserError(f"{flag} wants a field and its values, configurator.samples=16,32, got {text!r}")
    out = {}
    for value in values.split(","):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        changed = setting(path, parsed)(preset)
        try:
            changed = from_dict(Config, json.loads(json.dumps(dataclasses.asdict(changed))))
            check(changed)
        except (TypeError, ValueError) as error:
            raise UserError(f"{flag} {path}={value}: {error}") from error
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

    def set_all(config: Config) -> Config:
        for text in settings:
            several = varied(text, config, "--set")
            if len(several) > 1:
                raise UserError(f"--set {text} has several values: --vary compares them")
            (config,) = several.values()
        return config

    full = set_all(PRESETS[preset]())
    out = {FULL: Variant(full)}
    out |= {f"without {n}": Variant(ablated(n, full), flags=("--without", n)) for n in without}
    for name in against:
        other = set_all(PRESETS[name]())
        if (other.env, other.env_options) != (full.env, full.env_options):
            raise UserError(f"{name} lives in another world than {preset}: their tasks cannot be compared")
        out[name] = Variant(other, flags=("--against", name))
    for text in vary:
        out |= {name: Variant(config, flags=("--vary", name)) for name, config in varied(text, full).items()}
    for name in SHAMS if "all" in sham else sham:
        out[f"sham {name}"] = Variant(ablated(name, full, SHAMS), flags=("--sham", name))
    if diagnose:
        cells = (Variant(full, cost="true"), Variant(full, "oracle"), Variant(full, "oracle", "true"))
        for cell in cells:
            out[f"{cell.dynamics} dynamics, {cell.cost} cost"] = dataclasses.replace(cell, flags=("--diagnose",))
    return out


READ: dict[str, tuple[str, ...]] = {
    "critic": (
        *("cost.goal_scale", "cost.saturate", "memory", "configurator.discount", "learn.shuffle_critic_labels"),
        *("learn.critic_steps", "learn.critic_rate", "learn.critic_records", "learn.critic_far"),
        *("learn.critic_scenes", "learn.critic_follow"),
    ),
    "policy": ("learn.policy_steps", "learn.policy_rate", "learn.plan_episodes"),
    "decoder": ("learn.decoder_steps", "learn.decoder_rate"),
    "acting": ("configurator", "planner", "max_steps"),
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
        "policy": modulated.mode == 1,
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


def digest(config: Config) -> str:
    """Twelve digits that name a configuration, whatever its seed."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=0)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant with one seed: all that is needed to compute it, anywhere."""

    name: str
    variant: Variant
    trainings: tuple[Config, ...]
    tasks: int

    @property
    def config(self) -> Config:
        """How it acts."""
        return self.variant.config

    @property
    def runs(self) -> list[str]:
        """Names of the run folders of its trainings; it acts with the weights of the last."""
        return [f"{digest(training)}__seed{training.seed}" for training in self.trainings]

    @property
    def file(self) -> str:
        """Where the outcome goes, below the comparison's folder."""
        safe = "".join(c if c.isalnum() or c in "-.=" else "_" for c in self.name)
        return f"cells/{safe}__seed{self.config.seed}.json"

    @property
    def asked(self) -> dict[str, Any]:
        """What the outcome depends on; a file that answers another question is not used."""
        asked = {"config": dataclasses.asdict(self.config), "dynamics": self.variant.dynamics}
        return {"name": self.name, **asked, "cost": self.variant.cost, "tasks": self.tasks}


def cells(variants: dict[str, Variant], seeds: int, tasks: int) -> list[Cell]:
    """Every variant with every seed; seeds outermost, so that an interrupted comparison is already one."""
    full = variants[FULL].config
    return [
        Cell(
            name,
            dataclasses.replace(variant, config=dataclasses.replace(variant.config, seed=seed)),
            tuple(dataclasses.replace(training, seed=seed) for training in trainings(variant.config, full)),
            tasks,
        )
        for seed in range(seeds)
        for name, variant in variants.items()
    ]


Train = Callable[..., dict[str, Any]]
"""(configuration, run folder, command, after=run folder) -> summary: agent/commands.py:train_run."""


def trained(cell: Cell, runs: Path, train: Train, command: list[str], failed: dict[str, Exception]) -> None:
    """See that all trainings of the cell are there. What failed once fails again at once, for other cells that ask."""
    before: Path | None = None
    for run, training in zip(cell.runs, cell.trainings, strict=True):
        if run in failed:
            raise failed[run]
        if not is_trained(runs / run):
            try:
                train(training, runs / run, command, after=before)
            except Exception as error:
                failed[run] = error
                raise
        before = runs / run


def is_trained(run: Path) -> bool:
    """Whether a training has come to its end."""
    try:
        return "train_wall_seconds" in json.loads((run / "summary.json").read_text())
    except (OSError, ValueError):
        return False


def acted(cell: Cell, runs: Path) -> dict[str, Any]:
    """Evaluate the cell with what was trained for it; returns what its file holds."""
    run = runs / cell.runs[-1]
    torch.set_num_threads(cell.config.threads)
    torch.set_flush_denormal(True)
    agent = Agent.load(run, cell.config.device, cell.config)
    simulator = make_simulator(cell.config.env, options_of(cell.config))
    result, raw = evaluation.evaluate(
        agent,
        simulator,
        cell.config.max_steps,
        cell.tasks,
        dynamics=cell.variant.dynamics,
        seed=cell.config.seed,
        cost=cell.variant.cost,
    )
    return {
        **cell.asked,
        "runs": cell.runs,
        "outcomes": (raw.steps > 0).astype(int).tolist(),
        "success_final": result["success_final"],
        "task_list_sha256": result["task_list_sha256"],
        "plan_ms": result["plan_ms_median"],
        "train_seconds": json.loads((run / "summary.json").read_text())["train_wall_seconds"],
        "floors": result["floors"],
    }


def failure(cell: Cell, error: Exception) -> dict[str, Any]:
    """What the file of a cell holds that failed."""
    tell(f"  {cell.name}, seed {cell.config.seed}, failed: {error}")
    return {**cell.asked, "runs": cell.runs, "error": f"{type(error).__name__}: {error}"}


Launcher = Callable[[list[Cell], Path, Train, list[str]], Iterator[tuple[Cell, dict[str, Any]]]]
"""(cells, folder of runs, training, command) -> each cell with what its file is to hold, in any order."""


def locally(todo: list[Cell], runs: Path, train: Train, command: list[str]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """One cell after the other, in this process."""
    failed: dict[str, Exception] = {}
    for number, cell in enumerate(todo, 1):
        tell(f"cell {number} of {len(todo)}: {cell.name}, seed {cell.config.seed}")
        try:
            trained(cell, runs, train, command, failed)
            held = acted(cell, runs)
        except Exception as error:  # whatever it is, the other cells go on
            held = failure(cell, error)
        yield cell, held


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The outcome of a cell that was computed before; None when there is none, or when it failed."""
    try:
        held = json.loads((out / cell.file).read_text())
    except (OSError, ValueError):
        return None
    try:
        # A field that a later version has added was then what its default is now.
        same = from_dict(Config, held["config"]) == cell.config
        same &= all(held[k] == v for k, v in cell.asked.items() if k != "config")
    except (KeyError, TypeError, ValueError):
        return None
    return held if same and "error" not in held else None


def compare(
    variants: dict[str, Variant],
    seeds: int,
    tasks: int,
    out: Path,
    train: Train,
    command: list[str],
    runs: Path | None = None,
    common: Sequence[str] = (),
    launch: Launcher = locally,
) -> dict[str, Any]:
    """Compute what is missing, cell by cell, and write comparison.json; returns what it holds.

    runs: where trainings live, <out>/runs by default; several comparisons may have them in common. common: the words
    of the command line that ask for the full agent, to which a row's own flags are added.
    """
    runs = runs or out / "runs"
    wanted = cells(variants, seeds, tasks)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    done = {cell.file: held for cell in wanted if (held := finished(cell, out)) is not None}

    def table() -> dict[str, Any]:
        results = {name: [done[c.file] for c in wanted if c.name == name and c.file in done] for name in variants}
        rows = summarise(variants, results, common)
        comparison = {"command": command, "seeds": seeds, "tasks": tasks, "variants": rows}
        write_durable(out / "comparison.json", json.dumps(comparison, indent=1).encode())
        return comparison

    for cell, held in launch([c for c in wanted if c.file not in done], runs, train, command):
        write_durable(out / cell.file, json.dumps(held).encode())
        done[cell.file] = held
        table()  # what is known so far, should the rest never come
    comparison = table()
    if any("iqm" in row for row in comparison["variants"]):
        write_durable(out / "comparison.png", encode_png(drawing.comparison(comparison["variants"])))
    return comparison


def changes(full: Variant, variant: Variant) -> str:
    """The difference as lines of dotted fields."""
    before, after = (
        {**dataclasses.asdict(v.config), "dynamics": v.dynamics, "judged by": v.cost} for v in (full, variant)
    )
    return config_diff(before, after)


def shared(config: Config, full: Config) -> str:
    """Which weights a variant has in common with the full agent."""
    mine, theirs = trainings(config, full), trainings(full, full)
    if mine[-1] in theirs:
        return "of full" if len(mine) == len(theirs) else "world model of full"
    return "world model of full" if mine[0] == theirs[0] else "its own"


def summarise(
    variants: dict[str, Variant], results: dict[str, list[dict[str, Any]]], common: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per variant: success, difference to the full agent on the seeds that both have, cost in time."""
    good = {name: {r["config"]["seed"]: r for r in rows if "error" not in r} for name, rows in results.items()}
    full, out = variants[FULL].config, []
    for name, variant in variants.items():
        mine, rows = good[name], results[name]
        row: dict[str, Any] = {
            "variant": name,
            "changes": changes(variants[FULL], variant),
            "command": shlex.join([*common, *variant.flags]),
            "n_seeds": len(mine),
            "failed": {r["config"]["seed"]: r["error"] for r in rows if "error" in r},
            "runs": [r["runs"][-1] for r in rows],
            "weights": "its own" if name == FULL else shared(variant.config, full),
        }
        if mine:
            outcomes = np.array([r["outcomes"] for r in mine.values()])
            row |= {
                "iqm": dataclasses.asdict(estimate(outcomes)),
                "success_final": float(np.mean([r["success_final"] for r in mine.values()])),
                "plan_ms": float(np.median([r["plan_ms"] for r in mine.values()])),
                "train_seconds": float(np.median([r["train_seconds"] for r in mine.values()])),
                "task_list_sha256": next(iter(mine.values()))["task_list_sha256"],
            }
            shared_seeds = sorted(set(mine) & set(good[FULL]))
            if name != FULL and shared_seeds:
                ours, theirs = (
                    np.array([good[who][seed]["outcomes"] for seed in shared_seeds]) for who in (name, FULL)
                )
                row["difference"] = dataclasses.asdict(estimate(ours, theirs))
                row["probability_of_improvement"] = probability_of_improvement(ours, theirs)
        out.append(row)
    return out
