"""Ablations: an agent and variants of it, on the same training seeds and the same tasks, with intervals.

A cell is one variant with one training seed. The name of a training is a digest of its configuration, so variants that
differ only in how they act share one training run. A finished cell is not computed again. A cell that fails is
reported, and the other cells are still computed.

    <out>/runs/<training>__seed<N>/     run folders, named by a digest of the configuration that was trained
    <out>/cells/<variant>__seed<N>.json outcome of every task, or the error
    <out>/comparison.json               the table with intervals; comparison.png plots it, table.md is for a page
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.build import load, setup
from agent.config import Config, from_dict
from agent.console import tell
from agent.drawing import figures as drawing
from agent.drawing.media import encode_png
from agent.drawing.rendering import picture
from agent.errors import DamagedFile, UserError
from agent.evaluation import evaluate as evaluation
from agent.evaluation.episodes import evaluate_episodes
from agent.experiments.reuse import digest, trainings
from agent.experiments.table import earlier, markdown, summarise
from agent.experiments.variants import FULL, Variant
from agent.interaction.environment import Environment, environment_of
from agent.report.text import as_typed
from agent.storage.files import disk_errors, read_json, write_durable
from agent.storage.run import config_diff
from agent.storage.summary import read_summary


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant with one training seed: everything needed to compute it on any machine."""

    name: str
    variant: Variant
    trainings: tuple[Config, ...]
    tasks: int

    @property
    def config(self) -> Config:
        """The variant's configuration, with the cell's seed."""
        return self.variant.config

    @property
    def acting(self) -> Config:
        """The configuration that acts. Decoder settings are the training run's, so that its checkpoint loads."""
        return dataclasses.replace(self.config, decoder=self.trainings[-1].decoder)

    @property
    def runs(self) -> list[str]:
        """Names of the run folders of its trainings, in order; the cell acts with the weights of the last."""
        return [f"{digest(training)}__seed{training.seed}" for training in self.trainings]

    @property
    def file(self) -> str:
        """The file of the outcome, relative to the comparison's folder."""
        safe = "".join(c if c.isalnum() or c in "-.=" else "_" for c in self.name)
        return f"cells/{safe}__seed{self.config.seed}.json"

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the outcome depends on; a file with another key belongs to another comparison."""
        return {
            "name": self.name,
            "config": dataclasses.asdict(self.config),
            "dynamics": self.variant.dynamics,
            "cost": self.variant.cost,
            "tasks": self.tasks,
        }


def cells(variants: dict[str, Variant], seeds: int, tasks: int) -> list[Cell]:
    """Every variant with every seed, seed by seed, so that an interrupted comparison still compares variants."""
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
"""(configuration, run folder, command, resume_from=run folder) -> summary: agent.learning.train.train_run."""


def trained(cell: Cell, runs: Path, train: Train, command: list[str], failed: dict[str, Exception]) -> None:
    """Train what the cell needs and does not have. A training in `failed` raises its error again, untried."""
    newest, missing = to_train(cell, runs)
    before = newest and runs / newest
    for run, training in missing:
        if run in failed:
            raise failed[run]
        try:
            train(training, runs / run, command, resume_from=before)
        except Exception as error:
            failed[run] = error
            raise
        before = runs / run


def to_train(cell: Cell, runs: Path) -> tuple[str | None, list[tuple[str, Config]]]:
    """The last finished run of a cell's trainings, and the trainings that are left after it."""
    stages = list(zip(cell.runs, cell.trainings, strict=True))
    done = [i for i, (run, _) in enumerate(stages) if is_trained(runs / run)]
    return (stages[done[-1]][0], stages[done[-1] + 1 :]) if done else (None, stages)


def is_trained(run: Path) -> bool:
    """Whether a training has finished."""
    return "train_wall_seconds" in (read_summary(run) or {})


def acted(cell: Cell, runs: Path) -> dict[str, Any]:
    """Evaluate the cell with its trained weights; returns the content of its file."""
    run = runs / cell.runs[-1]
    setup(cell.config.threads)
    agent = load(run, cell.config.device, cell.acting)
    environment = environment_of(cell.config)
    if environment.truth is None:
        return {**cell.key, "runs": cell.runs, **_played(cell, agent, environment, run)}
    result, raw = evaluation.evaluate(
        agent,
        environment,
        cell.config.max_steps,
        cell.tasks,
        dynamics=cell.variant.dynamics,
        seed=cell.config.seed,
        cost=cell.variant.cost,
    )
    return {
        **cell.key,
        "runs": cell.runs,
        "outcomes": (raw.steps > 0).astype(int).tolist(),
        "success_final": result["success_final"],
        "task_list_sha256": result["task_list_sha256"],
        "plan_ms": result["plan_ms_median"],
        **({"reader_error": result["reader_error"]} if "reader_error" in result else {}),
        "train_seconds": (read_summary(run) or {})["train_wall_seconds"],
        "reference": result["reference"],
    }


