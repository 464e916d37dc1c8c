"""Recorded episodes in a folder: whole or refused, bit-exact, with a record of where they come from.

    <folder>/episodes-00000.safetensors ...   flat arrays, episode after episode, and where each of them ends:
        lengths, seeds                        (n,) int64: steps of each episode; seed of its reset, or -1
        pixels, sensors                       (steps + n, ...) uint8 and float32, those that there are
        actions, rewards                      (steps, A) float32 and (steps,) float64
        terminated, truncated                 (steps,) bool, true at the last step of an episode at most
    <folder>/dataset.json                     written last: environment, spec, provenance, counts, SHA-256 of each file
    <folder>/lock                             held while episodes are collected

A folder without dataset.json is half-written, and refused. Nothing is used before its digest matches, and nothing read
here can run code: the files hold neither pickles nor class names. Episodes are written, and read, some megabytes at a
time.

Shapes: L steps of an episode, n episodes of a file, C, H, W pixels, S sensors, A action.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from agent import __version__
from agent.errors import DamagedFile, UserError, nearest
from agent.storage.files import disk_errors, open_regular, read_json, remove, write_durable
from agent.storage.lock import FolderLock
from agent.storage.provenance import config_diff, versions

FORMAT = 1
MANIFEST = "dataset.json"
FILE_BYTES = 64 * 2**20
"""A file is written as soon as its episodes have this many bytes."""
OBSERVATIONS = {"pixels": np.uint8, "sensors": np.float32}
STEPS = {"actions": np.float32, "rewards": np.float64, "terminated": np.bool_, "truncated": np.bool_}
FINITE = ("sensors", "actions", "rewards")


@dataclass(frozen=True)
class RecordedEpisode:
    """One whole episode, from its reset to its end, in the form that the agent perceives and acts in."""

    actions: NDArray[np.float32]
    """(L, A) in the agent's internal form."""
    rewards: NDArray[np.float64]
    """(L,)."""
    terminated: NDArray[np.bool_]
    """(L,)."""
    truncated: NDArray[np.bool_]
    """(L,)."""
    pixels: NDArray[np.uint8] | None = None
    """(L + 1, C, H, W)."""
    sensors: NDArray[np.float32] | None = None
    """(L + 1, S)."""
    seed: int = -1
    """Of the reset that began it; -1 where it had none of its own."""

    @property
    def length(self) -> int:
        """L."""
        return len(self.actions)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that there are, by name."""
        return {name: x for name in (*OBSERVATIONS, *STEPS) if (x := getattr(self, name)) is not None}


def layout_of(episode: RecordedEpisode) -> dict[str, list[int]]:
    """The shape of one observation and of one action: {"sensors": [S], "pixels": [C, H, W], "actions": [A]}."""
    return {name: list(x.shape[1:]) for name, x in episode.arrays().items() if name in (*OBSERVATIONS, "actions")}


def check_episode(episode: RecordedEpisode, number: int, where: str) -> None:
    """UserError for an episode that cannot be learned from; says which (`number` in `where`) and what is wrong."""
    arrays, length = episode.arrays(), episode.length
    told = f"{where}, episode {number}"
    if not length or not arrays.keys() & OBSERVATIONS.keys():
        raise UserError(f"{told}: it has {length} steps and {', '.join(arrays)}; expected steps with observations")
    for name, x in arrays.items():
        dtype = np.dtype({**OBSERVATIONS, **STEPS}[name])
        rows = length + (name in OBSERVATIONS)
        if x.dtype != dtype or len(x) != rows:
            raise UserError(f"{told}: {name} are {len(x)} of {x.dtype}; {length} steps need {rows} of {dtype}")
        if name in FINITE and not (finite := np.isfinite(x)).all():
            first = np.argwhere(~finite)[0]
            raise UserError(
                f"{told}: {name} hold {x[tuple(first)]} at step {first[0]}, where a finite number is expected: fix the "
                "environment, or leave that episode out"
            )
    if (episode.terminated | episode.truncated)[:-1].any():
        raise UserError(f"{told}: it ends before its last step; expected one episode, from a reset to its end")


# Writing


class DatasetWriter:
    """Writes a dataset, episode by episode. A context manager: without an error, its end completes the dataset.

    with DatasetWriter(out, "Pendulum-v1", {}, spec.to_json(), {"actor": "random explorer", "seed": 0}) as writer:
        writer.append(episode)
    """

    def __init__(
        self, folder: Path, env: str, options: Mapping[str, Any], spec: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> None:
        """Take a folder.

        Args:
            folder: created if absent; must be empty.
            env: id of the environment.
            options: of its constructor, as plain data.
            spec: what `EnvSpec.to_json` gives.
            provenance: who acted, with which seed, and whatever else there is to tell, as plain data. Versions and
                counts are added.

        Raises:
            UserError: the folder holds something, another process collects there, or the disk refuses.
        """
        check_new(folder)
        self.folder, self.episodes, self.steps, self.terminated = folder, 0, 0, 0
        self.faults = 0
        """Episodes that were dropped because the environment failed: set it before the end."""
        self.provenance = dict(provenance)
        """May be added to until the end."""
        self._about = {"env": env, "env_options": dict(options), "spec": dict(spec)}
        self._layout: dict[str, list[int]] = {}
        self._pending: list[RecordedEpisode] = []
        self._bytes = 0
        self._files: list[dict[str, Any]] = []
        self._lock = FolderLock(folder, "collecting")
        for stale in folder.glob(".tmp.*"):
            remove(stale)

    def append(self, episode: RecordedEpisode) -> None:
        """Add an episode.

        Raises:
            UserError: it is not finite, or has other shapes than those before; or the disk refuses.
        """
        check_episode(episode, self.episodes, "the recorded episodes")
        layout = layout_of(episode)
        self._layout = self._layout or layout
        if layout != self._layout:
            raise UserError(f"episode {self.episodes} has shapes {layout}, those before have {self._layout}")
        self._pending.append(episode)
        self._bytes += sum(x.nbytes for x in episode.arrays().values())
        self.episodes, self.steps = self.episodes + 1, self.steps + episode.length
        self.terminated += bool(episode.terminated[-1])
        if self._bytes >= FILE_BYTES:
            self._flush()

    def finish(self) -> None:
        """Complete the dataset; one without episodes stays half-written."""
        if self._pending:
            self._flush()
        if self._files:
            about = {
                "format": FORMAT,
                "version": __version__,
                **self._about,
                "layout": self._layout,
                "provenance": {**self.provenance, "versions": versions()},
                "episodes": self.episodes,
                "steps": self.steps,
                "terminated": self.terminated,
                "faults": self.faults,
                "files": self._files,
            }
            # Not files.to_json: an unbounded sensor has the limit Infinity, which has to come back as such.
            write_durable(self.folder / MANIFEST, json.dumps(about, indent=1).encode())

    def _flush(self) -> None:
        """Write what is pending as the next file."""
        name = f"episodes-{len(self._files):05d}.safetensors"
        arrays = [episode.arrays() for episode in self._pending]
        flat = {key: np.concatenate([a[key] for a in arrays]) for key in arrays[0]}
        flat["lengths"] = np.array([episode.length for episode in self._pending], np.int64)
        flat["seeds"] = np.array([episode.seed for episode in self._pending], np.int64)
        data = safetensors.numpy.save(flat)
        write_durable(self.folder / name, data)
        digest = hashlib.sha256(data).hexdigest()
        self._files.append({"name": name, "episodes": len(self._pending), "bytes": len(data), "sha256": digest})
        self._pending, self._bytes = [], 0

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._lock.close()


def check_new(folder: Path) -> None:
    """UserError unless `folder` can become a dataset: absent, or empty but for what a first moment left."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a dataset needs a folder: give another --out")
    with disk_errors(folder):
        names = os.listdir(folder) if folder.exists() else []
    if [name for name in names if name != "lock" and not name.startswith(".tmp.")]:
        what = "is a half-written dataset" if _is_half_written(names) else "is not empty"
        raise UserError(f"{folder} {what}; a dataset needs a new folder: give another --out, or delete this one")


