"""Promises of the pictures of environments without a map: what there is to show is shown, and training never minds."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.console import set_quiet
from agent.drawing import frames
from agent.drawing.colours import GREEN, RED
from agent.drawing.frames import BODY_ROWS, BORDER, GAP, HEAD, LABEL, SEEN
from agent.inspection import imagination, watch, without_map
from agent.inspection.without_map import Show
from agent.learning.train import train_run
from agent.storage.run import Run
from tests.helpers import weights_hash
from tests.inspection.drift import born, config_of

HORIZON = 3
KINDS = {
    "Drift-v0": ("curves", {"rollout.gif", "rollout.png", "plans.png", "latent_error.png", "sensors.png"}),
    "DriftBlind-v0": ("curves", {"plans.png", "latent_error.png", "sensors.png"}),
    "DriftBroken-v0": ("curves", {"plans.png", "latent_error.png", "sensors.png"}),
    "DriftPixels-v0": ("pixels", {"rollout.gif", "rollout.png", "plans.png", "latent_error.png"}),
    "Pendulum-v1": ("body", {"rollout.gif", "rollout.png", "plans.png", "latent_error.png", "sensors.png"}),
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer pieces behind the curves."""
    monkeypatch.setattr(without_map, "EPISODES", 4)
    monkeypatch.setattr(without_map, "EPISODES_OF_PIXELS", 4)
    monkeypatch.setattr(watch, "GLANCE", 4)


@pytest.mark.parametrize("env", KINDS)
def test_what_there_is_to_show_is_written(env, tmp_path, capfd):
    config = config_of(env)
    agent, environment = born(config)
    kind, expected = KINDS[env]
    with Run.create_or_resume(tmp_path / "run", {}, ["run_agent.py"]) as run:
        (tmp_path / "run" / "imagination").mkdir()
        (tmp_path / "run" / "imagination" / "latent_map.png").touch()  # of an earlier call
        result = imagination.imagine(agent, config, environment, run, episodes=2, horizon=HORIZON)
    folder = tmp_path / "run" / "imagination"
    assert {path.name for path in folder.iterdir()} == {*expected, "numbers.json"}
    assert set(result["files"]) == {f"imagination/{name}" for name in (*expected, "numbers.json")}
    for name in expected:
        with Image.open(folder / name) as picture:
            picture.load()
            assert picture.width > 300 and picture.height > 200
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["shown_as"] == kind and numbers["horizon"] == HORIZON and len(numbers["plans"]) == 4
    assert {"learned", "persistence", "shuffled"} == set(numbers["latent_mse"]) == set(numbers["latent_mse_ci95"])
    assert ("sensor_error" in numbers) == (kind != "pixels") == ("sensors" in numbers)
    assert not {"position_error", "latent_map"} & set(numbers)
    assert "NaN" not in (folder / "numbers.json").read_text() and "null" not in json.dumps(numbers["plans"])
    assert ("cannot be rendered" in capfd.readouterr().err.replace("\n", " ")) == (env == "DriftBroken-v0")


def test_the_horizon_that_was_possible_is_told():
    config = config_of("DriftShort-v0")
    shown = Show(config, born(config)[1], 1, 16, 0).pictures(born(config)[0])
    assert shown.numbers["horizon_asked"] == 16 and shown.numbers["horizon_possible"] == 3
    assert shown.numbers["horizons"] == [1, 2, 3] and len(shown.film) == SEEN + 3


def test_the_body_is_where_the_readings_say():
    """While the agent still sees, the imagined pendulum is the real one but for the arrow of its torque."""
    config = config_of("Pendulum-v1")
    agent, environment = born(config)
    show = Show(config, environment, 2, HORIZON, 0)
    shown = show.pictures(agent)
    (one, _) = show._held.episodes
    side = frames.SIDE + 2 * BORDER
    assert len(shown.film) == SEEN + HORIZON and shown.strip.shape[0] == HEAD + 2 * (2 * (side + GAP) + 3 * GAP)
    real, posed = (shown.strip[top : top + side, LABEL : LABEL + side] for top in (HEAD, HEAD + side + GAP))
    assert (real[0] == GREEN).all() and np.abs(real.astype(int) - posed).mean() < 1, "at rest there is no arrow"
    red = np.argwhere(
        (posed[BORDER:-BORDER, BORDER:-BORDER, 0].astype(int) - posed[BORDER:-BORDER, BORDER:-BORDER, 2]) > 60
    )
    cos, sin = one.observations["sensors"][0, :2]
    row, column = red.mean(0) - side / 2 + BORDER
    assert np.dot((-row, -column), (cos, sin)) > 0.95 * np.hypot(row, column)


