"""The table of commands: parse, run, and turn errors into one message.

A command is a module of this package with `parse(arguments, program)`, which gives the command's own argument
dataclass, and `run(arguments, command_line)`, which gives the exit code. It is imported when it is asked for, so that
help and a mistyped command need nothing slow.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

from tyro.extras import SubcommandApp

from agent.cli.interrupt import EXIT, while_importing
from agent.console import fail, set_quiet, warn
from agent.errors import UserError, nearest

COMMANDS = {
    "train": "Explore an environment, learn a world model of it, then critic, policy and decoder.",
    "collect": "Record episodes of an environment, to learn from or to exchange.",
    "evaluate": "Measure a run by success or return, in tasks or episodes that training never saw.",
    "imagine": "Draw what the world model of a run predicts, and plans for unseen tasks.",
    "ablate": "Compare an agent with variants: parts removed, replaced by a placebo, or set to other values.",
    "report": "Write one offline HTML page about a run or a comparison.",
    "check": "Check whether the agent can be trained in an environment.",
}
"""Name -> what it does. The modules of this package have the same names."""


DESCRIPTION = (
    "A simulator for autonomous machine intelligence. Every command takes --help, --out FOLDER for its files, and "
    "--json: standard output is then one JSON object, and all messages go to standard error."
)


RESUMES = ("train", "ablate")
"""Commands that continue where they were interrupted."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 success, 1 a negative result, 2 a mistake, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    program = Path(sys.argv[0]).name
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name not in COMMANDS:
        return _no_command(name, program)
    if name != "train" and _under_torchrun():
        fail(f"torchrun is for train: every process would run the same {name}. Start {name} without torchrun")
        return 2
    try:
        with while_importing():
            command = importlib.import_module(f"agent.cli.{name}")
        set_quiet("--json" in rest)  # so that also a message about another flag leaves standard output empty
        return command.run(command.parse(rest, f"{program} {name}"), [program, *arguments])
    except UserError as error:
        fail(str(error))
        return 2
    except BrokenPipeError:  # the reader of standard output has closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, ArithmeticError, RuntimeError) as error:
        if not is_non_finite(error):
            raise
        fail(
            f"{name} met a number that is not finite: {_one_line(error)}. The usual causes are a learning rate that is "
            "too large, observations that are not finite, and damaged weights: train again with a smaller "
            "--learn.learning-rate, or restore the run from a copy"
        )
        return 2
    except KeyboardInterrupt:
        warn(
            "interrupted; "
            + ("rerun the same command to resume" if name in RESUMES else "nothing is lost: run it again")
        )
        return EXIT


def is_non_finite(error: Exception) -> bool:
    """Whether an error was raised because of a NaN or an infinity.

    Libraries say so in words of their own: torch and numpy raise LinAlgError where a decomposition does not converge,
    which the input's not being finite causes, and ValueError or FloatingPointError elsewhere.
    """
    return "LinAlgError" in type(error).__name__ or bool(_NON_FINITE.search(str(error)))


_NON_FINITE = re.compile(r"\b(nans?|inf|infinity|infinities|infinite|non-?finite|not finite)\b", re.IGNORECASE)


def _no_command(name: str, program: str) -> int:
    """Help when it was asked for or nothing was; else a message with the nearest name."""
    if name and name not in ("-h", "--help"):
        fail(f"unknown command {name!r}{nearest(name, COMMANDS)}; the commands are {', '.join(COMMANDS)}")
        return 2
    try:
        _listed().cli(prog=program, description=DESCRIPTION, args=["--help"])
    except SystemExit:  # which is how help ends
        pass
    return 0 if name else 2


def _listed() -> SubcommandApp:
    """The commands by name, for help alone: their arguments are read from the module of the one that is called."""

    def nothing() -> None:
        pass

    app = SubcommandApp()
    for name, summary in COMMANDS.items():
        app.command(name=name, help=summary)(nothing)
    return app


def _under_torchrun() -> bool:
    """As agent.learning.parallel.started, which cannot be asked without importing torch."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")
