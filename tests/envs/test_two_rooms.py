"""The promises of Two Rooms: the published rules, step by step; walls that hold; tasks that need the door."""

import math
from typing import Any, cast

import numpy as np
import pytest

from agent.evaluation import evaluate
from agent.interaction.environment import of_simulator
from envs.api import Simulator, Tasks
from envs.two_rooms import DOOR_Y, MARGIN, WALL_X, TwoRooms

LIMIT = 2.45
FIXED = (32.0, 18.0)


class Noise:
    """A generator whose normal numbers are known."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def standard_normal(self, shape: Any) -> np.ndarray:
        assert tuple(np.atleast_1d(shape)) == self.numbers.shape, "one draw of two numbers for every world"
        return self.numbers.copy()


def crosses(a: float, b: float, limit: float) -> bool:
    """Whether a and b are on different sides of the limit, or one of them is on it."""
    return (a > limit) - (a < limit) != (b > limit) - (b < limit) or a == limit


def reference(state: list[float], action: list[float], noise: list[float]) -> tuple[float, float, str]:
    """One move of one dot by the published rules, in plain numbers, and which rule it was."""
    x, y, wall_x, door_y = state
    norm = math.hypot(*action)
    shrink = LIMIT / norm if norm > LIMIT else 1.0
    dx, dy = action[0] * shrink, action[1] * shrink
    to_x, to_y = x + dx, y + dy
    # Rule 1: moving up (down) through the upper (lower) edge of the door, within the wall's thickness.
    for edge, outward in ((door_y + 4, 1), (door_y - 4, -1)):
        if outward * dy > 0 and outward * (edge - y) > 0 and outward * (to_y - edge) > 0:
            at_x = x + dx * (edge - y) / dy
            if wall_x - 1 <= at_x <= wall_x + 1:
                return at_x + 0.5 * noise[0], edge - outward * abs(0.5 * noise[1]), "door edge"
    # Rules 2 and 3: the four limits of the room that the dot is in; the wall's face has the door in it.
    left, right = (4.0, wall_x - 1) if x < wall_x else (wall_x + 1, 60.0)
    hits = []
    for limit, face in ((left, left != 4.0), (right, right != 60.0)):
        if crosses(x, to_x, limit):
            at_y = y + dy * (limit - x) / dx
            if not (face and abs(at_y - door_y) <= 4):
                side = 1 if x > limit else -1
                back = (limit + side * abs(0.5 * noise[0]), at_y + 0.5 * noise[1])
                hits.append((math.hypot(limit - x, at_y - y), back, "face" if face else "side"))
                break
    for limit in (4.0, 60.0):
        if crosses(y, to_y, limit):
            at_x = x + dx * (limit - y) / dy
            side = 1 if y > limit else -1
            back = (at_x + 0.5 * noise[0], limit + side * abs(0.5 * noise[1]))
            hits.append((math.hypot(at_x - x, limit - y), back, "top or bottom"))
            break
    if not hits:
        return to_x, to_y, "through the door" if (x < wall_x) != (to_x < wall_x) else "free"
    # Rule 4: the nearer hit, clamped to the room; what ends on a limit is moved inside.
    _, back, rule = min(hits)
    inside = []
    for value, low, high in ((back[0], left, right), (back[1], 4.0, 60.0)):
        clamped = min(max(value, low), high)
        inside.append(low + 0.3 if clamped <= low else high - 0.3 if clamped >= high else clamped)
    return inside[0], inside[1], "corner" if len(hits) == 2 else rule


def places(rng: np.random.Generator, world: TwoRooms, kind: str, n: int) -> np.ndarray:
    """(n, 4) states that are likely to meet one rule."""
    states = world.reset(rng, n)
    wall_x, door_y = states[:, 2], states[:, 3]
    side = rng.choice([-1.0, 1.0], n)
    if kind == "near the wall":
        states[:, 0] = wall_x + side * rng.uniform(1, 3.5, n)
    elif kind == "before the door":
        states[:, 0] = wall_x + side * rng.uniform(1, 3.5, n)
        states[:, 1] = door_y + rng.uniform(-6, 6, n)
    elif kind == "in the door":
        states[:, 0] = wall_x + rng.uniform(-1, 1, n)
        states[:, 1] = door_y + rng.uniform(-4, 4, n)
    elif kind == "near the border":
        states[:, 1] = np.where(side < 0, rng.uniform(4, 6.4, n), rng.uniform(57.6, 60, n))
        in_wall = np.abs(states[:, 0] - wall_x) <= 1  # the reset put these into the door
        states[in_wall, 0] = wall_x[in_wall] + 2 * side[in_wall]
    elif kind == "in a corner":
        states[:, 1] = np.where(side < 0, rng.uniform(4, 6, n), rng.uniform(58, 60, n))
        corner_x = np.stack([np.full(n, 4.01), wall_x - 2.5, wall_x + 1.01, np.full(n, 58.5)], 1)
        states[:, 0] = corner_x[np.arange(n), rng.integers(4, size=n)] + rng.uniform(0, 1.49, n)
    return states


KINDS = ("anywhere", "near the wall", "before the door", "in the door", "near the border", "in a corner")


@pytest.mark.parametrize("random_wall", [False, True])
def test_step_follows_the_published_rules(random_wall: bool):
    world, rng, seen = TwoRooms(random_wall), np.random.default_rng(0), set()
    for kind in KINDS:
        n = 1500
        states = places(rng, world, kind, n)
        actions = rng.normal(0, 2.0, (n, 2))  # a good part of them beyond the limit
        noise = rng.standard_normal((n, 2)) * rng.choice([1.0, 6.0], (n, 1))  # large ones meet the clamp
        given = states.copy(), actions.copy()
        got = world.step(states, actions, cast(np.random.Generator, Noise(noise)))
        assert np.array_equal(states, given[0]) and np.array_equal(actions, given[1]), "step changes its arguments"
        for i in range(n):
            x, y, rule = reference(states[i].tolist(), actions[i].tolist(), noise[i].tolist())
            assert got[i, :2] == pytest.approx([x, y], abs=1e-9), (kind, rule, states[i], actions[i], noise[i])
            seen.add(rule)
        assert np.array_equal(got[:, 2:], states[:, 2:])
    rules = {"free", "door edge", "face", "side", "top or bottom", "corner", "through the door"}
    assert seen == rules, f"these rules were never met: {rules - seen}"


def test_without_a_generator_the_mean_of_the_noise_is_used():
    world, rng = TwoRooms(), np.random.default_rng(1)
    state, push = np.array([[29.5, 40.0, *FIXED]]), np.array([[2.45, 0.0]])
    many = world.step(np.repeat(state, 20000, 0), np.repeat(push, 20000, 0), rng)
    one = world.step(state, push, None)
    assert np.array_equal(one, world.step(state, push, None))
    assert many[:, :2].mean(0) == pytest.approx(one[0, :2], abs=0.02)


def test_one_world_does_not_depend_on_the_others():
    world, rng = TwoRooms(True), np.random.default_rng(2)
    states, actions = places(rng, world, "before the door", 64), rng.normal(0, 2, (64, 2))
    noise = rng.standard_normal((64, 2))
    together = world.step(states, actions, cast(np.random.Generator, Noise(noise)))
    for i in range(64):
        alone = world.step(states[i : i + 1], actions[i : i + 1], cast(np.random.Generator, Noise(noise[i : i + 1])))
        assert np.array_equal(alone[0], together[i])


def test_norm_of_actions_is_limited():
    world, state = TwoRooms(), np.array([[15.0, 40.0, *FIXED]])
    for action in ([2.45, 2.45], [100.0, 0.0], [0.0, -1e6], [-3.0, 1.0]):
        moved = (world.step(state, np.array([action]), None) - state)[0, :2]
        assert np.linalg.norm(moved) == pytest.approx(LIMIT)
        assert moved / LIMIT == pytest.approx(np.array(action) / np.linalg.norm(action))
    moved = (world.step(state, np.array([[1.0, -2.0]]), None) - state)[0, :2]
    assert moved == pytest.approx([1.0, -2.0]), "a shorter action is not changed"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused(bad: float):
    world = TwoRooms()
    states = world.reset(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="finite"):
        world.step(states, np.array([[0, 0], [1, bad], [0, 0]]), None)


def test_walls_hold():
    """500 dots for 300 steps: none leaves the square, none gets to the other side but through the door."""
    world, rng = TwoRooms(True), np.random.default_rng(3)
    states, passed = world.reset(rng, 500), 0
    heading = rng.uniform(0, 2 * np.pi, 500)
    for _ in range(300):
        heading = heading + rng.normal(0, 0.3, 500)
        actions = LIMIT * np.stack([np.cos(heading), np.sin(heading)], 1)
        after = world.step(states, actions, rng)
        (x, y), (wall_x, door_y) = after[:, :2].T, after[:, 2:].T
        assert (after[:, :2] > 4).all() and (after[:, :2] < 60).all()
        assert not ((np.abs(x - wall_x) < 1) & (np.abs(y - door_y) > 4)).any(), "in the wall"
        swapped = (states[:, 0] < wall_x) != (x < wall_x)
        near_door = np.abs(states[:, 1] - door_y) <= 4 + LIMIT
        assert near_door[swapped].all(), "through the wall"
        # Where the straight way between the two places crosses the middle of the wall, it is in the door; only a dot
        # that the door's edge threw back did not go straight, and it is in the door.
        share = (wall_x - states[:, 0])[swapped] / (x - states[:, 0])[swapped]
        where = states[swapped, 1] + share * (y - states[:, 1])[swapped]
        assert (np.abs(where - door_y[swapped]) <= 4).all()
        states, passed = after, passed + int(swapped.sum())
    assert passed > 200, "the test is of no use when nothing passes"


def test_reference_controllers():
    """Random actions fail, the straight line solves a third, knowing the door solves all."""
    for random_wall in (False, True):
        world = TwoRooms(random_wall)
        tasks = world.sample_tasks(np.random.default_rng(4), 200)
        shares = evaluate.reference(of_simulator("TwoRooms-v0", world), tasks, 200, 0)
        assert shares["expert"] == 1.0
        assert 0.3 <= shares["greedy"] <= 0.5
        assert shares["random"] < 0.05


@pytest.mark.parametrize("random_wall", [False, True])
def test_tasks_lead_to_the_other_room(random_wall: bool):
    world = TwoRooms(random_wall)
    tasks = world.sample_tasks(np.random.default_rng(5), 4000)
    assert len(tasks) == 4000 and np.array_equal(tasks.start[:, 2:], tasks.goal[:, 2:])
    wall_x = tasks.start[:, 2]
    start_left, goal_left = tasks.start[:, 0] < wall_x, tasks.goal[:, 0] < wall_x
    assert (start_left != goal_left).all() and 0.45 < start_left.mean() < 0.55
    for states in (tasks.start, tasks.goal):
        assert (states[:, :2] >= 4 + MARGIN).all() and (states[:, :2] <= 60 - MARGIN).all()
        assert (np.abs(states[:, 0] - wall_x) >= 1 + MARGIN).all()
        assert states[:, 1].min() < 7 and states[:, 1].max() > 57, "all of the height is used"
    assert not world.success(tasks.start, tasks.goal).any()
    assert MARGIN == pytest.approx(2.6)


def test_layouts_of_tasks_never_occur_in_training():
    world, rng = TwoRooms(True), np.random.default_rng(6)
    trained = world.reset(rng, 20000)
    tested = world.sample_tasks(rng, 20000).start
    trained_layouts, tested_layouts = ({tuple(s) for s in states[:, 2:]} for states in (trained, tested))
    assert not trained_layouts & tested_layouts
    every = {(float(x), float(y)) for x in WALL_X for y in DOOR_Y}
    assert trained_layouts | tested_layouts == every and len(every) == 25 * 45
    assert 0.1 < len(tested_layouts) / len(every) < 0.3


def test_fixed_wall():
    world, rng = TwoRooms(), np.random.default_rng(7)
    assert (world.reset(rng, 100)[:, 2:] == FIXED).all()
    assert (world.sample_tasks(rng, 100).start[:, 2:] == FIXED).all()
    assert not world.has_scenes and TwoRooms(True).has_scenes


@pytest.mark.parametrize("random_wall", [False, True])
def test_resets_are_free_places_everywhere(random_wall: bool):
    world, rng = TwoRooms(random_wall), np.random.default_rng(8)
    states = world.reset(rng, 20000)
    x, y, wall_x, door_y = states.T
    assert (states[:, :2] > 4).all() and (states[:, :2] < 60).all()
    in_wall = np.abs(x - wall_x) <= 1
    assert in_wall.any(), "the doorway is a place to start in, too"
    assert (np.abs(y - door_y)[in_wall] < 4).all()
    assert np.isin(wall_x, WALL_X).all() and np.isin(door_y, DOOR_Y).all()
    counts = np.histogram2d(x, y, bins=7, range=[[4, 60], [4, 60]])[0]
    assert counts.min() > 0.5 * counts.mean()
    again = world.reset_within_scene(rng, states)
    assert np.array_equal(again[:, 2:], states[:, 2:]) and (again[:, :2] != states[:, :2]).all()


def test_picture():
    world, rng = TwoRooms(True), np.random.default_rng(9)
    states = places(rng, world, "anywhere", 30)
    states[:4, :2] = [[4.3, 4.3], [59.7, 4.3], [4.3, 59.7], [59.7, 59.7]]
    pixels = world.observe(states)["pixels"]
    assert pixels.shape == (30, 2, 65, 65) and pixels.dtype == np.uint8
    rounded = 0
    for picture, (x, y, wall_x, door_y) in zip(pixels, states, strict=True):
        for row in range(65):
            for column in range(65):
                dot = int(255 * math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 1.3**2)))
                assert abs(int(picture[0, row, column]) - dot) <= 1
                rounded += picture[0, row, column] != dot
                line = row in (4, 60) or column in (4, 60)
                wall = abs(column - wall_x) <= 1 and abs(row - door_y) > 4
                assert picture[1, row, column] == 255 * (line or wall)
    assert rounded < 5, "the last bit may fall either way, but once in a while only"
    centred = world.observe(np.array([[20.0, 30.0, *FIXED]]))["pixels"][0]
    assert centred[0, 30, 20] == 255 and centred[0, 30, 21] == int(255 * math.exp(-1 / 3.38)) == 189
    assert centred[1, 14:23, 31:34].max() == 0 and centred[1, [13, 23], 31:34].min() == 255


def test_success_is_nearer_than_4_5_pixels():
    world, goal = TwoRooms(), np.array([[40.0, 40.0, *FIXED]])
    for distance, reached in ((0.0, True), (4.49, True), (4.51, False)):
        state = goal + np.array([[0.6 * distance, -0.8 * distance, 0, 0]])
        assert world.success(state, goal)[0] == reached


def test_factors_map_and_protocol():
    world = TwoRooms(True)
    states = world.reset(np.random.default_rng(10), 5)
    assert isinstance(world, Simulator)
    assert list(world.factors(states)) == ["agent_x", "agent_y", "wall_x", "door_y"]
    assert list(TwoRooms().factors(states)) == ["agent_x", "agent_y"]
    assert np.array_equal(np.stack(list(world.factors(states).values()), 1), states)
    picture = world.render_map(states[0])
    assert picture.shape == (65, 65, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[..., 0] < 128, world.observe(states[:1])["pixels"][0, 1] == 255)
    assert np.array_equal(world.to_map(world.positions(states)), states[:, :2])


def test_expert_and_greedy_stay_within_the_limit():
    world = TwoRooms(True)
    tasks: Tasks = world.sample_tasks(np.random.default_rng(11), 500)
    for control in (world.expert_action, world.greedy_action):
        actions = control(tasks.start, tasks.goal)
        assert actions.shape == (500, 2) and (np.linalg.norm(actions, axis=1) <= LIMIT + 1e-5).all()