def test_pixels_are_those_that_were_perceived():
    config = config_of("DriftPixels-v0")
    agent, environment = born(config)
    show = Show(config, environment, 1, HORIZON, 0)
    shown = show.pictures(agent)
    pixels = show._held.episodes[0].observations["pixels"][0].transpose(1, 2, 0)
    factor = round(frames.SIDE / 24)
    top = shown.strip[HEAD + BORDER : HEAD + BORDER + 20 * factor : factor, LABEL + BORDER :][:, : 24 * factor : factor]
    assert np.array_equal(top, pixels)


def test_without_a_decoder_pixels_have_no_film_and_no_plans():
    config = config_of("DriftPixels-v0")
    agent, environment = born(config)
    shown = Show(config, environment, 1, HORIZON, 0).pictures(agent, decoded=False)
    assert shown.film is shown.strip is shown.plans is shown.sensors is None and shown.latent_error.size


def test_without_drives_there_are_no_plans():
    config = config_of(drives=())
    agent, environment = born(config)
    shown = Show(config, environment, 1, HORIZON, 0).pictures(agent)
    assert shown.plans is None and "plans" not in shown.numbers and shown.sensors is not None


def test_the_same_is_shown_again_and_random_numbers_stay():
    config = config_of()
    agent, environment = born(config)
    agent.generator.manual_seed(9)
    torch.manual_seed(9)
    before = agent.generator.get_state(), torch.get_rng_state()
    show = Show(config, environment, 1, HORIZON, 0)
    first = show.pictures(agent)
    held = show._held
    again = show.pictures(agent)
    assert show._held is held, "nothing is explored twice"
    other = Show(config, environment, 1, HORIZON, 1).pictures(agent)
    assert first.numbers == again.numbers != other.numbers and np.array_equal(first.film, again.film)
    assert torch.equal(agent.generator.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_two_rows_and_plans_as_frames():
    rng = np.random.default_rng(0)
    real, imagined = (rng.integers(0, 256, (1, SEEN + 2, 60, 65, 3), np.uint8) for _ in range(2))
    strip, film = frames.strip(real, imagined, None, "world", BODY_ROWS), frames.film(real, imagined, None, BODY_ROWS)
    step = 2 * 60 + 2 * BORDER + GAP
    assert strip.shape[0] == HEAD + 2 * step + 3 * GAP and film[0].shape[0] == 44 + 2 * step + 40
    inside = slice(BORDER, BORDER + 120, 2)
    lower = strip[HEAD + step :, LABEL:]
    assert np.array_equal(lower[inside, BORDER : BORDER + 130 : 2], imagined[0, 0])
    sheet = frames.plan_sheet(real, imagined, [imagined[0, 0]], ["energy 1"], "plans")
    columns = [sheet[52 + 28, LABEL + j * (130 + 2 * BORDER + GAP)] for j in range(2)]
    assert [tuple(c) for c in columns] == [GREEN, RED], "the first frame is what is, the others are imagined"


# In training


def train(config, folder, watcher=watch.Gallery):
    set_quiet(True)
    try:
        return train_run(config, folder, [], watcher=watcher)
    finally:
        set_quiet(False)


@pytest.mark.parametrize("env", ["Drift-v0", "DriftPixels-v0"])
def test_pictures_change_nothing_that_is_learned(env, tmp_path):
    config = config_of(env, ("reward",))
    train(config, tmp_path / "seen")
    train(config, tmp_path / "blind", None)
    assert weights_hash(tmp_path / "seen") == weights_hash(tmp_path / "blind")
    reader = EventAccumulator(str(tmp_path / "seen" / "tb"), size_guidance={"images": 0})
    reader.Reload()
    steps = {tag: [event.step for event in reader.Images(tag)] for tag in reader.Tags()["images"]}
    if env == "Drift-v0":
        named = ("openloop", "plans", "latent_error", "sensors")
        assert steps == {f"imagination/{name}": [6, 9] for name in named}
    else:  # a film and plans once there is a decoder
        assert steps == {
            "imagination/latent_error": [6, 9, 13],
            "imagination/openloop": [13],
            "imagination/plans": [13],
        }
    (event, *_) = reader.Images("imagination/openloop")
    assert Image.open(io.BytesIO(event.encoded_image_string)).format == "GIF"


def test_what_fails_in_drawing_is_said_once_and_never_stops_a_training(tmp_path, monkeypatch, capfd):
    def fails(*_):
        raise RuntimeError("the display is on fire")

    config = config_of(drives=("reward",))
    train(config, tmp_path / "blind", None)
    monkeypatch.setattr(Show, "pictures", fails)
    train(config, tmp_path / "run")
    told = capfd.readouterr().err.replace("\n", " ")
    assert told.count("the display is on fire") == 1 and "no more pictures" in told
    assert weights_hash(tmp_path / "run") == weights_hash(tmp_path / "blind")