def _played(cell: Cell, agent: Agent, environment: Environment, run: Path) -> dict[str, Any]:
    """The outcomes of whole episodes, where the environment has no tasks of this project's form."""
    budget = cell.config.max_steps
    result, raw = evaluate_episodes(agent, environment, cell.tasks, budget, seed=cell.config.seed)
    if raw.faults:
        raise UserError(f"{raw.faults} of {cell.tasks} episodes failed in the environment, so seeds cannot be compared")
    return {
        "measure": result["measure"],
        "outcomes": raw.measured.tolist(),
        **({} if result["success_final"] is None else {"success_final": result["success_final"]}),
        "return_mean": result["return_mean"],
        "task_list_sha256": result["seed_list_sha256"],
        "plan_ms": result["plan_ms_median"],
        "train_seconds": (read_summary(run) or {})["train_wall_seconds"],
        "reference": result["reference"],
    }


def failure(cell: Cell, error: Exception) -> dict[str, Any]:
    """The content of the file of a cell that failed."""
    tell(f"  {cell.name}, seed {cell.config.seed}, failed: {error}")
    return {**cell.key, "runs": cell.runs, "error": f"{type(error).__name__}: {error}"}


Launcher = Callable[[list[Cell], Path, Train, list[str]], Iterator[tuple[Cell, dict[str, Any]]]]
"""(cells, folder of runs, training, command) -> each cell with the content of its file, in any order."""


def locally(todo: list[Cell], runs: Path, train: Train, command: list[str]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """One cell after the other, in this process."""
    failed: dict[str, Exception] = {}
    for number, cell in enumerate(todo, 1):
        tell(f"cell {number} of {len(todo)}: {cell.name}, seed {cell.config.seed}")
        try:
            trained(cell, runs, train, command, failed)
            held = acted(cell, runs)
        except Exception as error:  # any error is this cell's alone: the other cells are still computed
            held = failure(cell, error)
        yield cell, held


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The outcome of a cell that was computed before; None when it is absent or damaged, or the cell failed.

    Raises:
        UserError: the file belongs to another comparison and would be overwritten.
    """
    try:
        held = read_json(out / cell.file)
        # A field that is newer than the file had its default value then.
        before, now = (dataclasses.asdict(c) for c in (from_dict(Config, held["config"]), cell.config))
        rest = {k: v for k, v in cell.key.items() if k != "config"}
        difference = config_diff({**{k: held[k] for k in rest}, **before}, {**rest, **now})
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        return None
    if "error" in held:
        return None
    if difference:
        raise UserError(
            f"{out} holds another comparison; {cell.name} differs (- there, + now):\n{difference}\nGive another --out."
        )
    return held


def compare(
    variants: dict[str, Variant],
    seeds: int,
    tasks: int,
    out: Path,
    train: Train,
    command: list[str],
    runs: Path | None = None,
    base_command: Sequence[str] = (),
    launch: Launcher = locally,
) -> dict[str, Any]:
    """Compute the cells that are missing and write comparison.json after each; returns its content.

    Args:
        variants: the full agent first, by the name FULL, then the others by name.
        seeds: training seeds, from 0.
        tasks: tasks per cell, from the start of the frozen list.
        out: the comparison's folder.
        train: trains one configuration.
        command: the command line, for the record.
        runs: the folder of training runs, which several comparisons can share; <out>/runs by default.
        base_command: the command line of the full agent; the flags of a row are added to it.
        launch: computes cells, here or elsewhere.

    Raises:
        UserError: the folder holds another comparison, or the disk refuses.
    """
    runs = runs or out / "runs"
    wanted = cells(variants, seeds, tasks)
    with disk_errors(out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
    done = {cell.file: held for cell in wanted if (held := finished(cell, out)) is not None}
    key = {"seeds": seeds, "tasks": tasks, "full": digest(variants[FULL].config)}

    def table() -> dict[str, Any]:
        results = {name: [done[c.file] for c in wanted if c.name == name and c.file in done] for name in variants}
        rows = summarise(variants, results, base_command) + earlier(out, key, variants)
        reached = [held["reference"] for held in results[FULL] if "reference" in held]
        comparison = {
            "command": command,
            "base_command": as_typed(base_command),
            **key,
            "reference": {name: float(np.mean([one[name] for one in reached])) for name in reached[0]}
            if reached
            else {},
            "variants": rows,
        }
        write_durable(out / "comparison.json", json.dumps(comparison, indent=1).encode())
        write_durable(out / "table.md", markdown(comparison).encode())
        return comparison

    for cell, held in launch([c for c in wanted if c.file not in done], runs, train, command):
        write_durable(out / cell.file, json.dumps(held).encode())
        done[cell.file] = held
        table()  # after every cell, so that an interrupted comparison has a table
    comparison = table()
    if any("iqm" in row for row in comparison["variants"]):
        write_durable(out / "comparison.png", encode_png(picture(drawing.comparison(comparison["variants"]))))
    return comparison
