"""The promises of the point maze: exact physics over arrays, walls that hold, tasks that need the map."""

import pickle

import mujoco
import numpy as np
import pytest

from envs.api import Simulator
from envs.point_maze import FRAME_SKIP, LAYOUTS, MIN_DISTANCE, RADIUS, RESET_SPEED, TASK_MARGIN, TOP_SPEED, PointMaze

NAMES = list(LAYOUTS)
CORRIDOR = ("############", "#..........#", "############")


def ball(*numbers: float) -> np.ndarray:
    return np.array([numbers], np.float64)


def push(world: PointMaze, states: np.ndarray, force: tuple[float, float], steps: int) -> np.ndarray:
    for _ in range(steps):
        states = world.step(states, np.tile(force, (len(states), 1)), None)
    return states


def cell_of(world: PointMaze, position: np.ndarray) -> tuple[int, int]:
    """Row and column of the grid, computed here anew."""
    rows, columns = len(world.grid), len(world.grid[0])
    return int(np.floor(rows / 2 - position[1])), int(np.floor(position[0] + columns / 2))


def wall_distance(world: PointMaze, position: np.ndarray) -> float:
    """From a point to the nearest wall cell, one cell at a time."""
    rows, columns = len(world.grid), len(world.grid[0])
    gaps = [
        np.hypot(
            max(abs(position[0] - (j + 0.5 - columns / 2)) - 0.5, 0),
            max(abs(position[1] - (rows / 2 - i - 0.5)) - 0.5, 0),
        )
        for i in range(rows)
        for j in range(columns)
        if world.grid[i][j] == "#"
    ]
    return min(gaps)


