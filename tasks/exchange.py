"""Models of other libraries as tasks of ours, and tasks of ours for other libraries: folders and files on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from anyformer.checkpoints import PART, sync_file, sync_folder, write_whole
from anyformer.errors import InputError
from anyformer.tasks.classify import Classify
from anyformer.tasks.language import LanguageModel, Masking
from anyformer.tasks.task import Task
from anyformer.tokenizers.image import ImagePatches
from anyformer.tokenizers.text import Text
from anyformer.tokenizers.vocabularies import read_vocabulary, write_vocabulary
from anyformer.weights import BERT, GPT2, Design, Family, Report, read_folder, to_timm
from anyformer.weights.pretrained import CONFIG, WEIGHTS, Settings, find_model, read_settings

FAMILIES = {name: family for family in (GPT2, BERT) for name in family.architectures}
"""The architectures that transformers and we both have."""
FIELD = "text"
"""What the one field of a model from elsewhere is called."""


def from_transformers(folder: str | Path) -> Task:
    """The task of a folder that transformers' `save_pretrained` wrote, with its weights, ready for `predict`.

    GPT2LMHeadModel goes on with a `text`, BertForMaskedLM fills the gaps of one, BertForSequenceClassification tells
    classes apart; BERT reads one sentence at a time.
    folder: as given from the current folder, else inside $ANYFORMER_DATA.
    Raises InputError for any other architecture, for options of these that have no counterpart here, and for a folder
    that lacks a part or is damaged.
    """
    return take_in(folder)[0]


def take_in(folder: str | Path) -> tuple[Task, Report]:
    """As `from_transformers`, with what became of every tensor."""
    folder = find_model(folder)
    settings = read_settings(folder)
    family, architecture = _family(settings)
    settings.require(quantization_config=None)
    try:
        design = family.design(settings, architecture)
    except InputError as error:
        raise InputError(str(error) if settings.path in str(error) else f"{settings.path}: {error}") from None
    text = Text(vocabulary=read_vocabulary(folder), max_len=design.max_len)
    if text.n_ids != design.vocab_size:
        raise InputError(
            f"{settings.path}: vocab_size is {design.vocab_size}, and the tokenizer of the folder has {text.n_ids} "
            "tokens; take both from one model"
        )
    state, source = read_folder(folder)
    task = _task(family.architectures[architecture], design, text, settings)
    task.build()
    report = family.load(task, FIELD, state, settings, source)
    return task.eval(), report


def _family(settings: Settings) -> tuple[Family, str]:
    named = settings.values.get("architectures")
    found = [name for name in named if name in FAMILIES] if isinstance(named, list) else []
    if not found:
        given = ", ".join(map(str, named)) if isinstance(named, list) and named else "missing"
        raise InputError(
            f"{settings.path}: architectures is {given}; those that can be brought in are {', '.join(FAMILIES)}"
        )
    settings.require(model_type=FAMILIES[found[0]].model_type)
    return FAMILIES[found[0]], found[0]


def _task(use: str, design: Design, text: Text, settings: Settings) -> Task:
    if use == "causal":
        if text.can_wrap:
            raise InputError(
                f"{Path(settings.path).parent}: the tokenizer puts tokens around a text, which a model that goes on "
                "with it cannot have"
            )
        options: dict[str, Any] = {"output": design.output, "context": design.max_len}
        return LanguageModel({FIELD: text}, design.transformer, design.embedding, **options)
    wrapped = {FIELD: replace(text, wrap=text.can_wrap)}
    if use == "masked":
        options = {"output": design.output, "context": design.max_len, "samples": "documents", "masking": Masking()}
        return LanguageModel(wrapped, design.transformer, design.embedding, **options)
    return Classify(
        wrapped,
        design.transformer,
        design.embedding,
        classes=_classes(settings),
        read="first",
        pool_dense=True,
        head_dropout=design.head_dropout,
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


def to_transformers(task: Task, folder: str | Path) -> None:
    """Write a task as a new folder that transformers' `from_pretrained` loads: config.json, model.safetensors,
    tokenizer.json and tokenizer_config.json. It appears whole or not at all.

    Raises InputError that names what transformers has no word for, and if there is such a folder already.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    family, use = _counterpart(task)
    architecture = family.architecture(use)
    ((name, text),) = task.tokenizers.items()
    positions = [place.sizes[0] for place in task.model.embeddings.positions if place.sizes]
    design = Design(
        task.transformer,
        task.embedding,
        max_len=positions[0] if positions else 0,
        vocab_size=text.n_ids,
        output=None if use == "classes" else task.output,
        head_dropout=task.head_dropout if use == "classes" else 0.0,
    )
    settings = {"architectures": [architecture], "model_type": family.model_type, **family.settings(design)}
    # Whatever the way back does not give again is more than their config.json can say.
    ours, theirs = design.plain, family.design(Settings(settings, CONFIG), architecture).plain
    if lost := [each for each in ours if ours[each] != theirs[each]]:
        raise InputError(
            f"{architecture} of transformers has no word for {lost[0]}: {ours[lost[0]]}; train a model without it"
        )
    if use != "causal" and text.wrap != text.can_wrap:
        raise InputError(
            f"tokenizers.{name}.wrap is false, and transformers puts around a text what its tokenizer.json says; "
            "train with wrap: true"
        )
    if use == "classes":
        settings["id2label"] = {str(i): each for i, each in enumerate(task.classes)}
        settings["label2id"] = {each: i for i, each in enumerate(task.classes)}
    end = text.eos_id if use == "causal" else None
    settings |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": text.pad_id, "dtype": "float32"}
    tensors = family.unload(task, name)

    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    write_vocabulary(text, part)
    # Without this word transformers refuses the file.
    save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
    for path in part.iterdir():
        sync_file(path)
    os.replace(part, folder)
    sync_folder(folder.absolute().parent)


