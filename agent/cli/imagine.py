"""`run_agent.py imagine`: pictures of what the agent imagines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.cli.common import _finish, _json_flag, _parse, environment_of, load_run
from agent.console import tell
from agent.errors import UserError
from agent.inspection import imagination


@dataclass(frozen=True)
class ImagineArguments:
    """Pictures of what the agent imagines."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 4
    """Episodes shown."""
    horizon: int = 16
    """Imagined steps, in action blocks."""
    seed: int = 0
    """Seed of the exploration and of the tasks that are shown."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1."""


def imagine(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py imagine RUN."""
    arguments, as_json = _json_flag(arguments)
    args = _parse(ImagineArguments, arguments, "run_agent.py imagine", ImagineArguments.__doc__ or "")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must be from 0 to 2^63 - 1, got {args.seed}")
    config, agent, run = load_run(args.run, args.device, 1)
    environment = environment_of(config)
    result = imagination.imagine(agent, config, environment, run, args.episodes, args.horizon, args.seed)
    for name in result["files"]:
        tell(f"  {args.run / name}")
    _finish(result, as_json)
    return 0