def way_length(grid: tuple[str, ...], start: tuple[int, int], goal: tuple[int, int]) -> int:
    """Cells of the shortest way, breadth-first from one cell."""
    seen, front, steps = {start}, {start}, 0
    while goal not in seen:
        near = {(i + di, j + dj) for i, j in front for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        front = {(i, j) for i, j in near if grid[i][j] == "."} - seen
        assert front, "no way"
        seen, steps = seen | front, steps + 1
    return steps


def solved(world: PointMaze, policy, n: int = 50) -> float:
    """Share of n tasks in which the policy is at the goal at some step within the budget."""
    tasks = world.sample_tasks(np.random.default_rng(3), n)
    states, reached = tasks.start, np.zeros(n, bool)
    for _ in range(world.max_steps):
        states = world.step(states, policy(states, tasks.goal), None)
        reached |= world.success(states, tasks.goal)
    return float(reached.mean())


@pytest.mark.parametrize("layout", NAMES)
def test_is_a_simulator(layout: str) -> None:
    world = PointMaze(layout, pixels=True, contact=True)
    assert isinstance(world, Simulator)
    rng = np.random.default_rng(0)
    states = world.reset(rng, 7)
    percepts = world.observe(states)
    assert states.shape == (7, 4) and states.dtype == np.float64
    assert percepts["sensors"].shape == (7, 5) and percepts["sensors"].dtype == np.float32
    assert percepts["pixels"].shape == (7, *world.pixel_shape) and percepts["pixels"].dtype == np.uint8
    assert world.step(states, np.zeros((7, 2)), rng).shape == (7, 4)
    assert world.step(states[:0], np.zeros((0, 2)), rng).shape == (0, 4)
    assert world.reset(rng, 0).shape == (0, 4) and len(world.sample_tasks(rng, 0)) == 0
    np.testing.assert_array_equal(world.positions(states), states[:, :2])
    factors = world.factors(states)
    assert list(factors) == ["agent_x", "agent_y", "velocity_x", "velocity_y"]
    np.testing.assert_array_equal(np.stack(list(factors.values()), 1), states)
    for action in (world.expert_action(states, states[::-1]), world.greedy_action(states, states[::-1])):
        assert action.shape == (7, 2) and np.abs(action).max() <= 1
    assert world.max_steps == PointMaze.MAX_STEPS[layout]


def test_senses_only_what_was_asked_for() -> None:
    plain = PointMaze()
    percepts = plain.observe(plain.reset(np.random.default_rng(0), 3))
    assert set(percepts) == {"sensors"} and percepts["sensors"].shape == (3, 4)
    assert plain.pixel_shape is None and [s.name for s in plain.proprio] == ["x", "y", "vx", "vy"]
    assert [s.name for s in PointMaze(contact=True).proprio] == ["x", "y", "vx", "vy", "contact"]


@pytest.mark.parametrize("layout", NAMES)
def test_proprio_is_scaled_and_measures_distance_alike_in_both_axes(layout: str) -> None:
    world = PointMaze(layout)
    x, y = world.proprio[:2]
    assert x.is_goal and y.is_goal and x.scale == y.scale and not any(s.is_goal for s in world.proprio[2:])
    sensors = world.observe(world.reset(np.random.default_rng(0), 2000))["sensors"]
    values = np.stack([(sensors[:, s.index] - s.offset) / s.scale for s in world.proprio[:2]], 1)
    assert 0.85 < np.abs(values).max() <= 1


def test_batch_equals_single_bit_for_bit() -> None:
    world, rng = PointMaze("medium"), np.random.default_rng(0)
    batch = world.reset(rng, 48)
    single, shuffle = batch.copy(), rng.permutation(48)
    force = np.sign(rng.uniform(-1, 1, (48, 2)))  # held, so that most balls come to press on walls
    for _ in range(40):
        shuffled = world.step(batch[shuffle], force[shuffle], None)
        batch = world.step(batch, force, None)
        single = np.concatenate([world.step(single[i : i + 1], force[i : i + 1], None) for i in range(48)])
        np.testing.assert_array_equal(batch, single)
        np.testing.assert_array_equal(batch[shuffle], shuffled)
    assert (world._clearance(batch[:, :2]) < RADIUS).mean() > 0.5  # contacts were part of the test


def test_threads_change_nothing() -> None:
    one, two = PointMaze("large"), PointMaze("large", threads=2)
    states = one.reset(np.random.default_rng(0), 100)
    force = np.random.default_rng(1).uniform(-1, 1, (100, 2))
    np.testing.assert_array_equal(one.step(states, force, None), two.step(states, force, None))


def test_state_is_all_that_a_continuation_needs() -> None:
    """Starting anew from the state at every step gives what one uninterrupted MuJoCo simulation gives."""
    world, rng = PointMaze("medium"), np.random.default_rng(0)
    states = world.reset(rng, 8)
    touched = 0
    for row in range(8):
        data = mujoco.MjData(world.model)
        data.qpos[:], data.qvel[:] = states[row, :2], states[row, 2:]
        state = states[row : row + 1]
        for step in range(100):
            if step % 20 == 0:
                force = np.sign(rng.uniform(-1, 1, (1, 2)))
            state = world.step(state, force, rng)
            data.ctrl[:] = force[0]
            mujoco.mj_step(world.model, data, FRAME_SKIP)
            touched += data.ncon > 0
            np.testing.assert_array_equal(state[0], np.concatenate([data.qpos, data.qvel]))
    assert touched > 100


def test_step_leaves_its_inputs_alone_and_ignores_the_generator() -> None:
    world, rng = PointMaze(), np.random.default_rng(0)
    states, force = world.reset(rng, 5), rng.uniform(-1, 1, (5, 2))
    before = states.copy(), force.copy(), rng.bit_generator.state
    first = world.step(states, force, rng)
    np.testing.assert_array_equal(states, before[0])
    np.testing.assert_array_equal(force, before[1])
    assert rng.bit_generator.state == before[2]
    np.testing.assert_array_equal(world.step(states, force, None), first)


def test_copies_behave_the_same() -> None:
    world = PointMaze(CORRIDOR, pixels=True, contact=True)
    copy = pickle.loads(pickle.dumps(world))
    state = ball(0, 0, 1, 0)
    np.testing.assert_array_equal(copy.step(state, ball(1, 1), None), world.step(state, ball(1, 1), None))
    assert copy.grid == world.grid and copy.proprio == world.proprio and copy.pixel_shape == world.pixel_shape


@pytest.mark.parametrize("layout", NAMES)
def test_ball_never_leaves_the_free_space(layout: str) -> None:
    world, rng = PointMaze(layout), np.random.default_rng(0)
    states = world.reset(rng, 64)
    nearest, fastest, hits = 1.0, 0.0, 0
    for step in range(500):
        if step % 10 == 0:  # held for a while: the ball comes to full speed and slams into walls and corners
            force = rng.choice([-1.0, 0.0, 1.0], (64, 2))
        states = world.step(states, force, None)
        clearance = world._clearance(states[:, :2])
        nearest, hits = min(nearest, clearance.min()), hits + (clearance < RADIUS).sum()
        fastest = max(fastest, np.abs(states[:, 2:]).max())
        assert all(world.grid[i][j] == "." for i, j in (cell_of(world, p) for p in states[:, :2]))
    assert hits > 1000
    assert nearest > RADIUS - 0.08  # walls give way by less than this
    assert fastest <= world.sensor_high[2]


def test_clearance_is_the_distance_to_the_nearest_wall_cell() -> None:
    world = PointMaze("large")
    points = np.random.default_rng(0).uniform(-1, 1, (100, 2)) * (5.9, 4.4)
    expected = [wall_distance(world, p) for p in points]
    np.testing.assert_allclose(world._clearance(points), expected, atol=1e-12)


def test_momentum_outlives_the_force() -> None:
    world = PointMaze(CORRIDOR)
    first = push(world, ball(-4, 0, 0, 0), (1, 0), 1)
    pushed = push(world, first, (1, 0), 9)
    coasting = push(world, pushed, (0, 0), 10)
    assert 0 < first[0, 2] < 0.15 * TOP_SPEED  # one step does not make speed
    assert pushed[0, 2] > 0.5 * TOP_SPEED
    assert pushed[0, 2] > coasting[0, 2] > 0.2 * pushed[0, 2]  # drag takes it slowly
    assert coasting[0, 0] > pushed[0, 0] + 0.5
    turned = push(world, pushed, (-1, 0), 2)
    assert turned[0, 2] > 0 and turned[0, 0] > pushed[0, 0]  # braking does not stop it at once
    assert abs(turned[0, 3]) == 0


def test_speed_has_a_limit() -> None:
    world = PointMaze(("#" * 40, "#" + "." * 38 + "#", "#" * 40))
    states = push(world, ball(-18, 0, 0, 0), (1, 0), 80)
    assert 0.99 * TOP_SPEED < states[0, 2] <= TOP_SPEED
    after = push(world, states, (1, 0), 6)
    assert after[0, 0] - states[0, 0] > 1  # a cell in six steps


def test_walls_stop_the_ball() -> None:
    world = PointMaze(CORRIDOR)
    states = push(world, ball(3, 0, 3, 0), (1, 0), 60)
    np.testing.assert_allclose(states[0, 0], 5 - RADIUS, atol=0.01)
    np.testing.assert_allclose(states[0, 1:], 0, atol=0.01)
    sliding = push(world, ball(-4, 0, 0, 0), (1, 1), 30)  # without friction: as far as without the wall
    free = push(world, ball(-4, 0, 0, 0), (1, 0), 30)
    np.testing.assert_allclose(sliding[0, 1], 0.5 - RADIUS, atol=0.01)
    np.testing.assert_allclose(sliding[0, 0], free[0, 0], atol=0.05)


def test_contact_is_felt_at_walls_only() -> None:
    world = PointMaze(CORRIDOR, contact=True)
    pressed = push(world, ball(4, 0, 0, 0), (1, 0), 30)
    left = push(world, pressed, (-1, 0), 5)
    assert world.observe(ball(0, 0, 2, 0))["sensors"][0, 4] == 0
    assert world.observe(pressed)["sensors"][0, 4] == 1
    assert world.observe(left)["sensors"][0, 4] == 0


def test_contact_is_mujocos() -> None:
    world, rng = PointMaze("large", contact=True), np.random.default_rng(0)
    states = push(world, world.reset(rng, 200), (1, -1), 12)
    data, found = mujoco.MjData(world.model), []
    for state in states:
        data.qpos[:] = state[:2]
        mujoco.mj_forward(world.model, data)
        found.append(float(data.ncon > 0))
    assert 0.1 < np.mean(found) < 0.9
    np.testing.assert_array_equal(world.observe(states)["sensors"][:, 4], found)


def test_actions_are_clipped_to_the_box() -> None:
    world, state = PointMaze(), ball(0.5, 1, 0, 0)
    np.testing.assert_array_equal(world.step(state, ball(9, -3), None), world.step(state, ball(1, -1), None))
    assert not np.array_equal(world.step(state, ball(0.5, -1), None), world.step(state, ball(1, -1), None))


def test_bad_actions_and_states_are_named() -> None:
    world, states = PointMaze(), np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"actions must be finite, got \[ 0. nan\] in row 1"):
        world.step(states, np.array([[0, 0], [0, np.nan], [0, 0]]), None)
    with pytest.raises(ValueError, match="states must be finite"):
        world.step(states + np.inf, np.zeros((3, 2)), None)
    with pytest.raises(ValueError, match=r"shape \(3, 2\).*got \(2,\)"):
        world.step(states, np.zeros(2), None)


