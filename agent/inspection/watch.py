"""What looks on at a training: collapse gauges of the world model, pictures in TensorBoard after each phase."""

from __future__ import annotations

import time

from agent.agent import Agent
from agent.build import tensors
from agent.config import Config
from agent.console import Progress, warn
from agent.errors import check_finite
from agent.inspection import imagination
from agent.inspection.gauges import measure
from agent.inspection.without_map import Show
from agent.interaction.environment import Environment
from agent.interaction.replay import Replay
from agent.learning import parallel
from agent.learning.updates import Update
from agent.storage.run import Run

GLANCE = 16  # pieces behind the curves in an environment without a map, whose copies may be slow
SECONDS = 1.0  # that rendering the episodes of its film may take, about; imagining them takes as long again


class Gallery:
    """Gauges and pictures of a training (`agent.learning.trainer.Watch`). Nothing of it changes what is learned."""

    def __init__(
        self, agent: Agent, config: Config, environment: Environment, replay: Replay, run: Run, progress: Progress
    ) -> None:
        self.agent, self.config, self.environment = agent, config, environment
        self.replay, self.run, self.progress = replay, run, progress
        self.seconds = (0.0, 0.0)
        """Wall and CPU time that the pictures took."""
        self.show: Show | None = None
        """Of an environment without a map."""
        if environment.truth is None:
            self.show = Show(config, environment, episodes=2, seed=config.seed, count=GLANCE, seconds=SECONDS)
        self.failed = False

    def on_step(self, update: Update, step: int) -> dict[str, float]:
        """Gauges of the world model, every now and then."""
        every = self.config.learn.gauge_every
        if update.name != "world_model" or parallel.rank() or (step != 1 and step % every and step != update.steps):
            return {}
        check_finite(tensors(self.agent), step, "weights")
        return measure(self.agent, self.replay, self.environment, seed=self.config.seed)

    def on_phase_end(self, update: Update, total: int) -> None:
        """Pictures of what is imagined; on a map, where there is one, with a decoder to come."""
        drawable = None not in (self.environment.truth, self.environment.view, self.environment.goals)
        drawable = drawable and self.config.learn.decoder_steps > 0
        if self.failed or update.name == "policy" or not (drawable or self.show):
            return
        self.progress.start("pictures")
        began = time.monotonic(), time.process_time()
        decoded = update.name == "decoder"
        try:
            show = self.show
            imagination.to_tensorboard(self.agent, self.config, self.environment, self.run, total, decoded, show)
        except Exception as error:  # drawing steps and renders somebody else's code; a training is worth more
            self.failed = True
            warn(f"there are no more pictures in TensorBoard, because drawing failed: {type(error).__name__}: {error}")
        wall, cpu = self.seconds
        self.seconds = wall + time.monotonic() - began[0], cpu + time.process_time() - began[1]
