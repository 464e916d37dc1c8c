"""Promises of modules/perception.py: maps keep their places, proprio is a copy, and a carry tells of the past."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.spec import as_tensors
from envs.gym_env import as_observation
from modules.actions import BoxActions
from modules.blocks import flatten_map, fourier_features, unflatten_map
from modules.perception import Config, Encoder, RecurrentEncoder, compose, select_rows, unroll
from modules.types import Observation, ObservationSpec, State
from tests.helpers import born, explored, tiny, tiny_maze


def dot(x: int, y: int, side: int = 65) -> torch.Tensor:
    rows, columns = np.mgrid[:side, :side]
    picture = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4)
    return torch.from_numpy(picture.astype(np.uint8))[None, None]


def spatial() -> Encoder:
    torch.manual_seed(0)
    return Encoder(Config(latent="spatial", channels=5, width=8), ObservationSpec(pixel_shape=(1, 65, 65)))


def test_flattening_and_unflattening_are_inverse():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(unflatten_map(flatten_map(x), (3, 4, 5)), x)
    assert torch.equal(flatten_map(x).unflatten(-1, (4, 5, 3)).permute(0, 3, 1, 2), x), "channels come last"


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


def test_proprio_are_exact_copies_of_scaled_sensors():
    agent, environment = born(tiny_maze())
    simulator = environment.truth
    states = simulator.reset(np.random.default_rng(0), 6)
    percepts = simulator.observe(states)
    proprio = agent.perception.encode(as_tensors(as_observation(percepts))).proprio
    assert proprio.shape == (6, len(simulator.proprio)) and len(simulator.proprio) > 0
    for i, spec in enumerate(simulator.proprio):
        expected = (percepts["sensors"][:, spec.index] - np.float32(spec.offset)) / np.float32(spec.scale)
        np.testing.assert_array_equal(proprio[:, i].detach().numpy(), expected)
    assert not proprio.requires_grad, "proprio has no parameters"


def test_two_senses_at_once():
    torch.manual_seed(0)
    spec = ObservationSpec(
        (1, 65, 65), (-1.0, -2.0, float("-inf")), (1.0, 2.0, float("inf")), ("b",), (1,), (0.0,), (2.0,)
    )
    observation = Observation(dot(30, 30), torch.tensor([[0.5, 1.0, 3.0]]))
    for latent in ("vector", "spatial"):
        encoder = Encoder(Config(latent=latent, channels=5, width=8, size=16, hidden=16), spec)
        state = encoder.encode(observation)
        assert state.latent.shape == (1, encoder.latent_size)
        assert state.proprio.tolist() == [[0.5]]
        other = encoder.encode(Observation(observation.pixels, torch.tensor([[-0.5, 1.0, 3.0]])))
        assert not torch.allclose(state.latent, other.latent), "sensors reach the latent"
        other = encoder.encode(Observation(dot(20, 30), observation.sensors))
        assert not torch.allclose(state.latent, other.latent), "pixels reach the latent"
        assert state.latent.isfinite().all(), "sensors without bounds are passed as they are"


@pytest.mark.parametrize(
    ("config", "spec", "text"),
    [
        (Config(), ObservationSpec(), "pixels or sensors"),
        (
            Config(latent="spatial"),
            ObservationSpec(sensor_low=(0.0,), sensor_high=(1.0,)),
            "spatial latent needs pixels",
        ),
        (Config(patch=9), ObservationSpec(pixel_shape=(1, 8, 8)), "smaller than one patch"),
    ],
)
def test_impossible_observations_are_refused(config, spec, text):
    with pytest.raises(ValueError, match=text):
        Encoder(config, spec)


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


def test_the_status_is_flat_numbers():
    agent, _ = born(dataclasses.replace(tiny_maze()))
    assert agent.perception.status() == {"latent_size": 8.0, "proprio": float(agent.perception.proprio_size)}


# Time


class Trace:
    """A perception with a carry: a fading sum of what was seen and done, and the moments since the episode began."""

    latent_size, proprio_size, map_shape = 1, 0, None
    context = 100

    def initial(self, episodes: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(episodes, 3), torch.zeros(episodes, 1)

    def observe(self, carry, observation, last_block, is_first):
        trace, count = (torch.where(is_first[:, None], torch.zeros_like(x), x) for x in carry)
        if last_block is not None:
            trace = trace + torch.where(is_first[:, None], 0.0, last_block.sum((1, 2))[:, None])
        trace = 0.5 * trace + observation.sensors
        return (trace, count + 1), State(trace, count)

    def encode_window(self, observations, actions=None) -> State:
        return unroll(self, observations, actions)

    def status(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("acted", [True, False])
def test_unroll_is_observe_moment_by_moment(acted):
    generator = torch.Generator().manual_seed(0)
    seen = Observation(sensors=torch.randn(2, 4, 3, generator=generator))
    actions = torch.randn(2, 3, 5, 2, generator=generator) if acted else None
    found = Trace().encode_window(seen, actions)
    assert found.latent.shape == (2, 4, 3) and found.proprio[..., 0].tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2
    for b in range(2):
        carry, trace = Trace().initial(1), np.zeros(3)
        for t in range(4):
            last = actions[b : b + 1, t - 1] if acted and t else None
            carry, state = Trace().observe(carry, seen[b : b + 1, t], last, torch.tensor([t == 0]))
            assert torch.equal(found.latent[b, t], state.latent[0]) and torch.equal(
                found.proprio[b, t], state.proprio[0]
            )
            done = actions[b, t - 1].sum().item() if acted and t else 0.0
            trace = 0.5 * (trace + done) + seen.sensors[b, t].numpy()
            np.testing.assert_allclose(found.latent[b, t].numpy(), trace, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_a_window_of_an_encoder_without_a_carry_is_unrolled_in_one_pass(make):
    config = make()
    agent, _ = born(config)
    seen = explored(config).observe(torch.arange(2), slice(None))
    with torch.no_grad():
        window, moments = agent.perception.encode_window(seen), unroll(agent.perception, seen, None)
    assert window.latent.shape[:2] == moments.latent.shape[:2] == (2, config.collect.length + 1)
    assert torch.allclose(window.latent, moments.latent, atol=1e-5)
    assert torch.equal(window.proprio, moments.proprio)
    assert agent.perception.context == 0 and agent.perception.initial(3) is None


# A GRU behind the encoder


PLACE = ObservationSpec(None, (-1.0, -2.0, -1.0), (1.0, 2.0, 1.0), ("b",), (1,), (0.5,), (2.0,))
SPACE = BoxActions((-1.0, 0.0), (1.0, 4.0))
BLOCK, STATES = 3, 5


def recurrent(**changes) -> RecurrentEncoder:
    torch.manual_seed(0)
    perception = compose(Config(size=16, hidden=24, carry="gru", carry_size=12, **changes), PLACE, SPACE, BLOCK)
    assert isinstance(perception, RecurrentEncoder)
    return perception


def life(rows: int = 4, seed: int = 0) -> tuple[Observation, torch.Tensor]:
    """Observations (B, T, S) and the blocks between them (B, T - 1, K, A)."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(rows, STATES, 3, generator=generator) * 2 - 1
    low, high = torch.tensor(SPACE.low), torch.tensor(SPACE.high)
    return Observation(sensors=seen), low + (high - low) * torch.rand(rows, STATES - 1, BLOCK, 2, generator=generator)


