"""`run_agent.py train`: learn a world and how to plan in it."""

from __future__ import annotations

from pathlib import Path

from agent.cli.common import _finish, _json_flag, _parse, _take_value
from agent.config import Config
from agent.console import tell
from agent.errors import UserError, nearest
from agent.inspection.watch import Gallery
from agent.learning import parallel
from agent.learning.train import train_run
from agent.presets import PRESETS
from envs import SIMULATORS


def train(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py train [PRESET] [--seed N] [--out RUN_FOLDER] [--flags]."""
    arguments, as_json = _json_flag(arguments)
    preset = "two_rooms"
    if arguments and not arguments[0].startswith("-"):
        preset, arguments = arguments[0], arguments[1:]
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; the presets are {', '.join(PRESETS)}")
    description = (
        f"Train preset {preset}. Presets: {', '.join(PRESETS)}. The defaults below are this preset's. Also: "
        f"--out RUN_FOLDER (runs/{preset}__seedN) and --json."
    )
    out, arguments = _take_value(arguments, "--out")
    config = _parse(Config, arguments, f"run_agent.py train {preset}", description, PRESETS[preset]())
    folder = Path(out or f"runs/{preset}__seed{config.seed}")
    with parallel.ranks(config.device) as rank:
        summary = train_run(config, folder, command_line, watcher=Gallery)
    if rank:
        return 0
    tell(f"\ntrained in {summary['train_wall_seconds']:.0f} s; the run is {folder}")
    if config.env in SIMULATORS:
        tell(f"  python run_agent.py evaluate {folder}\n  python run_agent.py imagine {folder}")
    _finish(summary, as_json)
    return 0
