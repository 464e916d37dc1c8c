"""The program: environment variables that must be set before torch is loaded, then the command line of agent.cli."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Spinning OpenMP threads make two of them slower than one on a busy machine; this must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 success, 1 a negative result, 2 a mistake, 130 interrupted."""
    try:
        if shadowed := _shadowed():
            print(shadowed, file=sys.stderr)
            return 2
        from agent.cli.interrupt import while_importing

        with while_importing():
            from agent.cli.main import main as run
        return run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
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
                f"error: another package called {name!r} ({found}) hides the one of this checkout: "
                f"run pip uninstall {name}, or start the program in {here}"
            )
    return ""


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: Ctrl-C while Python shuts down changes nothing
    sys.exit(code)
