"""`run_agent.py check`: can the agent be trained in this environment?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from agent.cli import common
from agent.console import table, tell
from agent.errors import UserError
from agent.inspection import check as checking
from agent.storage.files import check_writable, to_json, write_durable


@dataclass(frozen=True)
class CheckCommand(checking.CheckArguments):
    """Can the agent be trained in this environment?

    Exit code 0: yes, perhaps with warnings. 1: no. 2: the environment does not exist or cannot be made.
    """

    out: Path | None = None
    """Folder for check.json, which holds the findings; none is written by default."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> CheckCommand:
    """The arguments of check."""
    return common.parse(CheckCommand, arguments, program)


def run(args: CheckCommand, command_line: list[str]) -> int:
    """run_agent.py check ENV_ID."""
    if min(args.steps, args.length, args.block) < 1 or args.seed < 0:
        raise UserError("--steps, --length and --block must be 1 or more, and --seed 0 or more")
    if args.out is not None:
        check_writable(args.out)
    findings = checking.check(args)
    ok = all(f.result != "failed" for f in findings)
    table(args.env, [{k: v for k, v in dataclasses.asdict(f).items() if k != "advice"} for f in findings])
    for f in findings:
        if f.advice:
            tell(f"\n{f.result}: {f.check}: {f.found}\n  what to do: {f.advice}")
    offers = checking.capabilities(args)
    if ok:
        tell(f"\nThe agent can be trained in {args.env}. {checking.commands_line(offers)}")
    else:
        tell(f"\nThe agent cannot be trained in {args.env}: fix the failed checks first")
    works = [name for name, needs in checking.COMMANDS.items() if ok and needs <= offers]
    result = {"env": args.env, "ok": ok, "commands": works, "findings": [dataclasses.asdict(f) for f in findings]}
    if args.out is not None:
        write_durable(args.out / "check.json", to_json(result))
    common.finish(result, args.json)
    return 0 if ok else 1
