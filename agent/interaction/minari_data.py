"""Minari datasets: episodes in the format that offline reinforcement learning exchanges (https://minari.farama.org).

Import this file only when a Minari dataset is asked for: the package is optional (the extra `minari`). Nothing is
downloaded, and no environment is made: a Minari dataset may name a class to make its environment with, and making it
would run that code.

Shapes: L steps of an episode, C, H, W pixels, S sensors, A action.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as GymSpec
from numpy.typing import NDArray

from agent import __version__
from agent.errors import DamagedFile, UserError, nearest
from agent.spec import NAMES, EnvSpec, named
from agent.storage.dataset import Dataset, RecordedEpisode, check_episode, layout_of, spec_diff
from agent.storage.files import disk_errors, read_json, remove
from agent.storage.provenance import config_diff

OURS = "ami"
"""The entry of a Minari dataset's metadata by which this project knows its own."""
TOGETHER = 64
"""Episodes that are written at a time."""

ObservationOf = Callable[[Any], Mapping[str, NDArray[Any]]]
ActionOf = Callable[[NDArray[Any]], NDArray[Any]]


# Reading


def from_minari(dataset_id: str, observation_of: ObservationOf = named, action_of: ActionOf | None = None) -> Minari:
    """The episodes of a Minari dataset on this machine.

    Args:
        dataset_id: (namespace/)name-vN. It lies in MINARI_DATASETS_PATH, by default ~/.minari/datasets.
        observation_of: the observations of a whole episode in the environment's own form, (L + 1, ...) or a dict of
            them -> pixels (L + 1, C, H, W) uint8 and/or sensors (L + 1, S). Not asked for datasets that `to_minari`
            wrote, which hold just that.
        action_of: actions in the environment's own form (L, ...) -> (L, A). Without it they have to be a Box.

    Raises:
        UserError: the package or the dataset is missing, or an agent cannot perceive it or act in it.
        DamagedFile: the dataset cannot be read.
    """
    folder = _folder(dataset_id) / "data"
    try:
        metadata = read_json(folder / "metadata.json")
    except FileNotFoundError as error:
        known: list[str] = []
        with suppress(Exception):  # only for a hint
            known = list(_package("minari").list_local_datasets())
        raise UserError(
            f"there is no Minari dataset {dataset_id!r} in {_folder('')}{nearest(dataset_id, known)}: get it with "
            f"`minari download {dataset_id}`, or set MINARI_DATASETS_PATH"
        ) from error
    if not all(isinstance(metadata.get(f"{part}_space"), str) for part in ("observation", "action")):
        raise UserError(
            f"Minari dataset {dataset_id} does not say which observations and actions it holds. Minari would make the "
            "environment that its files name, which runs code, and is refused: save the dataset anew with its spaces"
        )
    try:
        found = _package("minari").MinariDataset(folder)
    except ImportError as error:
        raise UserError(f"Minari dataset {dataset_id} needs a package more: {error}") from error
    except Exception as error:  # whatever is wrong in its files
        raise DamagedFile(f"Minari dataset {dataset_id} in {folder} is damaged: {_told(error)}") from error
    return Minari(dataset_id, folder, metadata, found, observation_of, action_of)


