"""Texts of another library: BERT's and GPT-2's heads and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.text.text import Text
from anyformer.weights.huggingface import Design, Kind, Settings

FIELD = "text"
"""What the one field of a model from elsewhere is called."""


def text_task(kind: Kind, design: Design, text: Text, settings: Settings) -> Task:
    if kind == "language":
        if text.can_wrap:
            raise InputError(
                f"{Path(settings.path).parent}: the tokenizer puts tokens around a text, which a model that goes on "
                "with it cannot have"
            )
        options: dict[str, Any] = {"output": design.output, "context": design.max_len}
        return LanguageModel({FIELD: text}, design.transformer, design.embedding, **options)
    wrapped = {FIELD: replace(text, wrap=text.can_wrap)}
    if kind == "masked":
        options = {"output": design.output, "context": design.max_len, "samples": "documents", "masking": Masking()}
        return LanguageModel(wrapped, design.transformer, design.embedding, **options)
    return Classify(
        wrapped,
        design.transformer,
        design.embedding,
        classes=_classes(settings),
        head_dropout=design.head_dropout,
        **design.options,
    )


def _classes(settings: Settings) -> list[str]:
    if settings.values.get("problem_type") is not None:
        settings.require(problem_type="single_label_classification")
    names = settings.values.get("id2label")
    if names is None:
        names = {str(i): f"LABEL_{i}" for i in range(settings.get("num_labels", 2))}
    wanted = [str(i) for i in range(len(names))] if isinstance(names, Mapping) else []
    if len(wanted) < 2 or sorted(names) != sorted(wanted) or len({str(name) for name in names.values()}) < len(wanted):
        raise InputError(
            f'{settings.path}: id2label must name the classes, at least two and no two alike: {{"0": ..., "1": ...}}'
        )
    return [str(names[i]) for i in wanted]


def text_kind(task: Task) -> Kind:
    """What a task of one text is to transformers. Raises InputError if there is no such thing there."""
    texts = [text for text in task.tokenizers.values() if isinstance(text, Text)]
    if len(task.tokenizers) == 1 and texts and texts[0].kind != "bpe":
        raise InputError(
            f"a text of kind: {texts[0].kind} has no tokenizer.json, which transformers needs; train with kind: bpe"
        )
    if len(task.tokenizers) == 1 and texts and isinstance(task, LanguageModel):
        return "language" if task.masking is None else "masked"
    if len(task.tokenizers) != 1 or not texts or not isinstance(task, Classify):
        raise InputError(
            f"transformers has no counterpart of a {type(task).__name__} of {', '.join(task.tokenizers)}; language "
            "models and classifiers of one text have"
        )
    if task.fields.sees:
        raise InputError("transformers does not support fields.sees; train a model without it")
    return "classify"


def text_design(task: Task, kind: Kind) -> tuple[str, Design, dict[str, Any]]:
    """The one field of a task, its design, and what a config.json says beside it."""
    ((name, text),) = task.tokenizers.items()
    positions = [place.sizes[0] for place in task.model.embeddings.positions if place.sizes]
    design = Design(
        task.transformer,
        task.embedding,
        max_len=positions[0] if positions else text.max_len,
        vocab_size=text.n_ids,
        output=None if kind == "classify" else task.output,
        head_dropout=task.head_dropout if kind == "classify" else 0.0,
    )
    if kind == "language" and text.can_wrap:
        raise InputError(
            f"tokenizers.{name}: its tokenizer.json puts tokens around a text, which transformers would do before it "
            "goes on with it; train with one that does not"
        )
    if text.wrap != text.can_wrap:
        raise InputError(
            f"tokenizers.{name}.wrap is false, and transformers puts around a text what its tokenizer.json says; "
            "train with wrap: true"
        )
    end = text.eos_id if kind == "language" else None
    rest: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": text.pad_id}
    if kind == "classify":
        rest["id2label"] = {str(i): each for i, each in enumerate(task.classes)}
        rest["label2id"] = {each: i for i, each in enumerate(task.classes)}
    return name, design, rest
