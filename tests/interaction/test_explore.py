"""Action block t leads from observation t to t + 1, no piece of data crosses a reset, and reward is never read."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorWrapper

from agent.config import ExploreConfig as Config
from agent.errors import UserError
from agent.interaction.environment import of_simulator
from agent.interaction.explore import Explorer, explore, explore_simulator, explore_vector
from agent.interaction.replay import Replay
from envs import PointMaze, Simulator, SimVectorEnv, TwoRooms
from modules.actions import BoxActions, DiscreteActions
from tests.interaction.counter import SPACE, counters, ends


def replay_of(pieces: dict[str, Any]) -> Replay:
    """What one shard gives, as a replay; how it came about (`explore.explore`) is not part of the pieces."""
    replay = Replay()
    replay.append({name: x for name, x in pieces.items() if name not in ("taken", "faults")})
    return replay


def collect(config: Config, simulator: Simulator, block: int, rng: np.random.Generator) -> Replay:
    """Exploration of one shard in a simulator."""
    return replay_of(explore_simulator(config, of_simulator("Mine-v0", simulator), block, rng))


def gathered(
    envs: gym.vector.VectorEnv, episodes: int = 40, length: int = 3, block: int = 4, seed: int = 0, held: float = 0.6
) -> Replay:
    try:
        config = Config(episodes=episodes, length=length, held=held)
        return replay_of(explore_vector(config, envs, block, np.random.default_rng(seed), SPACE))
    finally:
        envs.close()


def check_pieces(data: Replay, lengths: list[int], length: int, block: int) -> None:
    """Every piece lies in one episode of one copy, and each block of actions explains the change that follows it.

    Where an episode terminates inside a piece, its last observation stays to the end, under rest.
    """
    assert data.sensors is not None and data.actions.dtype == torch.float32
    assert data.sensors.shape[:2] == (data.episodes, length + 1) and data.actions.shape[1:] == (length, block, 2)
    copy, episode, time, *sums = data.sensors.double().unbind(-1)
    assert (copy == copy[:, :1]).all() and (episode == episode[:, :1]).all(), "a piece crosses a reset"
    over = torch.tensor([n if ends(i) else 10**6 for i, n in enumerate(lengths)])[copy[:, :1].long()]
    expected = torch.minimum(time[:, :1] + block * torch.arange(length + 1), over)
    assert torch.equal(time, expected), "observations are not a block apart"
    moments = time[:, :1, None] + torch.arange(length * block).reshape(length, block)
    real = moments < over[..., None]
    taken = data.actions.double() * real[..., None]
    torch.testing.assert_close(torch.stack(sums, -1).diff(dim=1), taken.sum(2), rtol=0, atol=1e-4)
    assert (data.actions[~real] == SPACE.rest(torch.zeros(2))).all(), "something is done after the end"
    pieces = {(int(c), int(e), int(t)) for c, e, t in zip(copy[:, 0], episode[:, 0], time[:, 0], strict=True)}
    assert len(pieces) == data.episodes, "a piece is there twice"


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("lengths", [[17, 30, 13, 12], [25], [24, 24]], ids=str)
def test_no_piece_crosses_a_reset(mode: AutoresetMode, lengths: list[int]):
    data = gathered(counters(mode, lengths))
    check_pieces(data, lengths, 3, 4)
    assert data.sensors is not None
    assert {int(c) for c in data.sensors[:, 0, 0]} == set(range(len(lengths))), "a copy gave nothing"
    assert int(data.sensors[:, 0, 1].max()) > 1, "the test is of no use without resets"
    # An episode begins with the observation of its reset, and its last observation may end a piece.
    assert (data.sensors[:, 0, 2] == 0).any()
    for copy, length in enumerate(lengths):
        times = data.sensors[data.sensors[:, 0, 0] == copy][:, :, 2]
        last = length if ends(copy) else length // 12 * 12
        assert times.max() == last, "pieces follow each other without a gap, to the end of the episode"
        assert ((times[:, 0] % 12) == 0).all()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("length", "block"), [(5, 1), (1, 7), (2, 3)])
def test_any_length_and_block(mode: AutoresetMode, length: int, block: int):
    check_pieces(gathered(counters(mode, [11, 8, 9]), 30, length, block), [11, 8, 9], length, block)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_actions_are_held_for_the_blocks_that_are_kept(mode: AutoresetMode):
    """Episodes end in the middle of a block; the blocks of the next one begin with it."""
    data = gathered(counters(mode, [17, 30, 14]), episodes=60, held=1.0)
    assert data.sensors is not None
    actions = data.actions[data.sensors[..., 2].diff(dim=1) == 4]  # blocks in which no episode terminates
    assert torch.equal(actions, actions[:, :1].expand_as(actions))
    assert len(torch.unique(actions[:, 0], dim=0)) > 100


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_worlds_may_write_all_observations_into_the_same_memory(mode: AutoresetMode):
    check_pieces(gathered(counters(mode, [17, 13], copy=False)), [17, 13], 3, 4)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("form", ["pixels", "both"])
def test_pictures_and_dicts(mode: AutoresetMode, form: str):
    data = gathered(counters(mode, [17, 13], form))
    assert data.pixels is not None and data.pixels.dtype == torch.uint8 and data.pixels.shape[1:] == (4, 3, 2, 2)
    time, copy, episode = data.pixels[..., 0, 0].long().unbind(-1)
    assert (copy == copy[:, :1]).all() and (episode == episode[:, :1]).all()
    after = time[:, :1] + 4 * torch.arange(4)
    assert torch.equal(time, torch.where(copy == 0, after.clamp(max=17), after))
    if form == "both":
        check_pieces(data, [17, 13], 3, 4)
        assert data.sensors is not None and torch.equal(data.sensors[..., 2].long(), time)
    else:
        assert data.sensors is None


def test_own_vector_world_is_collected_through_its_autoreset():
    """The same promise for the batched form of this project's worlds: velocity and position tell a jump."""
    envs = SimVectorEnv(PointMaze(), 6, max_steps=29)
    config = Config(episodes=20, length=3)
    actions = of_simulator("PointMaze-v0", envs.simulator).spec.actions
    data = replay_of(explore_vector(config, envs, 4, np.random.default_rng(0), actions))
    assert data.sensors is not None and data.sensors.shape == (20, 4, 4)
    states = data.sensors.double().numpy()
    for t in range(3):
        now = states[:, t]
        for k in range(4):
            now = envs.simulator.step(now, data.actions[:, t, k].numpy(), None)
        np.testing.assert_allclose(now, states[:, t + 1], atol=1e-4)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_reward_is_never_read(mode: AutoresetMode):
    plain, poisoned = (gathered(counters(mode, [17, 13], reward=r)) for r in (0.0, float("nan")))
    assert same(plain, poisoned)