# Reading


class Dataset:
    """A dataset that has been checked. Iterates over its episodes, as often as asked."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Use `open`."""
        self.folder, self.about = folder, about

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Check a dataset from beginning to end: digests, shapes, finite numbers.

        Raises:
            UserError: there is none, it is half-written, of another version, or holds numbers that are not finite.
            DamagedFile: a file is missing, truncated or altered.
        """
        dataset = cls(folder, _manifest(folder))
        found = steps = 0
        for episode in dataset:
            found, steps = found + 1, steps + episode.length
        if (found, steps) != (len(dataset), dataset.steps):
            raise DamagedFile(
                f"{folder} has {found} episodes of {steps} steps in all; its {MANIFEST} says {len(dataset)} of "
                f"{dataset.steps}: {_RESTORE}"
            )
        return dataset

    @property
    def env(self) -> str:
        """Id of the environment."""
        return self.about["env"]

    @property
    def spec(self) -> dict[str, Any]:
        """What `EnvSpec.to_json` gave."""
        return self.about["spec"]

    @property
    def layout(self) -> dict[str, list[int]]:
        """See `layout_of`."""
        return self.about["layout"]

    @property
    def steps(self) -> int:
        """Of all episodes."""
        return self.about["steps"]

    def __len__(self) -> int:
        return self.about["episodes"]

    def __iter__(self) -> Iterator[RecordedEpisode]:
        """The episodes in the order in which they were written, one file in memory at a time."""
        number = 0
        for file in self.about["files"]:
            for episode in self._read(file):
                check_episode(episode, number, str(self.folder))
                yield episode
                number += 1

    def describe(self) -> dict[str, Any]:
        """Where the episodes come from, flat: for summaries and reports."""
        about = self.about
        provenance = {k: v for k, v in about["provenance"].items() if k != "versions"}
        digest = hashlib.sha256("".join(file["sha256"] for file in about["files"]).encode()).hexdigest()
        told = ", ".join(f"{name} {value}" for name, value in about["provenance"].get("versions", {}).items() if value)
        return {
            "data": str(self.folder),
            "env": about["env"],
            "env_options": " ".join(f"{name}={json.dumps(value)}" for name, value in about["env_options"].items()),
            **{k: v if isinstance(v, str | int | float | None) else json.dumps(v) for k, v in provenance.items()},
            **{k: about[k] for k in ("episodes", "steps", "terminated", "faults")},
            "sha256": digest,
            "versions": told,
        }

    def _read(self, file: Mapping[str, Any]) -> Iterator[RecordedEpisode]:
        path = self.folder / file["name"]
        try:
            with open_regular(path, follow=False) as opened:
                size = os.fstat(opened.fileno()).st_size
                if size != file["bytes"]:  # seen before the rest is read
                    raise DamagedFile(f"{path} has {size} bytes instead of {file['bytes']}: {_RESTORE}")
                data = opened.read()
        except FileNotFoundError as error:
            raise DamagedFile(f"{path} is missing: {_RESTORE}") from error
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise DamagedFile(f"{path} has another SHA-256 than it was written with: {_RESTORE}")
        try:
            flat = safetensors.numpy.load(data)
        except Exception as error:  # the parser has no common base class for what it may find in strange bytes
            raise DamagedFile(f"{path} is not a safetensors file: {error}") from error
        lengths, seeds = self._checked(flat, path)
        ends = np.cumsum(lengths)
        for i, (length, end, seed) in enumerate(zip(lengths.tolist(), ends.tolist(), seeds.tolist(), strict=True)):
            rows = {name: slice(end - length, end) for name in STEPS}
            rows |= {name: slice(end - length + i, end + i + 1) for name in OBSERVATIONS}
            yield RecordedEpisode(**{name: x[rows[name]] for name, x in flat.items()}, seed=seed)

    def _checked(self, flat: dict[str, NDArray[Any]], path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take lengths and seeds out of a file's arrays, and check that the others are as these and the layout say."""
        lengths, seeds = flat.pop("lengths", None), flat.pop("seeds", None)
        if lengths is None or seeds is None or lengths.ndim != 1 or lengths.shape != seeds.shape:
            raise DamagedFile(f"{path} holds no lengths and seeds of episodes: {_RESTORE}")
        if lengths.dtype != np.int64 or not len(lengths) or lengths.min() < 1 or lengths.max() > 2**40:
            raise DamagedFile(f"{path}: lengths of its episodes are {lengths}: {_RESTORE}")
        steps, count = int(lengths.sum()), len(lengths)
        shapes: dict[str, tuple[int, ...]] = {name: (steps,) for name in STEPS}
        for name, shape in self.layout.items():
            shapes[name] = (steps + count * (name in OBSERVATIONS), *shape)
        if (found := {name: x.shape for name, x in flat.items()}) != shapes:
            raise DamagedFile(f"{path} holds {found}, expected {shapes}: {_RESTORE}")
        return lengths, seeds


