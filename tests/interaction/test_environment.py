"""What every world of this project promises, as a Gymnasium environment, N at once, and as a Simulator."""

import copy
import pickle
import warnings
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs
from agent.inspection.check import CheckArguments, check
from envs import SIMULATORS, SimEnv, Simulator, SimVectorEnv

WORLDS: dict[str, tuple[str, dict[str, Any]]] = {env_id: (env_id, {}) for env_id in SIMULATORS} | {
    "medium": ("PointMaze-v0", {"layout": "medium"}),
    "large": ("PointMaze-v0", {"layout": "large"}),
    "pixels": ("PointMaze-v0", {"pixels": True}),
    "contact": ("PointMaze-v0", {"contact": True}),
    "pixels, contact": ("PointMaze-v0", {"pixels": True, "contact": True}),
}
EXPECTED = ("symmetric and normalized",)  # an opinion on actions: Two Rooms measures them in pixels
N = 3


@pytest.fixture(params=WORLDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def shared(name: str) -> gym.Env:
    """One instance for tests that leave it as they found it."""
    return single(name)


def single(name: str, **more: Any) -> gym.Env:
    env_id, options = WORLDS[name]
    return gym.make(env_id, **options, **more)


def several(name: str, num_envs: int = N, **more: Any) -> SimVectorEnv:
    env_id, options = WORLDS[name]
    made = gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point", **options, **more)
    assert isinstance(made, SimVectorEnv)
    return made


def bare(name: str) -> SimEnv:
    world = shared(name).unwrapped
    assert isinstance(world, SimEnv)
    return world


def same(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and tuples."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype


def play(world: Any, actions: list[np.ndarray]) -> list[Any]:
    return [world.step(action) for action in actions]


def drawn(space: gym.Space, n: int, seed: int = 0) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(n)]


def test_gymnasium_finds_nothing_to_complain_of(name: str):
    world = single(name).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(world)
    said = [str(w.message) for w in caught]
    assert [s for s in said if not any(e in s for e in EXPECTED)] == []


@pytest.mark.parametrize("which", [w for w in WORLDS if w not in ("pixels", "contact")])
def test_our_own_check_finds_nothing_to_complain_of(which: str):
    env_id, options = WORLDS[which]
    texts = tuple(f"{k}={v}" for k, v in options.items())
    findings = check(CheckArguments(env_id, env_options=texts))
    assert [f for f in findings if f.result != "ok"] == []
    assert {"exact states", "tasks", "actions matter", "determinism"} <= {f.check for f in findings}


def test_same_seed_same_observations(name: str):
    first, second = single(name), single(name)
    actions = drawn(first.action_space, 50)
    runs = [[env.reset(seed=11), *play(env, actions)] for env in (first, second, first)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert not same(runs[0][0], first.reset(seed=12))
    # Without a seed the generator goes on: the next episode is another one.
    assert not same(first.reset()[0], first.reset()[0])


def test_same_seed_same_observations_of_several(name: str):
    first, second = several(name), several(name)
    actions = drawn(first.action_space, 50)
    runs = [[env.reset(seed=11), *play(env, actions)] for env in (first, second, first)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert not same(runs[0][0], first.reset(seed=12))


def test_observations_keep_their_values(name: str):
    """What was returned is not changed by what comes later, in the batched form too."""
    for env in (shared(name), several(name)):
        kept = [env.reset(seed=0)[0]]
        copied = [copy.deepcopy(kept[0])]
        for action in drawn(env.action_space, 5):
            kept.append(env.step(action)[0])
            copied.append(copy.deepcopy(kept[-1]))
        assert same(kept, copied)
        assert all(observation in env.observation_space for observation in kept)


@pytest.mark.parametrize("through", [lambda s: s, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=range(3))
@pytest.mark.parametrize("at_once", [False, True])
def test_state_goes_on_exactly(name: str, at_once: bool, through: Any):
    """Noise, clock and the next reset included; in the same instance, and in another one."""
    make: Any = (lambda: several(name, max_steps=12)) if at_once else (lambda: single(name, max_steps=12).unwrapped)
    world, other = make(), make()
    actions = drawn(world.action_space, 40)

    def future(w: Any) -> list[Any]:
        """With a reset within: by itself when several, by hand when single."""
        if at_once:
            return play(w, actions[5:])
        return [play(w, actions[5:12]), w.reset(), play(w, actions[12:])]

    world.reset(seed=3)
    play(world, actions[:5])
    kept = through(world.get_state())
    expected = future(world)
    world.set_state(kept)
    assert same(future(world), expected)
    other.reset(seed=99)
    other.set_state(kept)
    assert same(future(other), expected)
    other.set_state(kept)  # a state that has been used is still what it was
    assert same(future(other), expected)


def test_state_kept_at_the_end_of_an_episode_still_resets_in_the_next_step(name: str):
    world = several(name, max_steps=5)
    world.reset(seed=3)
    actions = drawn(world.action_space, 9)
    play(world, actions[:5])
    kept = world.get_state()
    expected = play(world, actions[5:])
    world.set_state(kept)
    assert same(play(world, actions[5:]), expected)


def test_state_is_a_copy(name: str):
    for world in (bare(name), several(name)):
        world.reset(seed=3)
        kept, mine = world.get_state(), world.get_state()
        for value in mine.values():
            if isinstance(value, np.ndarray):
                value[:] = 1
        assert same(world.get_state(), kept)
        world.set_state(kept)
        kept["physics"][:] = 1
        assert not np.array_equal(world.get_state()["physics"], kept["physics"])


def test_several_reset_in_the_step_after_the_end(name: str):
    """NEXT_STEP autoreset: truncation, then a step that only resets, then the new episode goes on."""
    world = several(name, max_steps=5)
    assert world.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    info = world.reset(seed=0)[1]
    actions = drawn(world.action_space, 12)
    for t, action in enumerate(actions, 1):
        before = info["state"]
        _, _, terminated, truncated, info = world.step(action)
        assert not terminated.any()
        assert (truncated == (t in (5, 11))).all(), f"step {t}"
        if t == 6:  # the reset: nowhere that one action leads to, whatever the action
            assert (np.abs(info["state"] - before).max(1) > 1e-3).all()
            assert world.get_state()["elapsed"].tolist() == [0] * N
            expected = world.simulator.step(before, action, None)
            assert (np.abs(expected - info["state"]).max(1) > 1e-3).all()


def test_worlds_that_are_not_over_are_left_alone_by_a_reset():
    """Copies may be at different times, after set_state; only those that are over are reset."""
    world = several("PointMaze-v0", max_steps=5)
    world.reset(seed=0)
    state = world.get_state()
    world.set_state(state | {"elapsed": np.array([4, 2, 0])})
    push = np.zeros((N, 2), np.float32)
    truncated, info = world.step(push)[3:]
    assert truncated.tolist() == [True, False, False]
    expected = world.simulator.step(info["state"], push, None)
    goals = info["goal"]
    *_, truncated, info = world.step(push)
    assert truncated.tolist() == [False, False, False]
    assert np.array_equal(info["state"][1:], expected[1:]) and np.array_equal(info["goal"][1:], goals[1:])
    assert not np.array_equal(info["state"][0], expected[0]) and not np.array_equal(info["goal"][0], goals[0])


def test_single_is_truncated_at_max_steps(name: str):
    env = single(name, max_steps=7)
    env.reset(seed=0)
    flags = [env.step(action)[2:4] for action in drawn(env.action_space, 7)]
    assert flags == [(False, False)] * 6 + [(False, True)]
    env.reset()
    assert env.step(env.action_space.sample())[2:4] == (False, False), "the clock starts anew"


def test_gymnasium_can_make_several_out_of_single_ones(name: str):
    env_id, options = WORLDS[name]
    made = gym.make_vec(env_id, 2, vectorization_mode="sync", **options)
    observations, info = made.reset(seed=0)
    assert observations in made.observation_space and info["state"].shape == (2, 4)
    made.step(made.action_space.sample())
    made.close()


def test_several_look_like_single_ones(name: str):
    """One world out of the batch and the single form see the same in the same state, and report the same."""
    one, many = bare(name), several(name)
    observations, info = many.reset(seed=4)
    for i in range(N):
        picked = {k: v[i] for k, v in observations.items()} if isinstance(observations, dict) else observations[i]
        alone, alone_info = one.reset(options={"state": info["state"][i], "goal": info["goal"][i]})
        assert same(alone, picked)
        assert alone_info["success"] == info["success"][i]
    assert many.single_observation_space == one.observation_space and many.single_action_space == one.action_space


def test_reset_options(name: str):
    for world in (bare(name), several(name)):
        info = world.reset(seed=1)[1]
        state, goal = info["state"], info["goal"]
        world.reset(seed=2)
        told = world.reset(options={"state": state, "goal": goal})[1]
        assert np.array_equal(told["state"], state) and np.array_equal(told["goal"], goal)
        kept = world.get_state()
        state += 1.0  # the world has its own copy of what it was given, and gives a copy away
        told["state"] += 2.0
        assert same(world.get_state(), kept)
        told = world.reset(options={"state": goal, "goal": goal})[1]
        assert np.all(told["success"]), "at the goal"
        with pytest.raises(ValueError, match=r"shape .*got \(7,\)"):
            world.reset(options={"state": np.zeros(7)})
        with pytest.raises(ValueError, match="'gool'"):
            world.reset(options={"gool": goal})


@pytest.mark.parametrize("env_id", SIMULATORS)
def test_reset_options_must_be_finite(env_id: str):
    for world in (bare(env_id), several(env_id)):
        for which in ("state", "goal"):
            bad = world.reset(seed=1)[1][which]
            bad.ravel()[1] = np.nan
            with pytest.raises(ValueError, match="finite"):
                world.reset(options={which: bad})


def test_several_refuse_what_they_cannot_do(name: str):
    world = several(name)
    with pytest.raises(ValueError, match="one seed"):
        world.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="shape"):
        world.reset(options={"state": np.zeros((N + 1, 4))})
    world.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        world.step(np.zeros((N + 1, 2), np.float32))
    bad = np.zeros((N, 2), np.float32)
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        world.step(bad)


def test_reward_is_one_at_the_goal_and_says_the_same_as_info(name: str):
    world = bare(name)
    goal = world.reset(seed=0)[1]["goal"]
    world.reset(options={"state": goal, "goal": goal})
    _, reward, terminated, _, info = world.step(np.zeros(2, np.float32))
    assert reward == 1.0 and info["success"] is True and not terminated
    far = world.simulator.sample_tasks(np.random.default_rng(0), 1)
    world.reset(options={"state": far.start[0], "goal": far.goal[0]})
    _, reward, _, _, info = world.step(np.zeros(2, np.float32))
    assert reward == 0.0 and info["success"] is False


def test_goal_observation_is_the_view_from_the_goal(name: str):
    world = bare(name)
    goal = world.reset(seed=5)[1]["goal"]
    expected = world.goal_observation()
    assert expected in world.observation_space
    assert same(world.reset(options={"state": goal})[0], expected)


def test_render_is_a_picture_with_agent_and_goal(name: str):
    env = single(name, render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    assert isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
    assert picture.shape[2] == 3 and min(picture.shape[:2]) >= 60
    reds, greens = ((picture == colour).all(-1).sum() for colour in ((210, 50, 50), (40, 160, 60)))
    assert reds > 5 and greens > 5
    before = picture.copy()
    for action in drawn(env.action_space, 20):
        env.step(action)
    after: Any = env.render()
    assert not np.array_equal(after, before), "the agent has moved"


def test_simulator_protocol_and_its_shapes(name: str):
    simulator, rng = bare(name).simulator, np.random.default_rng(0)
    assert isinstance(simulator, Simulator)
    states = simulator.reset(rng, 5)
    size = len(simulator.action_low)
    actions = rng.uniform(simulator.action_low, simulator.action_high, (5, size))
    assert states.dtype == np.float64 and simulator.step(states, actions, rng).shape == states.shape
    assert simulator.reset_within_scene(rng, states).shape == states.shape
    assert simulator.positions(states).shape == (5, 2)
    assert all(values.shape == (5,) for values in simulator.factors(states).values())
    tasks = simulator.sample_tasks(rng, 5)
    assert tasks.start.shape == tasks.goal.shape == states.shape
    for control in (simulator.expert_action, simulator.greedy_action):
        chosen = control(tasks.start, tasks.goal)
        assert chosen.shape == (5, size)
        assert (chosen >= simulator.action_low - 1e-6).all() and (chosen <= simulator.action_high + 1e-6).all()
    picture = simulator.render_map(states[0])
    column, row = simulator.to_map(simulator.positions(states))[0]
    assert 0 <= column < picture.shape[1] and 0 <= row < picture.shape[0]
    percepts = simulator.observe(states)
    assert set(percepts) <= {"pixels", "sensors"}
    if simulator.pixel_shape is not None:
        assert percepts["pixels"].shape == (5, *simulator.pixel_shape) and percepts["pixels"].dtype == np.uint8
    if simulator.sensor_low is not None:
        assert percepts["sensors"].shape == (5, len(simulator.sensor_low))
        assert all(proprio.index < len(simulator.sensor_low) for proprio in simulator.proprio)
    assert (simulator.sensor_low is None) == ("sensors" not in percepts)


def test_calls_before_reset_say_what_to_do(name: str):
    world = single(name).unwrapped
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        world.step(np.zeros(2, np.float32))


def test_a_world_of_ones_own_is_registered_in_one_line():
    try:
        envs.register("Mine-v0", envs.TwoRooms, max_steps=9)
        env, many = gym.make("Mine-v0"), gym.make_vec("Mine-v0", 2, vectorization_mode="vector_entry_point")
        assert isinstance(env.unwrapped, SimEnv) and env.unwrapped.max_steps == 9
        assert isinstance(many, SimVectorEnv) and many.max_steps == 9
    finally:
        gym.registry.pop("Mine-v0", None)


@pytest.mark.parametrize(("options", "steps"), [({"layout": "u"}, 150), ({"layout": "medium"}, 250)])
def test_an_episode_is_as_long_as_the_layout_asks(options: dict, steps: int):
    assert gym.make("PointMaze-v0", **options).unwrapped.max_steps == steps
    many = gym.make_vec("PointMaze-v0", 2, vectorization_mode="vector_entry_point", **options)
    assert isinstance(many, SimVectorEnv) and many.max_steps == steps


@pytest.mark.parametrize("position", [(3.9, 30.0), (30.0, 60.1)])
def test_a_dot_outside_the_borders_is_refused(position: tuple[float, float]):
    env = gym.make("TwoRooms-v0")
    with pytest.raises(ValueError, match="from 4 to 60"):
        env.reset(options={"state": np.array([*position, 32.0, 18.0])})