def test_reward_is_not_touched_at_all_and_of_info_only_states_scenes_and_faults():
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"reward.{name} was read")

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("reward was read")

    class OnlyState(dict):
        """An info that may be asked for `state` and `scene`, which are kept, for faults, and for nothing else."""

        def get(self, key: str, default: Any = None) -> Any:
            assert key in ("state", "scene", "fault", "reset_fault", "final_info"), f"info[{key!r}] was read"
            return default

        def _refuse(self, *_: Any) -> Any:
            raise AssertionError("info was read")

        __getitem__ = __contains__ = __iter__ = keys = items = values = _refuse  # pyright: ignore

    class Hidden(VectorWrapper):
        def step(self, actions: Any) -> Any:
            observation, _, terminated, truncated, _ = self.env.step(actions)
            return observation, Untouchable(), terminated, truncated, OnlyState()

    plain = gathered(counters(AutoresetMode.NEXT_STEP, [17, 13]))
    hidden = gathered(Hidden(counters(AutoresetMode.NEXT_STEP, [17, 13])))
    assert same(plain, hidden)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_that_are_too_short_are_an_error_and_not_an_endless_loop(mode: AutoresetMode):
    with pytest.raises(UserError, match=r"--collect\.length"):
        gathered(counters(mode, [11, 7], terminates=False), episodes=2)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_short_episodes_that_terminate_are_filled_up(mode: AutoresetMode):
    """Each is one piece: what it was, and then its end, which lasts."""
    data = gathered(counters(mode, [7, 11]), episodes=9)
    check_pieces(data, [7, 11], 3, 4)
    assert data.sensors is not None
    assert (data.sensors[:, 0, 0] == 0).all(), "those that are only cut off are too short"
    assert data.sensors[:, :, 2].tolist() == [[0, 4, 7, 7]] * 9
    assert data.sensors[:, 0, 1].tolist() == list(range(9)), "every episode, in order"


