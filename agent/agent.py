"""The agent: six modules and the loop that they make.

`Agent.act` is the paper's perception-action episode (LeCun 2022, section 3.1): read it from top to bottom. Everything a
decision was made of is returned beside the action as a Decision.

Shapes: E episodes acting at once, N candidates, H imagined steps, K primitive actions a step, A action.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.build import pick_device
from agent.config import Config, from_dict, options_of
from agent.errors import UserError
from agent.interaction.environment import as_tensors, open_world
from agent.storage.run import Run
from modules.actor import Actor, Policy
from modules.configurator import Configurator
from modules.cost import Anatomy, Costs
from modules.decoder import Decoder
from modules.losses import InverseDynamics
from modules.memory import EpisodicMemory
from modules.perception import Encoder, LastRead, ProprioEmbedding, Senses, StateEmbedding
from modules.planners import PLANNERS
from modules.types import (
    ActionSpace,
    Cost,
    Decision,
    Directive,
    Observation,
    PathCost,
    Plan,
    State,
    Task,
    WorldModel,
)
from modules.world_model import JEPA


class Agent:
    """Perception, world model, cost, actor, memory, configurator; and a decoder for people to look through."""

    def __init__(
        self,
        perception: Encoder,
        world_model: JEPA,
        cost: Costs,
        actor: Actor,
        memory: EpisodicMemory,
        configurator: Configurator,
        inverse: InverseDynamics,
        decoder: Decoder,
    ) -> None:
        self.perception, self.world_model, self.cost = perception, world_model, cost
        self.actor, self.memory, self.configurator = actor, memory, configurator
        self.inverse, self.decoder = inverse, decoder
        self.dynamics: WorldModel = world_model
        """What imagines: the world model, or an oracle in its place."""
        self.judge: Cost = cost
        """What says how good an imagined path is: the cost, or an oracle in its place."""
        self.task = Task(None)
        self._goal: State | None = None
        self._subgoal: State | None = None
        self._plan: Plan | None = None
        self._left: Tensor | None = None
        self._expected: tuple[int, State] | None = None
        """The moment for which the last plan imagined a state, and that state."""
        self._time = self._episode = self._since_plan = 0

    @staticmethod
    def build(config: Config, senses: Senses, actions: ActionSpace, device: str | torch.device = "cpu") -> Agent:
        """A new agent, its weights drawn from the configuration's seed."""
        torch.manual_seed(config.seed)
        perception = Encoder(config.perception, senses)
        latent, proprio, shape = perception.latent_size, perception.proprio_size, perception.map_shape
        world_model = JEPA(config.world_model, latent, proprio, actions, shape)
        contact = senses.proprio_names.index("contact") if "contact" in senses.proprio_names else None

        def read_state(size: int) -> StateEmbedding:
            return StateEmbedding(latent, proprio, shape, size)

        def read_goal(size: int) -> LastRead:
            index = senses.goal_proprio
            return LastRead(
                ProprioEmbedding(index, size, config.perception.fourier_features) if index else read_state(size)
            )

        hidden, anatomy = config.cost.hidden, Anatomy(actions, senses.goal_proprio, contact)
        cost = Costs(config.cost, anatomy, read_state(hidden), read_goal(hidden), config.configurator.discount)
        planners = {k: partial(v, config.planner) for k, v in PLANNERS.items()}
        actor = Actor(
            Policy(config.actor, actions, read_state(config.actor.hidden), read_goal(config.actor.hidden)),
            planners,
            world_model.action_block,
            config.seed,
        )
        agent = Agent(
            perception,
            world_model,
            cost,
            actor,
            EpisodicMemory(config.memory),
            Configurator(config.configurator),
            InverseDynamics(latent, proprio, config.world_model.action_block * actions.size, map_shape=shape),
            Decoder(config.decoder, latent, proprio, shape, senses.pixel_shape, len(senses.sensor_low)),
        )
        for module in agent.modules().values():
            module.to(device)
        return agent

    @staticmethod
    def load(run: str | Path, device: str = "auto", config: Config | None = None) -> Agent:
        """The agent of a run folder, as its newest good checkpoint has it.

        config: of an agent that acts with these weights in another way than the run's own says.
        """
        opened = Run.open(Path(run))
        try:
            config = config or from_dict(Config, opened.config)
        except (TypeError, ValueError) as error:
            raise UserError(f"{opened.folder / 'config.json'} is from another version: {error}") from error
        world = open_world(config.env, options_of(config))
        try:
            agent = Agent.build(config, world.senses, world.actions, pick_device(device))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{opened.folder / 'config.json'} describes no agent that can be built: {error}") from error
        tensors = opened.load_checkpoint()[0]
        agent.load_tensors(tensors)
        if agent.memory.config.capacity:
            agent.load_memory(tensors)
        return agent

    # Life

    def set_goal(self, goal: Any = None, weights: Mapping[str, float] | None = None) -> None:
        """Begin a new episode with a goal: an observation, in the world's own form, of how things should look.

        One goal for one episode, or a batch of E goals for E episodes that act together.
        """
        observation = None if goal is None else self._sense(goal)[0]
        self.task = Task(observation, weights or {})
        with torch.no_grad():
            self._goal = None if observation is None else self.perception.encode(observation)
        self._plan = self._left = self._expected = self._subgoal = None
        self._time = 0
        self._episode += 1

    @torch.no_grad()
    def act(self, observation: Any) -> tuple[np.ndarray, Decision]:
        """One decision: an observation in the world's own form (or E of them) -> action (A,) (or (E, A)), Decision."""
        began = time.perf_counter()
        steps: list[str] = []
        percept, single = self._sense(observation)
        for what, held in (("goals", self._goal and self._goal.latent), ("plans under way", self._left)):
            if held is not None and len(held) != percept.batch:
                raise ValueError(
                    f"{percept.batch} observations for {len(held)} {what}: call set_goal with as many goals"
                )

        # 1. Perception: estimate the state; the configurator sets every module to the task; the cost of being here.
        state = self.perception.encode(percept)
        surprise = None
        if self._expected is not None and self._expected[0] == self._time:
            surprise = self.world_model.surprise(self._expected[1], state)
        statuses = self.statuses()
        directive = self.configurator.configure(self.task, self._aim(), statuses)
        here = self.judge.here(state, directive)
        steps += ["perceive", "configure", "evaluate state"]

        decision = Decision(
            (), directive.mode, state, directive, here, torch.empty(0), True, 0.0, surprise, statuses=statuses
        )
        if directive.mode == 1:
            # Mode-1: the policy answers at once.
            action = self.actor.act(state, directive)
            steps += ["policy"]
        else:
            if self._left is None or self._since_plan >= directive.replan_every or not self._left.shape[1]:
                # 2 to 5. Proposal, simulation, evaluation, planning.
                plan, imagined, extra = self.plan(state, directive, self._left, steps)
                self._plan, self._left, self._since_plan = plan, plan.actions.flatten(1, 2), 0
                self._expected = self._time + self.world_model.action_block, imagined[:, 0]
                decision = decision.but(plan=plan, imagined=imagined, **extra)
            else:
                decision = decision.but(plan=self._plan, replanned=False)
                steps += ["continue plan"]
            # 6. Acting: the first action of what is left of the plan.
            action, self._left = self._left[:, 0], self._left[:, 1:]
            self._since_plan += 1
        steps += ["act"]

        # 7. Memory: the state and its costs, from IC and critic.
        block = action[:, None].expand(-1, self.world_model.action_block, -1)
        ic = sum((cost[:, 0] for cost in here.drives.values()), torch.zeros_like(here.energy))
        episodes = self._episode * 100_000 + torch.arange(len(action))
        self.memory.write(self._time, episodes, state, block, ic, here.critic[:, 0], imagined=False)
        self._time += 1
        steps += ["store"]

        milliseconds = (time.perf_counter() - began) * 1e3
        decision = decision.but(steps=tuple(steps), action=action, milliseconds=milliseconds)
        out = action.cpu().numpy().copy()  # the caller's own: the plan goes on with ours
        return (out[0] if single else out), decision

    def plan(
        self, state: State, directive: Directive, last: Tensor | None = None, steps: list[str] | None = None
    ) -> tuple[Plan, State, dict[str, Any]]:
        """Mode-2, steps 2 to 5: the plan for states (E, ...), what is imagined under it, and the rest of a Decision."""
        steps = [] if steps is None else steps
        # 2. Proposal: the rest of the last plan, or no movement.
        start = self.actor.propose(state, directive, last)
        search = self.actor.search(start, directive)
        steps += ["propose"]
        first_energy = None
        for _ in range(directive.iterations):
            with torch.set_grad_enabled(directive.planner == "gradient"):
                candidates = search.ask()  # E N H K A
                # 3. Simulation: the world model imagines where each candidate leads.
                imagined = self.imagine(state, candidates)
                steps += ["simulate"]
                # 4. Evaluation: the cost of what was imagined.
                energy = self.judge.path(imagined, candidates, directive).energy
                steps += ["evaluate"]
                # 5. Planning: better candidates.
                search.tell(candidates, energy)
                steps += ["improve"]
            first_energy = energy[:, 0].detach() if first_energy is None else first_energy
        plan = search.best()
        chosen = plan.actions[:, None]
        imagined = self.imagine(state, chosen)
        plan_cost = self.judge.path(imagined, chosen, directive)
        return (
            plan,
            imagined[:, 0],
            {
                "proposal_energy": first_energy,
                "plan_cost": PathCost(
                    {k: v[:, 0] for k, v in plan_cost.drives.items()}, plan_cost.critic[:, 0], plan.energy
                ),
                "candidates": Plan(search.candidates.detach(), search.energy.detach()),
            },
        )

    def imagine(self, state: State, candidates: Tensor) -> State:
        """States (E, ...) under candidates (E, N, H, K, A) -> imagined (E, N, H, ...)."""
        episodes, count = candidates.shape[:2]
        repeated = state.map(lambda x: x[:, None].expand(-1, count, -1).flatten(0, 1))
        imagined = self.dynamics.rollout(repeated, candidates.flatten(0, 1))
        return imagined.map(lambda x: x.unflatten(0, (episodes, count)))

    def _aim(self) -> State | None:
        """The goal, or, when the configurator says so, anything remembered in its place: another with every plan."""
        settings = self.configurator.config
        if self._goal is None or not settings.random_subgoals or not self.memory.size:
            return self._goal
        if self._subgoal is None or self._since_plan >= settings.replan_every:
            self._subgoal = self.memory.sample(len(self._goal.latent), self.actor.generator).state
        return self._subgoal

    def statuses(self) -> dict[str, dict[str, float]]:
        """What every module says of itself to the configurator."""
        return {
            "perception": self.perception.status(),
            "world_model": self.world_model.status(),
            "cost": self.judge.status(),
            "actor": self.actor.status(),
            "memory": {"size": float(self.memory.size), "capacity": float(self.memory.config.capacity)},
        }

    def _sense(self, observation: Any) -> tuple[Observation, bool]:
        """An observation of the world as tensors with a batch axis, and whether that axis had to be added."""
        sensed = as_tensors(observation)
        senses = self.perception.senses
        single = False
        for name, x, shape in (
            ("pixels", sensed.pixels, senses.pixel_shape or ()),
            ("sensors", sensed.sensors, (len(senses.sensor_low),) if senses.sensor_low else ()),
        ):
            if shape and (x is None or tuple(x.shape[-len(shape) :]) != shape or x.dim() > len(shape) + 1):
                other = sensed.pixels if sensed.sensors is None else sensed.sensors
                given = x if x is not None or other is None else other
                got = "none" if given is None else f"{tuple(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
                raise ValueError(
                    f"this agent perceives {name} of shape {shape} (or a batch of them), and was given {got}"
                )
            if shape and x is not None:
                single = x.dim() == len(shape)
        if sensed.pixels is not None and sensed.pixels.dtype != torch.uint8:
            raise ValueError(f"pixels must be uint8 from 0 to 255, got {sensed.pixels.dtype}")
        if sensed.sensors is not None and not torch.isfinite(sensed.sensors).all():
            raise ValueError(f"the observation's sensors are not finite: {sensed.sensors.tolist()}")
        device = self.device
        return sensed.map(lambda x: (x[None] if single else x).to(device)), single

    # Weights

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.perception.sensor_offset.device

    def modules(self) -> dict[str, torch.nn.Module]:
        """Everything with weights, by name."""
        return {
            "perception": self.perception,
            "world_model": self.world_model,
            "inverse": self.inverse,
            "cost": self.cost,
            "actor": self.actor,
            "decoder": self.decoder,
        }

    def tensors(self) -> dict[str, Tensor]:
        """All weights and buffers by flat name."""
        return {f"{m}.{k}": v for m, module in self.modules().items() for k, v in module.state_dict().items()}

    def memory_tensors(self) -> dict[str, Tensor]:
        """The episodic memory by flat name."""
        return {f"memory.{k}": torch.as_tensor(v) for k, v in self.memory.state_dict().items()}

    def load_memory(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of memory_tensors; without a memory among the tensors nothing changes."""
        mine = {k.removeprefix("memory."): v for k, v in tensors.items() if k.startswith("memory.")}
        if mine:
            numbers = {k: int(mine.pop(k)) for k in ("size", "head", "capacity")}
            if numbers["size"]:  # nothing fits into a memory of any capacity
                self.memory.load_state_dict({**mine, **numbers})

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of tensors; other names in the mapping are left alone."""
        for name, module in self.modules().items():
            mine = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            try:
                module.load_state_dict(mine)
            except RuntimeError as error:
                raise UserError(f"the checkpoint does not fit the configuration of {name}: {error}") from error