def test_shapes_of_a_recurrent_perception():
    perception, (seen, actions) = recurrent(), life()
    state = perception.encode_window(seen, actions)
    assert state.latent.shape == (4, STATES, 16) and state.proprio.shape == (4, STATES, 1)
    assert (perception.latent_size, perception.proprio_size, perception.map_shape) == (16, 1, None)
    assert perception.context > 0 and perception.initial(3).tolist() == [[0.0] * 12] * 3
    carry, now = perception.observe(perception.initial(4), seen[:, 0], None, torch.ones(4, dtype=torch.bool))
    assert carry.shape == (4, 12) and now.latent.shape == (4, 16)
    odd = compose(Config(size=7, carry="gru"), PLACE, SPACE, BLOCK)
    assert odd.encode_window(seen, actions).latent.shape == (4, STATES, 7) and odd.latent_size == 7
    assert torch.equal(state.proprio[..., 0], (seen.sensors[..., 1] - 0.5) / 2), "proprio is a copy"
    assert not state.proprio.requires_grad and state.latent.requires_grad
    assert perception.status() == {"latent_size": 16.0, "proprio": 1.0}


def test_a_window_of_a_recurrent_perception_is_observed_moment_by_moment():
    """All percepts at once, and then one after the other: the same up to the order of additions in a product."""
    perception, (seen, actions) = recurrent(), life()
    with torch.no_grad():
        window, moments = perception.encode_window(seen, actions), unroll(perception, seen, actions)
    assert torch.allclose(window.latent, moments.latent, atol=1e-6) and torch.equal(window.proprio, moments.proprio)
    assert window.latent.std() > 1e-2


