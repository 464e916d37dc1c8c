"""Data-parallel training of the world model under torchrun: every rank takes its part of the same batch.

    torchrun --standalone --nproc-per-node 2 run_agent.py train two_rooms

Each rank draws the whole batch from the seed and computes its part; gradients are averaged. Statistics that keep the
representation from collapsing are taken over the whole batch, gathered with its gradients: those of a part would ask
for something else. Without torchrun there is one rank, and everything here does nothing.

Shapes: B windows in the whole batch, R ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from agent.errors import UserError

T = TypeVar("T")


@contextmanager
def ranks(device: str = "auto") -> Iterator[int]:
    """Join the other processes that torchrun started, if it did; gives the rank. nccl with GPUs, gloo without.

    UserError for one GPU named for all ranks.
    """
    if not started():
        yield 0
        return
    if ":" in device:
        raise UserError(f"--device {device} would put every rank on one GPU: give auto, cuda or cpu under torchrun")
    gpu = torch.cuda.is_available() and device in ("auto", "cuda")
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def started() -> bool:
    """Whether torchrun has started this process, and others with it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def world() -> int:
    """R: how many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def check_batch(batch: int) -> None:
    """UserError for a batch that cannot be shared evenly."""
    if batch % world():
        raise UserError(f"--learn.batch {batch} cannot be shared by {world()} ranks: give a multiple of {world()}")


def part(x: Tensor) -> Tensor:
    """This rank's part of a batch: (B, ...) -> (B / R, ...)."""
    return x.chunk(world())[rank()]


def whole(x: Tensor) -> Tensor:
    """The batch of all ranks, in order: (B / R, ...) -> (B, ...), differentiable."""
    return _Gather.apply(x) if world() > 1 else x  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """Every rank computes the same loss of the whole batch, so the gradients of its parts add up to R times theirs;
    averaging over ranks afterwards makes that one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return part(total)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their mean over ranks, in one exchange."""
    if world() == 1:
        return
    held = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in held])
    dist.all_reduce(flat)
    flat /= world()
    for g, mean in zip(held, flat.split([g.numel() for g in held]), strict=True):
        g.copy_(mean.view_as(g))


def means(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over ranks of numbers by name, in one exchange."""
    if world() == 1:
        return values
    flat = torch.stack(list(values.values()))
    dist.all_reduce(flat)
    return dict(zip(values, flat / world(), strict=True))


def same(value: T) -> T:
    """What rank 0 has, for all."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
