"""A batch with what is to be predicted."""

from tests.tasks.predict.test_predict import batch, records, task


def test_a_batch_moves_with_what_is_to_be_predicted():
    made = task()
    moved = batch(made, records(3)).to("meta")
    assert {aim.values.device.type for aim in moved.aims.values()} == {"meta"}
    assert moved.tokens.layout.segment.device.type == moved.whole.layout.segment.device.type == "meta"