@pytest.mark.parametrize("layout", NAMES)
def test_resets_are_spread_over_the_free_space(layout: str) -> None:
    world = PointMaze(layout)
    states = world.reset(np.random.default_rng(0), 3000)
    cells, counts = np.unique([cell_of(world, p) for p in states[:, :2]], axis=0, return_counts=True)
    assert {tuple(c) for c in cells} == {tuple(c) for c in np.argwhere(world.free)}
    assert counts.min() > 0.4 * counts.mean()
    assert min(wall_distance(world, p) for p in states[:200, :2]) >= RADIUS
    speed = states[:, 2:]
    assert 0.95 * RESET_SPEED < np.abs(speed).max() <= RESET_SPEED and np.abs(speed.mean(0)).max() < 0.05


def test_restart_is_a_reset_because_there_is_one_scene() -> None:
    world = PointMaze("medium")
    first = world.reset(np.random.default_rng(0), 5)
    again = world.reset_within_scene(np.random.default_rng(1), first)
    assert not world.has_scenes
    np.testing.assert_array_equal(again, world.reset(np.random.default_rng(1), 5))


@pytest.mark.parametrize("layout", NAMES)
def test_tasks_are_far_apart_and_clear_of_walls(layout: str) -> None:
    world = PointMaze(layout)
    tasks = world.sample_tasks(np.random.default_rng(0), 200)
    ways = [
        way_length(world.grid, *(cell_of(world, s) for s in pair)) for pair in zip(tasks.start, tasks.goal, strict=True)
    ]
    assert len(tasks) == 200 and min(ways) == MIN_DISTANCE[layout] and max(ways) > MIN_DISTANCE[layout]
    for states in (tasks.start, tasks.goal):
        assert states.shape == (200, 4) and not states[:, 2:].any()
        assert min(wall_distance(world, s) for s in states) >= RADIUS + TASK_MARGIN - 1e-12
    assert not world.success(tasks.start, tasks.goal).any() and world.success(tasks.goal, tasks.goal).all()


