"""One training, from its configuration to its summary: explore, learn update by update, leave a run folder."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agent.agent import Agent
from agent.build import build, pick_device, setup
from agent.config import Config, check
from agent.console import Progress
from agent.errors import UserError
from agent.interaction.environment import Environment, environment_of
from agent.interaction.explore import MapFn, explore
from agent.interaction.recorded import replay_from
from agent.interaction.replay import Replay
from agent.interaction.scaling import fitted
from agent.learning import parallel
from agent.learning.trainer import Trainer, Watch
from agent.spec import EnvSpec
from agent.storage.run import Run
from modules.cost import REWARD
from modules.drives import intrinsic_hash

Watcher = Callable[[Agent, Config, Environment, Replay, Run, Progress], Watch]
"""Makes what looks on at a training (`agent.inspection.watch.Gallery`)."""


def train_run(
    config: Config,
    folder: Path,
    command_line: list[str],
    stop_at: int | None = None,
    resume_from: Path | None = None,
    map_fn: MapFn = map,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Train the run in `folder`, or resume it; returns its summary.

    Args:
        config: the whole run.
        folder: a new folder, or that of a run with the same configuration.
        command_line: for the record.
        stop_at: leave after that many steps in all (tests).
        resume_from: a finished run of the first updates, to go on from.
        map_fn: where exploration runs (see `explore`).
        watcher: gauges and pictures; None: only losses are logged.

    Raises:
        UserError: the configuration cannot be trained, the folder holds something else, or the disk refuses.
    """
    setup(config.threads)
    began, cpu = time.monotonic(), time.process_time()
    # Whatever can be wrong with the configuration is found before there is a folder that holds it.
    check(config)
    parallel.check_batch(config.learn.batch)
    environment = environment_of(config)
    _built(config, environment.spec)
    first = parallel.rank() == 0
    opened = Run.create_or_resume(folder, dataclasses.asdict(config), command_line) if first else nullcontext()
    with opened as run, Progress(show=first) as progress:
        amount, unit = (
            (config.collect.steps, "steps") if config.collect.steps else (config.collect.episodes, "episodes")
        )
        progress.start("read" if config.data else "explore", 0 if config.data else amount, unit=unit)
        # The data are a function of the configuration alone: a resumed run explores again and sees the same.
        block, rewards = config.world_model.action_block, REWARD in config.cost.drives
        about: dict[str, Any] = {}
        if config.data:
            replay, about = replay_from(config, environment, rewards)
        else:
            replay = explore(config.collect, environment, block, config.seed, map_fn, rewards)
        progress.update(amount, f"{replay.steps} environment steps")
        # Sensors without limits take their scale from what was explored.
        spec = environment.spec if environment.truth is not None else fitted(environment.spec, replay)
        agent = _built(config, spec)
        seconds = (time.monotonic() - began, time.process_time() - cpu)
        watch = None
        if run is not None and watcher is not None:
            watch = watcher(agent, config, environment, replay, run, progress)
        intrinsic = intrinsic_hash(list(agent.cost.drives.values()))
        trainer = Trainer(config, agent, replay, run, watch)
        trainer.learn(progress, stop_at, None if resume_from is None else Run.open(resume_from))
        if run is None:
            return {}
        assert intrinsic == intrinsic_hash(list(agent.cost.drives.values())), "learning changed the intrinsic cost"
        drawing = getattr(watch, "seconds", (0.0, 0.0))
        summary = {
            "run": str(folder),
            "env": config.env,
            "seed": config.seed,
            "env_steps": replay.steps,
            "train_wall_seconds": round(trainer.seconds["wall"] + seconds[0] + drawing[0], 2),
            "train_cpu_seconds": round(trainer.seconds["cpu"] + seconds[1] + drawing[1], 2),
            "pictures_wall_seconds": round(drawing[0], 2),
            "peak_memory_mb": round(_peak_bytes() / 2**20, 1),
            "intrinsic_cost_sha256": intrinsic,
            "drives": list(config.cost.drives),
            "reward_used": rewards,
            **({"data": about} if about else {}),
            **({"faults": replay.faults} if replay.faults else {}),
            "parameters": sum(p.numel() for m in agent.modules().values() for p in m.parameters()),
        }
        run.write_json("summary.json", summary)
    return summary


def _built(config: Config, spec: EnvSpec) -> Agent:
    try:
        return build(config, spec, pick_device(config.device))
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"an agent of this configuration cannot be built: {error}") from error


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes on Linux
