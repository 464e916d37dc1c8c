"""`run_agent.py report`: one offline page about a run or a comparison. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.cli import common
from agent.console import tell, warn
from agent.errors import UserError
from agent.report import write


@dataclass(frozen=True)
class ReportArguments:
    """Write one offline HTML page about a run (what it learned and predicts) or a comparison (its table)."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a run or of a comparison."""
    out: Path | None = None
    """Folder for report.html; the folder itself by default."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> ReportArguments:
    """The arguments of report."""
    return common.parse(ReportArguments, arguments, program)


def run(args: ReportArguments, command_line: list[str]) -> int:
    """run_agent.py report FOLDER."""
    if args.out is not None and args.out.suffix == ".html":
        raise UserError(f"--out is a folder, in which report.html is written, and was given {args.out}")
    written, missing = write(args.folder, args.out)
    for text in missing:
        warn(text)
    tell(f"  {written}")
    common.finish({"report": str(written), "missing": missing}, args.json)
    return 0