def test_a_state_depends_on_the_past_and_not_on_the_future():
    perception, (seen, actions) = recurrent(), life()
    with torch.no_grad():
        state = perception.encode_window(seen, actions).latent
        other = perception.encode_window(seen, actions.flip(0)).latent
        assert torch.equal(other[:, 0], state[:, 0]), "nothing was done before the first moment"
        assert ((other - state)[:, 1:].abs().amax(-1) > 1e-4).all(), "the same percepts after other actions"
        sensors = seen.sensors.clone()
        sensors[:, 0] = sensors[:, 0].flip(0)
        other = perception.encode_window(Observation(sensors=sensors), actions).latent
        assert ((other - state)[:, 1:].abs().amax(-1) > 1e-5).all(), "the same actions after another beginning"
        sensors = seen.sensors.clone()
        sensors[:, -1], last = 0.0, actions.clone()
        last[:, -1] = 0.0
        other = perception.encode_window(Observation(sensors=sensors), last).latent
        assert torch.equal(other[:, :-1], state[:, :-1]) and not torch.equal(other[:, -1], state[:, -1])


def test_half_of_the_latent_is_the_percept_alone():
    """So that no latent can predict itself by repeating actions, and half of a goal's is that of any arrival."""
    perception, (seen, actions) = recurrent(), life()
    with torch.no_grad():
        state = perception.encode_window(seen, actions).latent
        alone = perception.encode_window(seen.map(lambda x: x.flatten(0, 1)[:, None])).latent.view(state.shape)
    assert torch.allclose(state[..., :8], alone[..., :8], atol=1e-6)
    assert ((state - alone)[:, 1:, 8:].abs().amax(-1) > 1e-4).all()


def test_each_action_of_a_block_counts_in_its_own_units():
    """Numbers from -1 to 1 and from 0 to 4 are seen as equally large."""
    perception, (seen, actions) = recurrent(), life()
    inputs: list[torch.Tensor] = []
    perception.cell.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    perception.encode_window(seen, actions)
    found = torch.stack([x[:, 8:] for x in inputs], 1)
    centre, half = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])
    assert not found[:, 0].any() and torch.allclose(found[:, 1:], ((actions - centre) / half).flatten(2))


def test_a_row_that_begins_forgets_carry_and_block():
    perception, (seen, actions) = recurrent(), life()
    with torch.no_grad():
        new = perception.observe(perception.initial(4), seen[:, 1], None, torch.ones(4, dtype=torch.bool))
        carry, _ = perception.observe(perception.initial(4), seen[:, 0], None, torch.ones(4, dtype=torch.bool))
        first = torch.tensor([True, False, True, False])
        found = perception.observe(carry, seen[:, 1], actions[:, 0], first)
    assert torch.equal(found[1].latent[first], new[1].latent[first]) and torch.equal(found[0][first], new[0][first])
    assert not torch.isclose(found[1].latent[~first], new[1].latent[~first]).all(-1).any()


def test_a_window_without_its_actions_is_refused():
    perception, (seen, _) = recurrent(), life()
    assert perception.encode_window(seen[:, :1]).latent.shape == (4, 1, 16), "one moment has none, such as a goal"
    with pytest.raises(ValueError, match="5 moments needs the 4 action blocks"):
        perception.encode_window(seen)


@pytest.mark.parametrize("latent", ["spatial", "raw"])
def test_a_carry_needs_a_vector_latent(latent):
    with pytest.raises(ValueError, match=r"--perception\.latent vector") as refused:
        compose(Config(latent=latent, carry="gru"), ObservationSpec(pixel_shape=(1, 65, 65)), SPACE, BLOCK)
    assert "\n" not in str(refused.value)
    assert isinstance(compose(Config(), ObservationSpec(pixel_shape=(1, 65, 65)), SPACE, BLOCK), Encoder)


def test_a_latent_of_one_number_has_no_halves():
    with pytest.raises(ValueError, match=r"--perception\.size 2 or more"):
        compose(Config(size=1, carry="gru"), PLACE, SPACE, BLOCK)


def test_rows_of_any_carry_are_selected():
    mask, new, old = torch.tensor([True, False]), torch.ones(2, 3), torch.zeros(2, 3)
    expected = [[1.0] * 3, [0.0] * 3]
    assert select_rows(mask, None, None) is None
    assert select_rows(mask, new, old).tolist() == expected
    assert select_rows(mask, new[:, 0], old[:, 0]).tolist() == [1.0, 0.0]
    found = select_rows(mask, {"a": (new, None), "b": new[..., None]}, {"a": (old, None), "b": old[..., None]})
    assert found["a"][0].tolist() == expected and found["a"][1] is None and found["b"][..., 0].tolist() == expected
    assert select_rows(torch.tensor([True, True]), new, None) is new, "before the first moment there is no carry"
    with pytest.raises(TypeError, match="not str"):
        select_rows(mask, "new", "old")
