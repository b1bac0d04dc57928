"""Language models and classifiers of a text from transformers and to it; what has no counterpart there is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.huggingface import export, from_transformers, to_transformers
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.text.text import Text
from tests.helpers.transformers_folders import bert
from tests.tasks.convert.test_huggingface import settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "regression"}, r"problem_type: 'regression' cannot"),
        ({"id2label": {"0": "a", "2": "b"}}, r"id2label must name the classes"),
        ({"id2label": {"0": "a", "1": "a"}}, r"id2label must name the classes"),
    ],
    ids=str,
)
def test_classes_that_cannot_be_told_apart_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    bert(tmp_path, "classes")
    settings(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        from_transformers(tmp_path)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    bert(tmp_path, "classes", id2label={0: "LABEL_0", 1: "LABEL_1"})
    settings(tmp_path, id2label=None, label2id=None)
    assert from_transformers(tmp_path).classes == ["LABEL_0", "LABEL_1"]


# Out

TEXT = Text(vocab_size=260, max_len=9).fit(["to be or not to be"])
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=1)
LIKE_BERT = {"output": HeadConfig(bias=True, transform="gelu"), "masking": Masking()}


def language(transformer: TransformerConfig = SIZES, text: Text = TEXT, **choices: Any) -> LanguageModel:
    task = LanguageModel({"text": text}, transformer, **({"context": 9} | choices))
    task.build()
    return task


def telling(text: Text = TEXT, **choices: Any) -> Classify:
    post = replace(SIZES, norm_position="post")
    task = Classify(
        {"text": text}, post, **({"embedding": EmbeddingConfig(norm=True), "classes": ["a", "b"]} | choices)
    )
    task.build()
    return task


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: language(replace(SIZES, norm="rmsnorm")),
            r"GPT2LMHeadModel .* does not support transformer\.norm: rms",
        ),
        (lambda: language(replace(SIZES, gated=True)), r"not support transformer\.gated: True"),
        (lambda: language(replace(SIZES, q_bias=False)), r"not support transformer\.q_bias: False; train a model with"),
        (lambda: language(replace(SIZES, n_kv_heads=1)), r"not support transformer\.n_kv_heads: 1"),
        (lambda: language(embedding=EmbeddingConfig(positions=[])), r"not support embedding\.positions: \[\]"),
        (
            lambda: language(embedding=EmbeddingConfig(positions=[PositionConfig(("word",), "sinusoidal")])),
            r"not support embedding\.positions",
        ),
        (lambda: language(output=HeadConfig(scaled=True)), r"not support output\.scaled: True"),
        (lambda: language(**LIKE_BERT), r"BertForMaskedLM .* does not support transformer\.norm_position: pre"),
        (
            lambda: language(text=Text("bytes", max_len=9)),
            r"kind: bytes has no tokenizer\.json, .* with kind: bpe",
        ),
        (lambda: telling(), r"BertForSequenceClassification .* does not support read: class"),
        (lambda: telling(read="first"), r"does not support pool_dense: false"),
        (lambda: telling(read="first", pool_dense=True, n_registers=2), r"does not support n_registers: 2"),
        (lambda: telling(read="first", pool_dense=True, pool_norm=True), r"does not support pool_norm: true"),
    ],
)
def test_what_transformers_has_no_word_for_is_named(tmp_path: Path, make: Callable[[], Task], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        export(make(), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_text_that_is_not_wrapped_is_not_said_to_be(tmp_path: Path) -> None:
    bert(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    task.tokenizers["text"] = replace(task.text, wrap=False)
    with pytest.raises(InputError, match=r"tokenizers\.text\.wrap is false, and .*; train with wrap: true"):
        to_transformers(task, tmp_path / "out")


def test_sight_of_some_fields_alone_is_named(tmp_path: Path) -> None:
    task = telling(read="first", pool_dense=True)
    task.fields = replace(task.fields, sees={"text": ["text"]})
    with pytest.raises(InputError, match=r"not support fields\.sees; train a model without it"):
        export(task, tmp_path / "out")
