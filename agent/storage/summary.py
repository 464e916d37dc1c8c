"""summary.json, which a training writes at its end: what it was and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.console import warn
from agent.errors import DamagedFile
from agent.storage.files import read_json

NUMBERS = ("seed", "env_steps", "train_wall_seconds", "train_cpu_seconds", "peak_memory_mb")
TEXTS = ("env",)


def read_summary(folder: Path, notify: Callable[[str], None] = warn) -> dict[str, Any] | None:
    """The summary of the run in `folder`.

    Args:
        folder: the run folder.
        notify: receives one message when the file is damaged, or lacks some of NUMBERS and TEXTS.

    Returns:
        None when there is none: training has not come to its end. {} when the file is damaged. What has another type
        than expected is left out.
    """
    path = folder / "summary.json"
    try:
        summary = read_json(path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        notify(f"{error}. Its figures are unknown; the same train command writes it again.")
        return {}
    good = {name: isinstance(summary.get(name), str) for name in TEXTS}
    good |= {name: isinstance(v := summary.get(name), int | float) and not isinstance(v, bool) for name in NUMBERS}
    lacking = [name for name, fine in good.items() if not fine]
    if lacking:
        unknown = "it is" if len(lacking) == 1 else "they are"
        notify(f"{path} does not hold {', '.join(lacking)} as expected: {unknown} unknown. Was the file edited?")
    return {name: value for name, value in summary.items() if good.get(name, True)}