def test_success_is_nearer_than_its_radius() -> None:
    world, goal = PointMaze(), ball(0, 1, 0, 0)
    assert world.success(ball(0.3, 1.39, 9, 9), goal)[0]
    assert not world.success(ball(0.3, 1.41, 0, 0), goal)[0]


def test_same_seed_same_draws() -> None:
    world = PointMaze("medium")
    for draw in (
        lambda rng: world.reset(rng, 20),
        lambda rng: np.stack(list(vars(world.sample_tasks(rng, 20)).values())),
    ):
        first = draw(np.random.default_rng(5))
        np.testing.assert_array_equal(first, draw(np.random.default_rng(5)))
        assert not np.array_equal(first, draw(np.random.default_rng(6)))


@pytest.mark.parametrize("layout", NAMES)
def test_expert_solves_and_greedy_does_not(layout: str) -> None:
    world = PointMaze(layout)
    expert, greedy = solved(world, world.expert_action), solved(world, world.greedy_action)
    assert expert >= 0.95
    assert 0.05 < greedy < expert - 0.2


def test_expert_stays_at_the_goal() -> None:
    world = PointMaze("u")
    tasks = world.sample_tasks(np.random.default_rng(0), 20)
    states = tasks.start
    for _ in range(world.max_steps):
        states = world.step(states, world.expert_action(states, tasks.goal), None)
    np.testing.assert_allclose(states, tasks.goal, atol=0.05)