def same(a: Replay, b: Replay) -> bool:
    """Bit for bit."""
    tensors = [(a.pixels, b.pixels), (a.sensors, b.sensors), (a.actions, b.actions)]
    arrays = [(a.states, b.states), (a.positions, b.positions), (a.scene, b.scene)]
    return all(x is y is None or torch.equal(x, y) for x, y in tensors if x is not None or y is not None) and all(
        np.array_equal(x, y) for x, y in arrays if x is not None or y is not None
    )


@pytest.mark.parametrize("world", [TwoRooms(True), PointMaze(pixels=True)], ids=lambda w: type(w).__name__)
def test_frames_are_what_the_states_look_like(world: Any):
    data = collect(Config(episodes=24, length=6, per_scene=4), world, 3, np.random.default_rng(0))
    assert data.states is not None and data.positions is not None and data.factors is not None
    assert data.states.shape[:2] == (24, 7) and data.actions.shape == (24, 6, 3, 2)
    for t in range(7):
        percepts = world.observe(data.states[:, t])
        for name, seen in (("pixels", data.pixels), ("sensors", data.sensors)):
            assert (name in percepts) == (seen is not None)
            if seen is not None:
                assert torch.equal(seen[:, t], torch.from_numpy(percepts[name]))
        assert np.array_equal(data.positions[:, t], world.positions(data.states[:, t]))
        for name, values in world.factors(data.states[:, t]).items():
            assert np.array_equal(data.factors[name][:, t], values)
    picked = data.observe(torch.tensor([3, 5]), torch.tensor([0, 6]))
    assert picked.pixels is not None and data.pixels is not None
    assert torch.equal(picked.pixels[1], data.pixels[5, 6])


def test_actions_lead_from_one_state_to_the_next():
    """The maze has no noise, so that the data can be replayed to the last bit."""
    world = PointMaze()
    data = collect(Config(episodes=16, length=5), world, 4, np.random.default_rng(1))
    assert data.states is not None
    for t in range(5):
        now = data.states[:, t]
        for k in range(4):
            now = world.step(now, data.actions[:, t, k].numpy(), None)
        assert np.array_equal(now, data.states[:, t + 1])


def test_actions_lead_on_in_two_rooms_where_nothing_is_hit():
    data = collect(Config(episodes=64, length=6), TwoRooms(), 4, np.random.default_rng(2))
    assert data.positions is not None
    sizes = data.actions.double().norm(dim=-1, keepdim=True).clamp(min=2.45)
    straight = (data.actions.double() * 2.45 / sizes).sum(2).numpy()
    exact = np.abs(np.diff(data.positions, axis=1) - straight).max(-1) < 1e-6
    assert 0.3 < exact.mean() < 1, "most blocks end where their actions lead, those that hit a wall do not"


