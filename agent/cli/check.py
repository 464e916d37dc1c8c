"""`run_agent.py check`: can the agent be trained in this environment?"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

from agent.cli import common
from agent.cli.train import check_memory
from agent.console import table, tell
from agent.errors import UserError
from agent.inspection import check as checking
from agent.inspection import offers as offering
from agent.inspection.finding import Finding
from agent.storage.files import check_writable, to_json, write_durable


@dataclass(frozen=True)
class CheckCommand(checking.CheckArguments):
    """Can the agent be trained in this environment, and what will the commands be able to do there?

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
    common.check_positive(args, "steps", "length", "block")
    common.check_seed(args.seed)
    if args.out is not None:
        check_writable(args.out)
    checked = checking.look(args)
    findings = [*checked.findings, *_memory(checked)]
    ok = all(f.result != "failed" for f in findings)
    table(args.env, [{k: v for k, v in dataclasses.asdict(f).items() if k != "advice"} for f in findings])
    for f in findings:
        if f.advice:
            tell(f"\n{f.result}: {f.check}: {f.found}\n  what to do: {f.advice}")
    result = {"env": args.env, "ok": ok, "commands": [], "findings": [dataclasses.asdict(f) for f in findings]}
    result["offers"] = {}
    if ok and checked.environment is not None and checked.config is not None:
        offers = offering.offered(checked.environment, checked.config, checked.reasons, checked.walk)
        result |= {"commands": offering.works(checked.environment), "offers": offers}
        tell(f"\nThe agent can be trained in {args.env}")
        for line in offering.lines(offers, _flags(args)):
            tell(line)
        tell(f"Commands that work: {', '.join(result['commands'])}")
    else:
        tell(f"\nThe agent cannot be trained in {args.env}: fix the failed checks first")
    if args.out is not None:
        write_durable(args.out / "check.json", to_json(result))
    common.finish(result, args.json)
    return 0 if ok else 1


def _flags(args: CheckCommand) -> str:
    """The environment as flags of train."""
    flags = ["--env", args.env]
    for name in ("env_options", "wrappers"):
        flags += [common.flag(name), *getattr(args, name)] if getattr(args, name) else []
    return shlex.join(flags)


def _memory(checked: checking.Checked) -> list[Finding]:
    """Whether a training fits into this machine, as `train` asks before it begins."""
    if checked.config is None or checked.environment is None:
        return []
    try:
        check_memory(checked.config, checked.environment)
    except UserError as error:
        return [Finding("memory", "failed", str(error), "train with the smaller setting that is named")]
    return []
