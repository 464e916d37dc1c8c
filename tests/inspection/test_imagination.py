"""Promises of the pictures of imagination: every picture is there and shows what it says."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from agent.config import Config
from agent.drawing import colours, frames
from agent.drawing.colours import DARK, GREEN, RED
from agent.drawing.frames import BORDER, BOUNDARY, GAP, HEAD, LABEL, SEEN
from agent.errors import UserError
from agent.inspection import imagination, latent_map, plans
from agent.presets import debug
from agent.storage.run import Run
from modules import decoder, perception, world_model
from modules.types import State
from tests.helpers import born

PICTURES = ("rollout.gif", "rollout.png", "plans.png", "latent_error.png", "latent_map.png")
FILES = [f"imagination/{name}" for name in (*PICTURES, "numbers.json")]


def maze() -> Config:
    """A world without pixels."""
    return dataclasses.replace(
        debug(),
        env="PointMaze-v0",
        perception=perception.Config(latent="vector", size=8, hidden=16),
        world_model=world_model.Config(predictor="mlp", hidden=16),
        decoder=decoder.Config(hidden=16),
    )


def rooms_random() -> Config:
    return dataclasses.replace(debug(), env="TwoRoomsRandom-v0")


@pytest.fixture(scope="module")
def rooms():
    config = debug()
    return (*born(config), config)


@pytest.fixture(scope="module")
def shown(rooms):
    agent, environment, config = rooms
    return imagination.pictures(agent, config, environment, episodes=2, horizon=5, seed=3)


def start(folder: Path, config: Config) -> Run:
    return Run.create_or_resume(folder, dataclasses.asdict(config), ["run_agent.py"])


def frame_at(strip, column: int, row: int, side: int):
    """The bordered frame of the first episode at (column, row) of the strip."""
    x = LABEL + column * (side + GAP) + (BOUNDARY if column >= SEEN else 0)
    y = HEAD + row * (side + GAP)
    return strip[y : y + side, x : x + side]


@pytest.mark.parametrize("make", [debug, rooms_random, maze])
def test_all_files_exist_and_open(make, tmp_path):
    config = make()
    agent, environment = born(config)
    with start(tmp_path / "run", config) as run:
        result = imagination.imagine(agent, config, environment, run, episodes=2, horizon=3, seed=0)
    assert result["files"] == FILES
    assert json.loads((tmp_path / "run" / FILES[-1]).read_text())["latent_map"]["points"]
    for name in FILES[:-1]:
        with Image.open(tmp_path / "run" / name) as picture:
            picture.load()
            assert picture.width > 300 and picture.height > 300
    assert result["horizon"] == 3
    assert {"learned", "persistence", "shuffled"} <= set(result["latent_mse"])
    assert all(len(v) == 3 and np.isfinite(v).all() for v in result["latent_mse"].values())
    assert np.isfinite([result["ratio_persistence"], result["ratio_shuffled"]]).all()
    json.dumps(result)


def test_the_film_has_a_frame_for_every_moment(shown, tmp_path):
    data = imagination.encode_gif(shown.film, imagination.FPS)
    with Image.open(io.BytesIO(data)) as film:
        frames = [np.array(f.convert("RGB")) for f in ImageSequence.Iterator(film)]
    assert len(frames) == len(shown.film) == SEEN + 5
    edge = [f[44, LABEL] for f in shown.film]  # the border of the first frame
    assert [tuple(e) for e in edge] == [GREEN] * SEEN + [RED] * 5


def test_the_strip_draws_the_boundary_between_seen_and_imagined(shown):
    strip = shown.strip
    side = 2 * 65 + 2 * BORDER
    moments = frames.columns(5)
    assert moments == list(range(SEEN + 5))
    for column in range(len(moments)):
        frame = frame_at(strip, column, 0, side)
        assert (frame[0] == (GREEN if column < SEEN else RED)).all()
        assert (frame[:, -1] == (GREEN if column < SEEN else RED)).all()
    dark = np.flatnonzero((strip[HEAD : -3 * GAP] == DARK).all((0, 2)))
    last_seen, first_imagined = LABEL + SEEN * (side + GAP) - GAP, LABEL + SEEN * (side + GAP) + BOUNDARY
    assert len(dark) == 5 and last_seen < dark.min() and dark.max() < first_imagined


def test_the_strip_shows_the_true_frames_and_the_decoded_states(rooms, shown):
    agent, environment, config = rooms
    data = imagination.held_out(config, environment, imagination.EPISODES, SEEN - 1 + 5, (3, 2))
    side = 2 * 65 + 2 * BORDER
    inside = slice(BORDER, -BORDER, 2)
    real = frames.to_rgb(data.pixels[0].numpy())
    with torch.no_grad():
        state = agent.perception.encode(data.observe(torch.tensor([0]), torch.tensor([SEEN - 1])))
        for column in range(SEEN + 5):
            assert (frame_at(shown.strip, column, 0, side)[inside, inside] == real[column]).all()
            if column >= SEEN:
                state = agent.world_model.predict(state, data.actions[:1, column - 1])
                decoded = frames.to_rgb(agent.decoder.picture(state).pixels.numpy())[0]
                painted = frame_at(shown.strip, column, 1, side)[inside, inside]
                assert np.abs(painted.astype(int) - decoded).max() <= 2  # batches of another size round otherwise
                assert (
                    frame_at(shown.strip, column, 2, side)[inside, inside] == frames.difference(real[column], painted)
                ).all()


def test_error_curves_equal_an_independent_computation(rooms, shown):
    agent, environment, config = rooms
    data = imagination.held_out(config, environment, imagination.EPISODES, SEEN - 1 + 5, (3, 2))
    everyone = torch.arange(imagination.EPISODES)

    def encode(moment):
        return agent.perception.encode(data.observe(everyone, torch.full_like(everyone, moment)))

    with torch.no_grad():
        first = encode(SEEN - 1)
        right, wrong = first, first
        for h in range(5):
            actions = data.actions[:, SEEN - 1 + h]
            right = agent.world_model.predict(right, actions)
            wrong = agent.world_model.predict(wrong, torch.stack([actions[-1 - i] for i in range(len(actions))]))
            truth = encode(SEEN + h)
            for name, guess in (("learned", right), ("shuffled", wrong), ("persistence", first)):
                expected = np.mean((guess.latent.numpy() - truth.latent.numpy()) ** 2)
                assert shown.numbers["latent_mse"][name][h] == pytest.approx(expected, rel=1e-3)
    latent = shown.numbers["latent_mse"]
    assert shown.numbers["horizon"] == 5
    assert shown.numbers["ratio_persistence"] == pytest.approx(latent["learned"][4] / latent["persistence"][4])
    assert shown.numbers["ratio_shuffled"] == pytest.approx(latent["learned"][4] / latent["shuffled"][4])


def test_position_error_of_persistence_is_how_far_the_agent_really_went():
    """The maze's proprio holds the position, so that the probe's reading is all but exact."""
    config = maze()
    agent, environment = born(config)
    numbers = imagination.pictures(agent, config, environment, 1, 4, 0).numbers
    data = imagination.held_out(config, environment, imagination.EPISODES, SEEN - 1 + 4, (0, 2))
    went = np.linalg.norm(data.positions[:, SEEN:] - data.positions[:, SEEN - 1 : SEEN], axis=-1).mean(0)
    assert numbers["position_error"]["persistence"] == pytest.approx(went, rel=0.02)
    assert max(numbers["position_error"]["probe"]) < 0.02


def test_a_perfect_model_has_no_error_and_a_useless_one_is_persistence(rooms):
    agent, environment, config = rooms
    rollout = imagination.roll(agent, config, environment, 4, 0)
    perfect = imagination.errors(dataclasses.replace(rollout, imagined=rollout.state[:, SEEN:]))
    assert perfect["ratio_persistence"] == perfect["ratio_shuffled"] == 0
    still = rollout.state[:, SEEN - 1 : SEEN]
    still = State.cat([still] * 4, 1)
    assert imagination.errors(dataclasses.replace(rollout, imagined=still))["ratio_persistence"] == pytest.approx(1)


def test_maze_frames_show_the_ball_where_it_is():
    config = maze()
    agent, environment = born(config)
    with torch.no_grad():
        rollout = imagination.roll(agent, config, environment, 2, 0)
        real, imagined = imagination.frames(agent, environment.view, rollout, 3)
    assert real.shape == imagined.shape and real.shape[:2] == (3, SEEN + 2)
    for n in range(3):
        for t in range(SEEN + 2):
            red = np.argwhere((real[n, t, ..., 0] > 150) & (real[n, t, ..., 1] < 110))
            row, column = red.mean(0) * environment.view.render_map(rollout.data.states[n, 0]).shape[0] / real.shape[2]
            assert np.linalg.norm((column, row) - environment.view.to_map(rollout.data.positions[n, t][None])[0]) < 3
    # What it sees, it knows: proprio is copied.
    assert np.abs(real[:, :SEEN].astype(int) - imagined[:, :SEEN]).mean() < 1


def test_plans_name_their_energies_and_shown_rejects_are_worse(shown):
    assert len(shown.numbers["plans"]) == plans.TASKS
    for plan in shown.numbers["plans"]:
        assert plan["energy"] <= plan["first_proposal"] + 1e-4
        assert 0 < len(plan["rejected"]) <= plans.REJECTED
        assert plan["rejected"] == sorted(plan["rejected"]) and plan["rejected"][0] >= plan["energy"]


def test_rejected_plans_are_spread_over_their_energies():
    energies = torch.tensor([5.0, float("inf"), 1.0, 3.0, *range(10, 50)])
    some = energies[plans.spread(energies, 1.0, plans.REJECTED)]
    assert len(some) == plans.REJECTED and some[0] == 3 and some[-1] == 49 and bool((some.diff() > 0).all())
    assert len(plans.spread(torch.ones(4), 1.0, 12)) == 0


def test_a_plan_that_is_executed_follows_the_world():
    config = maze()
    _, environment = born(config)
    simulator, view = environment.truth, environment.view
    start_state = simulator.sample_tasks(np.random.default_rng(0), 1).start
    actions = torch.rand(2, 3, 2)
    path = plans.execute(simulator, view, start_state[0], actions)
    state = start_state
    for k in range(6):
        state = simulator.step(state, actions.flatten(0, 1).numpy()[k : k + 1], None)
    assert path.shape == (7, 2)
    assert np.array_equal(path[0], view.to_map(start_state[:, :2])[0])
    assert np.array_equal(path[-1], view.to_map(state[:, :2])[0])


def test_pictures_depend_on_the_seed_only(rooms, shown):
    agent, environment, config = rooms
    agent.generator.manual_seed(99)
    torch.manual_seed(7)
    before = agent.generator.get_state(), torch.get_rng_state()
    again = imagination.pictures(agent, config, environment, episodes=2, horizon=5, seed=3)
    assert again.numbers == shown.numbers and np.array_equal(again.strip, shown.strip)
    # A training that is looked at goes on as if it had not been.
    assert torch.equal(agent.generator.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(("flag", "value"), [("horizon", 0), ("horizon", 129), ("episodes", 0), ("episodes", 17)])
def test_more_than_can_be_shown_is_refused(rooms, flag, value):
    agent, environment, config = rooms
    with pytest.raises(UserError, match=f"--{flag} {value}"):
        imagination.pictures(agent, config, environment, **{flag: value})


def test_long_horizons_skip_columns_but_keep_the_last():
    for horizon in range(1, imagination.MAX_HORIZON + 1):
        moments = frames.columns(horizon)
        assert moments[: SEEN + 1] == list(range(SEEN + 1)) and moments[-1] == SEEN - 1 + horizon
        assert len(moments) <= SEEN + 10 and moments == sorted(set(moments))


def test_one_imagined_step_can_be_drawn(rooms):
    agent, environment, config = rooms
    shown = imagination.pictures(agent, config, environment, 1, 1)
    assert len(shown.film) == SEEN + 1 and shown.numbers["horizon"] == 1


@pytest.mark.parametrize("decoded", [True, False])
def test_tensorboard_gets_the_same_pictures(rooms, tmp_path, decoded):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    agent, environment, config = rooms
    with start(tmp_path / "run", config) as run:
        run.resume()
        imagination.to_tensorboard(agent, config, environment, run, 12, decoded)
    reader = EventAccumulator(str(tmp_path / "run" / "tb"), size_guidance={"images": 0})
    reader.Reload()
    tags = {f"imagination/{name}": "PNG" for name in ("plans", "latent_error", "latent_map")}
    tags |= {"imagination/openloop": "GIF"} if decoded else {}
    assert set(reader.Tags()["images"]) == set(tags)
    for tag, kind in tags.items():
        (event,) = reader.Images(tag)
        assert event.step == 12 and Image.open(io.BytesIO(event.encoded_image_string)).format == kind


def test_two_channels_become_a_red_agent_between_grey_walls():
    pixels = torch.zeros(2, 2, 3, dtype=torch.uint8)
    pixels[0, 0, 0], pixels[1, 0, 1] = 255, 255
    picture = frames.to_rgb(pixels.numpy())
    assert picture.shape == (2, 3, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == RED and tuple(picture[0, 1]) == colours.GREY and tuple(picture[1, 2]) == (250,) * 3
    rgb = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    assert np.array_equal(frames.to_rgb(rgb.numpy()), rgb.permute(0, 2, 3, 1).numpy())
    assert frames.to_rgb(rgb[:, :1].numpy()).shape == (4, 5, 6, 3)


def test_difference_is_white_red_or_blue():
    white, dark = np.full((1, 1, 3), 250, np.uint8), np.full((1, 1, 3), 20, np.uint8)
    assert (frames.difference(dark, dark) == 255).all()
    (only_imagined,) = frames.difference(white, dark)[0]
    (only_real,) = frames.difference(dark, white)[0]
    assert only_imagined[0] > 200 > 100 > only_imagined[2] and only_real[2] > 190 > 100 > only_real[0]


def test_the_map_of_the_latent_unrolls_a_rolled_sheet():
    """A spiral in three dimensions is laid out so that its length is one direction; straight lines would cross it."""
    generator = torch.Generator().manual_seed(0)
    length, height = 4 * torch.rand(64, 25, generator=generator), torch.rand(64, 25, generator=generator)
    turn = 1.5 * torch.pi * (1 + length / 4)
    spiral = torch.stack([turn * turn.cos(), 4 * height, turn * turn.sin()], -1)
    where = torch.stack([length, height], -1).double().numpy().reshape(-1, 2)
    found = latent_map.project(spiral, spiral[:, SEEN:], where, 1)
    flat, places = np.array(found["points"]), np.array(found["places"])
    assert abs(np.corrcoef(flat[:, 0], places[:, 0])[0, 1]) > 0.98
    assert found["explained"][0] > 0.8
    path = found["paths"][0]
    assert path["perceived"][1:] == path["imagined"][1:], "the same states are at the same place"
