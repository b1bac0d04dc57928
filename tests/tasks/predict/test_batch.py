import pickle

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from tests.tasks.predict.test_predict import IMAGE, SMALL, batch, inputs, records, targets, task


def test_a_record_has_as_many_tokens_as_were_counted():
    made = task(n_registers=2)
    chopper = made.chopper(training=True)
    for record in records(6):
        tokens = chopper.collate([chopper(record)]).tokens
        assert tokens.shape.numel() == chopper.count(record)


def test_a_worker_chops_as_the_trainer_does():
    made = task()
    chopper = made.chopper(training=True)
    there = pickle.loads(pickle.dumps(chopper))
    for record in records(3):
        one, other = (each(record, np.random.default_rng(1)) for each in (chopper, there))
        assert torch.equal(one.sample["image"].masked, other.sample["image"].masked)
        assert one.values.keys() == other.values.keys() == {name for name in targets() if name in record} - {"image"}


def test_what_is_masked_is_drawn_in_the_sequence_of_the_targets():
    image = IMAGE["image"]
    names = ["d", "a", "c", "e", "b"]
    made = Predict(dict.fromkeys(names, image), {name: Masked(0.5) for name in names}, SMALL)
    record = dict.fromkeys(names, records(1)[0]["image"])
    found, random = made.chopper(training=True)(record, np.random.default_rng(1)).sample, np.random.default_rng(1)
    for name in names:
        alone = Masked(0.5).hide(name, image.encode(record[name]), image, random, alone=False)
        assert torch.equal(found[name].masked, alone.masked)


def test_inputs_stand_at_one_order_and_what_is_written_behind_them():
    made = task()
    given = {"image": records(1)[0]["image"], "note": "ab", "name": "one"}
    tokens = batch(made, [given]).tokens
    orders = tokens.layout.order.flatten()
    assert all((orders[tokens.fields[name].index] == 0).all() for name in ("image", "note", "class"))
    assert orders[tokens.fields["name"].index].tolist() == [1, 2, 3, 4]


def test_a_record_without_any_target_is_an_error_and_names_them():
    made = task({"kind": Category(), "width": Regression()})
    image = records(1)[0]["image"]
    with pytest.raises(InputError, match="one of the fields kind, width must hold what is to be predicted"):
        batch(made, [{"image": image}])
    alone = task({"width": Regression()})
    with pytest.raises(InputError, match="field 'width' must hold what is to be predicted, but the record has none"):
        batch(alone, [{"image": image, "width": float("nan")}])
    masked = task({"width": Regression(), "image": Masked(0.5)})
    assert masked.loss(batch(masked, [{"image": image}]))[1] == 3


def test_the_token_that_is_read_first_must_be_there():
    made = task({"kind": Category()}, tokenizers={**IMAGE, "note": inputs()["note"]}, read="first")
    assert not made.own_tokens
    with pytest.raises(InputError, match=r"field 'image' must hold the token that is read \(read: first\)"):
        batch(made, [{"note": "x", "kind": "odd"}])