class Minari:
    """A Minari dataset. Iterates over its episodes, as often as asked; each one is checked when its turn comes."""

    def __init__(
        self,
        dataset_id: str,
        folder: Path,
        metadata: Mapping[str, Any],
        found: Any,
        observation_of: ObservationOf,
        action_of: ActionOf | None,
    ) -> None:
        """Use `from_minari`."""
        ours = metadata.get(OURS)
        ours = ours if isinstance(ours, dict) else {}
        self.name, self._folder, self._found = f"Minari dataset {dataset_id}", folder, found
        self._observation_of, self._action_of = named if ours else observation_of, action_of
        self._layout: dict[str, list[int]] = {}
        self._recorded = {name: ours[name] for name in ("env_options", "spec") if isinstance(ours.get(name), dict)}
        self.env: str | None = ours.get("env") or (found.env_spec and found.env_spec.id)
        """Id of the environment, where the dataset tells it."""
        seen, acts = found.observation_space, found.action_space
        parts = seen.spaces if isinstance(seen, spaces.Dict) else {"": seen}
        if self._observation_of is named and not (
            all(isinstance(part, spaces.Box) for part in parts.values()) and parts.keys() <= {"", *NAMES}
        ):
            raise UserError(f"{self.name} has observations {seen}; this agent perceives pixels and sensors")
        if action_of is None and not isinstance(acts, spaces.Box):
            raise UserError(f"{self.name} has actions {acts}; this agent acts in a Box")
        kept = {k: v for k, v in dict(ours.get("provenance") or {}).items() if isinstance(v, str | int | float)}
        self.about: dict[str, Any] = {
            "actor": str(metadata.get("algorithm_name", "unknown")),
            **kept,
            "data": f"minari:{dataset_id}",
            "env": self.env,
            "episodes": len(found),
            "steps": found.total_steps,
            "sha256": _digest(folder),
            "minari_version": found.minari_version,
            "jpeg": bool(metadata.get("jpeg_encoding", True)) and any(_is_jpeg(part) for part in parts.values()),
        }
        """Provenance in one flat dictionary. jpeg: pixels were compressed with loss when the dataset was written."""

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[RecordedEpisode]:
        """The episodes in order. UserError for the first one that is not finite, not whole, or of another shape."""
        for number, (raw, seed) in enumerate(self._raw()):
            episode = self._converted(raw, seed, number)
            check_episode(episode, number, self.name)
            self._layout = self._layout or layout_of(episode)
            if layout_of(episode) != self._layout:
                raise UserError(f"{self.name}, episode {number}: shapes {layout_of(episode)}, not {self._layout}")
            yield episode

    def check(self, env: str, spec: EnvSpec, options: Mapping[str, Any] | None = None) -> None:
        """UserError unless the episodes are of an environment with this id and this spec.

        The options of its constructor are compared, if given, where `to_minari` wrote the dataset.
        """
        if self.env and self.env.rpartition(":")[2] != env.rpartition(":")[2]:
            raise UserError(f"{self.name} holds episodes of {self.env}, not of {env}: give --env {self.env}")
        told = "give the environment that the episodes were recorded in, or other --data"
        if options is not None and (other := config_diff(self._recorded.get("env_options", options), options)):
            line = "; ".join(other.splitlines())
            raise UserError(f"{self.name} was recorded with other --env-options (- there, + now): {line}: {told}")
        if "spec" in self._recorded and (other := spec_diff(self._recorded["spec"], spec.to_json())):
            raise UserError(f"{self.name} has other observations or actions (- there, + now): {other}: {told}")
        first = next(iter(self), None)
        if first is None:
            raise UserError(f"{self.name} holds no episodes: give other --data")
        seen = spec.observation
        expected: dict[str, list[int]] = {"actions": [spec.actions.size]}
        expected |= {"pixels": list(seen.pixel_shape)} if seen.pixel_shape else {}
        expected |= {"sensors": [len(seen.sensor_low)]} if seen.sensor_low else {}
        if (given := layout_of(first)) != expected:
            raise UserError(f"{self.name} holds {_shapes(given)}; {env} has {_shapes(expected)}: {told}")

    def _raw(self) -> Iterator[tuple[Any, int]]:
        """Each episode as Minari gives it, and the seed of its reset."""
        try:
            about = self._found.storage.get_episode_metadata(self._found.episode_indices)
            for episode, metadata in zip(self._found.iterate_episodes(), about, strict=True):
                seed = metadata.get("seed")
                yield episode, -1 if seed is None else int(seed)
        except Exception as error:  # whatever is wrong in its files
            raise DamagedFile(f"{self.name} in {self._folder} is damaged: {_told(error)}") from error

    def _converted(self, raw: Any, seed: int, number: int) -> RecordedEpisode:
        try:
            seen = {name: np.asarray(x) for name, x in self._observation_of(raw.observations).items()}
            actions = np.asarray(raw.actions if self._action_of is None else self._action_of(raw.actions))
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
                if "sensors" in seen:
                    seen["sensors"] = seen["sensors"].astype(np.float32, copy=False)
                return RecordedEpisode(
                    actions=actions.astype(np.float32, copy=False),
                    rewards=np.asarray(raw.rewards, np.float64),
                    terminated=np.asarray(raw.terminations, np.bool_),
                    truncated=np.asarray(raw.truncations, np.bool_),
                    seed=seed,
                    **seen,
                )
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.name}, episode {number} cannot be read as episodes of it: {_told(error)}"
            ) from error


# Writing


def check_new(dataset_id: str) -> None:
    """UserError unless a Minari dataset of this id can be written."""
    if (folder := _folder(dataset_id)).exists():
        raise UserError(f"there is a Minari dataset {dataset_id} in {folder}: give another version, as in name-v1")


