"""Promises of agent/storage/checkpoint.py: bit-exact, whole or absent, damage is named and never used, no code runs."""

import errno
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import agent.storage.checkpoint as checkpoint_module
from agent import __version__
from agent.errors import DamagedFile, UserError
from agent.storage.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
SHAPES = [(), (0, 3), (1,), (2, 3, 4)]


def silent(message: str) -> None:
    raise AssertionError(f"unexpected message: {message}")


def save_two(folder: Path) -> None:
    """Good checkpoints of steps 5 and 10, each with tensors that hold the step."""
    for step in (5, 10):
        save_checkpoint(folder, step, {"w": torch.full((4, 3), float(step))}, {"step": step, "note": "x" * 20})


def file_of(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.safetensors"


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = [tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_round_trip_is_bit_exact(tmp_path, dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for shape in SHAPES:
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64) * 50
        tensors[f"a/{shape}"] = (numbers > 0) if dtype == torch.bool else numbers.abs().to(dtype)
    save_checkpoint(tmp_path, 1, tensors, {})
    loaded, _, _ = load_checkpoint(tmp_path, notify=silent)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert same_bits(loaded[name], tensor), name


def test_special_values_views_and_shared_memory(tmp_path):
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "special": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45]),
        "extremes": torch.tensor([2**63 - 1, -(2**63), 2**53 + 1]),
        "transposed": base.T,
        "row": base[1],
        "tied": base,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    save_checkpoint(tmp_path, 1, tensors, {})
    loaded, _, _ = load_checkpoint(tmp_path, notify=silent)
    for name, tensor in tensors.items():
        assert same_bits(loaded[name], tensor), name
    loaded["tied"].zero_()  # writable, and not a view of its neighbour
    assert same_bits(loaded["row"], base[1])


def test_meta_round_trip_with_big_integers(tmp_path):
    meta = {"counter": 2**127 + 1, "nested": {"list": [1, 2.5, None, True, "text"]}, "best": float("inf")}
    save_checkpoint(tmp_path, 3, {}, meta)
    assert load_checkpoint(tmp_path, notify=silent) == ({}, meta, 3)


def test_zeros_in_names_and_meta_are_not_taken_for_the_digest(tmp_path):
    zeros = "0" * 64
    save_checkpoint(tmp_path, 1, {zeros: torch.zeros(64)}, {zeros: zeros, "sha256": zeros})
    assert load_checkpoint(tmp_path, notify=silent)[1] == {zeros: zeros, "sha256": zeros}


def test_the_same_contents_are_the_same_bytes(tmp_path):
    for name in "ab":
        save_checkpoint(tmp_path / name, 3, {"b": torch.ones(2), "a": torch.zeros(3)}, {"x": 1, "y": [2]})
    assert file_of(tmp_path / "a", 3).read_bytes() == file_of(tmp_path / "b", 3).read_bytes()


def test_the_file_is_safetensors_and_says_what_it_is(tmp_path):
    from safetensors import safe_open

    with safe_open(save_checkpoint(tmp_path, 3, {"w": torch.ones(2)}, {"a": 1}), "pt") as file:
        about = json.loads(file.metadata()["ami"])
        assert torch.equal(file.get_tensor("w"), torch.ones(2))
    assert len(about.pop("sha256")) == 64
    assert about == {"format": 2, "version": __version__, "step": 3, "meta": {"a": 1}}


def test_keeps_the_newest_two_in_files_that_sort_by_step(tmp_path):
    for step in (1, 2, 3, 100_000_000):
        returned = save_checkpoint(tmp_path, step, {}, {"step": step})
        assert returned == tmp_path / f"{step:08d}.safetensors"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003.safetensors", "100000000.safetensors"]
    assert load_checkpoint(tmp_path, notify=silent)[2] == 100_000_000
    assert load_checkpoint(tmp_path, 3, notify=silent)[1] == {"step": 3}
    with pytest.raises(UserError, match=r"no checkpoint of step 4.*3, 100000000"):
        load_checkpoint(tmp_path, 4)


