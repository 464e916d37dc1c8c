"""When updates run: offline each in turn, online between collecting; and what is shown while they are prepared."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from agent.build import tensors
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning import schedules, train
from agent.learning.trainer import updates_of
from agent.storage.run import Run
from tests.helpers import born, explored, tiny, tiny_maze, train_tiny


class Shown(Progress):
    """Notes what is said of the progress."""

    def __init__(self) -> None:
        super().__init__(show=False)
        self.phases: list[tuple[str, int, str]] = []
        self.reached: dict[str, list[int]] = {}

    def start(self, phase: str, total: int = 0, done: int = 0, unit: str = "steps") -> None:
        self.phases.append((phase, total, unit))
        self.reached[phase] = []
        super().start(phase, total, done, unit)

    def update(self, n: int, text: str = "") -> None:
        self.reached[self.phases[-1][0]].append(n)
        super().update(n, text)


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_offline_schedule_learns_the_weights_of_a_run(make, tmp_path):
    """Bit for bit: what the trainer adds is logs, checkpoints and somebody who looks on."""
    config = make()
    agent = born(config)[0]
    replay = explored(config, config.seed)
    schedules.offline(updates_of(agent, replay, config), replay, config)
    train_tiny(config, tmp_path / "run")
    held = Run.open(tmp_path / "run").load_checkpoint()[0]
    mine = tensors(agent)
    assert set(mine) == {k for k in held if not k.startswith("memory.")}
    assert [k for k in mine if not torch.equal(mine[k], held[k])] == []
    assert bool(held["cost.trained"]) and bool(held["actor.trained"])


class Counted:
    """An update of one number that notes what is asked of it."""

    shared = False

    def __init__(self, name: str, least: int = 0) -> None:
        self.name, self.steps, self.rate, self.least = name, 7, 0.1, least
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.parameters, self.heard = [self.weight], []

    def ready(self, replay: Replay) -> bool:
        return replay.size >= self.least

    def prepare(self, progress, tabulate):
        self.heard.append(("prepare", tabulate))

    def loss(self, generator):
        drawn = torch.randn((), generator=generator)
        self.heard.append(("loss", drawn.item()))
        return (self.weight - drawn).square(), {}

    def after(self):
        self.heard.append(("after", None))

    def finish(self):
        self.heard.append(("finish", None))

    def count(self, what: str) -> int:
        return [name for name, _ in self.heard].count(what)


def lived(updates, rounds: int, ratio: int, seed: int = 0) -> tuple[Replay, list[str]]:
    """An online schedule that collects one piece a round."""
    config, replay, order = tiny(seed=seed), Replay(capacity=50), []

    def collect(number: int) -> None:
        order.append(f"collect {number}")
        replay.append({"actions": torch.zeros(1, 2, 2, 2)})

    schedules.online(updates, replay, config, collect, rounds, ratio, lambda: order.append("changed"))
    return replay, order


@pytest.mark.parametrize("ratio", [1, 4])
def test_online_every_update_that_is_ready_takes_the_ratio_of_steps(ratio):
    always, late = Counted("always"), Counted("late", least=3)
    replay, order = lived([always, late], 5, ratio)
    assert len(replay) == 5 and order == [x for i in range(5) for x in (f"collect {i}", "changed")]
    assert always.count("loss") == always.count("after") == 5 * ratio and always.count("prepare") == 5
    assert late.count("loss") == 3 * ratio and late.count("prepare") == late.count("finish") == 3
    assert {tabulate for what, tabulate in always.heard if what == "prepare"} == {False}, "modules go on changing"
    one_round = ["prepare", *["loss", "after"] * ratio, "finish"]
    assert [what for what, _ in always.heard] == one_round * 5


def test_online_depends_on_the_seed_only_and_repeats_no_batch():
    first, again, other = Counted("a"), Counted("a"), Counted("a")
    for update, seed in ((first, 0), (again, 0), (other, 1)):
        lived([update], 4, 3, seed)
    assert first.heard == again.heard != other.heard
    drawn = [x for what, x in first.heard if what == "loss"]
    assert len(set(drawn)) == 12
    assert torch.equal(first.weight, again.weight) and first.weight != 0


def test_two_updates_do_not_draw_the_same():
    pair = [Counted("a"), Counted("b")]
    lived(pair, 3, 2)
    assert pair[0].heard != pair[1].heard


def online_agent(seed: int = 0):
    config = dataclasses.replace(tiny_maze(), seed=seed)
    agent, _ = born(config)
    replay, number = Replay(), iter(range(100))

    def collect(_: int) -> None:
        parts = explored(config, next(number)).state_dict()
        replay.append({k: v for k, v in parts.items() if k not in ("size", "head", "version")})

    updates = updates_of(agent, replay, config)
    before = {k: v.clone() for k, v in tensors(agent).items()}
    schedules.online(updates, replay, config, collect, rounds=2, ratio=3, weights_changed=agent.weights_changed)
    return agent, before


def test_a_whole_agent_learns_online_deterministically():
    (one, before), (two, _), (other, _) = online_agent(), online_agent(), online_agent(1)
    a, b, c = (tensors(agent) for agent in (one, two, other))
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert any(not torch.equal(a[k], c[k]) for k in a)
    for module in ("perception.", "world_model.", "cost.critic.", "actor.", "decoder."):
        assert any(not torch.equal(a[k], before[k]) for k in a if k.startswith(module)), module
    assert bool(one.cost.trained) and bool(one.actor.trained)
    assert all(torch.isfinite(v).all() for v in a.values() if v.is_floating_point())


# Progress


def test_preparing_the_critic_and_the_policy_is_shown():
    """Imagining all futures and making all plans may take minutes."""
    config = tiny_maze()
    agent, replay, shown = born(config)[0], explored(config), Shown()
    for update in updates_of(agent, replay, config):
        update.prepare(shown, tabulate=True)
    assert shown.phases == [
        ("prepare critic", agent.memory.size, "records"),
        ("prepare policy", config.learn.plan_episodes, "plans"),
    ]
    for name, total, _ in shown.phases:
        assert shown.reached[name][-1] == total and shown.reached[name] == sorted(shown.reached[name])


def test_long_preparations_are_shown_piece_by_piece(monkeypatch):
    monkeypatch.setattr("agent.learning.critic.PIECE", 16)
    monkeypatch.setattr("agent.learning.policy.PLANS_AT_ONCE", 1)
    config = tiny_maze()
    agent, replay, shown = born(config)[0], explored(config), Shown()
    for update in updates_of(agent, replay, config):
        update.prepare(shown, tabulate=True)
    assert shown.reached == {"prepare critic": [16, 32, 40], "prepare policy": [1, 2]}


def test_a_run_tells_the_preparations_between_its_phases(tmp_path, monkeypatch):
    shown = Shown()
    monkeypatch.setattr(train, "Progress", lambda **_: shown)
    train.train_run(tiny_maze(), tmp_path / "run", [])
    assert [name for name, *_ in shown.phases] == [
        "explore", "world model", "prepare critic", "critic", "prepare policy", "policy", "decoder",
    ]  # fmt: skip


def test_nothing_is_said_where_nothing_is_tabulated():
    config = tiny_maze()
    agent, replay, shown = born(config)[0], explored(config), Shown()
    for update in updates_of(agent, replay, config):
        update.prepare(shown, tabulate=False)
    assert shown.phases == []
