"""The frozen, hashed list of tasks that training never sees."""

from __future__ import annotations

import hashlib

import numpy as np

from envs import Simulator
from envs.api import Tasks

TASK_SEED = 1_000_003  # of the frozen list; training seeds never meet it, because they go through SeedSequence


LISTED = 1000  # tasks in the list; a longer one is another list


def task_list(simulator: Simulator, wanted: int | Tasks) -> tuple[Tasks, str]:
    """The first `wanted` tasks of the environment's frozen list, or given tasks; and the SHA-256 of what they are."""
    if isinstance(wanted, Tasks):
        tasks = wanted
    else:
        whole = simulator.sample_tasks(np.random.default_rng(TASK_SEED), max(LISTED, wanted))
        tasks = Tasks(whole.start[:wanted], whole.goal[:wanted])
    digest = hashlib.sha256(tasks.start.tobytes() + tasks.goal.tobytes()).hexdigest()
    return tasks, digest
