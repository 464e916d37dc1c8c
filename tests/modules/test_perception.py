"""Promises of modules/perception.py: maps keep their places, proprio are copies, and time does not mix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.interaction.environment import as_tensors
from envs.gym_env import as_observation
from modules.perception import (
    Config,
    Encoder,
    LastRead,
    ProprioEmbedding,
    Senses,
    StateEmbedding,
    flatten_map,
    fourier_features,
)
from modules.types import Observation, State
from tests.helpers import born, explored, tiny, tiny_maze


def dot(x: int, y: int, side: int = 65) -> torch.Tensor:
    rows, columns = np.mgrid[:side, :side]
    picture = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4)
    return torch.from_numpy(picture.astype(np.uint8))[None, None]


def spatial() -> Encoder:
    torch.manual_seed(0)
    return Encoder(Config(latent="spatial", channels=5, width=8), Senses(pixel_shape=(1, 65, 65)))


def test_flattening_and_unflattening_are_inverse():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(flatten_map(x).unflatten(-1, (4, 5, 3)).permute(0, 3, 1, 2), x)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-1, 0), (2, 1)])
def test_a_dot_moved_by_the_stride_moves_the_map_by_one_cell(right, down):
    encoder = spatial()
    channels, rows, columns = encoder.map_shape
    stride = encoder.config.stride

    def cells(x, y):
        latent = encoder.encode(Observation(pixels=dot(x, y))).latent
        return latent.unflatten(-1, (rows, columns, channels))[0].detach()

    here, there = cells(30, 30), cells(30 + right * stride, 30 + down * stride)
    moved = torch.roll(here, (down, right), (0, 1))
    inside = slice(3, -3)  # the border's padding is not translated
    assert (here[inside, inside] - there[inside, inside]).abs().max() > 1e-2
    assert torch.allclose(moved[inside, inside], there[inside, inside], atol=1e-5)


def test_a_local_change_of_the_picture_stays_local():
    encoder = spatial()
    channels, rows, columns = encoder.map_shape
    blank = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    latents = [encoder.encode(Observation(pixels=p)).latent for p in (blank, dot(30, 30))]
    change = (latents[1] - latents[0]).unflatten(-1, (rows, columns, channels))[0].abs().amax(-1)
    assert change[4, 4] > 1e-3
    assert change[0].max() < 1e-6 and change[:, -1].max() < 1e-6


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_a_sequence_is_encoded_frame_by_frame(make):
    config = make()
    agent, _ = born(config)
    data = explored(config)
    seen = data.observe(torch.arange(1), slice(None)).map(lambda x: x[0])  # T frames of one episode
    together = agent.perception.encode(seen)
    for t in range(seen.batch):
        alone = agent.perception.encode(seen.map(lambda x, t=t: x[t : t + 1]))
        assert torch.allclose(together.latent[t], alone.latent[0], atol=1e-5)
        assert torch.equal(together.proprio[t], alone.proprio[0])


def test_slots_are_exact_copies_of_scaled_sensors():
    agent, simulator = born(tiny_maze())
    states = simulator.reset(np.random.default_rng(0), 6)
    percepts = simulator.observe(states)
    proprio = agent.perception.encode(as_tensors(as_observation(percepts))).proprio
    assert proprio.shape == (6, len(simulator.proprio)) and len(simulator.proprio) > 0
    for i, slot in enumerate(simulator.proprio):
        expected = (percepts["sensors"][:, slot.index] - np.float32(slot.offset)) / np.float32(slot.scale)
        np.testing.assert_array_equal(proprio[:, i].detach().numpy(), expected)
    assert not proprio.requires_grad, "proprio have no parameters"


def test_two_senses_at_once():
    torch.manual_seed(0)
    senses = Senses((1, 65, 65), (-1.0, -2.0, float("-inf")), (1.0, 2.0, float("inf")), ("b",), (1,), (0.0,), (2.0,))
    observation = Observation(dot(30, 30), torch.tensor([[0.5, 1.0, 3.0]]))
    for latent in ("vector", "spatial"):
        encoder = Encoder(Config(latent=latent, channels=5, width=8, size=16, hidden=16), senses)
        state = encoder.encode(observation)
        assert state.latent.shape == (1, encoder.latent_size)
        assert state.proprio.tolist() == [[0.5]]
        other = encoder.encode(Observation(observation.pixels, torch.tensor([[-0.5, 1.0, 3.0]])))
        assert not torch.allclose(state.latent, other.latent), "sensors reach the latent"
        other = encoder.encode(Observation(dot(20, 30), observation.sensors))
        assert not torch.allclose(state.latent, other.latent), "pixels reach the latent"
        assert state.latent.isfinite().all(), "sensors without bounds are passed as they are"


@pytest.mark.parametrize(
    ("config", "senses", "text"),
    [
        (Config(), Senses(), "pixels or sensors"),
        (Config(latent="spatial"), Senses(sensor_low=(0.0,), sensor_high=(1.0,)), "spatial latent needs pixels"),
        (Config(patch=9), Senses(pixel_shape=(1, 8, 8)), "smaller than one patch"),
    ],
)
def test_impossible_senses_are_refused(config, senses, text):
    with pytest.raises(ValueError, match=text):
        Encoder(config, senses)


@pytest.mark.parametrize("map_shape", [None, (3, 4, 4)])
def test_readout_takes_any_number_of_leading_axes(map_shape):
    torch.manual_seed(0)
    readout = StateEmbedding(48, 2, map_shape, 11)
    state = State(torch.randn(2, 5, 48), torch.randn(2, 5, 2))
    out = readout(state)
    assert out.shape == (2, 5, 11)
    assert torch.allclose(out[1, 3], readout(state[1, 3:4])[0], atol=1e-6)
    for other in (State(state.latent + 1, state.proprio), State(state.latent, state.proprio + 1)):
        assert (readout(other) - out).abs().amax(-1).min() > 1e-3, "it reads latent and proprio"


def test_a_goal_in_slots_is_read_from_them_alone():
    torch.manual_seed(0)
    readout = ProprioEmbedding((0, 2), 5, octaves=2)
    goal = State(torch.randn(4, 6), torch.randn(4, 3))
    out = readout(goal)
    assert out.shape == (4, 5)
    assert torch.equal(readout(State(goal.latent + 1, goal.proprio + torch.tensor([0.0, 1.0, 0.0]))), out)
    assert not torch.allclose(readout(State(goal.latent, goal.proprio + torch.tensor([0.0, 0.0, 0.1]))), out)


def test_octaves_by_hand():
    x = torch.tensor([[0.5, -0.25]])
    found = fourier_features(x, 2)[0]
    phases = np.concatenate([np.pi * x[0].numpy(), 2 * np.pi * x[0].numpy()])
    assert np.allclose(found.numpy(), np.concatenate([x[0].numpy(), np.sin(phases), np.cos(phases)]), atol=1e-6)
    assert torch.equal(fourier_features(x, 0), x)


def test_octaves_tell_near_places_apart():
    """The same small step of a sensor moves what the encoder sees several times farther."""
    near, step = torch.linspace(-1, 1, 50)[:, None], 0.02
    moved = [(fourier_features(near + step, n) - fourier_features(near, n)).norm(dim=1).mean() for n in (0, 4)]
    assert moved[1] > 10 * moved[0]


def test_the_digest_is_flat_numbers():
    agent, _ = born(dataclasses.replace(tiny_maze()))
    assert agent.perception.status() == {"latent_size": 8.0, "proprio": float(agent.perception.proprio_size)}


@pytest.mark.parametrize("map_shape", [None, (3, 4, 4)])
def test_what_was_read_last_is_never_stale(map_shape):
    """Reading the same goal again may be cheap, but must see other states and other weights."""
    torch.manual_seed(0)
    readout = LastRead(StateEmbedding(48, 2, map_shape, 11))
    state = State(torch.randn(2, 48), torch.zeros(2, 2))
    assert readout(state).requires_grad
    with torch.no_grad():
        first = readout(state)
        assert readout(state) is first
        assert not torch.allclose(readout(State(state.latent, torch.ones(2, 2))), first)
        assert torch.equal(readout(State(state.latent.clone(), state.proprio)), first)
        for parameter in readout.parameters():
            before = readout(state)
            parameter.add_(1.0)
            assert not torch.allclose(readout(state), before)
    assert readout(state).requires_grad, "a reading without gradients must not be handed to one with"