_RESTORE = "restore it from a copy, or collect again in a new folder"


def describe(folder: Path) -> dict[str, Any]:
    """Where the episodes of a dataset come from, in one flat dictionary; reads dataset.json alone.

    Raises:
        UserError, DamagedFile: as for `Dataset.open`, as far as dataset.json shows it.
    """
    return Dataset(folder, _manifest(folder)).describe()


def matches(
    dataset: Dataset, spec: Mapping[str, Any], env: str | None = None, options: Mapping[str, Any] | None = None
) -> None:
    """Whether the episodes are of this environment.

    Args:
        dataset: the episodes.
        spec: what `EnvSpec.to_json` gives for the environment to learn.
        env: its id, with or without the module that registers it. Two environments may have the same spec.
        options: of its constructor, likewise.

    Raises:
        UserError: they are not; says what differs.
    """
    told = f"{dataset.folder} holds episodes of"
    if env is not None and env.rpartition(":")[2] != dataset.env.rpartition(":")[2]:
        raise UserError(f"{told} {dataset.env}, not of {env}: give --env {dataset.env}, or other --data")
    if options is not None and (difference := config_diff(dataset.about["env_options"], options)):
        raise UserError(
            f"{told} {dataset.env} with other options (- there, + now): {_line(difference)}: give the same "
            "--env-options, or other --data"
        )
    if difference := spec_diff(dataset.spec, spec):
        raise UserError(
            f"{told} an environment with other observations or actions (- there, + now): {difference}: give the "
            "environment that they were recorded in, or other --data"
        )


