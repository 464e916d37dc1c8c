"""`run_agent.py imagine`: pictures of what the world model predicts, and of plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.cli import common
from agent.cli.runs import load_agent, open_environment, open_run, without_files
from agent.console import tell
from agent.inspection import imagination


@dataclass(frozen=True)
class ImagineArguments:
    """Draw what the world model of a run predicts open loop, and plans, in episodes that training never saw."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 4
    """Episodes in the pictures."""
    horizon: int = 16
    """Predicted steps, in action blocks; fewer where episodes are shorter."""
    seed: int = 0
    """Seed of the episodes and tasks in the pictures."""
    env: str | None = None
    """MODULE:ID of the run's environment, where importing the module registers it. Importing runs its code."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1."""
    out: Path | None = None
    """Folder for the pictures, which go into its folder imagination; the run's own by default."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> ImagineArguments:
    """The arguments of imagine."""
    return common.parse(ImagineArguments, arguments, program)


def run(args: ImagineArguments, command_line: list[str]) -> int:
    """run_agent.py imagine RUN."""
    common.check_seed(args.seed)
    trained_for, opened = open_run(args.run, args.out)
    environment = open_environment(trained_for, args.env)
    config = without_files(trained_for, environment)
    agent = load_agent(opened, args.device, 1, config, config != trained_for)
    result = imagination.imagine(agent, config, environment, opened, args.episodes, args.horizon, args.seed)
    for name in result["files"]:
        tell(f"  {opened.out / name}")
    common.finish(result, args.json)
    return 0
