"""Windows of episodes: the orders of a step, what is drawn and what lies end to end, returns left out, packing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.data.batch_plan import Draw
from anyformer.data.samples import Samples
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tasks.decide.batch import RETURN, REWARD, CutEpisodes, EpisodeWindows, StepFields, WindowChopper, cut
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Letters
from anyformer.tokenizers.episode.episode import lengths
from tests.helpers.worlds import decider, walks


def orders(task: object, n: int = 3) -> dict[str, list[int]]:
    """Of the first n steps of an episode, by field."""
    windows = task.view(walks_of(task), False)
    chopper = task.chopper(False)
    item = chopper({"windows": windows, "number": 0})
    item = item._replace(values={name: values[:n] for name, values in item.values.items()})
    batch = chopper.collate([item]).tokens
    return {name: batch.layout.order.flatten()[tokens.index].tolist() for name, tokens in batch.fields.items()}


def walks_of(task: object) -> Source:
    return task._cut.source


def test_the_orders_of_a_step_are_return_state_action() -> None:
    assert orders(decider(walks("box"))) == {"return": [0, 3, 6], "state": [1, 4, 7], "action": [2, 5, 8]}
    # Without returns their order stays free.
    assert orders(decider(walks("box"), returns=False)) == {"state": [1, 4, 7], "action": [2, 5, 8]}
    # An action of two tokens is generated one after the other.
    bins = decider(walks("box"), tokenizers={"action": Bins()})
    assert orders(bins, 2) == {"return": [0, 4], "state": [1, 5], "action": [2, 3, 6, 7]}
    # All tokens of a state stand at once; the fields of a nested action one behind the other.
    assert orders(decider(walks("pair")), 2) == {
        "return": [0, 5],
        "state.0": [1, 6],
        "state.1": [1, 1, 6, 6],
        "action.hands": [2, 3, 7, 8],
        "action.way": [4, 9],
    }


def test_texts_of_any_length_stand_with_their_step() -> None:
    task = decider(walks("text"))
    episode = walks_of(task)[0]["episode"]
    texts = episode.observations["text"][:3].tolist()
    found = Counter(orders(task)["state.text"])
    # A token for each letter, and one for the end.
    assert found == {4 * i + 1: len(text) + 1 for i, text in enumerate(texts)}


def test_positions_are_timesteps_of_the_episode() -> None:
    task = decider(walks("box"))
    windows, chopper = task.view(walks_of(task), False), task.chopper(False)
    number = next(i for i in range(len(windows)) if windows._place(i)[1] == 5)
    batch = chopper.collate([chopper({"windows": windows, "number": number})]).tokens
    n = len(batch.fields["state"].position)
    assert batch.fields["state"].position[:, 0].tolist() == list(range(5, 5 + n))


def test_evaluation_sees_every_step_once() -> None:
    source = walks("box")
    windows = EpisodeWindows(CutEpisodes(source, *source.spaces), 5, training=False)
    seen = Counter()
    for i in range(len(windows)):
        values, start = windows.window(i, None)
        episode, _ = windows._place(i)
        assert len(values[REWARD]) <= 5
        seen.update((episode, start + step) for step in range(len(values[REWARD])))
        assert windows.name(i) == f"{source.name(episode)} from step {start}"
    assert seen == {(e, step): 1 for e, n in enumerate(lengths(source)) for step in range(n)}


def test_training_draws_every_step_alike_and_the_same_again() -> None:
    source = walks("box", 3)
    windows = EpisodeWindows(CutEpisodes(source, *source.spaces), 5, training=True)
    n_steps = int(lengths(source).sum())
    assert len(windows) == -(-n_steps // 5)
    random, starts = np.random.default_rng(0), Counter()
    for _ in range(200 * n_steps):
        step = int(random.integers(n_steps))
        starts[windows._place(step)] += 1
    assert set(starts) == {(e, step) for e, n in enumerate(lengths(source)) for step in range(n)}
    assert max(starts.values()) < 1.5 * 200 and min(starts.values()) > 0.5 * 200
    task = decider(source)
    samples = Samples(task.view(source, True), task.chopper(True), training=True, seed=3)
    first, again, other = (samples[Draw(*each)] for each in ((0, 1), (0, 1), (1, 1)))
    assert first.start == again.start and np.array_equal(first.values["state"], again.values["state"])
    drawn = {(samples[Draw(epoch, 0)].start, len(samples[Draw(epoch, 0)].values[REWARD])) for epoch in range(20)}
    assert len(drawn) > 3, f"{other.start} and the others are all the same"


def test_returns_are_left_out_of_a_share_of_the_training_windows() -> None:
    task = decider(walks("box"), return_dropout=0.25)
    samples = Samples(task.view(walks_of(task), True), task.chopper(True), training=True)
    items = [samples[Draw(epoch, 0)] for epoch in range(400)]
    assert 60 < sum(not item.with_returns for item in items) < 140
    batch = task.chopper(True).collate(items[:50]).tokens
    kept = [i for i, item in enumerate(items[:50]) if item.with_returns]
    assert sorted(set(batch.fields["return"].sample.tolist())) == kept
    assert sorted(set(batch.fields["state"].sample.tolist())) == list(range(50))
    # None at all is no reason to fail; and in evaluation they are all there.
    none = [item._replace(with_returns=False) for item in items[:2]]
    assert not len(task.chopper(True).collate(none).tokens.fields["return"].content)
    assert task.chopper(False)({"windows": task.view(walks_of(task), False), "number": 0}).with_returns


def test_packed_windows_lose_what_padded_ones_lose() -> None:
    task = decider(walks("pair"), return_dropout=0.5, state_loss=0.0, return_loss=0.3)
    windows, chopper = task.view(walks_of(task), False), task.chopper(False)
    items = [chopper({"windows": windows, "number": i}) for i in range(7)]
    items[2] = items[2]._replace(with_returns=False)
    padded, n = task.loss(chopper.collate(items))
    packed, m = task.loss(chopper.collate(items, [0, 1, 0, 1, 2, 2, 0]))
    alone = [task.loss(chopper.collate([item])) for item in items]
    assert n == m == sum(each[1] for each in alone)
    torch.testing.assert_close(packed, padded)
    torch.testing.assert_close(sum(each[0] for each in alone), padded)


def test_tokens_are_counted_from_lengths_alone() -> None:
    task = decider(walks("pair"))
    windows, chopper = task.view(walks_of(task), False), task.chopper(False)
    for i in range(4):
        record = {"windows": windows, "number": i}
        batch = chopper.collate([chopper(record)]).tokens
        assert chopper.count(record) == int((batch.layout.segment > 0).sum())
    training = {"windows": task.view(walks_of(task), True), "number": 0}
    assert chopper.count(training) == 5 * 7
    texts = decider(walks("text"))
    with pytest.raises(InputError, match="a field has no fixed number of tokens a step"):
        texts.chopper(False).count({"windows": texts.view(walks_of(texts), False), "number": 0})


def test_what_the_return_head_predicts_is_the_reward_and_the_return_after_it() -> None:
    task = decider(walks("box"), return_loss=1.0)
    windows, chopper = task.view(walks_of(task), False), task.chopper(False)
    batch = chopper.collate([chopper({"windows": windows, "number": i}) for i in range(2)])
    episode = walks_of(task)[0]["episode"]
    after = episode.returns_to_go() - episode.rewards
    scale = task.tokenizers[RETURN].scale
    torch.testing.assert_close(batch.target[:5] * scale, torch.from_numpy(np.stack([episode.rewards, after], 1)[:5]))
    ends = [min(start + 5, n) - start for n in lengths(walks_of(task)) for start in range(0, n, 5)]
    assert len(batch.target) == sum(ends[:2])


def test_only_so_many_bytes_of_episodes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from anyformer.tasks.decide import batch as windows

    source = walks("box", 4)
    one = sum(array.nbytes for array in cut(source.episode(0), *source.spaces).values())
    monkeypatch.setattr(windows, "KEPT", one + 1)
    kept = CutEpisodes(source, *source.spaces)
    assert kept[0] is kept[0]
    assert kept[1] is not kept[1]
    assert np.array_equal(kept[1]["action"], source.episode(1).actions)


def test_an_episode_of_other_spaces_is_named() -> None:
    source = walks("box", 1)
    other = walks("pair", 1)
    with pytest.raises(InputError, match=r"Corridor-v0 episode 0: state"):
        CutEpisodes(source, *other.spaces)[0]


def test_what_is_seen_outside_its_space_is_named() -> None:
    episode = walks("pair", 1).episode(0)
    seen, done = episode.observation_space, episode.action_space
    place, above = episode.observations
    outside = replace(episode, observations=(place + 6, above))
    with pytest.raises(
        InputError, match=r"Corridor-v0 episode 0: state\.0, step 0: is \d+, and the space is from 0 to 5"
    ):
        cut(outside, seen, done)
    # What was seen after the last step is no part of a window.
    place[-1] = 9
    assert len(cut(replace(episode, observations=(place, above)), seen, done)["state.0"]) == len(episode)


def test_pictures_from_0_to_1_are_refused() -> None:
    episode = walks("picture", 1).episode(0)
    seen = {**episode.observations, "picture": (episode.observations["picture"] / 255).astype(np.float32)}
    with pytest.raises(
        InputError, match=r"Corridor-v0 episode 0: state\.picture: the space is of uint8, 0 to 255, got f"
    ):
        cut(replace(episode, observations=seen), episode.observation_space, episode.action_space)


def test_a_vector_may_be_seen_outside_its_bounds() -> None:
    episode = walks("box", 1).episode(0)
    beyond = replace(episode, observations=episode.observations + 3)
    values = cut(beyond, episode.observation_space, episode.action_space)["state"]
    assert np.array_equal(values, episode.observations[: len(episode)] + 3)


def test_an_action_whose_number_of_tokens_varies_is_refused() -> None:
    cutters = {"return": Returns(), "state": Vector(shape=(2,)), "action": Letters(characters="ab", max_len=3)}
    with pytest.raises(InputError, match="field 'action': a Letters can be seen and not done"):
        StepFields(cutters)
    assert isinstance(WindowChopper({"state": cutters["state"]}, 5).fields, StepFields)
