"""One training, from its configuration to its summary: explore, learn phase by phase, leave a run folder."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agent.agent import Agent
from agent.build import pick_device, setup
from agent.config import Config, check, options_of
from agent.console import Progress
from agent.errors import UserError
from agent.inspection import imagination
from agent.interaction import explore as collect
from agent.interaction.environment import open_world
from agent.learning import parallel
from agent.learning.trainer import Learner
from agent.storage.run import Run


def train_run(
    config: Config,
    folder: Path,
    command_line: list[str],
    stop_at: int | None = None,
    after: Path | None = None,
    spread: collect.Spread = map,
) -> dict[str, Any]:
    """Train, or go on training, the run in `folder`; returns its summary.

    after: a run of the first phases, to go on from. spread: who explores (see collect.explore).
    """
    setup(config.threads)
    began, cpu = time.monotonic(), time.process_time()
    # Whatever can be wrong with the configuration is found before there is a folder that holds it.
    check(config)
    parallel.check_batch(config.learn.batch)
    world = open_world(config.env, options_of(config))
    try:
        agent = Agent.build(config, world.senses, world.actions, pick_device(config.device))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"an agent of this configuration cannot be built: {error}") from error
    first = parallel.rank() == 0
    opened = Run.create_or_resume(folder, dataclasses.asdict(config), command_line) if first else nullcontext()
    with opened as run, Progress(show=first) as progress:
        progress.start("explore", config.collect.episodes, unit="episodes")
        # The data are a function of the configuration alone: a resumed run explores again and sees the same.
        data = collect.explore(config.collect, world, config.world_model.action_block, config.seed, spread)
        steps = data.episodes * data.length * config.world_model.action_block
        progress.update(data.episodes, f"{steps} environment steps")
        seconds = (time.monotonic() - began, time.process_time() - cpu)
        learner = Learner(config, agent, data, run)
        drawing = [0.0, 0.0]

        def show(phase: str, step: int) -> None:
            if world.simulator is None or run is None or not config.learn.decoder_steps or phase == "policy":
                return  # nothing to see, nobody to show it to, nobody who wants to look, or nothing new
            progress.start("pictures")
            start = (time.monotonic(), time.process_time())
            imagination.to_tensorboard(agent, config, world.simulator, run, step, phase == "decoder")
            drawing[0] += time.monotonic() - start[0]
            drawing[1] += time.process_time() - start[1]

        learner.learn(progress, stop_at, None if after is None else Run.open(after), show)
        if run is None:
            return {}
        seconds = (seconds[0] + drawing[0], seconds[1] + drawing[1])
        summary = {
            "run": str(folder),
            "env": config.env,
            "seed": config.seed,
            "env_steps": steps,
            "train_wall_seconds": round(learner.seconds["wall"] + seconds[0], 2),
            "train_cpu_seconds": round(learner.seconds["cpu"] + seconds[1], 2),
            "pictures_wall_seconds": round(drawing[0], 2),
            "peak_memory_mb": round(_peak_bytes() / 2**20, 1),
            "parameters": sum(p.numel() for m in agent.modules().values() for p in m.parameters()),
        }
        run.write_json("summary.json", summary)
    return summary


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes on Linux
