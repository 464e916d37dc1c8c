"""`run_agent.py collect`: record episodes of an environment, to learn from or to exchange."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.agent import Agent
from agent.build import load, setup
from agent.cli import common
from agent.cli.interrupt import EXIT, noticed
from agent.config import Config, ExploreConfig, options_of
from agent.console import Progress, table, tell, warn
from agent.errors import UserError
from agent.evaluation.episodes import AgentPlays
from agent.interaction.driver import Act, Transition, drive
from agent.interaction.environment import Environment, open_environment
from agent.interaction.episodes import Episodes
from agent.interaction.explore import COPIES, Explorer
from agent.storage.dataset import Dataset, DatasetWriter, check_new
from envs import SimVectorEnv

RANDOM = "random"
STREAM = 7
"""Of the random numbers of this command; training with the same seed explores other episodes."""


@dataclass(frozen=True)
class CollectArguments:
    """Record whole episodes of an environment, to learn from with train --data or to exchange as a Minari dataset.

    Ctrl-C completes the dataset with the episodes that are over by then.
    """

    env: str
    """Environment: an id of this project, a Gymnasium id, or module:Id-v0 where importing the module registers it."""
    out: Path
    """Folder for the episodes; must be new or empty."""
    episodes: int = 100
    """Episodes to record."""
    env_options: tuple[str, ...] = ()
    """Options of the environment's constructor: layout=medium pixels=true."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around the environment, module:Class each, from the inside outwards; none: not even the one that a
    known environment comes with."""
    actor: str = RANDOM
    """Who acts: random, the explorer of train; or the folder of a run, whose agent acts."""
    seed: int = 0
    """Seed of the environment and of the explorer."""
    block: int = 4
    """Primitive actions for which the explorer mostly holds one (--world-model.action-block)."""
    threads: int = 1
    """CPU threads of an agent that acts."""
    device: str = "auto"
    """Of an agent that acts: auto (a GPU when there is one), cpu, cuda, cuda:1."""
    minari: str | None = None
    """Write the episodes also as a Minari dataset with this id: (namespace/)name-vN. Needs the extra minari."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> CollectArguments:
    """The arguments of collect."""
    return common.parse(CollectArguments, arguments, program)


def run(args: CollectArguments, command_line: list[str]) -> int:
    """run_agent.py collect --env ID --episodes N --out FOLDER."""
    common.check_positive(args, "episodes", "block", "threads")
    common.check_seed(args.seed)
    check_new(args.out)
    if args.minari is not None:
        _check_minari(args.minari)
    options = options_of(Config(env=args.env, env_options=args.env_options))
    environment = open_environment(args.env, options, args.wrappers)
    agent = None if args.actor == RANDOM else _agent(args, environment)
    rng = np.random.default_rng(np.random.SeedSequence([args.seed, STREAM]))
    env_seed = int(rng.integers(2**31))
    provenance = {
        "actor": "random explorer" if agent is None else f"agent of {args.actor}",
        "seed": args.seed,
        "env_seed": env_seed,
        "block": args.block if agent is None else agent.world_model.action_block,
    }
    with (
        closing(environment.make(min(COPIES, args.episodes))) as envs,
        DatasetWriter(args.out, args.env, options, environment.spec.to_json(), provenance) as writer,
        Progress() as progress,
        noticed() as interrupted,
    ):
        progress.start("collect", args.episodes, unit="episodes")
        count, actions = envs.num_envs, environment.spec.actions
        # Copies of Gymnasium have a generator each, seeded in a row; ours share one.
        seeds = None if isinstance(envs.unwrapped, SimVectorEnv) else range(env_seed, env_seed + count)
        episodes = Episodes(writer.append, args.episodes, seeds)
        explorer = Explorer(ExploreConfig(), actions, count, args.block, rng)
        act: Act = explorer if agent is None else AgentPlays(agent, environment)

        def stop(_: Transition) -> bool:
            progress.update(episodes.count, f"{episodes.steps} steps")
            _check_faults(episodes, args)
            return episodes.complete or interrupted()

        drive(envs, act, stop, [episodes.add], seed=env_seed, to_env=actions.to_env)
        writer.faults = episodes.dropped
        writer.provenance["interrupted"] = not episodes.complete
    if not episodes.count:
        raise KeyboardInterrupt  # before the first episode was over: there is nothing to keep
    dataset = Dataset.open(args.out)
    result = dataset.describe()
    table(f"recorded in {args.out}", [{"": name, "value": str(value)} for name, value in result.items()])
    if args.minari is not None:
        result["minari"] = _export(args.minari, dataset, environment)
    common.finish(result, args.json)
    if not episodes.complete:
        warn(f"interrupted: {args.out} holds the {episodes.count} of {args.episodes} episodes that were over by then")
        return EXIT
    return 0


def _agent(args: CollectArguments, environment: Environment) -> Agent:
    """The agent of a run. UserError when it cannot act in this environment."""
    setup(args.threads)
    agent = load(args.actor, args.device)
    mine, theirs = agent.spec.observation, environment.spec.observation
    seen = [(x.pixel_shape, len(x.sensor_low), x.sensor_names) for x in (mine, theirs)]
    if seen[0] != seen[1] or agent.spec.actions != environment.spec.actions:
        raise UserError(
            f"the agent of {args.actor} cannot act in {args.env}, which has other observations or actions: give the "
            "environment and the --env-options that it was trained with"
        )
    return agent


def _check_faults(episodes: Episodes, args: CollectArguments) -> None:
    """UserError where an environment fails so often that the command would hardly come to its end."""
    if episodes.dropped > 20 + 2 * args.episodes:
        raise UserError(
            f"{args.env} failed in {episodes.dropped} episodes, and was fine in {episodes.count}: fix the environment. "
            f"The last failure: {episodes.fault}"
        )


def _check_minari(dataset_id: str) -> None:
    from agent.interaction import minari_data  # the package is optional

    minari_data.check_new(dataset_id)


def _export(dataset_id: str, dataset: Dataset, environment: Environment) -> str:
    from agent.interaction import minari_data

    with closing(environment.make(1)) as envs:
        space = envs.single_action_space
    folder = minari_data.to_minari(dataset, dataset_id, space, environment.spec.actions.to_env)
    tell(f"Minari dataset {dataset_id} in {folder}")
    return dataset_id
