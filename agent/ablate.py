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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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

    def change(config: Any, names: Sequence[str]) -> Any:
        known = [f.name for f in dataclasses.fields(config)]
        if names[0] not in known:
            raise UserError(f"no field {path!r}{nearest(names[0], known)}; known here: {', '.join(known)}")
        held = getattr(config, names[0])
        if dataclasses.is_dataclass(held) != (len(names) > 1):
            raise UserError(f"{path!r} is not one field of the configuration: give a whole path, configurator.samples")
        return dataclasses.replace(config, **{names[0]: change(held, names[1:]) if len(names) > 1 else value})

    return lambda config: change(config, path.split("."))


def together(*changes: Change) -> Change:
    """One change after the other."""

    def change(config: Config) -> Config:
        for one in changes:
            config = one(config)
        return config

    return change


ABLATIONS: dict[str, Change] = {
    "critic": setting("cost.critic", False),
    # Whatever is learned from memory goes with it: the critic, and the policy that is taught from remembered states.
    "memory": together(
        setting("memory.capacity", 0), setting("learn.critic_steps", 0), setting("learn.policy_steps", 0)
    ),
    "variance": setting("objectives.variance", 0.0),
    "covariance": setting("objectives.covariance", 0.0),
    "temporal": setting("objectives.temporal", 0.0),
    "inverse-dynamics": setting("objectives.inverse", 0.0),
    "within-episode-variance": setting("objectives.within_episode", 0.0),
    "multi-step": setting("objectives.multi_step", False),
    "warm-start": setting("configurator.warm_start", False),
    "goal-drive": setting("configurator.goal_weight", 0.0),
    "mode2": setting("configurator.mode", 1),
}
"""What an agent can do without, by name."""


def ablated(name: str, preset: Config) -> Config:
    """The preset without a part. UserError for a name that is not in ABLATIONS, and for a part that is not there."""
    if name not in ABLATIONS:
        raise UserError(f"cannot leave out {name!r}{nearest(name, ABLATIONS)}; known: {', '.join(ABLATIONS)}")
    changed = ABLATIONS[name](preset)
    if changed == preset:
        raise UserError(f"this preset has no {name} to leave out: its weight is 0 already")
    return changed


def varied(text: str, preset: Config) -> dict[str, Config]:
    """`configurator.samples=16,32` -> one configuration per value, by name."""
    path, _, values = text.partition("=")
    if not path or not values:
        raise UserError(f"--vary wants a field and its values, configurator.samples=16,32, got {text!r}")
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
            raise UserError(f"--vary {path}={value}: {error}") from error
        out[f"{path}={value}"] = changed
    return out


def variants(
    preset: str, without: Sequence[str] = (), against: Sequence[str] = (), vary: Sequence[str] = ()
) -> dict[str, Config]:
    """All variants by name, the full agent first."""
    for name in (preset, *against):
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}")
    full = PRESETS[preset]()
    out = {FULL: full, **{f"without {name}": ablated(name, full) for name in without}}
    for name in against:
        other = PRESETS[name]()
        if (other.env, other.env_options) != (full.env, full.env_options):
            raise UserError(f"{name} lives in another world than {preset}: their tasks cannot be compared")
        out[name] = other
    for text in vary:
        out |= varied(text, full)
    return out


def trained_as(config: Config, full: Config) -> Config:
    """The configuration whose training gives this one its weights.

    Of what the configurator says, only the discount is learned from (by the critic). The rest changes no weights but
    the policy's, which is then the full agent's.
    """
    learned = dataclasses.replace(full.configurator, discount=config.configurator.discount)
    return dataclasses.replace(config, configurator=learned)


def digest(config: Config) -> str:
    """Twelve digits that name a configuration, whatever its seed."""
    text = json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=0)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant with one seed: all that is needed to compute it, anywhere."""

    name: str
    config: Config
    training: Config
    tasks: int

    @property
    def run(self) -> str:
        """Folder of the run, below the comparison's."""
        return f"runs/{digest(self.training)}__seed{self.training.seed}"

    @property
    def file(self) -> str:
        """Where the outcome goes, below the comparison's folder."""
        safe = "".join(c if c.isalnum() or c in "-.=" else "_" for c in self.name)
        return f"cells/{safe}__seed{self.config.seed}.json"

    @property
    def asked(self) -> dict[str, Any]:
        """What the outcome depends on; a file that answers another question is not used."""
        return {"name": self.name, "config": dataclasses.asdict(self.config), "tasks": self.tasks}


