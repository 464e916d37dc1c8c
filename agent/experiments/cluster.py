"""Comparisons on a Ray cluster: trainings, evaluations and exploration as tasks, with the results of a local one.

The machines need the same packages and nothing else: the code and the run folders are sent to them. Ray starts a task
again when its worker or node is lost; everything random follows from the seed, so the result is the same. The process
that started the comparison writes runs and cells, as the local launcher does.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envs
from agent.build import pick_device
from agent.config import Config
from agent.console import set_quiet, tell
from agent.errors import UserError
from agent.experiments.cells import Cell, Launcher, Train, acted, failure, to_train
from agent.interaction.explore import explore_shard
from agent.storage.files import write_durable

RETRIES = 5
"""How often a task is started again whose worker is lost."""


Files = dict[str, bytes]
"""A folder: relative name -> content."""


def pack(folder: Path, finished: bool = False) -> Files:
    """All files of a folder; of a finished run, only those that acting and further training read."""
    names = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    if finished:
        kept = ("checkpoints/", "config.json", "summary.json", "versions.json")
        names = {name: p for name, p in names.items() if name.startswith(kept)}
    return {name: p.read_bytes() for name, p in names.items()}


def unpack(files: Files, folder: Path) -> None:
    """Write what `pack` read. The summary comes last, because a run with a summary counts as finished."""
    for name in sorted(files, key=lambda n: n == "summary.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, files[name])


def launcher() -> Launcher:
    """The launcher for a Ray cluster. UserError when ray is not installed or the cluster cannot be reached."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("--launcher ray needs the package ray: pip install -e '.[ray]' in this checkout") from error
    if not ray.is_initialized():
        here, address = Path(__file__).resolve().parents[2], os.environ.get("RAY_ADDRESS")
        code = {"py_modules": [str(here / name) for name in ("agent", "envs", "modules")]}
        _reached(address)
        try:
            ray.init(address=address, log_to_driver=False, runtime_env=code, include_dashboard=None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at RAY_ADDRESS={address}: {error}") from error
    return on_ray


def _reached(address: str | None) -> None:
    """UserError when no connection to host:port can be made: Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster at RAY_ADDRESS={address}: {error}") from error


def on_ray(todo: list[Cell], runs: Path, train: Train, command: list[str]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """All cells as tasks. Each waits for its trainings; a training that several cells need runs once."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    waiting = submit(todo, runs, train, command)
    cpus = ray.cluster_resources().get("CPU", 0)
    tell(f"{len(todo)} cells and {len(waiting) - len(todo)} trainings on {cpus:g} CPUs")
    while waiting:
        (ready, *_), _ = ray.wait(list(waiting))
        what = waiting.pop(ready)
        try:
            result = ray.get(ready)
        except RayError as error:
            # A failed training raises in every cell that waits for it, which is where it is reported.
            cause = getattr(error, "cause", None)
            if isinstance(what, Cell):
                yield what, failure(what, cause if isinstance(cause, Exception) else error)
            continue
        if isinstance(what, Cell):
            tell(f"done: {what.name}, seed {what.config.seed}")
            yield what, result
        else:
            summary = json.loads(result["summary.json"]) | {"run": str(runs / what)}
            unpack({**result, "summary.json": json.dumps(summary, indent=1).encode()}, runs / what)


def submit(todo: list[Cell], runs: Path, train: Train, command: list[str]) -> dict[Any, Cell | str]:
    """Submit all tasks to Ray; returns what each pending result is: a cell, or the run folder of a training."""
    import ray  # pyright: ignore[reportMissingImports]

    cpus = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)

    def needs(config: Config) -> dict[str, Any]:
        if config.threads > cpus:  # Ray would wait for such a machine for ever, without a message
            asked = f"a cell needs {config.threads} CPUs, the largest machine of the cluster has {cpus:g}"
            raise UserError(f"{asked}: --set threads={max(1, int(cpus))}")
        gpus = int(pick_device(config.device).type == "cuda")  # auto means there what it means here
        return {"num_cpus": config.threads, "num_gpus": gpus, "max_retries": RETRIES}

    worlds = dict(envs.SIMULATORS)  # including those that a script of the user's has registered
    folders: dict[str, Any] = {}
    waiting: dict[Any, Cell | str] = {}
    for cell in todo:
        newest, missing = to_train(cell, runs)
        if newest is not None and newest not in folders:
            folders[newest] = ray.put(pack(runs / newest, finished=True))
        before: Any = folders[newest] if newest is not None else None
        for run, config in missing:
            if run not in folders:
                there = ray.remote(**needs(config))(train_there)
                begun = pack(runs / run) if (runs / run).is_dir() else {}
                folders[run] = there.remote(train, worlds, command, config, before, begun)
                waiting[folders[run]] = run
            before = folders[run]
        waiting[ray.remote(**needs(cell.config))(act_there).remote(worlds, cell, before)] = cell
    return waiting


def train_there(
    train: Train, worlds: dict[str, Any], command: list[str], config: Config, before: Files | None, begun: Files
) -> Files:
    """One training, as a task; its exploration is distributed over the cluster.

    before: the run of the first phases. begun: the run itself, as an interrupted training has left it.
    """
    import ray  # pyright: ignore[reportMissingImports]

    envs.SIMULATORS.update(worlds)
    set_quiet(True)
    explorer = ray.remote(num_cpus=1, max_retries=RETRIES)(explore_shard)

    def map_fn(_: Any, shards: list[Any]) -> Iterator[Any]:
        return (ray.get(part) for part in [explorer.remote(shard) for shard in shards])

    with tempfile.TemporaryDirectory() as scratch:
        after, run = Path(scratch) / "before", Path(scratch) / "run"
        if before is not None:
            unpack(before, after)
        unpack(begun, run)
        train(config, run, command, resume_from=after if before is not None else None, map_fn=map_fn)
        return pack(run)


def act_there(worlds: dict[str, Any], cell: Cell, files: Files) -> dict[str, Any]:
    """One evaluation, as a task."""
    envs.SIMULATORS.update(worlds)
    set_quiet(True)
    with tempfile.TemporaryDirectory() as scratch:
        unpack(files, Path(scratch) / cell.runs[-1])
        return acted(cell, Path(scratch))