def test_old_ones_go_only_after_the_new_one_is_on_disk(tmp_path, monkeypatch):
    save_two(tmp_path)
    present = []
    real = os.fsync

    def watch(descriptor):
        present.append({"00000005.safetensors", "00000010.safetensors"} <= set(os.listdir(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    save_checkpoint(tmp_path, 15, {}, {})
    # The file and its name: nothing is left unsynchronised or removed early.
    assert present == [True] * 2
    assert checkpoint_steps(tmp_path) == [10, 15]


def test_saving_a_step_again_replaces_it_and_drops_the_abandoned_future(tmp_path):
    save_two(tmp_path)
    save_checkpoint(tmp_path, 10, {}, {"again": True})
    assert load_checkpoint(tmp_path, notify=silent)[1] == {"again": True}
    save_checkpoint(tmp_path, 7, {}, {})
    assert checkpoint_steps(tmp_path) == [5, 7]
    assert not list(tmp_path.glob(".*"))


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "truncate":
        path.write_bytes(data[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "append":
        path.write_bytes(data + b"\n")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "link":
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)


DAMAGES = ["flip", "truncate", "empty", "append", "link", "pipe", "folder"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_and_the_previous_one_is_used(tmp_path, how):
    save_two(tmp_path)
    damage(file_of(tmp_path, 10), how)
    messages = []
    tensors, meta, step = load_checkpoint(tmp_path, notify=messages.append)
    assert (step, meta["step"], tensors["w"][0, 0]) == (5, 5, 5.0)
    assert len(messages) == 1 and "00000010.safetensors: " in messages[0]
    assert "step 10" in messages[0] and "step 5" in messages[0]
    with pytest.raises(DamagedFile, match=r"00000010\.safetensors"):  # a step that was asked for is not replaced
        load_checkpoint(tmp_path, 10)


def test_every_single_byte_is_guarded(tmp_path):
    path = save_checkpoint(tmp_path, 10, {"w": torch.arange(8.0)}, {"a": 1})
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in (1, 32):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            with pytest.raises(DamagedFile, match=path.name):
                load_checkpoint(tmp_path)
    path.write_bytes(data)
    load_checkpoint(tmp_path, notify=silent)


@pytest.mark.parametrize("length", [0, 4, 8, 9, 100, -1])
def test_every_truncation_is_named(tmp_path, length):
    path = save_checkpoint(tmp_path, 10, {"w": torch.arange(8.0)}, {"a": 1})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match=path.name):
        load_checkpoint(tmp_path)


def test_no_tensor_is_parsed_before_the_digest_matches(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path, 10, {"w": torch.arange(8.0)}, {"a": 1})
    damage(path, "flip")
    monkeypatch.setattr(checkpoint_module.safetensors.torch, "load", lambda _: pytest.fail("parsed"))
    with pytest.raises(DamagedFile):
        load_checkpoint(tmp_path)


def test_a_wrong_size_is_seen_without_reading_the_file(tmp_path):
    path = save_checkpoint(tmp_path, 10, {"w": torch.arange(8.0)}, {"a": 1})
    size = path.stat().st_size
    os.truncate(path, 2**40)  # a hole of 1 TB
    with pytest.raises(DamagedFile, match=f"{2**40} bytes instead of {size}"):
        load_checkpoint(tmp_path)


def test_all_damaged_names_every_file(tmp_path):
    save_two(tmp_path)
    damage(file_of(tmp_path, 5), "flip")
    size = file_of(tmp_path, 10).stat().st_size
    damage(file_of(tmp_path, 10), "truncate")
    with pytest.raises(DamagedFile) as caught:
        load_checkpoint(tmp_path, notify=silent)
    text = str(caught.value)
    assert "step 5: 00000005.safetensors: " in text
    assert f"step 10: 00000010.safetensors: {size - 1} bytes instead of {size}" in text


def test_nothing_saved_is_said_as_such(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no checkpoint in") as caught:
            load_checkpoint(folder)
        assert not isinstance(caught.value, DamagedFile)


def forge(path: Path, about: object, body: bytes = b"", fields: object = None) -> None:
    """A file as another program could write it: with whatever header, and a digest that matches."""
    blank = "0" * 64
    if isinstance(about, dict):
        about = json.dumps({"format": 2, "version": "x", "step": 10, "sha256": blank, "meta": {}} | about)
    header = json.dumps({"__metadata__": {"ami": about}, **(fields or {})} if about is not None else fields).encode()
    head = len(header).to_bytes(8, "little") + header
    digest = checkpoint_module._digest(head, memoryview(body))
    path.write_bytes(head.replace(blank.encode(), digest.encode(), 1) + body)


def test_a_forged_file_that_is_right_is_read(tmp_path):
    """The tests below damage something that is otherwise good."""
    field = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    forge(file_of(tmp_path, 10), {}, torch.ones(1).numpy().tobytes(), field)
    assert load_checkpoint(tmp_path, notify=silent) == ({"w": torch.ones(1)}, {}, 10)


@pytest.mark.parametrize(
    ("about", "fields", "why"),
    [
        ({"format": 3}, {}, r"format 3 of version 'x', this program \(version .*\) reads 2"),
        ({"meta": [1]}, {}, "not a checkpoint"),
        ({"sha256": "x"}, {}, "not a checkpoint"),
        ({"sha256": 5}, {}, "not a checkpoint"),
        ({"step": 11}, {}, "it belongs to step 11, its name says 10"),
        ("[" * 100_000, {}, "nested too deeply"),
        ("null", {}, "not a checkpoint"),
        ("{", {}, "not JSON"),
        (7, {}, "not a checkpoint"),
        (None, {}, "not a checkpoint"),
        (None, [1], "not a checkpoint"),
        ({}, {"w": 1}, "not a checkpoint"),
        ({}, {"w": {"data_offsets": [0]}}, "not a checkpoint"),
        ({}, {"w": {"data_offsets": [0, 0]}}, "not a safetensors file"),
        ({}, {"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 0]}}, "not a safetensors file"),
        ({}, {"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 10**30]}}, "bytes instead of"),
    ],
)
def test_strange_files_are_refused_in_words(tmp_path, about, fields, why):
    forge(file_of(tmp_path, 10), about, b"", fields)
    with pytest.raises(DamagedFile, match=f"00000010.safetensors: .*{why}"):
        load_checkpoint(tmp_path)


def test_links_and_renamed_files_are_refused(tmp_path):
    path = save_checkpoint(tmp_path / "a", 10, {}, {})
    (tmp_path / "b").mkdir()
    file_of(tmp_path / "b", 10).symlink_to(path)
    with pytest.raises(DamagedFile, match=r"00000010.safetensors: a symbolic link, refused"):
        load_checkpoint(tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    for use in (checkpoint_steps, load_checkpoint, lambda folder: save_checkpoint(folder, 11, {}, {})):
        with pytest.raises(DamagedFile, match=r"c is a symbolic link, refused"):
            use(tmp_path / "c")
    assert checkpoint_steps(tmp_path / "a") == [10]
    (tmp_path / "d").mkdir()
    path.rename(file_of(tmp_path / "d", 11))
    with pytest.raises(DamagedFile, match=r"it belongs to step 10, its name says 11"):
        load_checkpoint(tmp_path / "d")


def test_checkpoints_of_an_older_version_are_refused(tmp_path):
    (tmp_path / "00000010").mkdir()
    for name in ("tensors.safetensors", "meta.json", "manifest.json"):
        (tmp_path / "00000010" / name).write_bytes(b"{}")
    for use in (checkpoint_steps, load_checkpoint, lambda folder: save_checkpoint(folder, 11, {}, {})):
        with pytest.raises(UserError, match="written by an older version of this program: train again") as caught:
            use(tmp_path)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["00000010"]


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("place", ["file", "body", "meta"])
@pytest.mark.parametrize("zipped", [False, True], ids=["pickle", "torch.save"])
def test_a_pickle_never_runs(tmp_path, place, zipped):
    target, path = tmp_path / "exploded", file_of(tmp_path, 10)
    file = io.BytesIO()
    (torch.save if zipped else pickle.dump)(Bomb(target), file)
    if place == "file":
        path.write_bytes(file.getvalue())
    elif place == "body":
        size = len(file.getvalue())
        forge(path, {}, file.getvalue(), {"w": {"dtype": "Pickle", "shape": [size], "data_offsets": [0, size]}})
    else:
        forge(path, {"meta": file.getvalue().decode("latin-1")})
    with pytest.raises(DamagedFile, match=path.name):
        load_checkpoint(tmp_path)
    assert not target.exists()


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*_args, **_kwargs):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("step", [10, 15])
@pytest.mark.parametrize(
    ("call", "fault", "advice"),
    [
        ("os.fsync", full_disk, "free some space"),
        ("builtins.open", full_disk, "free some space"),
        ("os.replace", read_only, "another --out"),
        ("pathlib.Path.mkdir", read_only, "another --out"),
    ],
)
def test_a_disk_that_refuses_leaves_the_last_good_one(tmp_path, monkeypatch, call, fault, advice, step):
    save_two(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(call, fault)
        with pytest.raises(UserError, match=advice) as caught:
            save_checkpoint(tmp_path, step, {"w": torch.zeros(3)}, {})
    assert f"{step:08d}" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000005.safetensors", "00000010.safetensors"]
    tensors, _, found = load_checkpoint(tmp_path, notify=silent)
    assert found == 10 and tensors["w"][0, 0] == 10


def test_stale_temporaries_are_removed_at_the_next_save(tmp_path):
    save_two(tmp_path)
    (tmp_path / ".tmp.00000015").mkdir()
    (tmp_path / ".tmp.00000015" / "x").write_bytes(b"half")
    (tmp_path / ".tmp.123.00000015.safetensors").write_bytes(b"half")
    assert load_checkpoint(tmp_path, notify=silent)[2] == 10
    save_checkpoint(tmp_path, 15, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000010.safetensors", "00000015.safetensors"]


def test_a_kill_before_the_old_one_is_removed_leaves_three_good_ones(tmp_path, monkeypatch):
    save_two(tmp_path)
    monkeypatch.setattr(checkpoint_module, "remove", lambda path: None)  # killed before anything is deleted
    save_checkpoint(tmp_path, 15, {}, {})
    assert checkpoint_steps(tmp_path) == [5, 10, 15]
    for step in (5, 10, 15):
        load_checkpoint(tmp_path, step, notify=silent)


def test_a_reader_is_not_disturbed_by_a_running_training(tmp_path, monkeypatch):
    """Between listing and reading, the writer may have replaced everything that was listed."""
    save_two(tmp_path)
    real, calls = checkpoint_module._read, []

    def slow(path, step):
        if not calls:
            for later in (15, 20):
                save_checkpoint(tmp_path, later, {}, {})
        calls.append(step)
        return real(path, step)

    monkeypatch.setattr(checkpoint_module, "_read", slow)
    assert load_checkpoint(tmp_path, notify=silent)[2] == 20
    assert calls == [10, 5, 20]


# Forks a child that saves without pause, kills it at a random moment, and loads; torch is imported once for all rounds.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from agent.storage.checkpoint import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(int(sys.argv[3]))

def notify(message):
    print("damaged:", message)

def load():
    tensors, meta, step = load_checkpoint(folder, notify=notify)
    assert all(bool((tensor == meta["count"]).all()) for tensor in tensors.values()), "mixed checkpoints"
    return meta["count"], step

save_checkpoint(folder, 1, {"a": torch.ones(10)}, {"count": 1})
for _ in range(rounds):
    count, step = load()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            count += 1
            step += rng.random() < 0.7  # sometimes the same step again
            full = torch.full((50_000,), count, dtype=torch.int64)
            save_checkpoint(folder, step, {"a": full, "b": full.double()}, {"count": count})
            os.write(writer, b".")
    os.close(writer)
    os.read(reader, 1)  # at least one is published
    time.sleep(rng.random() * 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    published = 1 + sum(len(chunk) for chunk in iter(lambda: os.read(reader, 65536), b""))
    os.close(reader)
    after, _ = load()
    assert after >= count + published, (count, published, after)
save_checkpoint(folder, step + 1000, {}, {"count": 0})
print("left:", sorted(os.listdir(folder)))
"""


@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_leaves_a_good_checkpoint(tmp_path):
    root = Path(checkpoint_module.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), "8", str(os.getpid())],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "damaged" not in result.stdout, result.stdout
    assert ".tmp" not in result.stdout, result.stdout
