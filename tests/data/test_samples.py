"""A source whose records come chopped."""

from __future__ import annotations

import pickle

import pytest

from anyformer.data.batch_plan import Draw
from anyformer.data.samples import Samples
from anyformer.data.tables import Table
from anyformer.errors import InputError
from tests.helpers.choppers import Pairs
from tests.helpers.witnesses import Numbers


def test_what_is_drawn_for_a_sample_depends_on_seed_epoch_and_index_alone():
    samples = Samples(Numbers(9), Pairs(), training=True)
    assert samples[Draw(2, 5)] == samples[Draw(2, 5, row=3)]
    others = [samples[Draw(3, 5)], samples[Draw(2, 6)], Samples(Numbers(9), Pairs(), training=True, seed=1)[Draw(2, 5)]]
    assert samples[Draw(2, 5)] not in others
    assert Samples(Numbers(9), Pairs())[Draw(2, 5)] == (5, -1.0)


def test_a_training_batch_of_nothing_is_filled_by_the_record_that_follows():
    samples = Samples(Numbers(6), Pairs((2, 3, 5)), training=True, on_bad_sample="skip")
    for asked, given in ((2, 4), (5, 0)):
        fetched = samples.__getitems__([Draw(3, asked)])
        assert fetched.batch.items == [samples[Draw(3, given)]] and fetched.batch.samples == (f"numbers row {given}",)
        assert len(fetched.bad) == 1, "the one that was asked for is told of, and not those after it"


def test_a_row_that_lost_all_its_samples_is_gone():
    samples = Samples(Numbers(4), Pairs((1,)), on_bad_sample="skip")
    batch = samples.__getitems__([Draw(0, 0, 0), Draw(0, 1, 1), Draw(0, 3, 2)]).batch
    assert batch.rows == [0, 1] and batch.samples == ("numbers row 0", "numbers row 3")


def test_lengths_are_counted_once_a_sample_and_name_the_bad_one():
    assert Samples(Numbers(9), Pairs()).lengths() == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert Samples(Numbers(3), Pairs((1,)), on_bad_sample="skip").lengths() == [1, 1, 3]
    with pytest.raises(InputError, match="numbers row 1: field 'x': 1 is bad"):
        Samples(Numbers(3), Pairs((1,))).lengths()


def test_samples_travel_to_workers_that_are_not_forked(tmp_path):
    (tmp_path / "t.csv").write_text("file,kind\n" + "".join(f"{i}.png,cat\n" for i in range(5)))
    table = Table(str(tmp_path / "t.csv"))
    assert pickle.loads(pickle.dumps(Samples(table.take([3, 1]), Pairs()))).source[0]["file"] == "3.png"


def test_a_group_is_called_by_its_name():
    class Grouped(Numbers):
        def __getitem__(self, i):
            return {"x": i, "group": [1.0, True, "cafe\u0301 ", None, float("nan"), ["a"]][i]}

    class Groups(Pairs):
        by = "group"

    samples = Samples(Grouped(6), Groups())
    assert [samples._item(i, None)[1] for i in range(5)] == ["1", "true", "caf\u00e9", "", ""]
    with pytest.raises(InputError, match=r"fields\.by: column 'group' must be one text or number, got a list"):
        samples[Draw(0, 5)]