def test_scenes_are_shared_by_per_scene_episodes():
    data = collect(Config(episodes=20, length=2, per_scene=8), TwoRooms(True), 2, np.random.default_rng(3))
    assert data.states is not None and data.scene.tolist() == [0] * 8 + [1] * 8 + [2] * 4
    layouts = data.states[:, :, 2:]
    assert (layouts == layouts[:, :1]).all(), "a scene stays what it is"
    for scene in range(3):
        assert len(np.unique(layouts[data.scene == scene].reshape(-1, 2), axis=0)) == 1
    assert len(np.unique(layouts.reshape(-1, 2), axis=0)) == 3
    starts = data.states[:, 0, :2]
    assert len(np.unique(starts, axis=0)) == 20, "episodes of one scene begin in different places"
    fixed = collect(Config(episodes=20, length=2, per_scene=8), TwoRooms(), 2, np.random.default_rng(3))
    assert (fixed.scene == 0).all(), "where all episodes share the scene, any may lend another its goal"


@pytest.mark.parametrize("world", [TwoRooms(True), PointMaze()], ids=lambda w: type(w).__name__)
def test_same_seed_same_bits(world: Any):
    config = Config(episodes=16, length=4)
    first, again, other = (collect(config, world, 3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_same_seed_same_bits_through_gymnasium(mode: AutoresetMode):
    first, again, other = (gathered(counters(mode, [17, 13]), seed=seed) for seed in (5, 5, 6))
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("block", [1, 4])
def test_exploration_stays_in_the_action_space_and_moves_every_number(size: int, block: int):
    rng = np.random.default_rng(0)
    low, high = -rng.uniform(0.5, 2, size), rng.uniform(0.5, 3, size)
    space = BoxActions(tuple(low), tuple(high), None)
    explorer = Explorer(Config(), space, 16, block, rng)
    actions = np.stack([explorer.next_block() for _ in range(200)])  # (200, 16, K, A)
    assert actions.dtype == np.float32 and actions.shape == (200, 16, block, size)
    assert (actions >= low - 1e-6).all() and (actions <= high + 1e-6).all()
    shares = (actions.reshape(-1, size) - low) / (high - low)
    assert (shares.std(0) > 0.1).all(), "a number of the action hardly moves"
    assert np.abs(shares.mean(0) - 0.5).max() < 0.05, "exploration leans to one side"
    assert (shares.min(0) < 0.2).all() and (shares.max(0) > 0.8).all()
    if size > 1:
        tied = np.corrcoef(shares.T)[~np.eye(size, dtype=bool)]
        assert np.abs(tied).max() < 0.1, "two numbers of the action always move together"


def test_actions_are_held_as_often_as_configured():
    space, rng = BoxActions((-1.0, -1.0), (1.0, 1.0), None), np.random.default_rng(0)
    for held in (0.0, 0.6, 1.0):
        explorer = Explorer(replace(Config(), held=held), space, 64, 4, rng)
        blocks = np.concatenate([explorer.next_block() for _ in range(50)])
        assert abs((blocks == blocks[:, :1]).all((1, 2)).mean() - held) < 0.03


def test_direction_wanders_from_block_to_block():
    space, rng = BoxActions((-1.0, -1.0), (1.0, 1.0), None), np.random.default_rng(0)
    for redraw, low, high in ((0.0, 0.5, 1.0), (1.0, -0.1, 0.1)):
        explorer = Explorer(Config(held=1.0, redraw=redraw), space, 64, 1, rng)
        blocks = np.stack([explorer.next_block()[:, 0] for _ in range(50)])
        ways = blocks / np.linalg.norm(blocks, axis=-1, keepdims=True)
        assert low < (ways[1:] * ways[:-1]).sum(-1).mean() < high


@pytest.mark.parametrize("held", [0.0, 0.6, 1.0])
def test_choices_are_explored_alike_and_held_as_often_as_configured(held: float):
    space, rng = DiscreteActions((3, 4), kind="multi"), np.random.default_rng(0)
    explorer = Explorer(Config(held=held), space, 64, 4, rng)
    blocks = np.concatenate([explorer.next_block() for _ in range(100)])  # (6400, K, A)
    assert blocks.dtype == np.float32 and blocks.shape == (6400, 4, 7)
    assert (space.project(torch.from_numpy(blocks)).numpy() == blocks).all(), "all of them can be executed"
    by_chance = (1 - held) * (1 / 12) ** 3
    assert abs((blocks == blocks[:, :1]).all((1, 2)).mean() - held - by_chance) < 0.02
    assert np.abs(blocks.mean((0, 1)) - np.array([1 / 3] * 3 + [1 / 4] * 4)).max() < 0.02


class Walk(gym.Env):
    """A place on a line, and a Discrete space that begins at -1: step back, stay, or go on."""

    observation_space, action_space = gym.spaces.Box(-99, 99, (1,), np.float32), gym.spaces.Discrete(3, start=-1)

    def reset(self, **_: Any) -> tuple[Any, dict]:
        self.place = np.zeros(1, np.float32)
        return self.place.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in self.action_space
        self.place += action
        return self.place.copy(), 0.0, False, False, {}


def test_a_discrete_environment_is_explored_and_its_actions_kept_as_the_agent_knows_them():
    envs, space = gym.vector.SyncVectorEnv([Walk, Walk]), DiscreteActions((3,), (-1,))
    data = replay_of(explore_vector(Config(episodes=8, length=5), envs, 2, np.random.default_rng(0), space))
    assert data.sensors is not None and data.actions.shape == (8, 5, 2, 3)
    moved = torch.from_numpy(space.to_env(data.actions.numpy())).sum(2)
    assert torch.equal(data.sensors[..., 0].diff(dim=1), moved.float()) and len(moved.unique()) == 5


@pytest.mark.parametrize("random_wall", [False, True])
def test_an_exploration_is_its_shards_whoever_explores_them(monkeypatch, random_wall):
    """In shards of whole scenes, each from a stream of its own; in which order they are explored does not matter."""
    monkeypatch.setattr("agent.interaction.explore.SHARD", 5)
    environment = of_simulator("Mine-v0", TwoRooms(random_wall))
    config = Config(episodes=10, length=2, per_scene=4)
    sizes = []

    def backwards(function, shards):
        sizes.extend(shard[0].episodes for shard in shards)
        return reversed([function(shard) for shard in reversed(shards)])

    here, there = explore(config, environment, 2, 7), explore(config, environment, 2, 7, backwards)
    assert sizes == [4, 4, 2] and here.pixels is not None and there.pixels is not None
    assert torch.equal(here.pixels, there.pixels) and torch.equal(here.actions, there.actions)
    assert here.states is not None and there.states is not None and (here.states == there.states).all()
    assert here.scene.tolist() == ([0] * 4 + [1] * 4 + [2] * 2 if random_wall else [0] * 10)
    assert len(np.unique(here.states[:, 0, :2], axis=0)) == 10, "no shard repeats another"
    assert here.factors is not None and here.factors["agent_x"].shape == (10, 3) and here.positions is not None


def test_exploration_covers_what_a_planner_may_use():
    """In a box, the corners: actions there are longer than the half range in one direction. In a ball, nothing is."""
    rng, count = np.random.default_rng(0), 2000
    for space, longest in ((BoxActions((-1.0,) * 4, (1.0,) * 4), 2.0), (BoxActions((-1.0,) * 4, (1.0,) * 4, 1.0), 1.0)):
        explorer = Explorer(Config(), space, count, 4, rng)
        actions = np.concatenate([explorer.next_block() for _ in range(4)])
        norms = np.linalg.norm(actions, axis=-1)
        assert np.abs(actions).max() <= 1 + 1e-6 and norms.max() <= longest + 1e-6
        full = np.abs(actions).max(-1) if longest == 2.0 else norms
        assert (full > 0.99).mean() > 0.2, "full strength reaches the boundary of the space"
        if longest == 2.0:
            planned = np.linalg.norm(rng.uniform(-1, 1, (10_000, 4)), axis=1)
            assert norms.max() > np.quantile(planned, 0.95), "the longest explored action is as long as planned ones"
