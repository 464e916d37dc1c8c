"""Promises of agent/checkpoint.py: bit-exact, whole or absent, damage is named and never used, loading runs no code."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import agent.storage.checkpoint as checkpoint_module
from agent.errors import DamagedFile, UserError
from agent.storage.checkpoint import checkpoint_steps, encode_manifest, load_checkpoint, save_checkpoint
from agent.storage.files import write_durable

FILES = ["tensors.safetensors", "meta.json", "manifest.json"]
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
    loaded, _, _ = load_checkpoint(tmp_path, tell=silent)
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
    loaded, _, _ = load_checkpoint(tmp_path, tell=silent)
    for name, tensor in tensors.items():
        assert same_bits(loaded[name], tensor), name
    loaded["tied"].zero_()  # writable, and not a view of its neighbour
    assert same_bits(loaded["row"], base[1])


def test_meta_round_trip_with_big_integers(tmp_path):
    meta = {"counter": 2**127 + 1, "nested": {"list": [1, 2.5, None, True, "text"]}, "best": float("inf")}
    save_checkpoint(tmp_path, 3, {}, meta)
    assert load_checkpoint(tmp_path, tell=silent) == ({}, meta, 3)


def test_keeps_the_newest_two_and_names_the_last(tmp_path):
    for step in (1, 2, 3, 100_000_000):
        returned = save_checkpoint(tmp_path, step, {}, {"step": step})
        assert returned == tmp_path / f"{step:08d}"
        assert (tmp_path / "last").read_text() == f"{step:08d}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "100000000", "last"]
    assert load_checkpoint(tmp_path, tell=silent)[2] == 100_000_000
    assert load_checkpoint(tmp_path, 3, tell=silent)[1] == {"step": 3}
    with pytest.raises(UserError, match=r"no checkpoint of step 4.*3, 100000000"):
        load_checkpoint(tmp_path, 4)


def test_old_ones_go_only_after_the_new_one_is_on_disk(tmp_path, monkeypatch):
    save_two(tmp_path)
    present = []
    real = os.fsync

    def watch(descriptor):
        present.append({"00000005", "00000010"} <= set(os.listdir(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    save_checkpoint(tmp_path, 15, {}, {})
    # Three files, their folder, the rename, and the two of `last`: nothing is left unsynchronised or dropped early.
    assert present == [True] * 7
    assert checkpoint_steps(tmp_path) == [10, 15]


def test_saving_a_step_again_replaces_it_and_drops_the_abandoned_future(tmp_path):
    save_two(tmp_path)
    save_checkpoint(tmp_path, 10, {}, {"again": True})
    assert load_checkpoint(tmp_path, tell=silent)[1] == {"again": True}
    save_checkpoint(tmp_path, 7, {}, {})
    assert checkpoint_steps(tmp_path) == [5, 7]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_between_the_two_renames_of_a_repeated_step_loses_nothing(tmp_path, again):
    save_checkpoint(tmp_path, 10, {}, {"old": True})
    os.rename(tmp_path / "00000010", tmp_path / ".old.00000010")
    assert load_checkpoint(tmp_path, tell=silent)[1:] == ({"old": True}, 10)
    save_checkpoint(tmp_path, 10 if again else 20, {}, {})
    assert checkpoint_steps(tmp_path) == ([10] if again else [10, 20])


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
    elif how == "delete":
        path.unlink()
    elif how == "link":
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)


DAMAGES = ["flip", "truncate", "empty", "append", "delete", "link", "pipe"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_previous_one_is_used(tmp_path, name, how):
    save_two(tmp_path)
    damage(tmp_path / "00000010" / name, how)
    messages = []
    tensors, meta, step = load_checkpoint(tmp_path, tell=messages.append)
    assert (step, meta["step"], tensors["w"][0, 0]) == (5, 5, 5.0)
    assert len(messages) == 1 and name in messages[0] and "step 10" in messages[0] and "step 5" in messages[0]
    with pytest.raises(DamagedFile, match=name):  # a step that was asked for is not replaced by another
        load_checkpoint(tmp_path, 10)


@pytest.mark.parametrize("name", FILES)
def test_every_single_byte_is_guarded(tmp_path, name):
    save_checkpoint(tmp_path, 10, {"w": torch.arange(8.0)}, {"a": 1})
    path = tmp_path / "00000010" / name
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in (1, 32):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            with pytest.raises(DamagedFile, match=name):
                load_checkpoint(tmp_path)
    path.write_bytes(data)
    load_checkpoint(tmp_path, tell=silent)


def test_all_damaged_names_every_file(tmp_path):
    save_two(tmp_path)
    damage(tmp_path / "00000005" / "manifest.json", "truncate")
    size = (tmp_path / "00000010" / "tensors.safetensors").stat().st_size
    damage(tmp_path / "00000010" / "tensors.safetensors", "truncate")
    damage(tmp_path / "00000010" / "meta.json", "delete")
    with pytest.raises(DamagedFile) as caught:
        load_checkpoint(tmp_path, tell=silent)
    text = str(caught.value)
    assert "step 5: manifest.json" in text
    assert f"step 10: tensors.safetensors: {size - 1} bytes instead of {size}" in text and "meta.json: missing" in text


def test_nothing_saved_is_said_as_such(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no checkpoint in") as caught:
            load_checkpoint(folder)
        assert not isinstance(caught.value, DamagedFile)


def entry(data: bytes) -> dict:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/b", "..", ".hidden", "a\\b", "", "x\n"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    final = save_checkpoint(tmp_path, 10, {}, {})
    outside = b"outside"
    (tmp_path / "x").write_bytes(outside)
    files = {file: entry((final / file).read_bytes()) for file in FILES[:2]} | {name: entry(outside)}
    (final / "manifest.json").write_bytes(encode_manifest(10, files))
    with pytest.raises(DamagedFile, match=r"manifest.json: the file name .* refused"):
        load_checkpoint(tmp_path)


def test_links_and_foreign_manifests_are_refused(tmp_path):
    final = save_checkpoint(tmp_path / "a", 10, {}, {})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "00000010").symlink_to(final)
    with pytest.raises(DamagedFile, match="symbolic link"):
        load_checkpoint(tmp_path / "b")
    (tmp_path / "c").mkdir()
    final.rename(tmp_path / "c" / "00000011")
    with pytest.raises(DamagedFile, match=r"manifest.json: it belongs to step 10"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"format": 2, "step": 10, "files": {}}', "unknown format version 2"),
        ('{"format": 1, "step": 10, "files": {}}', "does not list"),
        ('{"format": 1, "files": {"meta.json": 1, "tensors.safetensors": 1}}', "not a manifest"),
        ("[1]", "not a manifest"),
        ("null", "not a manifest"),
        ("[" * 100_000, "not JSON"),
        ("\xff", "not JSON"),
    ],
)
def test_strange_manifests_are_refused_in_words(tmp_path, text, why):
    final = save_checkpoint(tmp_path, 10, {}, {})
    (final / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedFile, match=f"manifest.json: {why}"):
        load_checkpoint(tmp_path)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("forged", [False, True], ids=["plain", "with a matching manifest"])
@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("zipped", [False, True], ids=["pickle", "torch.save"])
def test_a_pickle_never_runs(tmp_path, name, forged, zipped):
    final = save_checkpoint(tmp_path, 10, {}, {})
    target = tmp_path / "exploded"
    if zipped:
        torch.save(Bomb(target), final / name)
    else:
        (final / name).write_bytes(pickle.dumps(Bomb(target)))
    if forged:
        files = {file: entry((final / file).read_bytes()) for file in FILES[:2]}
        (final / "manifest.json").write_bytes(encode_manifest(10, files))
    with pytest.raises(DamagedFile, match=name):
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
        ("os.rename", read_only, "another --out"),
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000005", "00000010", "last"]
    tensors, _, found = load_checkpoint(tmp_path, tell=silent)
    assert found == 10 and tensors["w"][0, 0] == 10


def test_the_second_rename_failing_puts_the_first_one_back(tmp_path, monkeypatch):
    save_two(tmp_path)
    real, calls = os.rename, []

    def fail_once(source, target):
        calls.append(source)
        if len(calls) == 2:
            full_disk()
        real(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(UserError):
        save_checkpoint(tmp_path, 10, {}, {})
    assert len(calls) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000005", "00000010", "last"]
    assert load_checkpoint(tmp_path, tell=silent)[2] == 10


def test_write_durable_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durable(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match="free some space"):
            write_durable(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_stale_temporaries_are_removed_at_the_next_save(tmp_path):
    save_two(tmp_path)
    for name in (".tmp.00000015", ".tmp.drop.00000001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp.123.last").write_bytes(b"")
    assert load_checkpoint(tmp_path, tell=silent)[2] == 10
    save_checkpoint(tmp_path, 15, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000010", "00000015", "last"]


def test_a_kill_while_dropping_an_old_one_leaves_rubbish_not_damage(tmp_path, monkeypatch):
    save_two(tmp_path)
    monkeypatch.setattr(checkpoint_module, "remove", lambda path: None)  # killed before anything is deleted
    save_checkpoint(tmp_path, 15, {}, {})
    assert checkpoint_steps(tmp_path) == [10, 15]


def test_a_reader_is_not_disturbed_by_a_running_training(tmp_path, monkeypatch):
    """Between listing and reading, the writer may have replaced everything that was listed."""
    save_two(tmp_path)
    real, calls = checkpoint_module._read, []

    def slow(folder, step):
        if not calls:
            for later in (15, 20):
                save_checkpoint(tmp_path, later, {}, {})
        calls.append(step)
        return real(folder, step)

    monkeypatch.setattr(checkpoint_module, "_read", slow)
    assert load_checkpoint(tmp_path, tell=silent)[2] == 20
    assert calls == [10, 5, 20]


# Forks a child that saves without pause, kills it at a random moment, and loads; torch is imported once for all rounds.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from agent.checkpoint import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(int(sys.argv[3]))

def tell(message):
    print("damaged:", message)

def load():
    tensors, meta, step = load_checkpoint(folder, tell=tell)
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
    assert ".tmp" not in result.stdout and ".old" not in result.stdout, result.stdout