def _counterpart(task: Task) -> tuple[Family, str]:
    """The family of a task, and what it is there for. Raises InputError if it has none."""
    texts = [text for text in task.tokenizers.values() if isinstance(text, Text)]
    if len(task.tokenizers) == 1 and texts and texts[0].kind != "bpe":
        raise InputError(
            f"a text of kind: {texts[0].kind} has no tokenizer.json, which transformers needs; train with kind: bpe"
        )
    if len(task.tokenizers) == 1 and texts and isinstance(task, LanguageModel):
        return (GPT2, "causal") if task.masking is None else (BERT, "masked")
    if len(task.tokenizers) != 1 or not texts or not isinstance(task, Classify):
        raise InputError(
            f"transformers has no counterpart of a {type(task).__name__} of {', '.join(task.tokenizers)}; language "
            "models and classifiers of one text have"
        )
    wrong = {
        f"read: {task.read}": task.read != "first",
        "pool_dense: false": not task.pool_dense,
        "pool_norm: true": task.pool_norm,
        f"n_registers: {task.n_registers}": task.n_registers,
        "sees": task.sees is not None,
    }
    if found := [what for what, is_there in wrong.items() if is_there]:
        raise InputError(
            f"{BERT.architecture('classes')} of transformers has no word for {found[0]}; train a model without it"
        )
    return BERT, "classes"


def export(task: Task, target: str | Path) -> None:
    """Write a task for other libraries: a classifier of pictures as a new safetensors file with timm's names, else a
    folder for transformers.

    Raises InputError for what has no counterpart there.
    """
    target = Path(target)
    is_vit = any(isinstance(tokenizer, ImagePatches) for tokenizer in task.tokenizers.values())
    if not is_vit:
        if target.suffix == ".safetensors":
            raise InputError(f"{target}: a model of text is written as a folder; leave .safetensors out")
        to_transformers(task, target)
        return
    if not isinstance(task, Classify):
        raise InputError(f"timm has no counterpart of a {type(task).__name__}; classifiers of pictures have")
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a model of pictures is written as a file for timm; give FILE.safetensors")
    if target.exists():
        raise InputError(f"{target} is there already; choose another file")
    tensors = {name: tensor.contiguous() for name, tensor in to_timm(task).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda part: save_file(tensors, part, metadata={"format": "pt"}))
