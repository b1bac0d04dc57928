"""Files of episodes: npz, Parquet, D4RL's HDF5 and Minari's folders, told apart by their content.

The first three are read by array_files.py, into memory, when they are first used. Of a Minari set each episode is
read when it is asked for.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from anyformer.data.files import find_file, list_files
from anyformer.errors import InputError, nearest
from anyformer.local_files import open_file
from anyformer.tokenizers.episode.array_files import Opened, read_hdf5, read_npz, read_parquet, with_spaces
from anyformer.tokenizers.episode.environments import from_spec
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, EpisodeSource, as_arrays


class EpisodesOfFile(EpisodeSource):
    """What `Episodes` and `Minari` share."""

    environment: EnvironmentConfig | None

    @cached_property
    @abstractmethod
    def _opened(self) -> Opened: ...

    @property
    @abstractmethod
    def _place(self) -> str: ...

    @property
    def lengths(self) -> np.ndarray:
        return self._opened.lengths

    @property
    def spaces(self) -> tuple[Space, Space]:
        return self._opened.spaces

    @property
    def played_in(self) -> EnvironmentConfig | None:
        return self.environment or self._opened.environment

    @property
    def reference(self) -> tuple[float, float] | None:
        return self._opened.reference

    def episode(self, i: int) -> Episode:
        seen, done = self.spaces
        return Episode(
            **self._opened.read(i),
            observation_space=seen,
            action_space=done,
            name=self.name(i),
            environment=self.played_in,
        )

    def name(self, i: int) -> str:
        return f"{self._place} episode {i}"

    def _at(self, place: str, needed: Collection[str]) -> Episodes:
        find_file(place)
        return Episodes(place, self.environment)

    def read_from(self) -> list[str]:
        place = find_file(self._place)
        return [os.path.join(place, file) for file in list_files(place)] if os.path.isdir(place) else [place]


@dataclass(frozen=True)
class Episodes(EpisodesOfFile):
    """The episodes of a file or a folder: .npz, Parquet, HDF5 as D4RL has it, or a data set of Minari's.

    npz: `observations`, `actions`, `rewards` of all episodes, one after another, and `episode_lengths`; where known
    `terminated`, `truncated` and `success` of every episode. HDF5: the same arrays, and `terminals` and `timeouts` of
    every step; steps after the last of them are left out, because their return is not known. Parquet: a row a step,
    with `episode`, `observation`, `action`, `reward`; or a row an episode, with lists `observations`, `actions`,
    `rewards`; and `terminated`, `truncated`, `success`. Several parts are named `observations.image`, and so on. Where
    steps are numbered (`frame_index`, `step`, `timestep`, `t`, `index`, `timestamp`), the rows of a Parquet file are
    sorted by it, which is said; in other files steps that are not in its sequence are refused.

    Raises InputError, when it is first used, for a file that is none of these or does not fit together, and for an
    episode, when it is read, that cannot be one.
    """

    path: str
    """The file or folder: from the current folder, else inside $ANYFORMER_DATA."""
    environment: EnvironmentConfig | None = None
    """What they were played in, where the file does not say. Where the file does not say the spaces, they are those of
    this environment; or else they are inferred: numbers without bounds, and as many choices as occur."""

    @property
    def _place(self) -> str:
        return self.path

    @cached_property
    def _opened(self) -> Opened:
        place = find_file(self.path)
        if os.path.isdir(place):
            return MinariFolder(place)
        try:
            with open_file(place) as file:
                start = file.read(8)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        for magic, read in ((b"PK\x03\x04", read_npz), (b"PAR1", read_parquet), (b"\x89HDF", read_hdf5)):
            if start.startswith(magic):
                return with_spaces(read(place), self.environment)
        raise InputError(
            f"{self.path}: no file of episodes; those are .npz, Parquet, HDF5 as D4RL has it, and folders of Minari's"
        )


@dataclass(frozen=True)
class Minari(EpisodesOfFile):
    """A data set of Minari's, by its name or by its folder.

    Raises InputError, when it is first used, for one that is not there.
    """

    dataset: str
    """`D4RL/door/human-v2`, where Minari keeps its sets ($MINARI_DATASETS_PATH, else ~/.minari/datasets); or the
    folder, from the current one or inside $ANYFORMER_DATA."""
    environment: EnvironmentConfig | None = None
    """What is played, if that is not the environment that the set names."""
    download: bool = False
    """Whether one that is not there is fetched from Minari's server."""

    @property
    def _place(self) -> str:
        return self.dataset

    @cached_property
    def _opened(self) -> Opened:
        kept = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
        if (kept / self.dataset / "data").is_dir():
            return MinariFolder(str(kept / self.dataset))
        try:
            return MinariFolder(find_file(self.dataset))
        except InputError:
            if not self.download:
                names = sorted(str(path.parent.parent.relative_to(kept)) for path in kept.glob("**/data/metadata.json"))
                raise InputError(
                    f"there is no Minari set {self.dataset} in {kept}, nor a folder of that name"
                    f"{nearest(self.dataset, names)}; download: true fetches it from Minari's server"
                ) from None
        # Only a download needs the whole of it.
        import minari

        try:
            minari.download_dataset(self.dataset)
        except Exception as error:
            raise InputError(
                f"the Minari set {self.dataset} cannot be fetched: {' '.join(str(error).split())}"
            ) from error
        return MinariFolder(str(kept / self.dataset))


class MinariFolder(Opened):
    """A folder as Minari writes it."""

    def __init__(self, folder: str) -> None:
        from minari.dataset.minari_storage import MinariStorage

        self.folder = folder
        data = next(
            (path for path in (Path(folder) / "data", Path(folder)) if (path / "metadata.json").is_file()), None
        )
        if data is None:
            raise InputError(f"{folder}: no data set of Minari's, which has a file data/metadata.json")
        try:
            self.storage = MinariStorage.read(data)
            about = MinariStorage.read_raw_metadata(data)
            n = int(about["total_episodes"])
            steps = [each["total_steps"] for each in self.storage.get_episode_metadata(range(n))]
            self.lengths = np.array(steps, dtype=np.int64)
            self.spaces = self.storage.observation_space, self.storage.action_space
            spec = about.get("eval_env_spec") or about.get("env_spec")
            self.environment = from_spec(spec) if spec else None
            if None not in (scores := (about.get("ref_min_score"), about.get("ref_max_score"))):
                self.reference = float(scores[0]), float(scores[1])
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{folder}: the Minari set cannot be read: {' '.join(str(error).split())}") from error
        if not n:
            raise InputError(f"{folder}: the Minari set has no episodes")

    def read(self, i: int) -> dict[str, Any]:
        try:
            return self._read(i)
        # Of a damaged file the libraries raise whatever comes to them.
        except Exception as error:
            raise InputError(f"{self.folder} episode {i} cannot be read: {' '.join(str(error).split())}") from error

    def _read(self, i: int) -> dict[str, Any]:
        (record,) = self.storage.get_episodes([i])
        infos = record.get("infos") or {}
        success = next((infos[name] for name in ("success", "is_success") if name in infos), None)
        return {
            "observations": as_arrays(self.spaces[0], record["observations"]),
            "actions": as_arrays(self.spaces[1], record["actions"]),
            "rewards": record["rewards"],
            "terminated": bool(np.any(record["terminations"])),
            "truncated": bool(np.any(record["truncations"])),
            "success": None if success is None else bool(np.any(success)),
        }
