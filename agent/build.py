"""From a configuration to an agent, its weights as flat tensors, and the numerics of the process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import envs.tasks  # noqa: F401  # known tasks become drives
from agent.agent import Agent
from agent.config import Config, from_dict
from agent.errors import UserError
from agent.spec import EnvSpec, aimed
from agent.storage.run import Run
from modules import configurator, drives
from modules import perception as perceptions
from modules.actor import Actor, Policy
from modules.cost import REWARD, CostModule
from modules.critic import Critic, RewardPredictor
from modules.decoder import Decoder
from modules.heads import ProprioEmbedding, StateEmbedding
from modules.memory import EpisodicMemory
from modules.planners import PLANNERS
from modules.types import BodySpec
from modules.world_model import JEPA, InverseDynamics


def build(config: Config, spec: EnvSpec, device: str | torch.device = "cpu") -> Agent:
    """A new agent, its weights drawn from the configuration's seed.

    Args:
        config: the whole run.
        spec: what the environment offers (`agent.interaction.environment.Environment.spec`).
        device: where the weights live.

    Raises:
        ValueError: the configuration does not fit the environment.
    """
    torch.manual_seed(config.seed)
    seen, actions = spec.observation, spec.actions
    perception = perceptions.compose(config.perception, seen, actions, config.world_model.action_block)
    latent, proprio, shape = perception.latent_size, perception.proprio_size, perception.map_shape
    world_model = JEPA(config.world_model, latent, proprio, actions, shape)

    def embed_state(size: int) -> nn.Module:
        return StateEmbedding(latent, proprio, shape, size)

    def embed_goal(size: int) -> nn.Module:
        index = seen.goal_proprio
        return ProprioEmbedding(index, size, config.perception.fourier_features) if index else embed_state(size)

    body = BodySpec(
        actions,
        proprio_names=seen.proprio_names,
        proprio_offset=seen.proprio_offset,
        proprio_scale=seen.proprio_scale,
        goal_proprio=seen.goal_proprio,
        goal_scale=config.cost.goal_scale,
        saturate=config.cost.saturate,
    )
    wanted, rewarded = config.cost, REWARD in config.cost.drives
    chosen = drives.compose([n for n in wanted.drives if n != REWARD], wanted.weights, wanted.floors, body)
    critic, hidden = None, config.critic.hidden
    if config.critic.enabled and chosen:
        critic = Critic(config.critic, embed_state(hidden), embed_goal(hidden), config.configurator.discount, chosen)
    hidden = config.actor.hidden
    actor = Actor(
        Policy(config.actor, actions, embed_state(hidden), embed_goal(hidden)),
        {name: partial(planner, config.planner) for name, planner in PLANNERS.items()},
    )
    block = world_model.action_block
    generator = torch.Generator().manual_seed(config.seed)
    reward = None
    if rewarded:
        with torch.random.fork_rng(devices=[]):  # everything else is the same with a reward and without
            reward = RewardPredictor(latent, proprio, block * actions.size)
    # Where each sensor is proprio and has a name, the state itself says what it reads.
    sensed = 0 if seen.sensor_names else len(seen.sensor_low)
    agent = Agent(
        spec,
        perception,
        world_model,
        CostModule(chosen, critic, reward, actions),
        actor,
        EpisodicMemory(config.memory),
        configurator.compose(config.configurator, chosen, block, wanted.weights.get(REWARD, 1.0) if rewarded else 0.0),
        InverseDynamics(latent, proprio, block * actions.size, map_shape=shape),
        Decoder(config.decoder, latent, proprio, shape, seen.pixel_shape, sensed),
        generator,
    )
    for module in agent.modules().values():
        module.to(device)
    return agent


def load(run: str | Path, device: str = "auto", config: Config | None = None, retasked: bool = False) -> Agent:
    """The agent of a run folder, as its newest good checkpoint has it. The environment is not needed.

    Args:
        run: the folder.
        device: auto (a GPU when there is one), cpu, cuda, cuda:1.
        config: of an agent that acts with these weights in another way than the run's own configuration says.
        retasked: the configuration wants something else than the run was trained for, so what was learned about that
            purpose is left out: critic and policy of other goals, a reward that is not asked for.

    Raises:
        UserError: there is no such run, it is damaged, from another version, or does not fit the configuration.
    """
    opened = Run.open(Path(run))
    try:
        config = config or from_dict(Config, opened.config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{opened.folder / 'config.json'} is from another version: {error}") from error
    saved, meta, _ = opened.load_checkpoint()
    try:
        spec = aimed(EnvSpec.from_json(meta.get("spec", {})), config.goal)
        agent = build(config, spec, pick_device(device))
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{opened.folder} describes no agent that can be built: {error}") from error
    if retasked:
        saved = _without_purpose(agent, saved)
    load_tensors(agent, saved)
    if agent.memory.config.capacity:
        load_memory(agent, saved)
    return agent


def _without_purpose(agent: Agent, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors; critic, policy and reward are replaced by the agent's own, untrained, where they do not fit."""
    kept = dict(saved)
    own = tensors(agent)
    for parts, flag in (
        (("cost.critic.", "cost.target."), "cost.trained"),
        (("actor.policy.",), "actor.trained"),
        (("cost.reward.", "cost.reward_trained"), ""),
    ):
        theirs = {k: v.shape for k, v in kept.items() if k.startswith(parts)}
        mine = {k: v for k, v in own.items() if k.startswith(parts)}
        if theirs == {k: v.shape for k, v in mine.items()}:
            continue
        if mine and not flag:
            raise UserError("this run has learned no reward: train it with --task reward to act for one")
        kept = {k: v for k, v in kept.items() if not k.startswith(parts)} | mine
        if flag:
            kept[flag] = torch.zeros((), dtype=torch.bool)
    return kept


def tensors(agent: Agent) -> dict[str, Tensor]:
    """All weights and buffers by flat name."""
    return {f"{m}.{k}": v for m, module in agent.modules().items() for k, v in module.state_dict().items()}


def load_tensors(agent: Agent, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `tensors`; other names in the mapping are left alone.

    Raises:
        UserError: a module of the agent has another shape than its tensors.
    """
    for name, module in agent.modules().items():
        mine = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        try:
            module.load_state_dict(mine)
        except RuntimeError as error:
            raise UserError(f"the checkpoint does not fit the configuration of {name}: {error}") from error
    agent.weights_changed()


def memory_tensors(agent: Agent) -> dict[str, Tensor]:
    """The episodic memory by flat name."""
    return {f"memory.{k}": torch.as_tensor(v) for k, v in agent.memory.state_dict().items()}


def load_memory(agent: Agent, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `memory_tensors`; without a memory among the tensors nothing changes."""
    mine = {k.removeprefix("memory."): v for k, v in tensors.items() if k.startswith("memory.")}
    if mine:
        numbers = {k: int(mine.pop(k)) for k in ("size", "head", "capacity")}
        if numbers["size"]:  # nothing fits into a memory of any capacity
            agent.memory.load_state_dict({**mine, **numbers})


def pick_device(name: str) -> torch.device:
    """auto: a GPU when there is one. UserError for a device that cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used: {error}. Use --device auto or cpu") from error
    return device


def setup(threads: int) -> None:
    """Threads and numerics of the process."""
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
