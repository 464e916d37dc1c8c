# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Short-term memory: the episodic store of states and actions, read by time or by likeness of state.

LeCun 2022, section 3.3: the memory holds records (tau, s_tau), perceived or imagined, from which the critic is trained.
The intrinsic cost of a record is a function of its state, so it is computed when it is read and not stored. Section 4.9
and equations 15 to 17: memory is read associatively, Mem(q) = sum_j c_j v_j, with
c_j = exp(match_j) / (gamma + sum_k exp(match_k)).

Shapes: M records held, B queries or records, E records written at once, T records of one piece, D latent, I proprio,
K primitive actions in a block, A action. `time` is tau, in primitive actions since the episode began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from modules.types import State


@dataclass(frozen=True)
class Config:
    """How much to remember and how sharply to recall."""

    capacity: int = 20_000
    """Records held, the oldest are overwritten; 0 stores nothing. About 4 (D + I + K A) bytes each, once written."""
    temperature: float = 0.05
    """Mean squared difference per latent dimension over which the match of two states falls by 1. This and the next
    two are used by `EpisodicMemory.recall` only."""
    gamma: float = 0.0
    """Weight of remembering nothing: with gamma > 0 a query unlike every record recalls 0."""
    top_k: int = 64
    """Best matching records that a recall mixes; the others have no weight."""

    def __post_init__(self) -> None:
        if self.capacity < 0 or self.top_k < 1 or self.temperature <= 0 or self.gamma < 0:
            raise ValueError(f"{self}: expected capacity >= 0, top_k >= 1, temperature > 0, gamma >= 0")


@dataclass(frozen=True)
class Records:
    """Some records, or the whole store; every tensor has the same leading axes."""

    time: Tensor
    """(...) int64, primitive actions since the episode began."""
    episode: Tensor
    """(...) int64. An imagined path needs an episode id of its own."""
    state: State
    """(..., D) latent and (..., I) proprio."""
    action: Tensor
    """(..., K, A) the block that was, or in imagination would be, executed in this state."""
    imagined: Tensor
    """(...) bool, False where the state was perceived."""

    def fields(self) -> dict[str, Tensor]:
        """The tensors by flat name."""
        flat = {name: getattr(self, name) for name in ("time", "episode", "action", "imagined")}
        return {**flat, "latent": self.state.latent, "proprio": self.state.proprio}

    @staticmethod
    def of(fields: dict[str, Tensor]) -> Records:
        """The inverse of `fields`."""
        rest = {name: value for name, value in fields.items() if name not in ("latent", "proprio")}
        return Records(state=State(fields["latent"], fields["proprio"]), **rest)

    def __getitem__(self, index: Any) -> Records:
        return Records.of({name: value[index] for name, value in self.fields().items()})


