"""From a configuration to an agent, and the numerics of the process."""

from __future__ import annotations

import torch

from agent.errors import UserError


def pick_device(name: str) -> torch.device:
    """auto: a GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used: {error}. Use --device auto or cpu") from error
    return device


def setup(threads: int) -> None:
    """Threads and numerics of the process."""
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
