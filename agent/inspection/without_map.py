"""Imagination made visible in any Gymnasium environment: no map, no positions, but pixels, a body, or curves.

Shapes: N episodes shown, T = SEEN + H moments, H imagined steps, S sensors; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from agent.agent import Agent
from agent.config import Config
from agent.console import warn
from agent.drawing import figures, frames
from agent.drawing.colours import Picture
from agent.drawing.frames import BODY_ROWS, COLOUR_ROWS, SEEN, SIDE, difference
from agent.drawing.rendering import picture
from agent.errors import UserError
from agent.inspection import rollouts
from agent.inspection.episode_plans import EpisodePlan, as_numbers, plans, wanted_names
from agent.inspection.pictures import Pictures
from agent.inspection.rollouts import Episode
from agent.inspection.sight import Sight
from agent.interaction.environment import Environment
from agent.interaction.replay import Replay
from modules.types import State

EPISODES, EPISODES_OF_PIXELS = 128, 32  # behind the curves; of what has to be drawn to be seen, fewer
IN_PLANS = 3  # sensors in the picture of plans
IN_FILM = 24  # moments of a film of curves at most, all of them in the strip that fit


@dataclass(frozen=True)
class Held:
    """What training never saw."""

    pieces: Replay
    episodes: list[Episode]


class Show:
    """Pictures of one environment. What is explored for them is kept: an agent that learns is shown the same again."""

    def __init__(
        self,
        config: Config,
        environment: Environment,
        episodes: int = 4,
        horizon: int = 16,
        seed: int = 0,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """What to show.

        Args:
            config: of the run.
            environment: of the run, without a Simulator behind it.
            episodes: N.
            horizon: H, where episodes are long enough.
            seed: of all that is held out.
            count: pieces behind the curves.
            seconds: that rendering N episodes may take, else there are fewer; None: any.
        """
        self.config, self.environment, self.episodes, self.seed = config, environment, episodes, seed
        self.seconds, self.asked = seconds, horizon
        pixels = environment.spec.observation.pixel_shape is not None
        self.count = count or (EPISODES_OF_PIXELS if pixels else EPISODES)
        self._held: Held | None = None

    @torch.no_grad()
    def pictures(self, agent: Agent, decoded: bool = True) -> Pictures:
        """All there is to show of an agent, whose random numbers stay as they were.

        decoded: whether its decoder has learned; without it a world of pixels has no film and no plans.

        Raises:
            UserError: episodes are too short to imagine anything.
        """
        # The sensors' scales were fitted to what was explored: the agent knows them, the environment does not.
        environment = replace(self.environment, spec=agent.spec)
        block, most = self.config.world_model.action_block, rollouts.possible(environment, self._block)
        with Sight(environment) as sight:
            held = self._held = self._held or self._gather(environment, sight)
            rollout = rollouts.roll(agent, held.pieces)
            horizon = held.pieces.length - (SEEN - 1)
            numbers: dict[str, Any] = {
                **rollouts.errors(rollout, sight.names),
                "horizon_asked": self.asked,
                "horizon_possible": most,
                "shown_as": sight.kind,
                "action_block": block,
            }
            first = wanted_names(agent, environment)
            names = rollouts.telling(held.pieces, environment.spec, first, sight.names) if sight.names else []
            curves = None
            longest = max(held.episodes, key=lambda one: one.length)
            if names and longest.length >= SEEN:
                numbers["sensors"] = rollouts.fan(agent, longest, sight, names, horizon)
                curves = figures.sensor_fan(numbers["sensors"])
            drawn = None if curves is None else picture(curves)
            film = strip = None
            if sight.kind == "curves":
                if curves is not None and drawn is not None and longest.frames:
                    film, strip = self._beside(longest, curves, drawn)
            elif sight.kind == "body" or decoded:
                film, strip = self._real_and_imagined(agent, held, sight, horizon)
            planned = None
            if self.config.cost.drives and (names or decoded):
                found = plans(agent, environment, sight, self.seed)
                shown = names[:IN_PLANS]
                numbers["plans"] = [as_numbers(agent, environment, sight, one, shown) for one in found]
                numbers["plans_for"], numbers["plans_sensors"] = list(self.config.cost.drives), shown
                planned = self._plans(agent, sight, found, numbers["plans"], shown)
        return Pictures(
            latent_error=picture(figures.curves(numbers)),
            numbers=numbers,
            film=film,
            strip=strip,
            plans=planned,
            sensors=drawn,
        )

    @property
    def _block(self) -> int:
        return self.config.world_model.action_block

    @property
    def _world(self) -> str:
        return f"{self.config.env}, one step is {self._block} action{'s' * (self._block > 1)}"

    def _gather(self, environment: Environment, sight: Sight) -> Held:
        """Explore what is shown."""
        most = rollouts.possible(environment, self._block)
        length = SEEN - 1 + (self.asked if most is None else min(self.asked, most))
        pieces = rollouts.pieces(self.config, environment, self.count, length, (self.seed, 2))
        if pieces.length < SEEN:
            raise UserError(
                f"episodes of {environment.name} are shorter than {SEEN} blocks of {self._block} actions, too few to "
                "imagine anything"
            )
        renders = sight.kind != "pixels" and _renders(sight)
        count = 1 if sight.kind == "curves" else self.episodes  # curves are drawn of one
        episodes = rollouts.watch(
            self.config, environment, sight, count, pieces.length, self.seed, renders, self.seconds
        )
        return Held(pieces, episodes)

    def _real_and_imagined(self, agent: Agent, held: Held, sight: Sight, horizon: int) -> tuple[list[Picture], Picture]:
        """Film and strip of the episodes from their reset on."""
        data = rollouts.as_replay(held.episodes, SEEN - 1 + horizon)
        rollout = rollouts.roll(agent, data)
        shown = State.cat([rollout.state[:, :SEEN], rollout.imagined], 1)
        imagined: list[Picture] = []
        for n, one in enumerate(held.episodes):
            sight.begin(one.seed)
            drawn = sight.imagined(agent, shown[n])
            assert drawn is not None
            imagined.append(np.array(drawn))
        painted = np.array(imagined)
        if data.pixels is not None:
            real = frames.to_rgb(data.pixels.numpy())
            error, rows = difference(real, painted), COLOUR_ROWS
        else:
            real = np.array([one.frames for one in held.episodes])
            error, rows = None, BODY_ROWS
        film = frames.film(real, painted, error, rows)
        if error is None:  # a strip has many frames beside each other
            real, painted = reduced(real, SIDE), reduced(painted, SIDE)
        return film, frames.strip(real, painted, error, self._world, rows)

    def _beside(self, one: Episode, curves: figures.Figure, drawn: Picture) -> tuple[list[Picture], Picture]:
        """The real frames beside the curves, and some of them above."""
        film = [
            frames.beside(one.frames[t], drawn, figures.columns_at(curves, t), f"real, block {t} of {one.length}")
            for t in spaced(one.length, IN_FILM)
        ]
        some = spaced(one.length, frames.that_fit(drawn.shape[1], SIDE))
        kept = reduced(np.array([one.frames[t] for t in some]), SIDE)
        return film, np.vstack([frames.contact_sheet(kept, [f"block {t}" for t in some], drawn.shape[1]), drawn])

    def _plans(
        self, agent: Agent, sight: Sight, found: Sequence[EpisodePlan], numbers: Sequence[Any], names: Sequence[str]
    ) -> Picture | None:
        """Plans as readings, or as frames where there are no readings."""
        title = f"Plans in {self.config.env} for {', '.join(self.config.cost.drives)}"
        if names:
            return picture(figures.sensor_plans(numbers, names, title))
        imagined = [np.array(sight.imagined(agent, one.chosen)) for one in found]
        executed = [frames.to_rgb(one.executed["pixels"]) for one in found]
        length = len(imagined[0])
        executed = [np.concatenate([x, np.repeat(x[-1:], length - len(x), 0)]) for x in executed]
        goals = [None if one.goal is None else sight.perceived(one.goal) for one in found]
        titles = [f"energy {one.energy:.3g}, first proposal {one.first:.3g}" for one in found]
        return frames.plan_sheet(np.array(imagined), np.array(executed), goals, titles, title)


def _renders(sight: Sight) -> bool:
    """Whether there are frames of the copy that is stepped; a warning where there should be."""
    if sight.env is None:
        return False
    try:
        sight.env.reset(seed=0)
        return sight.rendered() is not None
    except Exception as error:  # it is somebody else's code, and may want a display or a package
        if "rgb_array" in sight.env.metadata.get("render_modes", ()):
            warn(f"{sight.environment.name} cannot be rendered, so there is no film: {type(error).__name__}: {error}")
        return False


def spaced(last: int, most: int) -> list[int]:
    """At most so many moments from 0 to the last one, both included, evenly."""
    return sorted({round(t) for t in np.linspace(0, last, min(most, last + 1))})


def reduced(pictures: Picture, side: int) -> Picture:
    """Pictures (..., h, w, 3) no larger than `side`."""
    height, width = pictures.shape[-3:-1]
    if max(height, width) <= side:
        return pictures
    factor = side / max(height, width)
    size = round(width * factor), round(height * factor)
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    out = np.array([np.array(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in flat])
    return out.reshape(*pictures.shape[:-3], *out.shape[1:])
