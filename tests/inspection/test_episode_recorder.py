"""Promise: what is recorded of whole episodes is the evaluation itself, in plain JSON that passes its own check."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from agent.agent import Agent
from agent.build import build
from agent.config import Config
from agent.derive import derive
from agent.evaluation.episodes import evaluate_episodes, seed_list
from agent.inspection import episode_recorder
from agent.inspection.episode_recorder import EpisodeRecorder, palette_png, sight_of
from agent.interaction.environment import Environment, environment_of
from agent.storage.recording import RELEVANT, check
from envs.opengl import draft


class Walk(gym.Env):
    """Two numbers and one that nothing moves; with a wanted position of its own in every episode."""

    observation_space = spaces.Dict(
        {name: spaces.Box(-3, 3, (2,), np.float32) for name in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, breaks_at: int = 99) -> None:
        self.breaks_at = breaks_at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.taken = self.np_random.uniform(-1, 1, 2), 0
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at, self.taken = self.at + 0.2 * np.asarray(action), self.taken + 1
        if self.taken == self.breaks_at:
            raise RuntimeError("out of order")
        return self._seen(), -float(np.abs(self.at).sum()), bool(np.abs(self.at).max() > 2), False, {}

    def _seen(self) -> dict[str, np.ndarray]:
        numbers = {"observation": [self.at[0], 1.0], "achieved_goal": self.at, "desired_goal": self.goal}
        return {name: np.array(x, np.float32) for name, x in numbers.items()}


class Dot(gym.Env):
    """A bright dot on a picture; only pixels."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(4, 12))
        return self._seen(), {"goal_observation": self._seen(8)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = int(np.clip(self.at + 2 * int(action) - 1, 0, 15))
        return self._seen(), float(self.at == 8), False, False, {"goal_observation": self._seen(8)}

    def _seen(self, at: int | None = None) -> np.ndarray:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[8, self.at if at is None else at] = (250, 120, 30)
        return picture


gym.register("RecordedWalk-v0", entry_point=Walk, max_episode_steps=7)
gym.register("RecordedDot-v0", entry_point=Dot, max_episode_steps=5)


@pytest.fixture(scope="module", autouse=True)
def headless() -> Iterator[None]:
    """As run_agent.py."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setenv("MUJOCO_GL", "egl")
            patch.setenv("SDL_VIDEODRIVER", "dummy")
        yield


def agent_of(env: str, task: str = "", **changes: Any) -> tuple[Agent, Config, Environment]:
    config = Config(env=env, **changes)
    environment = environment_of(config)
    config, _ = derive(config, environment, task)
    acting = dataclasses.replace(config.configurator, samples=8, iterations=2, horizon_without_critic=6)
    config = dataclasses.replace(config, configurator=acting, critic=dataclasses.replace(config.critic, enabled=False))
    return build(config, environment.spec), config, environment


def recorded(
    env: str, count: int = 2, of: int = 3, limit: int = 30, mode: int = 2, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recording as JSON gives it back, and the result of the evaluation."""
    agent, _, environment = agent_of(env, **changes)
    with sight_of(environment) as sight:
        recorder = EpisodeRecorder(environment, sight, count, seed_list(of)[0])
        result, _ = evaluate_episodes(agent, environment, of, limit, {"mode": mode}, watch=recorder.attach)
        found = json.loads(json.dumps(recorder.recording(), allow_nan=False))
    check(found)
    return found, result


def picture(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


@pytest.fixture(scope="module")
def pendulum() -> tuple[dict[str, Any], dict[str, Any]]:
    return recorded("Pendulum-v1", limit=12)


@pytest.fixture(scope="module")
def walk() -> tuple[dict[str, Any], dict[str, Any]]:
    return recorded("RecordedWalk-v0")


def test_recording_changes_nothing_of_the_evaluation(walk):
    agent, _, environment = agent_of("RecordedWalk-v0")
    plain, _ = evaluate_episodes(agent, environment, 3, 30)
    for name in ("episode_returns", "episode_lengths", "success", "cost_mean", "prediction_error"):
        assert plain[name] == walk[1][name]


def test_episodes_are_those_of_the_evaluation_from_their_seeds(walk):
    recording, result = walk
    for e, episode in enumerate(recording["episodes"]):
        assert episode["seed"] == seed_list(3)[0][e] and episode["task"] == e
        assert episode["episode_return"] == pytest.approx(result["episode_returns"][e], rel=1e-4)
        assert episode["length"] == result["episode_lengths"][e] == len(episode["moments"])
        assert sum(m["reward"] for m in episode["moments"]) == pytest.approx(episode["episode_return"], rel=1e-3)
        assert episode["end"] == ("truncated" if episode["length"] == 7 else "terminated")
        env = Walk()
        env.reset(seed=episode["seed"])
        for moment in episode["moments"]:
            here = dict(zip(recording["sensors"], moment["readings"], strict=True))
            assert here["achieved_goal[0]"] == pytest.approx(env.at[0], rel=1e-3)
            assert here["observation[1]"] == 1
            env.step(moment["action"])


def test_without_frames_there_are_curves_and_the_goal_in_readings(walk):
    recording, _ = walk
    assert (recording["kind"], recording["posed"], recording["rewarded"]) == ("curves", False, False)
    episode = recording["episodes"][0]
    assert episode["frames"] is episode["goal_frame"] is episode["plans"][0]["frames"] is None
    env = Walk()
    env.reset(seed=episode["seed"])
    assert list(episode["goal_readings"]) == ["achieved_goal[0]", "achieved_goal[1]"]
    assert list(episode["goal_readings"].values()) == pytest.approx(env.goal, rel=1e-3)
    relevant = [recording["sensors"][i] for i in recording["relevant"]]
    assert {*relevant[:2]} == {"achieved_goal[0]", "achieved_goal[1]"}, "what is wanted comes first"
    assert relevant[-1] == "observation[1]", "what never changes comes last"


def test_plans_imagine_readings_and_begin_where_they_were_made(pendulum):
    recording, _ = pendulum
    for episode in recording["episodes"]:
        for moment in episode["moments"]:
            assert episode["plans"][moment["plan"]]["moment"] <= episode["moments"].index(moment)
        for plan in episode["plans"]:
            energies = [path["energy"] for path in plan["paths"]]
            assert 1 < len(energies) <= 1 + episode_recorder.ALTERNATIVES and energies == sorted(energies)
            assert energies[0] <= plan["proposal_energy"] * (1 + 1e-3) + 1e-4
            for path in plan["paths"]:
                assert np.shape(path["readings"]) == (len(path["critic"]), len(recording["relevant"]))
                terms = [*path["drives"].values(), path["critic"]]
                assert sum(map(sum, terms)) == pytest.approx(path["energy"], rel=1e-3, abs=1e-4)


def test_a_body_is_posed_at_what_was_perceived_and_imagined(pendulum):
    recording, _ = pendulum
    assert (recording["kind"], recording["posed"]) == ("frames", True)
    assert {*recording["sensors"]} == {"cos_angle", "sin_angle", "angular_velocity"}
    episode = recording["episodes"][0]
    width, height = episode["frame_size"]
    assert max(width, height) == episode_recorder.SIDE and picture(episode["frames"]).shape == (height, 12 * width, 3)
    assert picture(episode["frames"]).std() > 5, "something is drawn"
    plan = episode["plans"][0]
    assert plan["frame_steps"][0] == 1 and plan["frame_steps"][-1] == 6 and plan["framed"] == 3
    shown = picture(plan["frames"])
    assert shown.shape == (3 * height, len(plan["frame_steps"]) * width, 3)
    last = plan["paths"][0]["readings"][-1]
    angles = dict(zip([recording["sensors"][i] for i in recording["relevant"]], last, strict=True))
    _, _, environment = agent_of("Pendulum-v1")
    with sight_of(environment) as sight:
        drawn = sight.posed(np.array([angles[name] for name in sight.names]), episode_recorder.SIDE)
    assert drawn is not None
    apart = np.abs(shown[:height, -width:].astype(int) - drawn)
    assert apart.mean() < 3, "the last frame is the pose of the last imagined readings, in fewer colours"


def test_long_episodes_are_kept_in_part(monkeypatch):
    for name, value in (("MOMENTS", 9), ("DETAILED", 4), ("PAINTED", 1)):
        monkeypatch.setattr(episode_recorder, name, value)
    recording, result = recorded("Pendulum-v1", limit=12)
    for e, episode in enumerate(recording["episodes"]):
        assert len(episode["moments"]) == 9 and episode["length"] == 12 and episode["end"] == "limit"
        assert episode["episode_return"] == pytest.approx(result["episode_returns"][e], rel=1e-4), "of all of it"
        for plan in episode["plans"]:
            detailed = plan["moment"] < 4
            assert (len(plan["paths"]) > 1) == detailed and bool(plan["frames"]) == (detailed and e == 0)


def test_pixels_are_kept_as_they_are_and_so_is_a_goal_in_pixels():
    recording, _ = recorded("RecordedDot-v0", task="goal")
    assert (recording["kind"], recording["posed"], recording["sensors"]) == ("frames", False, [])
    episode = recording["episodes"][0]
    env, wanted = Dot(), np.zeros((16, 16, 3), np.uint8)
    env.reset(seed=episode["seed"])
    wanted[8, 8] = (250, 120, 30)
    assert (picture(episode["goal_frame"]) == wanted).all() and episode["goal_readings"] is None
    frames = picture(episode["frames"])
    for t, moment in enumerate(episode["moments"]):
        assert (frames[:, 16 * t : 16 * (t + 1)] == env._seen()).all()
        env.step(moment["action"][0])
    plan = episode["plans"][0]
    assert picture(plan["frames"]).shape == (16 * plan["framed"], 16 * len(plan["frame_steps"]), 3)


def test_a_decoder_that_has_not_learned_paints_nothing():
    agent, _, environment = agent_of("RecordedDot-v0", "goal")
    with sight_of(environment) as sight:
        recorder = EpisodeRecorder(environment, sight, 1, decoded=False)
        evaluate_episodes(agent, environment, 1, 3, watch=recorder.attach)
        recording = recorder.recording()
    check(recording)
    assert recording["episodes"][0]["frames"] and recording["episodes"][0]["plans"][0]["frames"] is None


def test_mode_1_has_no_plans_and_the_reward_is_told_where_it_is_used():
    recording, _ = recorded("RecordedWalk-v0", mode=1)
    assert all(not e["plans"] and e["moments"][0]["plan"] is None for e in recording["episodes"])
    agent, _, environment = agent_of("RecordedWalk-v0", "reward")
    agent.cost.reward_trained.fill_(True)
    with sight_of(environment) as sight:
        recorder = EpisodeRecorder(environment, sight, 1)
        evaluate_episodes(agent, environment, 1, 3, watch=recorder.attach)
        assert recorder.recording()["rewarded"]


def test_an_episode_in_which_the_environment_fails_is_called_so():
    gym.register("RecordedBroken-v0", entry_point=lambda **_: _breaks_for_some(), max_episode_steps=7)
    recording, result = recorded("RecordedBroken-v0", count=6, of=6)
    ends = [episode["end"] for episode in recording["episodes"]]
    assert ends.count("fault") == result["faults"] > 0 and len(ends) > ends.count("fault")


def _breaks_for_some() -> gym.Env:
    class Sometimes(Walk):
        def reset(self, **options: Any) -> Any:
            seen = super().reset(**options)
            self.breaks_at = 2 if self.at[0] > 0 else 99
            return seen

    return Sometimes()


def test_at_most_some_sensors_are_imagined_and_few_colours_are_exact():
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    few = np.zeros((8, 8, 3), np.uint8)
    few[:, 4:] = (1, 2, 3)
    few[2] = (1, 2, 4)
    assert (picture(palette_png(few)) == few).all(), "colours that are nearly the same stay apart"
    assert len(np.unique(picture(palette_png(noise)).reshape(-1, 3), axis=0)) <= episode_recorder.COLOURS
    assert RELEVANT >= 3


def test_a_closed_renderer_leaves_the_next_ones_frames_alone():
    mujoco = pytest.importorskip("mujoco")
    assert mujoco
    drawn = []
    for env in ("InvertedPendulum-v5", "Reacher-v5", "InvertedPendulum-v5"):
        with sight_of(environment_of(Config(env=env))) as sight:
            if sight.kind != "body":
                pytest.skip("there is no OpenGL here")
            drawn.append(sight.posed(np.zeros(len(sight.names))))
    assert all(one is not None and one.std() > 5 for one in drawn), "none is black"


def test_a_draft_is_small_and_says_nothing_about_other_environments():
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    assert draft(env, 96) is env
    env.close()