def spec_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The difference of two specs, as `EnvSpec.to_json` gives them, in one line; "" if episodes of one fit the other.

    How the agent reads its sensors is not compared: it says nothing about what was recorded.
    """
    seen = [{k: v for k, v in side.get("observation", {}).items() if k not in READINGS} for side in (old, new)]
    return _line(config_diff({**old, "observation": seen[0]}, {**new, "observation": seen[1]}))


READINGS = ("proprio_names", "proprio_index", "proprio_offset", "proprio_scale", "goal_proprio", "unseen")
"""Fields of `ObservationSpec` that an agent may choose anew for the same observations."""


def _line(difference: str) -> str:
    return "; ".join(difference.splitlines())


def _is_half_written(names: list[str]) -> bool:
    return MANIFEST not in names and any(re.fullmatch(r"episodes-\d{5,}\.safetensors", name) for name in names)


def _manifest(folder: Path) -> dict[str, Any]:
    """dataset.json, with its types checked."""
    path = folder / MANIFEST
    if not folder.is_dir():
        beside = sorted(p.parent.name for p in folder.parent.glob(f"*/{MANIFEST}"))
        raise UserError(f"there is no dataset {folder}{nearest(folder.name, beside)}: collect writes one")
    try:
        about = read_json(path)
    except FileNotFoundError as error:
        if _is_half_written(os.listdir(folder)):
            raise UserError(
                f"{folder} is half-written: it has episodes and no {MANIFEST}, which is written last. Wait if it is "
                "still being collected, else delete the folder and collect again"
            ) from error
        raise UserError(f"{folder} is not a dataset: it has no {MANIFEST}. Give a folder that collect wrote") from error
    if about.get("format") != FORMAT:
        raise DamagedFile(
            f"{path} has format {about.get('format')!r} of version {about.get('version')!r}; this program (version "
            f"{__version__}) reads format {FORMAT}: collect again"
        )
    kinds = {"env": str, "env_options": dict, "spec": dict, "layout": dict, "provenance": dict, "files": list}
    kinds |= dict.fromkeys(("episodes", "steps", "terminated", "faults"), int)
    wrong = [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]
    wrong += [] if wrong or all(_is_file(file) for file in about["files"]) else ["files"]
    wrong += [] if wrong or _is_layout(about["layout"]) else ["layout"]
    wrong += [] if wrong or isinstance(about["provenance"].get("versions", {}), dict) else ["provenance"]
    if wrong:
        raise DamagedFile(f"{path} is damaged: {', '.join(wrong)} not as expected: {_RESTORE}")
    if not about["files"]:
        raise UserError(f"{folder} holds no episodes: collect some")
    return about


def _is_file(value: Any) -> bool:
    """Whether an entry of dataset.json names a file of episodes, in the folder itself."""
    return (
        isinstance(value, dict)
        and bool(re.fullmatch(r"episodes-\d{5,}\.safetensors", str(value.get("name"))))
        and isinstance(value.get("bytes"), int)
        and isinstance(value.get("sha256"), str)
    )


def _is_layout(value: dict[str, Any]) -> bool:
    observed = value.keys() & OBSERVATIONS.keys()
    if "actions" not in value or not observed or value.keys() - {*OBSERVATIONS, "actions"}:
        return False
    return all(isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape) for shape in value.values())
