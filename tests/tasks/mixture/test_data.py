"""Whose turn it is is a pure function of (seed, epoch, step), and the tasks' own epochs go on by themselves."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from anyformer.data.batch_plan import plan_batches
from anyformer.data.chopper import Chopper
from anyformer.data.loader import Loader
from anyformer.data.samples import Samples
from anyformer.errors import InputError
from anyformer.faults import WriteError
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.mixture.data import Mixed, MixedLoader, Part, Turn, named, plan_turns
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokens import Sample
from tests.helpers.small_mixture import small_mixed, small_mixture, small_parts

# Turns


def test_every_epoch_has_the_same_steps_of_each_task_in_another_sequence() -> None:
    turns = plan_turns({"a": 30, "b": 10, "c": 1}, seed=3)
    epochs = [turns.epoch(i) for i in range(3)]
    assert all(Counter(epoch) == {"a": 30, "b": 10, "c": 1} for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert turns.epoch(1) == plan_turns({"a": 30, "b": 10, "c": 1}, seed=3).epoch(1) != epochs[0]
    assert plan_turns({"a": 30, "b": 10, "c": 1}, seed=4).epoch(0) != epochs[0]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, {"a": 90, "b": 9, "c": 1}),
        ({"temperature": 2.0}, {"a": 70, "b": 22, "c": 8}),
        ({"temperature": 1e9}, {"a": 34, "b": 33, "c": 33}),
        ({"temperature": 1e-3}, {"a": 98, "b": 1, "c": 1}),
        ({"sampling": {"b": 0.5}}, {"a": 49, "b": 50, "c": 1}),
        ({"sampling": {"a": 1.0, "b": 2.0, "c": 1.0}}, {"a": 25, "b": 50, "c": 25}),
        ({"sampling": {"a": 0.9999}}, {"a": 98, "b": 1, "c": 1}),
    ],
)
def test_steps_are_shared_out_by_size_temperature_or_share(options: dict, steps: dict) -> None:
    turns = plan_turns({"a": 90, "b": 9, "c": 1}, **options)
    found = turns.steps
    assert sum(found.values()) == 100 and all(abs(found[name] - n) <= 1 for name, n in steps.items())
    assert min(found.values()) >= 1


def test_all_batches_of_a_step_are_of_one_task() -> None:
    turns = plan_turns({"a": 5, "b": 5}, n_batches=10, accumulate=4)
    names = turns.epoch(0)
    # Rounded up to three steps.
    assert len(turns) == len(names) == 12
    assert all(len(set(names[start : start + 4])) == 1 for start in (0, 4, 8))


def test_what_came_before_a_place_is_counted() -> None:
    turns = plan_turns({"a": 7, "b": 3}, accumulate=2, seed=1)
    drawn = [name for epoch in range(3) for name in turns.epoch(epoch)]
    for epoch, offset in ((0, 0), (0, 3), (1, 0), (2, 5)):
        assert turns.before(epoch, offset) == {n: drawn[: epoch * len(turns) + offset].count(n) for n in "ab"}


def test_an_epoch_too_short_for_every_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.n_batches: an epoch of 2 steps is too short .* each of the 3 tasks"):
        plan_turns({"a": 9, "b": 9, "c": 9}, n_batches=4, accumulate=2)


# The loader


def loaders(n_workers: int = 0) -> dict[str, Loader]:
    """Of digits and of parities, chopped as their tasks would."""
    mixture = small_mixture()
    made = {}
    for name, n in (("digits", 5), ("parity", 3)):
        task = mixture.tasks[name]
        task.classes = ["x"]
        samples = Samples(Digits().take(range(4 * n)), Named(task.tokenizers), training=True, seed=1)
        made[name] = Loader(samples, plan_batches(4 * n, batch_size=4, seed=1), n_workers)
    return made


class Named(Chopper):
    """Batches that say which samples they are of."""

    def __call__(self, record: Any, random: Any = None) -> Sample:
        return self.encode(record, random)

    def collate(self, items: Any, rows: Any = None) -> Examples:
        return Examples(None, None)


def said(turns: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(turn.task, turn.batch.samples) for turn in turns]


def mixed(n_workers: int = 0) -> MixedLoader:
    return MixedLoader(loaders(n_workers), plan_turns({"digits": 5, "parity": 3}, n_batches=7, seed=1), lambda: 0)


def taken(loader: MixedLoader, epoch: int, n: int | None = None) -> list:
    """What the batches of an epoch say, the first n or all."""
    loader.ask_epoch = lambda: epoch
    return said(islice(loader, n))


def whole(n_epochs: int) -> list:
    """The batches of some epochs that nothing broke off."""
    loader = mixed()
    return [each for epoch in range(n_epochs) for each in taken(loader, epoch)]


def test_each_task_goes_through_its_own_epochs() -> None:
    every = whole(5)
    assert len(every) == 35
    for name, n in (("digits", 5), ("parity", 3)):
        own = [samples for task, samples in every if task == name]
        for start in range(0, len(own) - n + 1, n):
            assert len({each for samples in own[start : start + n] for each in samples}) == 4 * n
        # In another sequence each time.
        assert own[:n] != own[n : 2 * n]


@pytest.mark.parametrize(("epoch", "offset"), [(0, 3), (1, 0), (2, 6), (4, 1)])
def test_a_loader_goes_on_from_a_place(epoch: int, offset: int) -> None:
    every, before, after = whole(5), mixed(), mixed()
    assert taken(before, epoch, offset) == every[7 * epoch : 7 * epoch + offset]
    if offset:
        # Between two epochs nothing is loaded, and the epoch alone says where it is.
        after.load_state_dict(before.state_dict())
    assert taken(after, epoch) == every[7 * epoch + offset : 7 * (epoch + 1)]


def test_workers_change_nothing_where_epochs_are_cut_short() -> None:
    every, cut = whole(4), ((0, None), (1, 4), (3, 4))
    for n_workers in (0, 1):
        loader = mixed(n_workers)
        assert [each for place in cut for each in taken(loader, *place)] == every[:11] + every[21:25]
        loader.close()


def test_an_epoch_that_is_asked_for_again_begins_again() -> None:
    loader, every = mixed(), whole(1)
    assert taken(loader, 0, 3) + taken(loader, 0) == every[:3] + every


def test_a_place_of_other_data_is_refused() -> None:
    loader = MixedLoader(loaders(), plan_turns({"digits": 5, "parity": 3}), lambda: 0)
    state = loader.state_dict()
    for other, what in (
        ({"seed": 9}, "seed 9, this run has 0"),
        ({"steps": {"digits": 1, "parity": 7}}, "steps of each task"),
        ({"parts": state["parts"] | {"parity": {"n_batches": 4}}}, "batches of each task"),
    ):
        with pytest.raises(InputError, match=f"cannot go on inside an epoch: .*{what}"):
            loader.load_state_dict(state | other)


def test_a_turn_moves_with_its_batch(tmp_path: Path) -> None:
    class Moved:
        def to(self, device: str, non_blocking: bool = False) -> str:
            return f"{device} {non_blocking}"

    assert Turn("a", Moved()).to("gpu", non_blocking=True) == Turn("a", "gpu True")


# The data module


def test_parts_and_tasks_must_be_the_same(tmp_path: Path) -> None:
    parts = small_parts(tmp_path)
    with pytest.raises(InputError, match=r"data\.parts: the task 'poet' has no records; give it a part"):
        Mixed({name: part for name, part in parts.items() if name != "poet"}).attach(small_mixture())
    with pytest.raises(InputError, match=r"data\.parts: there is no task 'moods'; did you mean 'mood'\?"):
        Mixed({**parts, "moods": parts["mood"]}).attach(small_mixture())


def test_parts_are_set_up_each_for_its_task(tmp_path: Path) -> None:
    data = small_mixed(tmp_path, seed=5)
    data.attach(small_mixture())
    data.setup("fit")
    assert list(data.sources["train"]) == ["digits", "parity", "mood", "poet"]
    assert list(data.sources["test"]) == ["digits"]
    assert {part.seed for part in data.parts.values()} == {5}
    data = small_mixed(tmp_path)
    data.setup("test")
    assert list(data.sources) == ["test"] and list(data.sources["test"]) == ["digits"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda parts: Mixed({}), r"data\.parts must name at least one task, got none"),
        (lambda parts: Mixed(parts, n_batches=0), r"data\.n_batches must be at least 1, got 0"),
        (
            lambda parts: Mixed({"a": Part(Digits(), seed=3)}),
            r"data\.parts\.a\.seed: the mixture has one seed for all, seed_everything; give that",
        ),
        (lambda parts: Mixed({"a": Part(Digits(), 2.0)}).setup(), r"data\.parts\.a: validation must be a fraction"),
        (
            lambda parts: Mixed({"a": Part(Digits())}).setup("test"),
            r"there are no test records: give one of data\.parts a test",
        ),
    ],
)
def test_parts_that_cannot_be_used_are_refused(tmp_path: Path, made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(small_parts(tmp_path))


def test_what_is_wrong_is_said_with_its_place() -> None:
    with pytest.raises(InputError, match=r"^data\.parts\.a: pack fills$"), named("data.parts.a"):
        raise InputError("data.pack fills")
    with pytest.raises(InputError, match=r"^tasks\.a: data\.x$"), named("tasks.a"):
        raise InputError("data.x")


def test_what_the_machine_cannot_do_is_said_as_it_is() -> None:
    error = WriteError("a/b", OSError(28, "No space left on device"))
    with pytest.raises(WriteError) as caught, named("data.parts.a"):
        raise error
    assert caught.value is error
