# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The agent: six modules and the loop that they make.

`Agent.act` is the paper's perception-action episode (LeCun 2022, section 3.1): read it from top to bottom. Everything
that a decision was made of is returned beside the action as a Decision.

Shapes: E episodes acting at once, L primitive actions of a plan, K primitive actions a block, A action.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agent.episode import Episode
from agent.planning import Level, Planned, plan
from agent.spec import EnvSpec, as_tensors, checked
from modules.actor import Actor
from modules.blocks import device_of
from modules.configurator import Overridden
from modules.cost import CostModule
from modules.decoder import Decoder
from modules.memory import EpisodicMemory
from modules.perception import select_rows
from modules.types import (
    Configurator,
    Cost,
    Decision,
    Directive,
    Goal,
    Observation,
    Perception,
    Plan,
    Situation,
    State,
    Task,
)
from modules.types import WorldModel as WorldModelProtocol
from modules.world_model import JEPA, InverseDynamics, prediction_error


class Agent:
    """Perception, world model, cost, actor, memory, configurator; and a decoder for people to look through."""

    def __init__(
        self,
        spec: EnvSpec,
        perception: Perception,
        world_model: JEPA,
        cost: CostModule,
        actor: Actor,
        memory: EpisodicMemory,
        configurator: Configurator,
        inverse: InverseDynamics,
        decoder: Decoder,
        generator: torch.Generator,
    ) -> None:
        """spec: of the environment it lives in. generator: the planners' random numbers."""
        self.spec = spec
        self.perception, self.world_model, self.cost = perception, world_model, cost
        self.actor, self.memory, self.configurator = actor, memory, configurator
        self.inverse, self.decoder = inverse, decoder
        self.level = Level(world_model, cost, actor)
        """What plans: the learned world model and cost, or oracles in their place (see `acting`)."""
        self.generator = generator
        self.task = Task()
        self.episode: Episode | None = None
        self._goal: Goal | None = None
        self._episodes = 0
        self._surprise = 0.0

    # Life

    def set_goal(self, goal: Any = None, weights: Mapping[str, float] | None = None) -> None:
        """Begin new episodes with a goal.

        Args:
            goal: an observation, in the environment's own form, of how things should look; or a batch of E of them for
                E episodes that act together; or None. It has no history: a perception with a carry encodes it as a
                first moment, which is weak where goals are compared in the latent, and not in proprio.
            weights: weights of drives by name that override the configured ones, down to each drive's floor.
        """
        observation = None if goal is None else self.sense(goal)[0]
        self.set_task(Task(observation, weights or {}))

    def set_task(self, task: Task) -> None:
        """Begin new episodes with a task."""
        self.task, self.episode = task, None
        self.weights_changed()

    def weights_changed(self) -> None:
        """Re-encode the goal. Call this after changing weights in the middle of an episode."""
        self._goal = None
        if self.task.goal is not None:
            with torch.no_grad():
                window = self.task.goal.map(lambda x: x[:, None])
                self._goal = Goal(self.perception.encode_window(window)[:, 0])

    @torch.no_grad()
    def act(self, observation: Any, is_first: NDArray[np.bool_] | None = None) -> tuple[NDArray[Any], Decision]:
        """One decision.

        Args:
            observation: in the environment's own form, or a batch of E of them.
            is_first: (E,) episodes that have just been reset; None: all of them at the first call after `set_goal` or
                `set_task`, none later.

        Returns:
            The primitive action (A,) or (E, A), and the Decision that it comes from. Nothing is written to memory:
            see `remember`.

        Raises:
            ValueError: the observation is not what the agent perceives, or E is not the number of goals.
        """
        began = time.perf_counter()
        percept, single = self.sense(observation)
        episode, first = self._begin(percept, is_first)

        # 1. Perception: estimate the state; the configurator sets every module to the task; the cost of being here.
        state = self._perceive(episode, percept, first)
        surprise = self._compare(episode, state, first)
        status = self.status()
        replan = torch.from_numpy(self._due(episode, episode.directive)).to(state.latent.device)
        situation = Situation(
            state,
            self.task,
            self._goal,
            status,
            self.memory,
            replan,
            episode.directive,
            self.generator,
        )
        directive = self.configurator.configure(situation)
        cost = self.level.cost.state(state, directive)

        planned: Planned | None = None
        due = np.zeros(episode.size, bool)
        if directive.mode == 1:
            # Mode-1: the policy answers at once.
            action, replanned = self.actor.act(state, directive), True
        else:
            # 2 to 5. Proposal, simulation, evaluation, planning, in the episodes whose plan has come to its end.
            due = self._due(episode, directive)
            planned = self._plan(episode, state, directive, due)
            replanned = planned is not None
            # 6. Acting: the first action of what is left of the plan.
            assert episode.plan is not None
            action = _pick(episode.plan.actions.flatten(1, 2), episode.offset)
            episode.offset += 1

        now, number = episode.time.copy(), episode.number.copy()
        self._executed(episode, action, directive)
        out = self.actor.actions.to_env(action.cpu().numpy().copy())  # the caller's own: the plan goes on with ours
        decision = Decision(
            mode=directive.mode,
            state=state,
            directive=directive,
            cost=cost,
            action=action,
            replanned=replanned,
            rows=None if planned is None else torch.from_numpy(np.flatnonzero(due)),
            time=torch.from_numpy(now),
            episode=torch.from_numpy(number),
            surprise=surprise,
            plan=episode.plan if directive.mode == 2 else None,
            proposal_energy=planned and planned.proposal_energy,
            imagined=planned and planned.imagined,
            plan_cost=planned and planned.cost,
            candidates=planned and planned.candidates,
            status=status,
            milliseconds=(time.perf_counter() - began) * 1e3,
        )
        return (out[0] if single else out), decision

    def remember(self, decision: Decision) -> None:
        """Step 7, memory: write the state of a decision and its action, held for a block. A listener of life."""
        assert decision.time is not None and decision.episode is not None
        block = decision.action[:, None].expand(-1, self.world_model.action_block, -1)
        self.memory.write(decision.time, decision.episode, decision.state, block, imagined=False)

    def acting(
        self,
        changes: Mapping[str, Any] | None = None,
        world_model: WorldModelProtocol | None = None,
        cost: Cost | None = None,
        seed: int = 0,
    ) -> Agent:
        """The same agent under other settings of acting; weights and memory are shared, nothing else is.

        Args:
            changes: fields of the directive that are replaced: planner, mode, samples, iterations, horizon, ...
            world_model: what imagines in place of the learned world model (an oracle).
            cost: what evaluates in place of drives and critic (an oracle).
            seed: of the planners' random numbers.
        """
        other = copy.copy(self)
        other.generator = torch.Generator().manual_seed(seed)
        other.level = Level(world_model or self.world_model, cost or self.cost, self.actor)
        if changes:
            other.configurator = Overridden(self.configurator, changes)
        other.set_task(Task())
        return other

    def status(self) -> dict[str, dict[str, float]]:
        """What every module reports of itself to the configurator."""
        return {
            "perception": self.perception.status(),
            "world_model": {**self.level.world_model.status(), "surprise": self._surprise},
            "cost": self.level.cost.status(),
            "actor": self.actor.status(),
            "memory": self.memory.status(),
        }

    # Inside a decision

    def _begin(self, percept: Observation, is_first: NDArray[np.bool_] | None) -> tuple[Episode, NDArray[np.bool_]]:
        """The episodes that go on, with those that begin now put back to their start."""
        count, episode = percept.batch, self.episode
        goals = None if self._goal is None else len(self._goal.state.latent)
        for what, held in (("goals", goals), ("episodes under way", episode and episode.size)):
            if held is not None and held != count:
                raise ValueError(f"{count} observations for {held} {what}: call set_goal with as many goals")
        if is_first is not None and np.shape(is_first) != (count,):
            raise ValueError(f"is_first must have shape ({count},), got {np.shape(is_first)}")
        first = np.ones(count, bool) if episode is None else np.zeros(count, bool)
        if is_first is not None:
            first |= np.asarray(is_first, bool)
        if episode is None:
            zeros = np.zeros(count, np.int64)
            carry = self.perception.initial(count)
            none = np.zeros(count, bool)
            episode = Episode(zeros, zeros.copy(), carry, offset=zeros.copy(), planned=none, since=zeros.copy())
            self.episode = episode
        if first.any():
            began = int(first.sum())
            episode.number[first] = np.arange(self._episodes, self._episodes + began)
            self._episodes += began
            episode.time[first], episode.planned[first], episode.since[first] = 0, False, 0
        return episode, first

    def _perceive(self, episode: Episode, percept: Observation, first: NDArray[np.bool_]) -> State:
        """The state (E, ...) of this moment. The carry advances where a block of actions ends or an episode begins.

        Between the ends of blocks a state comes from the carry of the last one and the part of the block that has been
        executed; training has no such moments, so what they would add to the carry is thrown away.
        """
        firsts = torch.from_numpy(first).to(self.device)
        if not self.perception.context:
            return self.perception.observe(episode.carry, percept, None, firsts)[1]
        done, last_block = episode.executed, None
        if done is not None:
            executed = torch.from_numpy(np.arange(done.shape[1]) < episode.since[:, None]).to(done.device)
            last_block = torch.where(executed[..., None], done, self.actor.actions.rest(done))
        carry, state = self.perception.observe(episode.carry, percept, last_block, firsts)
        ends = first | (episode.since == self.world_model.action_block)
        episode.carry = select_rows(torch.from_numpy(ends), carry, episode.carry)
        return state

    def _due(self, episode: Episode, directive: Directive | None) -> NDArray[np.bool_]:
        """(E,) episodes that plan now."""
        if episode.plan is None or directive is None:
            return np.ones(episode.size, bool)
        length = episode.plan.actions.shape[1] * episode.plan.actions.shape[2]
        if length != directive.horizon * self.level.action_block:
            return np.ones(episode.size, bool)
        return ~episode.planned | (episode.offset >= min(directive.replan_every, length))

    def _plan(self, episode: Episode, state: State, directive: Directive, due: NDArray[np.bool_]) -> Planned | None:
        """Plan in the episodes that are due, and note it in them; None when there are none."""
        if not due.any():
            return None
        last, read = self._rest(episode), getattr(self.level.world_model, "read", None)
        context = None if read is None else read(self.memory, state if due.all() else state[torch.from_numpy(due)])
        if due.all():
            planned = plan(self.level, state, directive, self.generator, last, context)
            episode.plan = planned.plan
        else:
            rows = torch.from_numpy(np.flatnonzero(due)).to(self.device)
            goal = directive.goal and directive.goal[rows]
            asked = directive.but(goal=goal)
            planned = plan(self.level, state[rows], asked, self.generator, last[rows], context)
            assert episode.plan is not None
            actions, energy = episode.plan.actions.clone(), episode.plan.energy.clone()
            actions[rows], energy[rows] = planned.plan.actions, planned.plan.energy
            episode.plan = Plan(actions, energy)
        episode.offset[due], episode.planned[due] = 0, True
        return planned

    def _rest(self, episode: Episode) -> Tensor:
        """(E, L', A) what is left of each plan, in episodes of different progress filled up with rest."""
        device = self.device
        if episode.plan is None or not episode.planned.any():
            return torch.empty(episode.size, 0, self.actor.actions.size, device=device)
        actions = episode.plan.actions.flatten(1, 2)
        done = int(episode.offset[0])
        if episode.planned.all() and (episode.offset == done).all():
            return actions[:, done:]
        index = torch.from_numpy(episode.offset)[:, None] + torch.arange(actions.shape[1])
        left = torch.from_numpy(episode.planned)[:, None] & (index < actions.shape[1])
        index = index.clamp(max=actions.shape[1] - 1).to(device)[..., None].expand_as(actions)
        return torch.where(left.to(device)[..., None], actions.gather(1, index), self.actor.actions.rest(actions))

    def _compare(self, episode: Episode, state: State, first: NDArray[np.bool_]) -> Tensor | None:
        """Surprise (E,): how far this state is from the prediction for it, where a block of actions ends now."""
        block = self.world_model.action_block
        if episode.reference is None or episode.executed is None:
            episode.reference = state
            episode.executed = state.latent.new_zeros(episode.size, block, self.actor.actions.size)
            return None
        if int(episode.since.max()) < block and not first.any():
            return None  # the usual case: every block goes on
        ends = (episode.since == block) & ~first
        surprise = None
        if ends.any():
            error = prediction_error(self.world_model.predict(episode.reference, episode.executed), state)
            surprise = error.masked_fill(torch.from_numpy(~ends).to(error.device), torch.nan)
            self._surprise = float(error[torch.from_numpy(ends).to(error.device)].mean())
        renewed = ends | first
        if renewed.all():
            episode.reference = state
        elif renewed.any():
            rows = torch.from_numpy(renewed).to(state.latent.device)[:, None]
            before = episode.reference
            episode.reference = State(
                torch.where(rows, state.latent, before.latent), torch.where(rows, state.proprio, before.proprio)
            )
        episode.since[renewed] = 0
        return surprise

    def _executed(self, episode: Episode, action: Tensor, directive: Directive) -> None:
        """Note what was done."""
        assert episode.executed is not None
        first = int(episode.since[0])
        if (episode.since == first).all():
            episode.executed[:, first] = action
        else:
            rows = torch.arange(episode.size, device=action.device)
            episode.executed[rows, torch.from_numpy(episode.since).to(action.device)] = action
        episode.since += 1
        episode.time += 1
        episode.directive = directive

    def sense(self, observation: Any) -> tuple[Observation, bool]:
        """An observation of the environment as tensors with a batch axis, and whether that axis had to be added.

        Raises:
            ValueError: it has another shape or type than this agent perceives, or is not finite.
        """
        percept, single = checked(as_tensors(observation), self.spec.observation)
        device = self.device
        return percept.map(lambda x: (x[None] if single else x).to(device)), single

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return device_of(self.perception)

    def modules(self) -> dict[str, nn.Module]:
        """Everything with weights, by name."""
        every = {
            "perception": self.perception,
            "world_model": self.world_model,
            "inverse": self.inverse,
            "cost": self.cost,
            "actor": self.actor,
            "decoder": self.decoder,
        }
        return {name: module for name, module in every.items() if isinstance(module, nn.Module)}


def _pick(actions: Tensor, offset: NDArray[np.int64]) -> Tensor:
    """Row-wise element: actions (E, L, A), offset (E,) -> (E, A)."""
    first = int(offset[0])
    if (offset == first).all():
        return actions[:, first]
    return actions[torch.arange(len(offset)), torch.from_numpy(offset)]
