"""Faults of a user's environment: which episodes they spoil, how many there were, and when there are too many.

`envs.guard.Guarded` ends a faulty episode and says in `info["fault"]` what happened, KIND: DETAILS.

Shapes: E environments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.errors import UserError
from agent.interaction.driver import Transition


@dataclass
class Faults:
    """A listener for `drive` that counts faulty episodes and stops when there are too many.

    Raises:
        UserError: more than `share` of the episodes are faulty; asked from the `at_least`-th episode on.
    """

    share: float = 0.1
    at_least: int = 10
    episodes: int = 0
    """Episodes that have ended, faulty ones included."""
    faulty: int = 0
    resets: int = 0
    """Resets that needed a new environment; the episodes after them are sound."""
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Kind of fault -> how often, and the first message."""

    def __call__(self, step: Transition) -> None:
        """One step of E environments."""
        first = step.moment.is_first
        told = [message for i, message in _told(step.moment.info, "reset_fault").items() if first[i]]
        self.resets += len(told)
        self._count(told)
        ended = int(step.ended.sum())
        if not ended:
            return
        self.episodes += ended
        found = faults(step)
        self.faulty += len(found)
        self._count(found.values())
        if self.episodes >= self.at_least and self.faulty > self.share * self.episodes:
            raise UserError(self._report())

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        kinds = {kind: {"count": count, "first": first} for kind, (count, first) in self._most_frequent()}
        return {"episodes": self.episodes, "faulty": self.faulty, "resets": self.resets, "kinds": kinds}

    def _count(self, messages: Iterable[str]) -> None:
        for message in messages:
            kind = message.partition(":")[0]
            count, first = self.kinds.get(kind, (0, message))
            self.kinds[kind] = count + 1, first

    def _most_frequent(self) -> list[tuple[str, tuple[int, str]]]:
        return sorted(self.kinds.items(), key=lambda item: -item[1][0])

    def _report(self) -> str:
        worst = [f"{count} x {first}" for _, (count, first) in self._most_frequent()[:3]]
        return (
            f"the environment failed in {self.faulty} of {self.episodes} episodes, more than the {self.share:.0%} that "
            f"are tolerated. Most frequent: {'; '.join(worst)}. Faulty episodes are not learned from. Correct the "
            "environment; run_agent.py check ENV_ID steps it and names what is wrong"
        )


def faults(step: Transition) -> dict[int, str]:
    """Of the episodes that end with this step: which environments (0 ... E - 1) failed -> what happened."""
    told = _told(step.info, "fault")
    if not told and isinstance(last := step.info.get("final_info"), dict):
        told = _told(last, "fault")  # SAME_STEP: what is beside it is the info of the next episode
    return {i: message for i, message in told.items() if step.ended[i]} if told else {}


def _told(info: dict[str, Any], name: str) -> dict[int, str]:
    """Environment -> message, in Gymnasium's form: an array of objects and a mask."""
    messages = info.get(name)
    # Only text is a message of the guard: an environment without one may call something else a fault.
    if not isinstance(messages, np.ndarray) or messages.dtype != object:
        return {}
    return {i: x for i, x in enumerate(messages) if isinstance(x, str) and info[f"_{name}"][i]}
