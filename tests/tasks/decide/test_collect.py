"""Collecting: episodes of several policies, the same for the same config, and as a data set that Minari reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

import tests.helpers.small_environments  # noqa: F401  registers them
from anyformer.data.splits import split
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.saving.model_folder import save
from anyformer.tasks.decide.collect import Collected, actor_of, collect, summary, write_minari
from anyformer.tasks.decide.decide import Decide
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, EpisodeSource, lengths, transform
from anyformer.tokenizers.episode.files import Episodes

CART = EnvironmentConfig("CartPole-v1", max_episode_steps=40)
MIXED = Collected(CART, ("random", "scripted", "scripted:0.5"), 14, seed=3)


def test_the_policies_take_turns_and_each_plays_as_it_should() -> None:
    assert len(MIXED) == len(MIXED.lengths) == 14
    by_policy = [[MIXED.episode(i) for i in range(number, 14, 3)] for number in range(3)]
    assert [len(some) for some in by_policy] == [5, 5, 4]
    means = [np.mean([episode.total for episode in some]) for some in by_policy]
    assert means[1] == 40
    assert means[0] < 30
    assert MIXED.name(4) == "episode 4 of CartPole-v1, played by scripted"
    assert MIXED.played_in == MIXED.episode(0).environment == CART
    assert all(MIXED.lengths[i] == len(MIXED[i]["episode"]) for i in range(14))
    starts = {tuple(MIXED.episode(i).observations[0]) for i in range(14)}
    assert len(starts) == 14


def test_the_same_config_gives_the_same_episodes() -> None:
    again = replace(MIXED)
    other = replace(MIXED, seed=4)
    for i in range(14):
        np.testing.assert_array_equal(again.episode(i).observations, MIXED.episode(i).observations)
        np.testing.assert_array_equal(again.episode(i).actions, MIXED.episode(i).actions)
    assert not np.array_equal(other.episode(0).observations[0], MIXED.episode(0).observations[0])


def test_parts_of_it_are_parts_of_a_source_of_episodes() -> None:
    left, parts = split(MIXED, {"validation": 0.3})
    assert len(left) + len(parts["validation"]) == 14
    assert lengths(left).sum() + lengths(parts["validation"]).sum() == MIXED.lengths.sum()


def test_a_line_for_every_policy() -> None:
    lines = summary(MIXED, MIXED.policies).splitlines()
    assert [line.split()[0] for line in lines] == ["random", "scripted", "scripted:0.5"]
    assert lines[1].endswith("5 episodes, 200 steps, return 40.00 (40.00 to 40.00)")


@pytest.mark.parametrize(
    "policy, message",
    [
        ("runs/none", "policy 'runs/none': there is no run folder runs/none; a policy is random, scripted"),
        ("random:0.5", "there is no run folder random"),
        ("scripted:half", "policy scripted:half: the share of random actions must be a number, got 'half'"),
        ("scripted:1.5", "the share of random actions must be from 0 to 1, got 1.5"),
        (".:target_return=much", "policy .:target_return=much: the target return must be a number, got 'much'"),
    ],
)
def test_a_text_that_names_no_policy(policy: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        actor_of(policy, CART, 0)


def test_a_run_plays_what_it_is_asked_for(tmp_path: Path) -> None:
    task = Decide(transformer=TransformerConfig(d_model=8, depth=1, n_heads=1), context=5)
    task.fit_tokenizers(MIXED)
    task.build()
    save(task, tmp_path / "run" / "model")
    run = str(tmp_path / "run")
    learned = Collected(CART, (f"{run}:target_return=30", run, "random"), 6)
    again = replace(learned)
    for i in range(6):
        np.testing.assert_array_equal(learned.episode(i).actions, again.episode(i).actions)
    actor = actor_of(f"{run}:target_return=30", CART, 0)
    assert (actor.target_return, actor_of(run, CART, 0).target_return) == (30, 40)
    with pytest.raises(InputError, match=r"observation: the observation space had .* in training, and it is"):
        actor_of(run, EnvironmentConfig("Pendulum-v1"), 0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"episodes": 2}, "2 episodes are shared by 3 policies"),
        ({"policies": ()}, "shared by 0 policies"),
    ],
)
def test_a_config_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(MIXED, **changes)


@pytest.mark.parametrize("name", ["Lights-v0", "Parts-v0", "Counter-v0"])
def test_what_is_written_is_read_by_us_and_by_minari(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    config = EnvironmentConfig(f"tests.helpers.small_environments:{name}", max_episode_steps=5)
    made = Collected(config, ("random",), 3)
    write_minari(made, tmp_path / "made-v2", "random")
    ours, theirs = Episodes(str(tmp_path / "made-v2")), minari.load_dataset("made-v2")
    assert len(ours) == theirs.total_episodes == 3
    assert theirs.total_steps == made.lengths.sum()
    assert ours.spaces == made.spaces == (theirs.observation_space, theirs.action_space)
    assert ours.played_in.id == config.id
    assert ours.played_in.max_episode_steps == 5
    assert theirs.recover_environment().observation_space == made.spaces[0]
    assert json.loads((tmp_path / "made-v2/data/metadata.json").read_text())["algorithm_name"] == "random"
    for i in range(3):
        one, other, record = made.episode(i), ours.episode(i), theirs[i]
        for part in ("observations", "actions", "rewards"):
            transform(np.testing.assert_array_equal, getattr(one, part), getattr(other, part))
            if name != "Parts-v0":
                transform(np.testing.assert_array_equal, getattr(one, part), getattr(record, part))
        assert (one.terminated, one.truncated, one.success) == (other.terminated, other.truncated, other.success)
        assert record.terminations[-1] == one.terminated
        assert not record.terminations[:-1].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made-v2"]


def test_a_name_without_a_version_gets_one(tmp_path: Path) -> None:
    collect("CartPole-v1", ["random"], 1, 0, tmp_path / "my carts")
    assert json.loads((tmp_path / "my carts/data/metadata.json").read_text())["dataset_id"] == "my_carts-v0"


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    for folder in ("", "kept"):
        with pytest.raises(InputError, match="is there already; choose another folder"):
            collect("CartPole-v1", ["random"], 1, 0, tmp_path / folder)
    with pytest.raises(InputError, match="is there already; choose another folder"):
        write_minari(MIXED, tmp_path)
    with pytest.raises(InputError, match=r"kept/inside cannot be made: (Not a directory|File exists)"):
        collect("CartPole-v1", ["random"], 1, 0, tmp_path / "kept" / "inside")


def test_an_episode_without_what_was_seen_last_is_not_written(tmp_path: Path) -> None:
    class Cut(EpisodeSource):
        spaces, played_in, lengths = MIXED.spaces, CART, MIXED.lengths

        def episode(self, i: int) -> Episode:
            one = MIXED.episode(i)
            return replace(one, observations=one.observations[:-1])

        def name(self, i: int) -> str:
            return f"cut episode {i}"

    with pytest.raises(InputError, match="what was seen after the last step is not known, and Minari needs it"):
        write_minari(Cut(), tmp_path / "cut-v0")
    assert not list(tmp_path.iterdir())


def test_an_environment_without_a_script(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scripted policy for Counter-v0"):
        collect("Counter-v0", ["scripted"], 2, 0, tmp_path / "out")
    assert not list(tmp_path.iterdir())
