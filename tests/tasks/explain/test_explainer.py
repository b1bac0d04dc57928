"""Explanations of whole tasks: of a model that has learned to look at one token, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.explaining.deletion import deletion
from anyformer.explaining.fields import value_of
from anyformer.explaining.relevance import whole_maps
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.text.text import Text

LETTERS, MARKS, LENGTH = "abcdefgh", "XY", 30


def marked(generator: np.random.Generator, none: float = 0.0) -> tuple[dict[str, Any], int]:
    """Letters, of which one is a mark that sets the label, and where it stands. none: the share without a mark; else
    a model would need none to say one of them."""
    text = generator.choice(list(LETTERS), LENGTH)
    place = int(generator.integers(LENGTH))
    if generator.random() < none:
        return {"text": "".join(text), "label": "none"}, place
    text[place] = mark = str(generator.choice(list(MARKS)))
    return {"text": "".join(text), "label": mark}, place


@pytest.fixture(scope="module")
def trained() -> Classify:
    """A model that tells the mark."""
    torch.manual_seed(0)
    text = Text(kind="characters").fit([LETTERS + MARKS])
    sizes = TransformerConfig(d_model=32, depth=2, n_heads=4, rotary=RotaryConfig(("word",)))
    task = Classify({"text": text}, sizes, classes=[*MARKS, "none"])
    task.build()
    chopper, generator = task.chopper(training=True), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(140):
        batch = chopper.collate([chopper(marked(generator, 1 / 3)[0]) for _ in range(32)])
        loss, n = task.loss(batch)
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    assert loss / n < 0.1
    return task.eval()


def test_the_one_token_that_sets_the_label_comes_first_by_every_method(trained: Classify) -> None:
    generator, n = np.random.default_rng(1), 20
    first = {"relevance": 0, "rollout": 0, "shapley": 0}
    for number in range(n):
        record, place = marked(generator)
        question = trained.ask({"text": record["text"]})
        assert question.answer == record["label"]
        maps = whole_maps(question.asked, question.sample)
        for name, own in maps.items():
            first[name] += int(own["text"].argmax()) == place
        if number == 0:
            players = {str(i): {"text": torch.arange(LENGTH) == i} for i in range(LENGTH)}
            values = value_of(question.asked, question.sample, players).shapley.values
            first["shapley"] += int(values.argmax()) == place
        if number < 3:
            assert deletion(question.asked, question.sample, maps).is_better("relevance")
    assert first["relevance"] >= 0.95 * n
    assert first["rollout"] >= 0.95 * n
    assert first["shapley"] == 1


def test_why_one_answer_and_not_another_is_the_difference_of_their_logits(trained: Classify) -> None:
    record = {"text": "abcXefghabcdefgh"}
    found = trained.explain(record, answer="Y", rather_than="none")
    chopper = trained.chopper(training=False)
    logits = trained(chopper.collate([chopper(record, labelled=False)]).tokens)[0]
    np.testing.assert_allclose(found.parts[0].value, (logits[1] - logits[2]).item(), rtol=1e-5)
    assert found.what == "the log-odds of Y against none"


def test_two_explanations_of_a_record_are_the_same(trained: Classify) -> None:
    once, again = (trained.explain({"text": "abcXefghabcdefgh"}).as_dict() for _ in range(2))
    assert once == again


def test_a_frozen_model_is_explained_too(trained: Classify) -> None:
    whole = trained.explain({"text": "abcXefgh"})
    try:
        trained.requires_grad_(False)
        frozen = trained.explain({"text": "abcXefgh"})
    finally:
        trained.requires_grad_(True)
    torch.testing.assert_close(frozen.whole("relevance"), whole.whole("relevance"))


def test_importance_is_of_records_with_their_true_values(trained: Classify) -> None:
    generator = np.random.default_rng(2)
    (found,) = trained.importance([marked(generator)[0] for _ in range(8)])
    assert (found.name, found.n_records) == ("text", 8)
    # Without a text the model would say that there is no mark; one of another record is often right by chance.
    assert found.shapley > 2 * found.shapley_error > 0
    assert found.shapley > 1 and found.permuted > 0
    with pytest.raises(InputError, match="field 'label' must hold the true value"):
        trained.importance([{"text": "aX"}])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answer": "W"}, "answer: 'W' is no answer of the model; there are X, Y, none"),
        ({"rather_than": "x"}, "rather_than: 'x' is no answer of the model; did you mean 'X'?"),
        ({"answer": "X", "rather_than": "X"}, "rather_than: 'X' is the answer that is explained; give another"),
        ({"target": "labels"}, "target: there is no 'labels'; did you mean 'label'?"),
    ],
)
def test_what_there_is_not_is_refused(trained: Classify, given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        trained.explain({"text": "aX"}, **given)


def test_records_that_cannot_be_used_are_refused(trained: Classify) -> None:
    with pytest.raises(InputError, match="the model has no field 'texts'; did you mean 'text'"):
        trained.explain({"texts": "aX"})
    with pytest.raises(InputError, match="explain takes one record, a dict of text; got str"):
        trained.explain("aX")
    with pytest.raises(InputError, match="a record needs one of the fields text"):
        trained.explain({})


def test_layers_and_heads_that_there_are_not_are_refused(trained: Classify) -> None:
    found = trained.explain({"text": "abX"})
    assert found.grid(2, 3).weights.shape == (1, 4, 4)
    assert torch.equal(found.grid(-1).weights, found.grid(2).weights)
    for layer in (0, 3, -3):
        with pytest.raises(InputError, match=f"layer must be from 1 to 2, or -1 for the last, got {layer}"):
            found.grid(layer)
    with pytest.raises(InputError, match="head must be from 1 to 4, got 5"):
        found.grid(1, 5)
    with pytest.raises(InputError, match="no cross-attention in transformer"):
        found.grid(kind="cross")


def test_a_task_that_has_no_answers_to_explain_and_one_without_weights_are_refused() -> None:
    text = Text(kind="characters").fit(["ab"])
    with pytest.raises(InputError, match="the task has no weights yet"):
        Classify({"text": text}, classes=["a", "b"]).explain({"text": "a"})
    task = LanguageModel({"text": text}, transformer=TransformerConfig(8, 1, 1), context=8)
    task.build()
    with pytest.raises(InputError, match="LanguageModel has no `explain`"):
        task.explain({"text": "a"})
