"""The episodic store reads exactly by time, softly by state, forgets the oldest, and never grows."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modules.memory import Config, EpisodicMemory, Records
from modules.types import State

few = settings(max_examples=25, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int, seed: int = 0, latent: int = 6) -> dict:
    g = generator(seed)
    return {
        "state": State(torch.randn(count, latent, generator=g), torch.randn(count, 2, generator=g)),
        "action": torch.randn(count, 3, 2, generator=g),
    }


def filled(count: int = 8, seed: int = 0, latent: int = 6, **config) -> tuple[EpisodicMemory, dict]:
    memory, record = EpisodicMemory(Config(**config)), batch(count, seed, latent)
    memory.write(torch.arange(count), 0, **record, imagined=False)
    return memory, record


def same(a: Records, b: Records) -> bool:
    return all(torch.equal(x, b.fields()[name]) for name, x in a.fields().items())


def committed(memory: EpisodicMemory) -> int:
    return sum(buffer.untyped_storage().nbytes() for buffer in memory.store.values())


def test_reads_by_time_exactly():
    memory = EpisodicMemory(Config(capacity=100))
    written = {}
    for time in (0, 4, 8):  # three episodes at once, blocks of four actions
        written[time] = batch(3, seed=time)
        memory.write(time, torch.tensor([10, 11, 12]), **written[time], imagined=False)
    read = memory.at(torch.tensor([12, 10]), torch.tensor([4, 8]))
    for i, (row, time) in enumerate([(2, 4), (0, 8)]):
        assert torch.equal(read.state.latent[i], written[time]["state"].latent[row])
        assert torch.equal(read.state.proprio[i], written[time]["state"].proprio[row])
        assert torch.equal(read.action[i], written[time]["action"][row])
    assert read.time.tolist() == [4, 8] and read.episode.tolist() == [12, 10] and not read.imagined.any()
    single = memory.at(11, 0)
    assert single.time.shape == () and torch.equal(single.action, written[0]["action"][1])
    with pytest.raises(LookupError, match="perceived"):
        memory.at(11, 1)
    with pytest.raises(LookupError):
        memory.at(torch.tensor([11, 13]), torch.tensor([4, 4]))


def test_the_last_of_several_records_of_one_moment_counts_also_after_the_ring_has_turned():
    memory = EpisodicMemory(Config(capacity=5))
    for seed in range(4):
        memory.write(7, torch.tensor([1, 2]), **batch(2, seed), imagined=False)
        assert torch.equal(memory.at(2, 7).action, batch(2, seed)["action"][1])
    (piece,) = [p for p in memory.trajectories() if p.episode[0] == 2]
    assert piece.time.tolist() == [7] and torch.equal(piece.action[0], batch(2, 3)["action"][1])


def test_perceived_and_imagined_records_are_told_apart():
    memory = EpisodicMemory(Config(capacity=10))
    memory.write(3, torch.tensor([1, 2]), **batch(2, 0), imagined=False)
    memory.write(3, torch.tensor([1]), **batch(1, 1), imagined=True)
    perceived, imagined = memory.at(1, 3), memory.at(1, 3, imagined=True)
    assert torch.equal(perceived.action, batch(2, 0)["action"][0]) and not perceived.imagined
    assert torch.equal(imagined.action, batch(1, 1)["action"][0]) and imagined.imagined
    with pytest.raises(LookupError, match="imagined"):
        memory.at(2, 3, imagined=True)
    assert memory.records().imagined.tolist() == [False, False, True]
    assert len(memory.trajectories()) == 3
    assert [p.imagined.all().item() for p in memory.trajectories(imagined=True)] == [True]
    assert len(memory.trajectories(imagined=False)) == 2
    alone, _ = filled(2)
    alone.write(torch.tensor([2, 3]), 0, **batch(2), imagined=True)  # the next moments of the same episode
    assert [p.time.tolist() for p in alone.trajectories()] == [[0, 1], [2, 3]]


@given(capacity=st.integers(1, 12), counts=st.lists(st.integers(1, 15), min_size=1, max_size=8))
@few
def test_the_oldest_are_overwritten(capacity, counts):
    memory = EpisodicMemory(Config(capacity=capacity))
    times = list(range(sum(counts)))
    record, start = batch(len(times), 3), 0
    for count in counts:
        part = slice(start, start + count)
        new = {name: value[part] for name, value in record.items()}
        memory.write(torch.tensor(times[part]), 5, **new, imagined=False)
        start += count
    kept = times[-capacity:]
    (piece,) = memory.trajectories()
    assert piece.time.tolist() == kept
    assert torch.equal(piece.action, record["action"][kept])
    assert torch.equal(piece.state.latent, record["state"].latent[kept])
    assert memory.status() == {"size": len(kept), "capacity": capacity} and len(memory.records().time) == len(kept)


def test_an_unused_memory_costs_nothing_and_a_used_one_does_not_grow():
    memory = EpisodicMemory(Config(capacity=50))
    assert committed(memory) == 0
    memory.write(0, 0, **batch(3), imagined=False)
    size = committed(memory)
    assert size == 50 * (4 * (6 + 2 + 6) + 8 + 8 + 1)
    for time in range(1, 60):
        memory.write(time, 0, **batch(3), imagined=True)
    assert committed(memory) == size


def test_writing_copies_and_leaves_the_graph():
    memory, record = EpisodicMemory(Config(capacity=4)), batch(2)
    latent = record["state"].latent.requires_grad_()
    memory.write(0, torch.arange(2), **record, imagined=False)
    expected = latent.detach().clone()
    latent.data.zero_()
    assert torch.equal(memory.records().state.latent, expected) and not memory.records().state.latent.requires_grad


@pytest.mark.parametrize("wrong", ["rows", "action", "latent"])
def test_a_wrong_shape_is_named_and_changes_nothing(wrong):
    memory, record = EpisodicMemory(Config(capacity=4)), batch(2)
    broken = {
        "rows": {"action": record["action"][:1]},
        "action": {"action": record["action"][:, :, :1]},
        "latent": {"state": State(record["state"].latent[:, :1], record["state"].proprio)},
    }[wrong]
    if wrong != "rows":  # a record has one action, so it can be wrong in the first write
        memory.write(0, torch.arange(2), **record, imagined=False)
    before = memory.state_dict()
    with pytest.raises(ValueError, match=f"field {'latent' if wrong == 'latent' else 'action'} has shape"):
        memory.write(1, torch.arange(2), **{**record, **broken}, imagined=False)
    assert memory.state_dict().keys() == before.keys() and memory.size == before["size"]
    memory.write(1, torch.arange(2), **record, imagined=False)


@given(seed=seeds, values=st.sampled_from(["numbers", "actions", "latent"]), latent=st.sampled_from([4, 300]))
@few
def test_a_stored_key_recalls_its_own_value(seed, values, latent):
    memory, record = filled(20, seed, latent, capacity=16)  # the ring has turned
    held = memory.records()
    stored = {"numbers": held.action[:, 0, 0], "actions": held.action, "latent": None}[values]
    queries = record["state"].latent[-16:]
    expected = {"numbers": record["action"][-16:, 0, 0], "actions": record["action"][-16:], "latent": queries}[values]
    assert torch.allclose(memory.recall(queries, stored, temperature=1e-3), expected, atol=1e-3)
    assert torch.allclose(memory.recall(queries, stored, top_k=1), expected, atol=1e-5)


@given(seed=seeds, where=st.floats(0, 1), temperature=st.floats(1e-2, 10))
@few
def test_between_two_keys_lies_between_their_values(seed, where, temperature):
    memory, record = filled(2, seed)
    a, b = record["state"].latent
    values = record["action"][:, 0, 0]
    recalled = memory.recall((a + where * (b - a))[None], values, temperature=temperature)
    low, high = values.min(), values.max()
    assert low - 1e-5 <= recalled <= high + 1e-5
    middle = memory.recall((a + b)[None] / 2, values, temperature=temperature)
    assert torch.allclose(middle, values.mean(), atol=1e-3)


def test_a_query_unlike_every_key_recalls_nothing_if_gamma_is_positive():
    memory, record = filled(8, gamma=1e-3)
    far = record["state"].latent[:3] + 30
    values = record["action"][:, 0, 0]
    assert memory.recall(far, values).abs().max() < 1e-6 and memory.recall(far).abs().max() < 1e-6
    assert memory.recall(far, values, gamma=0.0).abs().min() > 1e-3
    near = record["state"].latent[:3]
    assert torch.allclose(memory.recall(near, values, temperature=1e-2), values[:3], rtol=0.01)


def test_gradients_reach_the_query_and_the_values():
    memory, record = filled(8)
    query = (record["state"].latent[:3] + 0.1).requires_grad_()
    values = memory.records().action[:, 0, 0].clone().requires_grad_()
    memory.recall(query, values, temperature=1.0).sum().backward()
    assert (query.grad.abs() > 0).all() and (values.grad > 0).all()
    # The weights of gamma = 0 sum to one for each query, and the gradient of a value is its weight.
    assert torch.allclose(values.grad.sum(), torch.tensor(3.0))
    named = record["state"].latent[:3].clone().requires_grad_()
    memory.recall(named, temperature=1.0).sum().backward()
    assert (named.grad.abs() > 0).all()


def test_gradient_of_the_query_is_that_of_central_differences():
    memory, record = filled(8)
    query = (record["state"].latent[:2] + 0.2).double().requires_grad_()
    values = memory.records().action[:, 0, 0].double()
    assert memory.recall(query, values.float()).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda q: memory.recall(q, values, temperature=0.7, gamma=0.1), query)


@given(seed=seeds, gamma=st.sampled_from([0.0, 0.3, 2.0]), top_k=st.sampled_from([1, 3, 64]))
@few
def test_recall_is_that_of_an_independent_loop(seed, gamma, top_k):
    memory, record = filled(9, seed)
    query = torch.randn(4, 6, generator=generator(seed + 1))
    values = torch.randn(9, 2, 3, generator=generator(seed + 2))
    recalled = memory.recall(query, values, temperature=0.5, gamma=gamma, top_k=top_k)
    assert recalled.shape == (4, 2, 3)
    keys = record["state"].latent.numpy().astype(np.float64)
    for q, got in zip(query.numpy().astype(np.float64), recalled.numpy(), strict=True):
        match = [-((q - key) ** 2).mean() / 0.5 for key in keys]
        best = sorted(range(9), key=lambda j: -match[j])[:top_k]
        total = gamma + sum(np.exp(match[j]) for j in best)
        expected = sum(np.exp(match[j]) / total * values[j].numpy().astype(np.float64) for j in best)
        assert np.allclose(got, expected, atol=1e-5)


def test_trajectories_are_pieces_without_gaps_in_time_order():
    memory = EpisodicMemory(Config(capacity=40))
    order = torch.randperm(12, generator=generator(4))
    episode = torch.tensor([3, 3, 3, 3, 1, 1, 1, 2, 2, 2, 2, 2])[order]
    time = torch.tensor([0, 4, 8, 12, 0, 4, 12, 16, 20, 24, 28, 36])[order]
    record = batch(12, 7)
    memory.write(time, episode, **record, imagined=False)
    memory.write(torch.tensor([8]), torch.tensor([1]), **batch(1), imagined=True)  # does not close a perceived gap
    pieces = memory.trajectories(step=4)
    found = [(p.episode[0].item(), p.time.tolist(), p.imagined.any().item()) for p in pieces]
    assert found == [
        (1, [0, 4], False), (1, [12], False), (2, [16, 20, 24, 28], False), (2, [36], False), (3, [0, 4, 8, 12], False),
        (1, [8], True),
    ]  # fmt: skip
    for piece in pieces[:-1]:
        assert (piece.episode == piece.episode[0]).all()
        for i, moment in enumerate(piece.time):
            row = ((time == moment) & (episode == piece.episode[0])).nonzero().item()
            assert torch.equal(piece.action[i], record["action"][row])
            assert torch.equal(piece.state.latent[i], record["state"].latent[row])
    assert all(len(p.time) == 1 for p in memory.trajectories(step=1))


def test_samples_are_uniform_records_and_repeat_with_the_generator():
    memory, record = filled(10)
    drawn = memory.sample(4000, generator(1))
    assert same(drawn, memory.sample(4000, generator(1))) and not same(drawn, memory.sample(4000, generator(2)))
    assert torch.equal(drawn.action, record["action"][drawn.time])
    assert torch.equal(drawn.state.latent, record["state"].latent[drawn.time])
    assert (torch.bincount(drawn.time, minlength=10) - 400).abs().max() < 100


@given(capacity=st.integers(1, 9), count=st.integers(0, 20), seed=seeds)
@few
def test_the_state_dict_round_trip_is_exact_and_the_copy_lives_on(capacity, count, seed):
    memory = EpisodicMemory(Config(capacity=capacity))
    for time in range(count):
        memory.write(time, torch.tensor([0, 1]), **batch(2, seed + time), imagined=bool(time % 2))
    state = memory.state_dict()
    assert all(isinstance(value, Tensor | int) for value in state.values())
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    copy = EpisodicMemory(Config(capacity=capacity))
    copy.load_state_dict(torch.load(file))
    for time in range(count, count + 3):
        for each in (memory, copy):
            each.write(time, torch.tensor([0, 1]), **batch(2, seed + time), imagined=False)
    assert same(memory.records(), copy.records()) and memory.head == copy.head
    assert same(memory.sample(5, generator(seed)), copy.sample(5, generator(seed)))
    before = EpisodicMemory(Config(capacity=capacity))
    before.load_state_dict(state)  # the state is a copy: writing to the memory has not changed it
    assert before.size == min(capacity, 2 * count)
    if count:
        last = before.at(1, count - 1, imagined=bool((count - 1) % 2))
        assert torch.equal(last.action, batch(2, seed + count - 1)["action"][1])
    if count >= capacity:
        assert not same(before.records(), memory.records())


def test_another_capacity_is_refused():
    memory, _ = filled(3, capacity=5)
    with pytest.raises(ValueError, match="capacity 5, this one 6"):
        EpisodicMemory(Config(capacity=6)).load_state_dict(memory.state_dict())


def test_a_memory_without_capacity_stores_nothing_and_answers_as_an_empty_one():
    null = EpisodicMemory(Config(capacity=0))
    null.write(0, torch.arange(3), **batch(3), imagined=False)
    assert committed(null) == 0
    assert null.status() == {"size": 0, "capacity": 0}
    assert null.status().keys() == filled()[0].status().keys()
    assert null.trajectories() == []
    for read in (lambda: null.at(0, 0), lambda: null.sample(2, generator()), null.records):
        with pytest.raises(LookupError, match="empty"):
            read()
    null.load_state_dict(null.state_dict())
    for memory in (null, EpisodicMemory(Config())):
        query = torch.randn(4, 6)
        assert torch.equal(memory.recall(query), torch.zeros(4, 6))
        assert torch.equal(memory.recall(query, torch.zeros(0)), torch.zeros(4))
        assert torch.equal(memory.recall(query, torch.zeros(0, 2, 3)), torch.zeros(4, 2, 3))


@pytest.mark.parametrize("setting", [{"capacity": -1}, {"top_k": 0}, {"temperature": 0.0}, {"gamma": -0.1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Config(**setting)
