"""Sources of episodes: files told apart by their content, and Minari's sets by name and by folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import tests.helpers.small_environments  # noqa: F401  registers them
from anyformer.errors import InputError
from anyformer.tasks.decide.collect import Collected, write_minari
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig, EpisodeSource, transform
from anyformer.tokenizers.episode.files import Episodes, Minari


def same(one: EpisodeSource, other: EpisodeSource) -> None:
    assert one.lengths.tolist() == other.lengths.tolist()
    assert one.spaces == other.spaces
    for i in range(len(one)):
        a, b = one.episode(i), other.episode(i)
        for name in ("observations", "actions", "rewards"):
            transform(np.testing.assert_array_equal, getattr(a, name), getattr(b, name))
        assert (a.terminated, a.truncated, a.success) == (b.terminated, b.truncated, b.success)


@pytest.fixture
def minari_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_a_set_of_minari_is_found_by_name_and_by_folder(minari_home: Path) -> None:
    made = Collected(EnvironmentConfig("Lights-v0"), ("random",), 3)
    (minari_home / "ours").mkdir()
    write_minari(made, minari_home / "ours" / "lights-v0")
    for source in (
        Minari("ours/lights-v0"),
        Minari(str(minari_home / "ours" / "lights-v0")),
        Episodes(str(minari_home / "ours" / "lights-v0")),
        Episodes(str(minari_home / "ours" / "lights-v0" / "data")),
    ):
        same(source, made)
        assert source.played_in.id == "Lights-v0"
    other = EnvironmentConfig("Lights-v0", max_episode_steps=5)
    assert Minari("ours/lights-v0", other).episode(0).environment == other
    with pytest.raises(
        InputError, match=r"no Minari set ours/lihgts-v0 in .*did you mean 'ours/lights-v0'.; download: t"
    ):
        len(Minari("ours/lihgts-v0"))


def test_scores_that_a_set_names_are_its_reference(minari_home: Path) -> None:
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    about = minari_home / "counter-v0" / "data" / "metadata.json"
    assert Minari("counter-v0").reference is None
    content = json.loads(about.read_text()) | {"ref_min_score": 1, "ref_max_score": 9.5}
    about.write_text(json.dumps(content))
    assert Minari("counter-v0").reference == (1.0, 9.5)


def test_a_name_in_a_set_imports_nothing(minari_home: Path) -> None:
    """The JSON of a set names code to make its environment with, which stays unread."""
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    about = minari_home / "counter-v0" / "data" / "metadata.json"
    content = json.loads(about.read_text())
    spec = json.loads(content["env_spec"]) | {"id": "Counter-v0", "entry_point": "antigravity:Car"}
    about.write_text(json.dumps(content | {"env_spec": json.dumps(spec)}))
    config = Minari("counter-v0").played_in
    assert config == EnvironmentConfig("Counter-v0")
    assert type(make(config).unwrapped).__name__ == "Counter"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: (data / "main_data.hdf5").write_bytes(b"none"), "the Minari set cannot be read"),
        (lambda data: (data / "metadata.json").write_text("{}"), "the Minari set cannot be read"),
        (lambda data: (data / "main_data.hdf5").unlink(), "the Minari set cannot be read: No data found"),
    ],
)
def test_a_damaged_set_is_said_in_one_line(minari_home: Path, change: Callable[[Path], Any], message: str) -> None:
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    change(minari_home / "counter-v0" / "data")
    with pytest.raises(InputError, match=message) as caught:
        len(Minari("counter-v0"))
    assert "\n" not in str(caught.value)


def test_an_episode_of_a_set_is_checked(minari_home: Path) -> None:
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    with h5py.File(minari_home / "counter-v0" / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/rewards"][0] = np.nan
    source = Minari("counter-v0")
    assert len(source.episode(0)) == source.lengths[0]
    with pytest.raises(InputError, match=r"^counter-v0 episode 1: reward, step 0: must be finite, got nan"):
        source.episode(1)


def test_the_data_file_of_a_set_points_to_its_folder(minari_home: Path) -> None:
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    with pytest.raises(InputError, match=r"the data of a Minari set; give its folder, .*counter-v0"):
        len(Episodes(str(minari_home / "counter-v0" / "data" / "main_data.hdf5")))


def test_hopper_as_d4rl_and_as_minari_has_it(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    made = Collected(EnvironmentConfig("Hopper-v5"), ("random",), 3)
    write_minari(made, tmp_path / "hopper-v0")
    same(Episodes(str(tmp_path / "hopper-v0")), made)
    episodes = [made.episode(i) for i in range(3)]
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        for name, key in (("observations", "observations"), ("actions", "actions"), ("rewards", "rewards")):
            file[name] = np.concatenate([getattr(one, key)[: len(one)] for one in episodes])
        file["terminals"] = np.concatenate([np.arange(len(one)) == len(one) - 1 for one in episodes])
        file["timeouts"] = np.zeros(made.lengths.sum(), bool)
    read = Episodes(str(tmp_path / "hopper.hdf5"), EnvironmentConfig("Hopper-v5"))
    assert read.spaces == made.spaces
    assert read.lengths.tolist() == made.lengths.tolist()
    for i, one in enumerate(episodes):
        np.testing.assert_array_equal(read.episode(i).actions, one.actions)
        np.testing.assert_array_equal(read.episode(i).observations, one.observations[:-1])
        assert read.episode(i).terminated


def test_episodes_elsewhere_are_played_in_the_same_environment(minari_home: Path) -> None:
    write_minari(Collected(EnvironmentConfig("Counter-v0"), ("random",), 2), minari_home / "counter-v0")
    before = Minari("ours", EnvironmentConfig("Counter-v0", max_episode_steps=5))
    made = before.at([str(minari_home / "counter-v0")], [])
    assert made == Episodes(str(minari_home / "counter-v0"), before.environment) and made.id_name == "episode"
    assert {Path(file).name for file in made.read_from()} == {"main_data.hdf5", "metadata.json"}
    with pytest.raises(InputError, match="nowhere: no such file"):
        before.at(["nowhere"], [])
