"""The command line: it parses, calls agent/, and turns errors into messages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Spinning OpenMP threads make two of them slower than one on a busy machine; this must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")

USAGE = """usage: run_agent.py COMMAND ...

  train [PRESET]     learn a world and how to plan in it     --seed N --out RUN_FOLDER and a flag for every field
  evaluate RUN       success on tasks never seen             --tasks N --planner cem|mppi|gradient --mode 1|2
                                                             --dynamics learned|oracle --cost latent|true
  imagine RUN        pictures of what the agent imagines
  ablate [PRESET]    what is a part worth?                   --without critic memory ... --vary FIELD=A,B --seeds N
  report FOLDER      one page, offline, of a run or of a comparison
  check ENV_ID       can this world be learned from?

Every command takes --help, and --json: the last line on standard output is then one JSON object.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    shadowed = _shadowed()
    if shadowed:
        print(shadowed, file=sys.stderr)
        return 2
    from agent.cli import ablate, check, evaluate, imagine, report, train
    from agent.console import fail, warn
    from agent.errors import UserError, nearest
    from agent.learning.parallel import started

    command, rest = arguments[0], arguments[1:]
    known = {
        "train": train.train,
        "evaluate": evaluate.evaluate,
        "imagine": imagine.imagine,
        "ablate": ablate.ablate,
        "report": report.report,
        "check": check.check,
    }
    if command not in known:
        fail(f"unknown command {command!r}{nearest(command, known)}\n\n{USAGE}")
        return 2
    if command != "train" and started():
        fail(f"torchrun is for train: every rank would {command} the same. Give the command without torchrun")
        return 2
    try:
        return known[command](rest, command_line=[Path(sys.argv[0]).name, *arguments])
    except UserError as error:
        fail(str(error))
        return 2
    except KeyboardInterrupt:
        warn("interrupted; a training goes on when the same command is given again")
        return 130


def _shadowed() -> str:
    """A message when another distribution's package of the same name would be imported instead of ours, else ''."""
    import importlib.util

    here = Path(__file__).resolve().parent
    for name in ("agent", "envs", "modules"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != here / name:
            return (
                f"another package called {name!r} ({found}) shadows this checkout's: "
                f"pip uninstall {name}, or run from {here}"
            )
    return ""


if __name__ == "__main__":
    sys.exit(main())
