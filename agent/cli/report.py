"""`run_agent.py report`: one offline page for a run or an ablation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.cli.common import _finish, _json_flag, _parse
from agent.console import tell, warn


@dataclass(frozen=True)
class ReportArguments:
    """Write one offline HTML page for a run (evaluation, episodes, imagination, curves) or for an ablation."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a run or of an ablation."""


def report(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py report RUN_OR_COMPARISON."""
    from agent.report import write

    arguments, as_json = _json_flag(arguments)
    args = _parse(ReportArguments, arguments, "run_agent.py report", ReportArguments.__doc__ or "")
    page, missing = write(args.folder)
    for text in missing:
        warn(text)
    tell(f"  {page}")
    _finish({"report": str(page), "missing": missing}, as_json)
    return 0