def to_minari(
    dataset: Dataset, dataset_id: str, action_space: gym.Space | None = None, to_env: ActionOf | None = None
) -> Path:
    """Write a dataset as a Minari dataset, bit for bit; pixels are not compressed.

    Observations are those that the agent perceives: a Box of sensors or of pixels, or a Dict of both.

    Args:
        dataset: the episodes.
        dataset_id: (namespace/)name-vN, new.
        action_space: of the environment, where its form of actions is not the agent's; with `to_env`.
        to_env: (L, A) in the agent's internal form -> the environment's own form.

    Returns:
        The folder of the Minari dataset.

    Raises:
        UserError: the package is missing, there is such a dataset already, or the disk refuses.
    """
    check_new(dataset_id)
    folder, seen = _folder(dataset_id), _observation_space(dataset)
    acts = action_space or _action_space(dataset)
    namespaces = _package("minari.namespace")
    buffer = _package("minari.data_collector.episode_buffer").EpisodeBuffer
    about = {k: v for k, v in dataset.describe().items() if k not in ("data", "episodes", "steps")}
    with disk_errors(folder):
        try:
            space, _, _ = dataset_id.rpartition("/")
            if space and space not in namespaces.list_local_namespaces():
                namespaces.create_namespace(space)
            (folder / "data").mkdir(parents=True)
            storage = _package("minari.dataset.minari_storage").MinariStorage.new(
                folder / "data", seen, acts, env_spec=_env_spec(dataset), jpeg_encoding=False
            )
            episodes = iter(dataset)
            while some := list(itertools.islice(episodes, TOGETHER)):
                storage.update_episodes([_buffer(episode, buffer, to_env) for episode in some])
            # What makes a dataset out of the folder comes last.
            storage.update_metadata(
                {
                    "dataset_id": dataset_id,
                    "minari_version": _package("minari").__version__,
                    "algorithm_name": str(about.get("actor", "unknown")),
                    "description": f"{dataset.env}, recorded by AMI {__version__}",
                    OURS: {**{k: dataset.about[k] for k in ("env", "env_options", "spec")}, "provenance": about},
                }
            )
        except BaseException:
            remove(folder)
            raise
    return folder


def _buffer(episode: RecordedEpisode, kind: Any, to_env: ActionOf | None) -> Any:
    seen = {name: x for name in NAMES if (x := getattr(episode, name)) is not None}
    return kind(
        seed=episode.seed if episode.seed >= 0 else None,
        observations=seen if len(seen) > 1 else next(iter(seen.values())),
        actions=episode.actions if to_env is None else to_env(episode.actions),
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
        infos={},
    )


def _observation_space(dataset: Dataset) -> spaces.Space:
    layout, seen = dataset.layout, dataset.spec["observation"]
    parts: dict[str, spaces.Space] = {}
    if "pixels" in layout:
        parts["pixels"] = spaces.Box(0, 255, tuple(layout["pixels"]), np.uint8)
    if "sensors" in layout:
        low, high = (np.array(seen[f"sensor_{end}"], np.float32) for end in ("low", "high"))
        parts["sensors"] = spaces.Box(low, high, dtype=np.float32)
    return next(iter(parts.values())) if len(parts) == 1 else spaces.Dict(parts)


def _action_space(dataset: Dataset) -> spaces.Box:
    """Of actions in the agent's internal form: the limits of a box, else none."""
    limits, shape = dataset.spec["actions"], tuple(dataset.layout["actions"])
    if limits.get("kind") == "box":
        return spaces.Box(np.array(limits["low"], np.float32), np.array(limits["high"], np.float32), dtype=np.float32)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _env_spec(dataset: Dataset) -> GymSpec | None:
    """With what Minari makes the environment again; None where it cannot be written down."""
    spec = copy.deepcopy(gym.registry.get(dataset.env.rpartition(":")[2]))
    if spec is None:
        return None
    for name, value in dataset.about["env_options"].items():
        if name == "max_episode_steps":
            spec.max_episode_steps = value
        else:
            spec.kwargs[name] = value
    try:
        GymSpec.from_json(spec.to_json())
    except (TypeError, ValueError):  # environments of this project hold a class
        return None
    return spec


# The package


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"Minari datasets need a package that is not installed ({error}): pip install -e '.[minari]', which "
            "installs minari[hdf5]"
        ) from error


def _folder(dataset_id: str) -> Path:
    """Where a Minari dataset lies; of "" where they all lie. UserError for what is no id."""
    minari = _package("minari.dataset.minari_dataset")
    _package("h5py")
    if dataset_id:
        try:
            minari.parse_dataset_id(dataset_id)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{dataset_id!r} is no id of a Minari dataset: give (namespace/)name-vN, such as pendulum/random-v0"
            ) from error
    return Path(_package("minari.storage.datasets_root_dir").get_dataset_path(dataset_id))


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the data files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "metadata.json"):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _is_jpeg(space: spaces.Space) -> bool:
    return _package("minari.dataset.minari_storage").is_image_space(space)


def _shapes(layout: Mapping[str, list[int]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(layout.items()))


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
