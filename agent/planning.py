# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false
"""Mode-2 at one level: propose, simulate, evaluate, improve (LeCun 2022, section 3.1.2, steps 2 to 5).

A hierarchy is a list of Levels: the state that a plan of the level above imagines is the goal of the level below.

Shapes: E episodes, N candidates, H imagined steps, K primitive actions a step, A action, Z latent variable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from modules.actor import Actor
from modules.types import Cost, Directive, Float, Growing, Imagined, Plan, State, TrajectoryCost, WorldModel


@dataclass(frozen=True)
class Level:
    """What plans at one time scale. An oracle may stand in place of the world model or of the cost."""

    world_model: WorldModel
    cost: Cost
    actor: Actor

    @property
    def action_block(self) -> int:
        """K: primitive actions (or actions of the level below) in one imagined step."""
        return self.world_model.action_block


@dataclass(frozen=True)
class Planned:
    """What a search came to."""

    plan: Plan
    imagined: Imagined
    """(E, H, ...) under the chosen plan."""
    cost: TrajectoryCost
    """Of the chosen plan, leading axes (E,)."""
    proposal_energy: Float[Tensor, " E"]
    """(E,) energy of the first proposal, before any improvement."""
    candidates: Plan
    """Of the last iteration: actions (E, N, H, K, A), energy (E, N)."""


@torch.no_grad()
def plan(
    level: Level,
    state: State,
    directive: Directive,
    generator: Generator,
    last: Float[Tensor, "E L A"] | None = None,
    context: Any = None,
) -> Planned:
    """Search for the action sequence of least energy.

    Args:
        level: world model, cost and actor.
        state: (E, ...) s[0].
        directive: goal (E, ...), planner, horizon and the rest.
        generator: all randomness of the search.
        last: (E, L, A) the rest of the last plan, from which a warm start begins.
        context: what the world model reads from memory, passed on to `rollout`.
    """
    actor, block = level.actor, level.action_block
    # 2. Proposal: the rest of the last plan, or no movement.
    nothing = state.latent.new_empty(len(state.latent), 0, actor.actions.size)
    start = actor.propose(directive, nothing if last is None else last, block)
    search = actor.search(start, directive, generator)
    growing = search if isinstance(search, Growing) else None
    proposal_energy: Tensor | None = None
    imagined: Imagined | None = None
    for _ in range(search.rounds):
        with torch.set_grad_enabled(search.needs_gradient):
            candidates = search.ask()  # E N H K A
            # 3. Simulation: the world model imagines where each candidate leads.
            parents = None if growing is None or not getattr(level.world_model, "continues", True) else growing.parents
            if imagined is None or parents is None:
                z = _drawn(level.world_model, candidates, generator)
                imagined = imagine(level.world_model, state, candidates, z, context)
            else:
                z = _drawn(level.world_model, candidates[:, :, -1:], generator)
                imagined = go_on(level.world_model, imagined, parents, candidates, z, context)
            # 4. Evaluation: the cost of what was imagined.
            energy = level.cost.trajectory(imagined, directive).energy
            if growing is not None:
                growing.reached(imagined.states[:, :, -1])
            # 5. Planning: better candidates.
            search.tell(candidates, energy)
        proposal_energy = energy[:, 0].detach() if proposal_energy is None else proposal_energy
    assert proposal_energy is not None, "a directive asks for at least one iteration"
    best = search.best()
    chosen = imagine(level.world_model, state, best.actions[:, None], None, context)
    cost = level.cost.trajectory(chosen, directive)
    return Planned(
        plan=best,
        imagined=chosen.map(lambda x: x[:, 0]),
        cost=TrajectoryCost({k: v[:, 0] for k, v in cost.drives.items()}, cost.critic[:, 0], best.energy),
        proposal_energy=proposal_energy,
        candidates=Plan(search.candidates.detach(), search.energy.detach()),
    )


def imagine(
    world_model: WorldModel,
    state: State,
    candidates: Float[Tensor, "E N H K A"],
    z: Tensor | None = None,
    context: Any = None,
) -> Imagined:
    """States (E, ...) under candidates (E, N, H, K, A), latent variables (E, N, H, Z) -> imagined (E, N, H, ...)."""
    count = candidates.shape[1]
    return _rolled_out(world_model, state.map(lambda x: x[:, None].expand(-1, count, -1)), candidates, z, context)


def go_on(
    world_model: WorldModel,
    before: Imagined,
    parents: Tensor,
    candidates: Float[Tensor, "E N d K A"],
    z: Tensor | None = None,
    context: Any = None,
) -> Imagined:
    """What candidates lead to that are one step longer than what was imagined before: only that step is predicted.

    Args:
        world_model: predicts.
        before: (E, N', d - 1, ...).
        parents: (E, N) which of the N' each candidate goes on from.
        candidates: (E, N, d, K, A).
        z: (E, N, 1, Z) latent variables of the last step.
        context: what the world model reads from memory.
    """
    rows = torch.arange(len(parents), device=parents.device)[:, None]
    before = before.map(lambda x: x[rows, parents])
    step = _rolled_out(world_model, before.states[:, :, -1], candidates[:, :, -1:], z, context)
    return Imagined(
        State.cat([before.states, step.states], 2),
        candidates,
        _longer(before.z, step.z),
        _longer(before.disagreement, step.disagreement),
    )


def _rolled_out(world_model: WorldModel, states: State, candidates: Tensor, z: Tensor | None, context: Any) -> Imagined:
    """States (E, N, ...) under candidates (E, N, H, K, A), one state for each -> imagined (E, N, H, ...)."""
    episodes, count = candidates.shape[:2]
    flat = None if z is None else z.flatten(0, 1)
    starts = states.map(lambda x: x.flatten(0, 1))
    imagined = world_model.rollout(starts, candidates.flatten(0, 1), flat, context)
    # The candidates themselves, not the copy that was rolled out: a gradient planner differentiates by them.
    return imagined.map(lambda x: x.unflatten(0, (episodes, count))).but(actions=candidates)


def _longer(before: Tensor | None, step: Tensor | None) -> Tensor | None:
    """Joined along time, where the world model has such a thing."""
    return None if before is None or step is None else torch.cat([before, step], 2)


def _drawn(world_model: WorldModel, candidates: Tensor, generator: Generator) -> Tensor | None:
    """Latent variables from their prior N(0, 1), one draw for all episodes: (E, N, H, Z)."""
    if not world_model.z_size:
        return None
    episodes, count, horizon = candidates.shape[:3]
    z = torch.empty(count, horizon, world_model.z_size, device=generator.device).normal_(generator=generator)
    return z.to(candidates.device).expand(episodes, -1, -1, -1)