def test_own_layouts() -> None:
    rng = np.random.default_rng(0)
    world = PointMaze(list(CORRIDOR))
    assert world.max_steps > 0 and len(world.sample_tasks(rng, 10)) == 10
    assert solved(world, world.expert_action) == 1
    single = PointMaze(("###", "#.#", "###"))
    assert not single._distance.any() and len(single.sample_tasks(rng, 3)) == 3
    split = PointMaze(("#####", "#.#.#", "#####"))  # no task leads from one island to another
    tasks = split.sample_tasks(rng, 50)
    assert (np.sign(tasks.start[:, 0]) == np.sign(tasks.goal[:, 0])).all()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("medum", "unknown layout 'medum', did you mean 'medium'"),
        ("zzz", "unknown layout 'zzz', did you mean .*u, medium, large"),
        (("####", "#..#", "###"), "ragged layout: row 2 '###' has 3 cells and row 0 has 4"),
        (("####", "#...", "####"), "not closed by walls: row 1 column 3"),
        (("#.##", "#..#", "####"), "not closed by walls: row 0 column 1"),
        (("###", "###", "###"), "no free cell"),
        ((), "no free cell"),
        (("####", "#G.#", "####"), r"row 1 '#G.#' has \['G'\]"),
        ((1, 2), "strings of '#'"),
    ],
)
def test_bad_layouts_are_named(layout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointMaze(layout)


def test_bad_thread_count_is_named() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        PointMaze(threads=0)


@pytest.mark.parametrize("layout", NAMES)
def test_pixels_show_the_ball_where_it_is(layout: str) -> None:
    world = PointMaze(layout, pixels=True)
    states = world.reset(np.random.default_rng(0), 100)
    pixels = world.observe(states)["pixels"].astype(float)
    redness = np.clip(pixels[:, 0] - pixels[:, 1], 0, None)  # walls and floor are grey
    total = redness.sum((1, 2))
    scale, grid = 64 / max(world.free.shape), np.arange(64) - 31.5
    column = (redness.sum(1) * grid).sum(1) / total / scale
    row = (redness.sum(2) * grid).sum(1) / total / scale
    np.testing.assert_allclose(np.stack([column, -row], 1), states[:, :2], atol=0.04)
    slightly = states + np.array([0.02, 0, 0, 0])
    assert (world.observe(slightly)["pixels"] != pixels).any((1, 2, 3)).all()  # less than a pixel is seen


@pytest.mark.parametrize("layout", NAMES)
def test_map_shows_the_layout(layout: str) -> None:
    world = PointMaze(layout)
    picture = world.render_map()
    assert picture.shape == (32 * len(world.grid), 32 * len(world.grid[0]), 3) and picture.dtype == np.uint8
    bright = picture[16::32, 16::32, 0] > 150
    np.testing.assert_array_equal(bright, world.free)
    spots = world.reset(np.random.default_rng(0), 200)[:, :2]
    column, row = np.rint(world.to_map(spots)).astype(int).T
    assert (picture[row, column] > 150).all()
    np.testing.assert_allclose(world.to_map(np.zeros((1, 2)))[0], np.array(picture.shape[1::-1]) / 2 - 0.5)
