"""The numbers of texts that are explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.explain.explainer import Wanted
from anyformer.tasks.sequence.batch import Pair
from anyformer.tasks.sequence.explained import END
from anyformer.tasks.sequence.sequence import SequenceToSequence
from tests.helpers.turned import Turned, recogniser, translator
from tests.helpers.witnesses import redraw


def built(task: SequenceToSequence) -> SequenceToSequence:
    task.fit_tokenizers(Turned())
    task.build()
    redraw(task)
    return task.eval()


MODELS = {"encoder_decoder": lambda: built(translator()), "decoder": lambda: built(translator("decoder"))}


def record_of(task: SequenceToSequence) -> tuple[dict[str, Any], str]:
    source = Turned()
    return task.read_record(source, 1), source[1][task.target]


@pytest.mark.parametrize("kind", MODELS)
def test_the_number_of_a_text_is_its_log_probability(kind: str) -> None:
    task = MODELS[kind]()
    record, text = record_of(task)
    found = task.explain(record, answer=text)
    chopper = task.chopper(training=False)
    batch = chopper.collate([chopper({**record, task.target: text})])
    loss, _ = task._loss(batch, None, 0.0)
    np.testing.assert_allclose(found.fields.shapley.whole, -loss.item(), rtol=1e-4)
    np.testing.assert_allclose(found.value, -loss.item(), rtol=1e-4)
    assert found.as_dict()["value"] == pytest.approx(-loss.item(), rel=1e-4)
    # Each token by its log-odds, the end too.
    assert [part.name for part in found.parts] == [*text, END]
    p = 1 / (1 + np.exp([-part.value for part in found.parts]))
    np.testing.assert_allclose(np.log(p).sum(), -loss.item(), rtol=1e-3)
    assert found.written == task.target
    values = found.fields.shapley
    assert abs(values.values.sum() - (values.whole - values.nothing)) < 1e-6


def test_of_an_empty_text_the_number_is_a_log_probability_too() -> None:
    task = MODELS["decoder"]()
    record, _ = record_of(task)
    found = task.explain(record, answer="")
    assert [part.name for part in found.parts] == [END]
    np.testing.assert_allclose(found.value, -np.log1p(np.exp(-found.parts[0].value)), rtol=1e-4)


def test_the_relevance_of_a_token_is_of_what_was_read_and_written_before_it() -> None:
    task = MODELS["encoder_decoder"]()
    record, text = record_of(task)
    found = task.explain(record, answer=text)
    (field,) = found.inputs
    for number, part in enumerate(found.parts):
        assert part.relevance[field].min() >= 0
        assert not part.relevance[task.target][number + 1 :].any(), "the start, and what stands before"
    assert found.whole("relevance")[field].any()
    assert {grid.kind for grid in found.grids if grid.stack == "transformer"} == {"self", "cross"}
    assert found.grid(kind="cross").weights.shape[1:] == (len(text) + 1, len(found.sample[field]))


def test_what_is_explained_by_itself_is_the_text_that_is_written() -> None:
    task = MODELS["decoder"]()
    record, _ = record_of(task)
    found = task.explain(record)
    assert found.answer == task.predict([record])[0][task.target]
    assert found.deletion.n_tokens == len(found.sample[found.inputs[0]])


def test_why_one_text_and_not_another_is_where_they_part() -> None:
    task = MODELS["decoder"]()
    record, text = record_of(task)
    other = text[:2] + next(c for c in "".join(each[task.target] for each in Turned()) if c != text[2]) + text[3:]
    question = task.ask(record, Wanted(answer=text, rather_than=other))
    assert question.n_parts == 1
    found = task.explain_question(question)
    chopper = task.chopper(training=False)
    batch = chopper.collate([Pair(chopper.conditions(record), question.asked.ids)])
    logits = task.head(task.model(batch.tokens).flatten(0, 1)[batch.read[2]])
    a, b = (task.text.encode_batch([each])[0][2] for each in (text, other))
    np.testing.assert_allclose(found.parts[0].value, (logits[a] - logits[b]).item(), rtol=1e-4)
    assert found.what == f"the log-odds of {text[2]!r} against {other[2]!r} as token 3"
    # Which ends first is a difference too.
    shorter = task.ask(record, Wanted(answer=text, rather_than=text[:2]))
    assert shorter.asked.what.endswith(f"against {END!r} as token 3")


def test_over_records_the_true_text_counts() -> None:
    task, source = MODELS["decoder"](), Turned()
    records = [{**source[i], **task.read_record(source, i)} for i in range(3)]
    (found,) = task.importance(records)
    assert found.n_records == 3 and np.isfinite(found.shapley_error)
    with torch.no_grad():
        own = task.question(records[0], Wanted(truth=True))
    assert own.answer == source[0][task.target]


def test_what_there_is_not_is_refused() -> None:
    task = MODELS["decoder"]()
    record, text = record_of(task)
    with pytest.raises(InputError, match=f"target: there is no 'x'; the model writes {task.target}"):
        task.explain(record, target="x")
    with pytest.raises(InputError, match=r"answer: .*'%', which is not in the vocabulary"):
        task.explain(record, answer="%")
    with pytest.raises(InputError, match="is the answer that is explained; give another"):
        task.explain(record, answer=text, rather_than=text)
    recording = built(recogniser("encoder"))
    with pytest.raises(InputError, match="explain needs a decoder that writes the text"):
        recording.explain(recording.read_record(Turned(), 0))
