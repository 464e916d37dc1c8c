"""Comparisons: what is left out is left out, cells share what they can, and nothing finished is computed again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import run_agent
from agent.build import load, tensors
from agent.cli import ablate as commands
from agent.config import Config, check, options_of
from agent.errors import UserError
from agent.evaluation.evaluate import evaluate
from agent.experiments import cells as ablate
from agent.experiments.cells import cells, compare, finished
from agent.experiments.reuse import digest, shared, trainings
from agent.experiments.variants import ABLATIONS, FULL, PLACEBOS, Variant, setting, variants, varied
from agent.interaction.environment import open_environment
from agent.learning.train import train_run
from agent.presets import PRESETS, point_maze, two_rooms
from modules import cost
from modules.types import State
from tests.helpers import born, tiny, tiny_maze


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """A preset that trains in a second."""
    monkeypatch.setitem(PRESETS, "small", tiny)
    return "small"


def test_every_ablation_changes_an_agent_that_has_everything():
    weights = dataclasses.replace(two_rooms().losses, temporal=1.0, within_episode=1.0)
    drives = dataclasses.replace(point_maze().cost, drives=("goal", "effort", "survive", "contact"))
    everything = dataclasses.replace(point_maze(), losses=weights, cost=drives)
    changed = {name: change(everything) for name, change in ABLATIONS.items()}
    idle = {name for name, config in changed.items() if config == everything}
    assert idle == {"sigreg"}, "which vicreg stands in for"
    assert len({digest(config) for config in changed.values()}) == len(ABLATIONS), "each in its own way"


def test_a_term_that_is_not_in_the_loss_cannot_be_left_out():
    rooms, sketched = two_rooms(), setting("losses.anticollapse", "sigreg")(two_rooms())
    assert ABLATIONS["proprio"](rooms) == rooms, "Two Rooms has none"
    assert ABLATIONS["variance"](sketched) == ABLATIONS["covariance"](sketched) == sketched
    assert ABLATIONS["sigreg"](sketched).losses.sigreg == 0


def test_what_a_variant_is_trained_for_fits_the_agent_that_acts(tmp_path: Path):
    """For every single field: the weights of its last training can be loaded where it acts."""
    full = tiny_maze()
    for group, value in ((f.name, getattr(full, f.name)) for f in dataclasses.fields(full)):
        for f in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
            now = getattr(value, f.name)
            if isinstance(now, bool) or not isinstance(now, int | float):
                continue
            try:
                variant = setting(
                    f"{group}.{f.name}", 3 - now if f.name == "mode" else now + 1 if isinstance(now, int) else now / 2
                )(full)
                check(variant)
            except (ValueError, UserError):
                continue
            cell = cells({FULL: Variant(full), "other": Variant(variant)}, 1, 1)[1]
            weights = {k: v.shape for k, v in tensors(born(cell.trainings[-1])[0]).items()}
            assert weights == {k: v.shape for k, v in tensors(born(cell.acting)[0]).items()}, f"{group}.{f.name}"


def test_every_placebo_changes_an_agent_in_its_own_way():
    full = two_rooms()
    changed = {digest(change(full)) for change in PLACEBOS.values()}
    assert len(changed) == len(PLACEBOS) and digest(full) not in changed


@pytest.mark.parametrize("make", [tiny, tiny_maze])
@pytest.mark.parametrize("name", ["perception", "world-model", "cost", "memory", "planner", "configurator"])
def test_an_agent_without_a_module_still_lives(make, name: str, tmp_path: Path):
    """Learns, and acts: each module's variant that does nothing keeps the module's promises."""
    config = ABLATIONS[name](make())
    before = None
    for number, training in enumerate(trainings(config, make())):
        train_run(training, tmp_path / str(number), [], resume_from=before)
        before = tmp_path / str(number)
    assert before is not None
    agent = load(before, "cpu", config)
    found, _ = evaluate(agent, open_environment(config.env, options_of(config)), 8, 2)
    assert 0 <= found["success"] <= 1
    if name == "world-model":
        state = State(torch.randn(2, agent.perception.latent_size), torch.randn(2, agent.perception.proprio_size))
        after = agent.world_model.predict(state, torch.ones(2, agent.world_model.action_block, 2))
        assert torch.equal(after.latent, state.latent) and torch.equal(after.proprio, state.proprio)
    if name == "perception":
        assert not list(agent.perception.parameters())
    if name == "memory":
        assert agent.memory.size == 0


def test_an_agent_without_perception_has_no_carry_either():
    config = tiny_maze()
    config = dataclasses.replace(config, perception=dataclasses.replace(config.perception, carry="gru"))
    assert born(config)[0].perception.context > 0
    perception = born(ABLATIONS["perception"](config))[0].perception
    assert perception.context == 0 and not list(perception.parameters())


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        (ABLATIONS["warm-start"], "of full"),
        (ABLATIONS["goal-drive"], "of full"),
        (setting("planner.elites", 0.2), "of full"),
        (setting("memory.top_k", 8), "of full"),
        (setting("configurator.critic_weight", 0.0), "world model of full"),
        (ABLATIONS["mode2"], "world model and critic of full"),
        (ABLATIONS["critic"], "world model of full"),
        (ABLATIONS["memory"], "world model of full"),
        (setting("configurator.discount", 0.9), "world model of full"),
        (setting("learn.critic_far", 2), "world model of full"),
        (PLACEBOS["critic-labels"], "world model of full"),
        (PLACEBOS["subgoals"], "of full"),
        (PLACEBOS["encoder"], "its own"),
        (ABLATIONS["variance"], "its own"),
        (setting("world_model.action_block", 2), "its own"),
    ],
)
def test_trainings_are_shared_up_to_the_first_phase_that_differs(change, weights):
    full = two_rooms()
    assert shared(change(full), full) == weights


def test_only_what_acting_needs_is_trained():
    full = two_rooms()
    steps = [(t.learn.critic_steps, t.learn.policy_steps, t.learn.decoder_steps) for t in trainings(full, full)]
    assert steps == [(0, 0, 0), (full.learn.critic_steps, 0, 0)]
    reflex = trainings(ABLATIONS["mode2"](full), full)
    assert [bool(t.learn.policy_steps) for t in reflex] == [False, False, True]
    assert len(trainings(ABLATIONS["critic"](full), full)) == 1


def rewarded() -> Config:
    """An agent of a Gymnasium environment that learns its reward, beside a drive of its own."""
    config = tiny_maze(env="Pendulum-v1", env_options=(), cost=cost.Config(drives=("effort", "reward")))
    return dataclasses.replace(config, learn=dataclasses.replace(config.learn, reward_steps=9))


@pytest.mark.parametrize(("make", "stages"), [(tiny, 3), (rewarded, 4)])
def test_a_training_in_stages_gives_the_weights_of_one_in_one_piece(make, stages: int, tmp_path: Path):
    full = make()
    whole = dataclasses.replace(full, learn=dataclasses.replace(full.learn, decoder_steps=0))
    train_run(whole, tmp_path / "whole", [])
    before = None
    found = trainings(ABLATIONS["mode2"](full), full)
    assert len(found) == stages
    for number, config in enumerate(found):
        train_run(config, tmp_path / str(number), [], resume_from=before)
        before = tmp_path / str(number)
    one, other = (tensors(load(tmp_path / name)) for name in ("whole", str(stages - 1)))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_values_of_a_sweep_have_the_type_of_their_field():
    found = varied("losses.temporal=0,1", two_rooms())
    assert [c.losses.temporal for c in found.values()] == [0.0, 1.0]
    assert all(isinstance(c.losses.temporal, float) for c in found.values())
    named = varied("configurator.planner=mppi,cem", two_rooms())
    assert [c.configurator.planner for c in named.values()] == ["mppi", "cem"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["small", "--without", "critc"], "did you mean 'critic'"),
        (["small", "--vary", "seed=5,6"], "--seeds says how many"),
        (["small", "--set", "seed=5"], "--seeds says how many"),
        (["small", "--vary", "env=TwoRoomsRandom-v0"], "different environments"),
        (["small", "--diagnose", "--set", "configurator.planner=gradient"], "no gradients"),
        (["smal"], "did you mean 'small'"),
        (["small", "--against", "point_maze"], "another environment"),
        (["small", "--vary", "configurator.sampels=4"], "did you mean 'configurator.samples'"),
        (["small", "--vary", "planner.sample=4"], "did you mean 'configurator.samples'"),
        (["small", "--vary", "memory.capacity=-1"], "expected capacity >= 0"),
        (["small", "--vary", "memory.capacity=abc"], "where int is expected"),
        (["small", "--set", "planner.action_repeat=0"], "--set planner.action_repeat=0"),
        (["small", "--without", "mode2", "--set", "learn.policy_steps=0"], "does not train"),
        (["small", "--vary", "configurator.samples=4", "--vary", "configurator.horizon=4"], "--vary is given twice"),
        (["small", "--vary", "configurator=4"], "not one field"),
        (["small", "--vary", "seed.x=4"], "not one field"),
        (["small", "--vary", "configurator.samples"], "a field and its values"),
        (["small", "--vary", "configurator.samples=0"], "must be 1 or more"),
        (["small", "--seeds", "0"], "--seeds must be 1 or more"),
        (["small", "--placebo", "critic-label"], "did you mean 'critic-labels'"),
        (["small", "--set", "learn.batch=4,8"], "several values"),
        (["small", "--set", "learn.batch=one"], "--set learn.batch=one"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_trained(small, capsys, tmp_path, arguments, text):
    assert run_agent.main(["ablate", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_comparison_end_to_end_and_again(small, tmp_path: Path, capsys):
    """Two seeds, a variant with weights of its own and one without; the second time nothing is trained."""
    chosen = variants(small, ["critic", "warm-start"], vary=["configurator.samples=4"])
    trained: list[Path] = []

    def train(config, folder, command, resume_from):
        trained.append(folder)
        return train_run(config, folder, command, resume_from=resume_from)

    first = compare(chosen, 2, 3, tmp_path, train, ["me"], base_command=["me", "--seeds", "2"])
    assert len(trained) == 4, "two seeds: a world model, on which all go on, and a critic"
    rows = {row["variant"]: row for row in first["variants"]}
    assert list(rows) == [FULL, "without critic", "without warm-start", "configurator.samples=4"]
    assert [row["weights"] for row in rows.values()] == ["its own", "world model of full", "of full", "of full"]
    for row in rows.values():
        assert row["n_seeds"] == 2 and not row["failed"] and row["plan_ms"] > 0 and row["train_seconds"] > 0
        assert row["iqm"]["low"] <= row["iqm"]["value"] <= row["iqm"]["high"]
        assert row["task_list_sha256"] == rows[FULL]["task_list_sha256"]
    assert "difference" not in rows[FULL] and "difference" in rows["without critic"]
    assert rows["without critic"]["changes"] == "- learn.critic_steps: 11\n+ learn.critic_steps: 0"
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(first))
    table = (tmp_path / "table.md").read_text()
    assert "`me --seeds 2` and the flags of the row; 3 tasks a seed. On the same tasks: random actions" in table
    assert set(first["reference"]) == {"random", "greedy", "expert"}
    assert "`--vary configurator.samples=4`" in table and len(table.splitlines()) == 4 + len(rows)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert rows["configurator.samples=4"]["command"] == "me --seeds 2 --vary configurator.samples=4"
    again = compare(chosen, 2, 3, tmp_path, train, ["me"], base_command=["me", "--seeds", "2"])
    assert len(trained) == 4 and again == first
    compare(chosen, 2, 2, tmp_path / "other", train, ["me"], runs=tmp_path / "runs")
    assert len(trained) == 4, "other tasks, the same weights"
    for run in {cell.runs[0] for cell in cells(chosen, 2, 2)}:
        shutil.rmtree(tmp_path / "runs" / run)
    compare({FULL: chosen[FULL]}, 2, 1, tmp_path / "third", train, ["me"], runs=tmp_path / "runs")
    assert len(trained) == 4, "what the last training went on from is not needed again"


def test_a_cell_that_fails_is_shown_and_the_others_go_on(small, tmp_path: Path):
    chosen = variants(small, ["multi-step"])
    other = dataclasses.replace(chosen["without multi-step"], dynamics="oracle")
    chosen["the same with oracle dynamics"] = other

    tried: list[Path] = []

    def train(config, folder, command, resume_from):
        tried.append(folder)
        if not config.losses.multi_step:
            raise UserError("out of luck")
        return train_run(config, folder, command, resume_from=resume_from)

    rows = compare(chosen, 1, 2, tmp_path, train, [])["variants"]
    assert len(tried) == 3, "what failed is not tried again for the next variant"
    assert rows[0]["n_seeds"] == 1 and rows[1]["failed"] == {0: "UserError: out of luck"} and "iqm" not in rows[1]
    cell = cells(chosen, 1, 2)[1]
    assert finished(cell, tmp_path) is None, "it is tried again next time"
    rows = compare(chosen, 1, 2, tmp_path, train_run, [])["variants"]
    assert not rows[1]["failed"] and rows[1]["n_seeds"] == 1


def test_an_inactive_part_has_no_row_and_a_warning(small, capsys):
    found = variants(small, ["temporal", "critic"], placebo=["critic-labels"], settings=["learn.critic_steps=0"])
    assert list(found) == [FULL], "no temporal term, and with that setting no critic either"
    said = capsys.readouterr().err
    for name in ("temporal", "critic", "critic-labels"):
        assert f"{name} is inactive in this configuration; row skipped" in said


def test_commands_add_to_a_table_and_never_replace_another(small, tmp_path: Path):
    first = compare(variants(small, ["warm-start"]), 1, 2, tmp_path, train_run, [])["variants"]
    second = compare(variants(small, ["critic"]), 1, 2, tmp_path, train_run, [])["variants"]
    assert [row["variant"] for row in second] == [FULL, "without critic", "without warm-start"]
    assert second[-1] == first[-1]
    held = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    for chosen, tasks in ((variants(small), 3), (variants(small, settings=["configurator.samples=3"]), 2)):
        with pytest.raises(UserError, match="another comparison"):
            compare(chosen, 1, tasks, tmp_path, train_run, [])
    assert held == {p: p.read_bytes() for p in tmp_path.rglob("*.json")}


def test_rows_of_another_question_leave_the_table(small, tmp_path: Path, capsys):
    asked = variants(small, ["critic"]), variants(small, ["warm-start"])
    compare(asked[0], 2, 2, tmp_path, train_run, [])
    rows = compare(asked[1], 1, 2, tmp_path, train_run, [])["variants"]
    assert [row["variant"] for row in rows] == [FULL, "without warm-start"], "the full agent has one seed now"
    assert "loses the rows without critic" in capsys.readouterr().err.replace("\n", " ")
    rows = compare(variants(small, ["critic", "warm-start"]), 2, 2, tmp_path, train_run, [])["variants"]
    assert [row["n_seeds"] for row in rows] == [2, 2, 2]
    found = json.loads((tmp_path / "comparison.json").read_text())
    damaged = {**found, "variants": [{**found["variants"][1], "variant": "mine"}, "x", {"variant": "y"}]}
    for text in (json.dumps(damaged), json.dumps({"variants": ["x"]}), "[]", "{"):
        (tmp_path / "comparison.json").write_text(text)
        rows = compare(asked[1], 2, 2, tmp_path, train_run, [])["variants"]
        assert [row["variant"] for row in rows[:2]] == [FULL, "without warm-start"]
        assert [row["variant"] for row in rows[2:]] == (["mine"] if "mine" in text else [])


def test_other_decoders_and_memories_act_too(small, tmp_path: Path):
    """What neither trains nor acts may differ; and an agent that stores more, without a critic to read it."""
    chosen = variants(small, vary=["decoder.width=4"])
    rows = compare(chosen, 1, 2, tmp_path / "decoder", train_run, [])["variants"]
    assert not rows[1]["failed"] and rows[1]["weights"] == "of full" and rows[1]["iqm"] == rows[0]["iqm"]
    chosen = variants(small, vary=["memory.capacity=30"], settings=["configurator.critic_weight=0"])
    rows = compare(chosen, 1, 2, tmp_path / "memory", train_run, [])["variants"]
    assert not rows[1]["failed"]
    chosen = variants(small, ["memory"], settings=["configurator.mode=1"])
    rows = compare(chosen, 1, 2, tmp_path / "reflex", train_run, [])["variants"]
    assert not rows[1]["failed"] and "configurator.mode: 2" in rows[1]["changes"]


def test_an_error_of_many_lines_is_one_row(small, tmp_path: Path):
    def train(*_, **__):
        raise UserError("first\n  second | third")

    compare(variants(small, ["multi-step"]), 1, 2, tmp_path, train, [])
    table = (tmp_path / "table.md").read_text()
    assert "first second \\| third" in table and len(table.splitlines()) == 6


def test_a_damaged_cell_is_computed_again_and_a_foreign_one_refused(small, tmp_path: Path):
    cell = cells(variants(small), 1, 2)[0]
    compare(variants(small), 1, 2, tmp_path, train_run, [])
    file = tmp_path / cell.file
    held = file.read_bytes()
    assert finished(cell, tmp_path) is not None
    file.write_bytes(held[:-5])
    assert finished(cell, tmp_path) is None
    changed = setting("configurator.samples", 3)(cell.config)
    other = dataclasses.replace(cell, variant=dataclasses.replace(cell.variant, config=changed))
    file.write_bytes(held)
    with pytest.raises(UserError, match=r"configurator\.samples: 8"):
        finished(other, tmp_path)


def test_names_become_files_inside_the_folder():
    config = tiny()
    for name in ("../../etc", "a/b", "planner.x=1", "<script>"):
        assert Path(ablate.Cell(name, Variant(config), (config,), 1).file).parent == Path("cells")


def test_the_seed_is_not_part_of_a_trainings_name():
    assert digest(tiny(seed=3)) == digest(tiny())
    named = {cell.runs[-1] for cell in cells({FULL: Variant(tiny())}, 3, 1)}
    assert len(named) == 3 and len({run.split("__")[0] for run in named}) == 1


def test_a_comparison_is_there_after_every_cell(small, tmp_path: Path):
    class Power(Exception):
        pass

    def launch(todo, runs, train, command):
        yield next(ablate.locally(todo, runs, train, command))
        raise Power

    with pytest.raises(Power):
        compare(variants(small, ["warm-start"]), 1, 2, tmp_path, train_run, [], launch=launch)
    rows = json.loads((tmp_path / "comparison.json").read_text())["variants"]
    assert [row["n_seeds"] for row in rows] == [1, 0]


def test_the_four_cells(small, tmp_path: Path):
    chosen = variants(small, diagnose=True)
    rows = compare(chosen, 1, 4, tmp_path, train_run, [])["variants"]
    assert [(v.dynamics, v.cost) for v in chosen.values()] == [
        ("learned", "latent"),
        ("learned", "true"),
        ("oracle", "latent"),
        ("oracle", "true"),
    ]
    assert all(row["weights"] in ("its own", "of full") and not row["failed"] for row in rows)


def test_the_full_agent_alone_is_a_table_with_a_remark_and_the_command_that_was_given(small, tmp_path: Path, capsys):
    arguments = [small, "--seeds", "1", "--tasks", "2", "--out", str(tmp_path / "out")]
    for program, said in (("run_agent.py", "python run_agent.py ablate small"), ("ami", "ami ablate small")):
        assert commands.run(commands.parse(arguments, program), [program, "ablate", *arguments]) == 0
        assert "there is nothing to compare" in capsys.readouterr().err
        assert json.loads((tmp_path / "out" / "comparison.json").read_text())["base_command"].startswith(said)
