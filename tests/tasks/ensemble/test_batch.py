import pickle

import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.ensemble.ensemble import Ensemble
from tests.tasks.ensemble.test_ensemble import member, of_characters, unlike
from tests.tasks.predict.test_predict import records


def test_each_model_reads_a_record_by_its_own_vocabulary_in_a_worker_too():
    runs = unlike()
    chopper = pickle.loads(pickle.dumps(Ensemble(runs).chopper(training=False)))
    given = [{**record, "note": "x", "width": 20.0} for record in records(4, 5)]
    batch = chopper.collate([chopper(record) for record in given])
    ids = [batch.parts[i].tokens.fields["note"].content[0].item() for i in range(3)]
    assert ids == [run.tokenizers["note"].encode("x").content[0].item() for run in runs]
    assert len(set(ids)) == 2
    assert batch.tokens is batch.parts[0].tokens
    # What is to be predicted is looked at once, on the scale of the first.
    first = runs[0].targets["width"].value("width", given[0])
    assert torch.equal(batch.parts[0].aims["width"].values[0], first)
    assert [len(batch.parts[i].aims["width"].values) for i in range(3)] == [4, 0, 0]


def test_a_record_has_the_tokens_of_the_model_that_cuts_it_into_most():
    runs = [member(0), member(1, n_registers=3)]
    chopper = Ensemble(runs).chopper(training=False)
    record = records(1)[0]
    assert chopper.count(record) == runs[1].chopper(False).count(record) == runs[0].chopper(False).count(record) + 3


def test_what_one_of_the_models_cannot_read_is_refused():
    runs = [member(0, tokenizers=of_characters()), member(1, tokenizers=of_characters(max_len=4))]
    record = {"image": records(1)[0]["image"], "note": "xxxxx"}
    assert runs[0].predict([record])
    with pytest.raises(InputError, match=r"field 'note': .*max_len"):
        Ensemble(runs).chopper(training=False)(record, labelled=False)