def cells(variants: dict[str, Config], seeds: int, tasks: int) -> list[Cell]:
    """Every variant with every seed; seeds outermost, so that an interrupted comparison is already one."""
    full = variants[FULL]
    return [
        Cell(
            name,
            dataclasses.replace(config, seed=seed),
            dataclasses.replace(trained_as(config, full), seed=seed),
            tasks,
        )
        for seed in range(seeds)
        for name, config in variants.items()
    ]


Train = Callable[[Config, Path, list[str]], dict[str, Any]]
"""(configuration, run folder, command) -> summary: agent/commands.py:train_run."""


def compute(cell: Cell, out: Path, train: Train, command: list[str]) -> dict[str, Any]:
    """Train what the cell needs, or find it trained, and evaluate it; returns what its file holds."""
    summary_file = out / cell.run / "summary.json"
    summary = json.loads(summary_file.read_text()) if summary_file.exists() else None
    if summary is None:
        summary = train(cell.training, out / cell.run, command)
    agent = Agent.load(out / cell.run)
    agent.configurator.config = cell.config.configurator
    simulator = make_simulator(cell.config.env, options_of(cell.config))
    result, raw = evaluation.evaluate(agent, simulator, cell.config.max_steps, cell.tasks, seed=cell.config.seed)
    return {
        **cell.asked,
        "run": cell.run,
        "outcomes": (raw.steps > 0).astype(int).tolist(),
        "task_list_sha256": result["task_list_sha256"],
        "plan_ms": result["plan_ms_median"],
        "train_seconds": summary["train_wall_seconds"],
        "floors": result["floors"],
    }


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The outcome of a cell that was computed before; None when there is none, or when it failed."""
    try:
        held = json.loads((out / cell.file).read_text())
    except (OSError, ValueError):
        return None
    asked = json.loads(json.dumps(cell.asked))
    if "error" in held or {k: held.get(k) for k in asked} != asked:
        return None
    return held


def compare(
    variants: dict[str, Config], seeds: int, tasks: int, out: Path, train: Train, command: list[str]
) -> dict[str, Any]:
    """Compute what is missing, cell by cell, and write comparison.json; returns what it holds."""
    todo = cells(variants, seeds, tasks)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for number, cell in enumerate(todo, 1):
        held = finished(cell, out)
        if held is None:
            tell(f"cell {number} of {len(todo)}: {cell.name}, seed {cell.config.seed}")
            try:
                held = compute(cell, out, train, command)
            except Exception as error:  # whatever it is, the other cells go on
                tell(f"  failed: {error}")
                held = {**cell.asked, "run": cell.run, "error": f"{type(error).__name__}: {error}"}
            write_durable(out / cell.file, json.dumps(held).encode())
        results[cell.name].append(held)
    comparison = {"command": command, "seeds": seeds, "tasks": tasks, "variants": summarise(variants, results)}
    write_durable(out / "comparison.json", json.dumps(comparison, indent=1).encode())
    if any("iqm" in row for row in comparison["variants"]):
        write_durable(out / "comparison.png", encode_png(drawing.comparison(comparison["variants"])))
    return comparison


def summarise(variants: dict[str, Config], results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per variant: success, difference to the full agent on the seeds that both have, cost in time."""
    good = {name: {r["config"]["seed"]: r for r in rows if "error" not in r} for name, rows in results.items()}
    full, out = variants[FULL], []
    for name, config in variants.items():
        mine, rows = good[name], results[name]
        row: dict[str, Any] = {
            "variant": name,
            "changes": config_diff(dataclasses.asdict(full), dataclasses.asdict(config)),
            "n_seeds": len(mine),
            "failed": {r["config"]["seed"]: r["error"] for r in rows if "error" in r},
            "runs": [r["run"] for r in rows],
            "shares_weights_with_full": name != FULL and trained_as(config, full) == full,
        }
        if mine:
            outcomes = np.array([r["outcomes"] for r in mine.values()])
            row |= {
                "iqm": dataclasses.asdict(estimate(outcomes)),
                "plan_ms": float(np.median([r["plan_ms"] for r in mine.values()])),
                "train_seconds": float(np.median([r["train_seconds"] for r in mine.values()])),
                "task_list_sha256": next(iter(mine.values()))["task_list_sha256"],
            }
            common = sorted(set(mine) & set(good[FULL]))
            if name != FULL and common:
                ours, theirs = (np.array([good[who][seed]["outcomes"] for seed in common]) for who in (name, FULL))
                row["difference"] = dataclasses.asdict(estimate(ours, theirs))
                row["probability_of_improvement"] = probability_of_improvement(ours, theirs)
        out.append(row)
    return out
