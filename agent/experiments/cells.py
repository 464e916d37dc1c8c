"""What is a part worth? The same agent without it, on common seeds and the same tasks, with intervals.

A cell is one variant trained with one seed. What it was trained as decides where its weights live, so variants that
differ only in how they act share one training; a cell that is finished is never computed again, and one that fails is
shown as failed while the others go on.

    <out>/runs/<training>__seed<N>/     run folders, named by a digest of the configuration that was trained
    <out>/cells/<variant>__seed<N>.json outcome of every task, or the error
    <out>/comparison.json               the table, with intervals; comparison.png its plot, table.md to put in a page
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.build import load, setup
from agent.config import Config, from_dict, options_of
from agent.console import tell
from agent.drawing import figures as drawing
from agent.drawing.media import encode_png
from agent.drawing.rendering import picture
from agent.errors import UserError
from agent.evaluation import evaluate as evaluation
from agent.experiments.reuse import digest, trainings
from agent.experiments.table import earlier, markdown, summarise
from agent.experiments.variants import FULL, Variant
from agent.interaction.environment import open_environment
from agent.report.text import as_typed
from agent.storage.files import disk_errors, write_durable
from agent.storage.run import config_diff


@dataclasses.dataclass(frozen=True)
class Cell:
    """One variant with one seed: all that is needed to compute it, anywhere."""

    name: str
    variant: Variant
    trainings: tuple[Config, ...]
    tasks: int

    @property
    def config(self) -> Config:
        """What was asked for."""
        return self.variant.config

    @property
    def acting(self) -> Config:
        """The agent that acts. Nobody acts through the decoder: it is the training's, so that the weights fit."""
        return dataclasses.replace(self.config, decoder=self.trainings[-1].decoder)

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
"""(configuration, run folder, command, resume_from=run folder) -> summary: agent/train.py:train_run."""


def trained(cell: Cell, runs: Path, train: Train, command: list[str], failed: dict[str, Exception]) -> None:
    """See that all trainings of the cell are there. What failed once fails again at once, for other cells that ask."""
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
    """The newest finished run of a cell's trainings, and what has to be trained after it."""
    stages = list(zip(cell.runs, cell.trainings, strict=True))
    done = [i for i, (run, _) in enumerate(stages) if is_trained(runs / run)]
    return (stages[done[-1]][0], stages[done[-1] + 1 :]) if done else (None, stages)


def is_trained(run: Path) -> bool:
    """Whether a training has come to its end."""
    try:
        return "train_wall_seconds" in json.loads((run / "summary.json").read_text())
    except (OSError, ValueError):
        return False


def acted(cell: Cell, runs: Path) -> dict[str, Any]:
    """Evaluate the cell with what was trained for it; returns what its file holds."""
    run = runs / cell.runs[-1]
    setup(cell.config.threads)
    agent = load(run, cell.config.device, cell.acting)
    environment = open_environment(cell.config.env, options_of(cell.config))
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
        **cell.asked,
        "runs": cell.runs,
        "outcomes": (raw.steps > 0).astype(int).tolist(),
        "success_final": result["success_final"],
        "task_list_sha256": result["task_list_sha256"],
        "plan_ms": result["plan_ms_median"],
        "train_seconds": json.loads((run / "summary.json").read_text())["train_wall_seconds"],
        "reference": result["reference"],
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
    """The outcome of a cell that was computed before; None when there is none, when it failed, or is damaged.

    Raises:
        UserError: the folder holds the answer to another question, which would be lost.
    """
    try:
        held = json.loads((out / cell.file).read_text())
        # A field that a later version has added was then what its default is now.
        before, now = (dataclasses.asdict(c) for c in (from_dict(Config, held["config"]), cell.config))
        rest = {k: v for k, v in cell.asked.items() if k != "config"}
        difference = config_diff({**{k: held[k] for k in rest}, **before}, {**rest, **now})
    except (OSError, KeyError, TypeError, ValueError):
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
    common: Sequence[str] = (),
    launch: Launcher = locally,
) -> dict[str, Any]:
    """Compute what is missing, cell by cell, and write comparison.json; returns what it holds.

    runs: where trainings live, <out>/runs by default; several comparisons may have them in common. common: the words
    of the command line that ask for the full agent, to which a row's own flags are added.
    """
    runs = runs or out / "runs"
    wanted = cells(variants, seeds, tasks)
    with disk_errors(out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
    done = {cell.file: held for cell in wanted if (held := finished(cell, out)) is not None}
    asked = {"seeds": seeds, "tasks": tasks, "full": digest(variants[FULL].config)}

    def table() -> dict[str, Any]:
        results = {name: [done[c.file] for c in wanted if c.name == name and c.file in done] for name in variants}
        rows = summarise(variants, results, common) + earlier(out, asked, variants)
        reference = [held["reference"] for held in results[FULL] if "reference" in held]
        comparison = {
            **{"command": command, "common": as_typed(common), **asked},
            "reference": {k: float(np.mean([floor[k] for floor in reference])) for k in reference[0]}
            if reference
            else {},
            "variants": rows,
        }
        write_durable(out / "comparison.json", json.dumps(comparison, indent=1).encode())
        write_durable(out / "table.md", markdown(comparison).encode())
        return comparison

    for cell, held in launch([c for c in wanted if c.file not in done], runs, train, command):
        write_durable(out / cell.file, json.dumps(held).encode())
        done[cell.file] = held
        table()  # what is known so far, should the rest never come
    comparison = table()
    if any("iqm" in row for row in comparison["variants"]):
        write_durable(out / "comparison.png", encode_png(picture(drawing.comparison(comparison["variants"]))))
    return comparison