class EpisodicMemory:
    """A ring of records; with capacity 0 the null memory, always empty. Only `recall` is inside the autograd graph."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.size = 0
        self.head = 0
        self.store: dict[str, Tensor] = {}

    def write(
        self,
        time: Tensor | int,
        episode: Tensor | int,
        state: State,
        action: Tensor,
        imagined: bool,
    ) -> None:
        """Add E records: state (E, ...), action (E, K, A); time and episode (E,), or one for all.

        Of several records of the same episode, time and kind, `at` and `trajectories` read the one written last.
        """
        if not self.config.capacity:
            return
        count, device = state.latent.shape[0], state.latent.device
        fields = {
            "time": torch.as_tensor(time, dtype=torch.int64, device=device).expand(count),
            "episode": torch.as_tensor(episode, dtype=torch.int64, device=device).expand(count),
            "imagined": torch.full((count,), imagined, device=device),
            "latent": state.latent.detach().float(),
            "proprio": state.proprio.detach().float(),
            "action": action.detach().float(),
        }
        store = self.store or self._buffers(fields)
        for name, new in fields.items():
            expected = (count, *store[name].shape[1:])
            if new.shape != expected:
                raise ValueError(f"memory field {name} has shape {tuple(new.shape)}, this memory expects {expected}")
        capacity, written = self.config.capacity, max(0, count - self.config.capacity)
        self.store = store
        while written < count:  # to the end of the ring, then from its beginning
            piece = min(count - written, capacity - self.head)
            for name, new in fields.items():
                store[name][self.head : self.head + piece] = new[written : written + piece]
            self.head = (self.head + piece) % capacity
            written += piece
        self.size = min(self.size + count, capacity)

    def clear(self) -> None:
        """Forget everything."""
        self.size, self.head, self.store = 0, 0, {}

    def at(self, episode: Tensor | int, time: Tensor | int, imagined: bool = False) -> Records:
        """The records of these moments, exactly; episode and time (...), LookupError for a moment that is not held."""
        held = self.records()
        episode, time = (torch.as_tensor(x, device=held.time.device) for x in (episode, time))
        same = (held.episode == episode[..., None]) & (held.time == time[..., None]) & (held.imagined == imagined)
        latest, index = torch.where(same, self._age(), -1).max(-1)
        if (latest < 0).any():
            kind = "imagined" if imagined else "perceived"
            raise LookupError(f"no {kind} record of episode(s) {episode.tolist()} at time(s) {time.tolist()} is held")
        return held[index]

    def recall(
        self,
        query: Tensor,
        values: Tensor | None = None,
        temperature: float | None = None,
        gamma: float | None = None,
        top_k: int | None = None,
    ) -> Tensor:
        """Soft associative read (equations 15 to 17): queries (B, D) -> (B, ...), zeros from an empty memory.

        match_j = -mean((q - k_j)^2) / temperature, with the stored latents as keys; the mean makes a temperature fit
        latents of any length. Only the `top_k` best matches are mixed. `values` is a tensor (M, ...) in the order of
        `records()`, for instance later states or a critic's estimates; None recalls the latents. Gradients reach the
        query and the values. The other arguments default to the Config's.
        """
        if not self.size:
            return torch.zeros_like(query) if values is None else values.new_zeros(len(query), *values.shape[1:])
        temperature = self.config.temperature if temperature is None else temperature
        gamma = self.config.gamma if gamma is None else gamma
        keys = self.store["latent"][: self.size]
        values = keys if values is None else values
        with torch.no_grad():  # |q - k|^2 up to |q|^2, as one matrix product; exact distances only for the best
            nearness = 2 * query.float() @ keys.T - torch.linalg.vector_norm(keys, dim=1).square()
            best = nearness.topk(min(top_k or self.config.top_k, self.size), dim=1).indices
        match = (query[:, None] - keys[best]).square().mean(-1) / -temperature
        # gamma = exp(log gamma) is one more term of the softmax, which recalls 0.
        nothing = match.new_full((len(match), 1), math.log(gamma) if gamma > 0 else -math.inf)
        weights = torch.cat((match, nothing), 1).softmax(1)[:, :-1]
        return torch.einsum("bk,bk...->b...", weights.to(values.dtype), values[best])

    def sample(self, count: int, generator: Generator) -> Records:
        """Records (count,) drawn uniformly with replacement; LookupError from an empty memory."""
        held = self.records()
        index = torch.randint(self.size, (count,), generator=generator, device=generator.device)
        return held[index.to(held.time.device)]

    def trajectories(self, step: int = 1, imagined: bool | None = None) -> list[Records]:
        """Pieces (T,) of one episode, each in time order and without a gap: times differ by exactly `step`.

        Perceived and imagined records never share a piece; `imagined` selects one kind, None gives both.
        """
        if not self.size:
            return []
        held = self.records()
        order = self._age().argsort()
        if imagined is not None:
            order = order[held.imagined[order] == imagined]
        for key in (held.time, held.episode, held.imagined):  # stable sorts: the last key is the most significant
            order = order[key[order].argsort(stable=True)]
        time, episode, kind = held.time[order], held.episode[order], held.imagined[order]
        same = (episode[1:] == episode[:-1]) & (kind[1:] == kind[:-1])
        last = torch.ones_like(kind)
        last[:-1] = ~same | (time[1:] != time[:-1])  # of several records of one moment the latest counts
        order, time, episode, kind = order[last], time[last], episode[last], kind[last]
        broken = (time.diff() != step) | (episode.diff() != 0) | (kind[1:] != kind[:-1])
        return [held[piece] for piece in order.tensor_split((broken.nonzero().flatten() + 1).tolist()) if len(piece)]

    def records(self) -> Records:
        """Everything held (M,), as views, in the order of storage; LookupError from an empty memory."""
        if not self.size:
            raise LookupError("the memory is empty; write records before reading them")
        return Records.of({name: buffer[: self.size] for name, buffer in self.store.items()})

    def status(self) -> dict[str, float]:
        """What the configurator may know of the memory."""
        return {"size": float(self.size), "capacity": float(self.config.capacity)}

    def state_dict(self) -> dict[str, Tensor | int]:
        """A copy of what is held, as flat tensors and ints."""
        held = {name: buffer[: self.size].clone() for name, buffer in self.store.items()}
        return {**held, "size": self.size, "head": self.head, "capacity": self.config.capacity}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Replace all records by those of `state_dict()`, bit for bit; ValueError if the capacity is another."""
        if state["capacity"] != self.config.capacity:
            expected = f"this one {self.config.capacity}; set the memory's capacity to the saved number"
            raise ValueError(f"the saved memory has capacity {state['capacity']}, {expected}")
        fields = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        self.store, self.size, self.head = self._buffers(fields), int(state["size"]), int(state["head"])
        for name, value in fields.items():
            self.store[name][: self.size] = value

    def _buffers(self, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """Uninitialised buffers (capacity, ...): the system commits their pages only as records arrive."""
        return {name: value.new_empty((self.config.capacity, *value.shape[1:])) for name, value in like.items()}

    def _age(self) -> Tensor:
        """(M,) position of every record in the order of writing; the smallest is the oldest."""
        return (torch.arange(self.size, device=self.store["time"].device) - self.head) % self.config.capacity
