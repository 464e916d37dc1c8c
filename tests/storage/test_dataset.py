"""Promises of agent/storage/dataset.py: bit-exact, whole or refused, damage is named, no code runs."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import agent.storage.dataset as module
from agent.errors import DamagedFile, UserError
from agent.storage.dataset import Dataset, DatasetWriter, RecordedEpisode, describe, matches, spec_diff
from agent.storage.lock import FolderLock

SPEC: dict[str, Any] = {
    "observation": {"pixel_shape": [1, 2, 3], "sensor_low": [-float("inf")] * 2, "sensor_high": [1.0] * 2},
    "actions": {"kind": "box", "low": [-1.0], "high": [1.0], "max_norm": None},
}
PROVENANCE = {"actor": "random explorer", "seed": 3}


def episode(length: int, seed: int = -1, pixels: bool = True, sensors: bool = True) -> RecordedEpisode:
    """An episode of random numbers; one of odd length terminates, the others are truncated."""
    rng = np.random.default_rng(length)
    last = np.arange(length) == length - 1
    return RecordedEpisode(
        actions=rng.standard_normal((length, 1)).astype(np.float32),
        rewards=rng.standard_normal(length),
        terminated=last & bool(length % 2),
        truncated=last & (not length % 2),
        pixels=rng.integers(0, 256, (length + 1, 1, 2, 3), np.uint8) if pixels else None,
        sensors=rng.standard_normal((length + 1, 2)).astype(np.float32) if sensors else None,
        seed=seed,
    )


def write(folder: Path, *episodes: RecordedEpisode, env: str = "World-v0", **options: Any) -> Path:
    with DatasetWriter(folder, env, options, SPEC, PROVENANCE) as writer:
        for each in episodes:
            writer.append(each)
    return folder


def same(a: RecordedEpisode, b: RecordedEpisode) -> bool:
    """Bit for bit."""
    x, y = a.arrays(), b.arrays()
    equal = all(x[k].dtype == y[k].dtype and x[k].shape == y[k].shape and x[k].tobytes() == y[k].tobytes() for k in x)
    return x.keys() == y.keys() and equal and a.seed == b.seed


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data", episode(3, 7), episode(4), layout="u")


def edited(folder: Path, **changes: Any) -> Path:
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, **changes}))
    return folder


# What is kept


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    parts=st.sampled_from([(True, True), (True, False), (False, True)]),
    size=st.sampled_from([1, 400, 2**26]),
)
def test_a_round_trip_is_bit_exact_however_the_episodes_are_spread_over_files(lengths, parts, size):
    given_ = [episode(n, seed=i if i % 2 else -1, pixels=parts[0], sensors=parts[1]) for i, n in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILE_BYTES", size)
        dataset = Dataset.open(write(Path(name) / "data", *given_))
        assert len(list(Path(name).glob("data/episodes-*"))) == len(dataset.about["files"])
        assert len(dataset.about["files"]) == {1: len(lengths), 2**26: 1}.get(size, len(dataset.about["files"]))
        for _ in range(2):
            assert all(same(a, b) for a, b in zip(given_, dataset, strict=True))
        assert (len(dataset), dataset.steps) == (len(lengths), sum(lengths))
        assert dataset.about["terminated"] == sum(n % 2 for n in lengths)


def test_what_is_written_does_not_wait_for_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES", 1000)
    with DatasetWriter(tmp_path / "data", "World-v0", {}, SPEC, PROVENANCE) as writer:
        for n in range(1, 100):
            writer.append(episode(20))
            assert len(list((tmp_path / "data").glob("episodes-*"))) == n // 2, "two of them have 1000 bytes"
            assert not (tmp_path / "data" / "dataset.json").exists()
    assert len(Dataset.open(tmp_path / "data")) == 99


def test_provenance_is_one_flat_dictionary(folder):
    told = describe(folder)
    assert all(isinstance(v, str | int | float) for v in told.values())
    for key, value in {"actor": "random explorer", "seed": 3, "episodes": 2, "steps": 7, "faults": 0}.items():
        assert told[key] == value
    assert told["env"] == "World-v0" and told["env_options"] == 'layout="u"' and "numpy" in told["versions"]
    assert told == Dataset.open(folder).describe()


def test_the_digest_of_provenance_is_that_of_the_episodes(tmp_path):
    one, same_, other = (
        describe(write(tmp_path / name, episode(n)))["sha256"] for name, n in (("a", 3), ("b", 3), ("c", 4))
    )
    assert one == same_ != other


def test_unbounded_sensors_are_still_so_after_the_round_trip(folder):
    assert Dataset.open(folder).spec == SPEC
    matches(Dataset.open(folder), SPEC, "World-v0", {"layout": "u"})


# What is refused on writing


@pytest.mark.parametrize("name", ["sensors", "actions", "rewards"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_episode(tmp_path, name, bad):
    spoiled = episode(5)
    getattr(spoiled, name)[2] = bad
    writer = DatasetWriter(tmp_path / "data", "World-v0", {}, SPEC, PROVENANCE)
    writer.append(episode(3))
    with pytest.raises(UserError, match=f"episode 1: {name} hold {bad} at step 2") as error:
        writer.append(spoiled)
    assert one_line(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sensors": None, "pixels": None}, "expected steps with observations"),
        ({"rewards": np.zeros(4)}, "rewards are 4"),
        ({"sensors": np.zeros((6, 2))}, "of float64"),
        ({"sensors": np.zeros((5, 2), np.float32)}, "5 steps need 6"),
        ({"terminated": np.array([False, True, False, False, False])}, "before its last step"),
        ({"sensors": np.zeros((6, 3), np.float32)}, "has shapes"),
        ({"pixels": None}, "has shapes"),
    ],
)
def test_an_episode_of_another_form_is_refused(tmp_path, change, words):
    writer = DatasetWriter(tmp_path / "data", "World-v0", {}, SPEC, PROVENANCE)
    writer.append(episode(3))
    with pytest.raises(UserError, match=words) as error:
        writer.append(dataclasses.replace(episode(5), **change))
    assert "episode 1" in one_line(error)


def test_a_folder_that_holds_something_is_refused(tmp_path, folder):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for path, words in ((folder, "not empty"), (tmp_path / "other", "not empty"), (tmp_path / "file", "is a file")):
        with pytest.raises(UserError, match=words) as error:
            DatasetWriter(path, "World-v0", {}, SPEC, PROVENANCE)
        assert "another --out" in one_line(error)
    assert len(Dataset.open(folder)) == 2


def test_two_cannot_collect_in_one_folder(tmp_path):
    with FolderLock(tmp_path / "data", "collecting"), pytest.raises(UserError, match="is collecting in"):
        DatasetWriter(tmp_path / "data", "World-v0", {}, SPEC, PROVENANCE)
    assert write(tmp_path / "data", episode(2)), "an old lock is no reason to refuse"


# What is refused on reading


def test_a_half_written_folder_is_refused_by_readers_and_writers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    with pytest.raises(ZeroDivisionError), DatasetWriter(tmp_path / "data", "W-v0", {}, SPEC, PROVENANCE) as writer:
        writer.append(episode(3))
        raise ZeroDivisionError
    for use in (Dataset.open, describe):
        with pytest.raises(UserError, match="half-written") as error:
            use(tmp_path / "data")
        assert "delete the folder" in one_line(error)
    with pytest.raises(UserError, match="half-written") as error:
        write(tmp_path / "data", episode(3))
    assert one_line(error)


def test_a_dataset_without_episodes_is_none(tmp_path):
    with pytest.raises(UserError, match="not a dataset"):
        Dataset.open(write(tmp_path / "data"))
    assert write(tmp_path / "data", episode(1)), "and does not stand in the way of one"


def test_what_is_not_there_is_named_with_the_nearest(folder):
    with pytest.raises(UserError, match="did you mean 'data'"):
        Dataset.open(folder.parent / "dta")


def test_every_flipped_byte_is_noticed(folder):
    path = folder / "episodes-00000.safetensors"
    good = path.read_bytes()
    for at in {*range(0, len(good), 37), len(good) - 1}:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DamagedFile, match="SHA-256") as error:
            Dataset.open(folder)
        assert str(path) in one_line(error)
    path.write_bytes(good)
    assert len(Dataset.open(folder)) == 2


def test_a_file_that_is_truncated_missing_or_a_link_is_refused(folder):
    path = folder / "episodes-00000.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DamagedFile, match="bytes instead of"):
        Dataset.open(folder)
    path.unlink()
    with pytest.raises(DamagedFile, match="is missing"):
        Dataset.open(folder)
    (folder / "elsewhere").write_bytes(good)
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(DamagedFile, match="symbolic link"):
        Dataset.open(folder)


def replaced(folder: Path, **arrays: np.ndarray) -> Path:
    """The dataset with other arrays in its file, and the digest of those."""
    path = folder / "episodes-00000.safetensors"
    flat = {**safetensors.numpy.load(path.read_bytes()), **arrays}
    data = safetensors.numpy.save({k: v for k, v in flat.items() if v.size})
    path.write_bytes(data)
    file = {"name": path.name, "episodes": 2, "bytes": len(data), "sha256": module.hashlib.sha256(data).hexdigest()}
    return edited(folder, files=[file])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"lengths": np.array([3, 5])}, "expected"),
        ({"lengths": np.array([0, 7])}, "lengths"),
        ({"lengths": np.array([-1, 8])}, "lengths"),
        ({"lengths": np.array([3.0, 4.0])}, "lengths"),
        ({"lengths": np.zeros(0, np.int64)}, "no lengths"),
        ({"seeds": np.array([1])}, "no lengths and seeds"),
        ({"rewards": np.zeros(6)}, "expected"),
        ({"extra": np.zeros(7)}, "expected"),
        ({"actions": np.zeros((7, 1))}, "float64"),
        ({"actions": np.full((7, 1), np.nan, np.float32)}, "episode 0: actions hold nan at step 0"),
        ({"sensors": np.full((9, 2), np.inf, np.float32)}, "episode 0: sensors hold inf at step 0"),
        ({"lengths": np.array([4, 3])}, "before its last step"),
    ],
)
def test_arrays_that_are_no_episodes_are_refused_whatever_the_digest_says(folder, arrays, words):
    with pytest.raises(UserError, match=words) as error:
        Dataset.open(replaced(folder, **arrays))
    assert str(folder) in one_line(error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "reads format 1"),
        ({"format": None}, "reads format 1"),
        ({"episodes": 3}, "has 2 episodes"),
        ({"steps": "7"}, "steps not as expected"),
        ({"files": ["episodes-00000.safetensors"]}, "files not as expected"),
        ({"files": [{"name": "../data/episodes-00000.safetensors", "bytes": 1, "sha256": ""}]}, "files not as"),
        ({"layout": {"pixels": [1, 2, 3]}}, "layout not as expected"),
        ({"layout": {"actions": [1], "sensors": ["2"]}}, "layout not as expected"),
        ({"provenance": {"versions": 1}}, "provenance not as expected"),
        ({"files": []}, "holds no episodes"),
    ],
)
def test_a_description_that_is_not_as_expected_is_refused(folder, changes, words):
    with pytest.raises(UserError, match=words) as error:
        Dataset.open(edited(folder, **changes))
    assert one_line(error)


def test_a_description_that_is_cut_off_is_refused(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text[:-20])
    with pytest.raises(DamagedFile, match="damaged"):
        Dataset.open(folder)


def test_reading_never_runs_code(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path, trap = folder / "episodes-00000.safetensors", pickle.dumps(Trap())
    path.write_bytes(trap)
    digest = module.hashlib.sha256(trap).hexdigest()
    edited(folder, files=[{"name": path.name, "episodes": 2, "bytes": len(trap), "sha256": digest}])
    with pytest.raises(DamagedFile, match="not a safetensors file"):
        Dataset.open(folder)
    assert not (tmp_path / "ran").exists()


# Of which environment


@pytest.mark.parametrize("env", ["World-v0", "my.module:World-v0"])
def test_the_module_that_registers_an_environment_does_not_matter(folder, env):
    matches(Dataset.open(folder), SPEC, env)


@pytest.mark.parametrize(
    ("spec", "env", "options", "words"),
    [
        (SPEC, "World-v1", None, "of World-v0, not of World-v1: give --env World-v0"),
        (SPEC, "World-v0", {"layout": "medium"}, '- layout: "u"; [+] layout: "medium": give the same --env-options'),
        (SPEC, "World-v0", {}, '- layout: "u"'),
        ({**SPEC, "actions": {**SPEC["actions"], "high": [2.0]}}, "World-v0", None, r"- actions.high: \[1.0\]"),
        ({**SPEC, "observation": {**SPEC["observation"], "pixel_shape": None}}, None, None, "pixel_shape"),
    ],
)
def test_episodes_of_another_environment_are_refused_in_one_line(folder, spec, env, options, words):
    with pytest.raises(UserError, match=words) as error:
        matches(Dataset.open(folder), spec, env, options)
    assert str(folder) in one_line(error) and "give" in str(error.value)


def test_how_the_agent_reads_its_sensors_is_not_compared():
    """A goal in other readings makes no other episodes."""
    aimed = {**SPEC, "observation": {**SPEC["observation"], "goal_proprio": [0], "unseen": [1]}}
    assert spec_diff(SPEC, aimed) == "" and spec_diff(aimed, SPEC) == ""
