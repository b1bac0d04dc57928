"""Models of other libraries as tasks of ours, and tasks of ours for other libraries: folders and files on the disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from anyformer.data.files import find_file
from anyformer.errors import InputError
from anyformer.saving.atomic import PART, sync_file, sync_folder, write_whole
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.decide import decide_design, decide_settings, decide_task, with_spaces
from anyformer.tasks.convert.sequence import (
    counterpart,
    sequence_design,
    sequence_settings,
    sequence_task,
    write_sequence_files,
)
from anyformer.tasks.convert.text import FIELD, single_design, text_task
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.huggingface import read_vocabulary, sized_text, write_vocabulary
from anyformer.tokenizers.text.text import Text
from anyformer.weights.bert import BERT
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.gpt2 import GPT2
from anyformer.weights.huggingface import (
    CONFIG,
    WEIGHTS,
    Family,
    Settings,
    find_model,
    read_folder,
    read_settings,
)
from anyformer.weights.marian import MARIAN
from anyformer.weights.t5 import T5
from anyformer.weights.tensors import Report
from anyformer.weights.timm_vit import to_timm
from anyformer.weights.whisper import WHISPER, read_openai, to_openai

KNOWN = (GPT2, BERT, WHISPER, MARIAN, T5, DECISION_TRANSFORMER)
FAMILIES = {name: family for family in KNOWN for name in family.architectures}
"""The architectures that transformers and we both have."""


def from_transformers(
    folder: str | Path, language: str | None = None, pad: bool = False, environment: str | None = None
) -> Task:
    """The task of a folder that transformers' `save_pretrained` wrote, with its weights, ready for `predict`.

    GPT2LMHeadModel goes on with a `text`, BertForMaskedLM fills the gaps of one, BertForSequenceClassification tells
    classes apart; BERT reads one sentence at a time. WhisperForConditionalGeneration writes down what is said in an
    `audio`, MarianMTModel and T5ForConditionalGeneration write what answers to a `text`. DecisionTransformerModel acts.
    folder: as given from the current folder, else inside $ANYFORMER_DATA; or OpenAI's file of a Whisper, FILE.pt, with
        a tokenizer.json beside it.
    language: of Whisper: the one that is spoken, such as `de`; told from the sound when left out.
    pad: of Whisper: whether a recording is filled with silence to 30 seconds, as those were that it has learnt from.
    environment: of a Decision Transformer: the name of the one that it acts in, where its config.json does not tell.
    Raises InputError for any other architecture, for options of these that have no counterpart here, and for a folder
    that lacks a part or is damaged.
    """
    return take_in(folder, language, pad, environment)[0]


def take_in(
    folder: str | Path, language: str | None = None, pad: bool = False, environment: str | None = None
) -> tuple[Task, Report]:
    """As `from_transformers`, with what became of every tensor."""
    if Path(folder).suffix == ".pt":
        source = find_file(folder)
        folder = Path(source).parent
        settings, state = read_openai(source)
    else:
        folder = find_model(folder)
        settings, state = read_settings(folder), None
    family, architecture = _family(settings)
    settings.require(quantization_config=None)
    if state is None:
        state, source = read_folder(folder)
    settings, use = family.settled(settings, state), family.architectures[architecture]
    if use == "acts":
        settings = with_spaces(settings, environment)
    elif environment is not None:
        raise InputError(f"{folder}: --env is for Decision Transformers; leave it out")
    if use not in ("text", "speech") and (language is not None or pad):
        raise InputError(f"{folder}: --language and --pad are for Whisper; leave them out")
    try:
        design = family.design(settings, architecture)
        acting = decide_task(design, settings) if use == "acts" else None
    except InputError as error:
        raise InputError(str(error) if settings.path in str(error) else f"{settings.path}: {error}") from None
    if use in ("text", "speech"):
        task: Task = sequence_task(use, design, settings, folder, language, pad)
    elif acting is not None:
        task = acting
    else:
        text = sized_text(read_vocabulary(folder), design.max_len, design.vocab_size, settings.path)
        task = text_task(use, design, text, settings)
    task.build()
    field = task.target if isinstance(task, SequenceToSequence) else None if acting else FIELD
    report = family.load(task, field, state, settings, source)
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


def to_transformers(task: Task, folder: str | Path) -> None:
    """Write a task as a new folder that transformers' `from_pretrained` loads: config.json, model.safetensors and the
    tokenizer; generation_config.json and preprocessor_config.json where they belong. It appears whole or not at all.

    Raises InputError that names what transformers has no word for, and if there is such a folder already.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    settings, tensors = _transformers_model(task)

    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        (part / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if isinstance(task, SequenceToSequence):
            write_sequence_files(task, part)
        elif not isinstance(task, Decide):
            write_vocabulary(next(iter(task.tokenizers.values())), part)
        # Without this word transformers refuses the file.
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        for path in part.iterdir():
            sync_file(path)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(folder.absolute().parent)


def _transformers_model(task: Task) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What config.json and model.safetensors hold of a task. Raises InputError for what they have no word for."""
    family, use = _counterpart(task)
    architecture = family.architecture(use)
    if isinstance(task, SequenceToSequence):
        name, design, rest = task.target, sequence_design(task), sequence_settings(task)
    elif isinstance(task, Decide):
        name, design, rest = None, decide_design(task), decide_settings(task)
    else:
        name, design, rest = single_design(task, use)
    settings = {"architectures": [architecture], "model_type": family.model_type, **family.settings(design)}
    # Whatever the way back does not give again is more than their config.json can say.
    ours, theirs = design.plain, family.design(Settings(settings, CONFIG), architecture).plain
    if lost := [each for each in ours if ours[each] != theirs[each]]:
        raise InputError(
            f"{architecture} of transformers has no word for {lost[0]}: {ours[lost[0]]}; train a model without it"
        )
    return settings | rest | {"dtype": "float32"}, family.unload(task, name)


def _counterpart(task: Task) -> tuple[Family, str]:
    """The family of a task, and what it is there for. Raises InputError if it has none."""
    if isinstance(task, SequenceToSequence):
        return counterpart(task)
    if isinstance(task, Decide):
        return DECISION_TRANSFORMER, "acts"
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
        "fields.sees": bool(task.fields.sees),
    }
    if found := [what for what, is_there in wrong.items() if is_there]:
        raise InputError(
            f"{BERT.architecture('classes')} of transformers has no word for {found[0]}; train a model without it"
        )
    return BERT, "classes"


def export(task: Task, target: str | Path) -> None:
    """Write a task for other libraries: a classifier of pictures as a new safetensors file with timm's names, a Whisper
    as OpenAI's file where FILE.pt is asked for, else a folder for transformers.

    Raises InputError for what has no counterpart there.
    """
    target = Path(target)
    is_vit = any(isinstance(tokenizer, ImagePatches) for tokenizer in task.tokenizers.values())
    if not is_vit and target.suffix == ".pt":
        _to_openai(task, target)
        return
    if not is_vit:
        if target.suffix == ".safetensors":
            kind = "that acts" if isinstance(task, Decide) else "of text"
            raise InputError(f"{target}: a model {kind} is written as a folder; leave .safetensors out")
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


def _to_openai(task: Task, target: Path) -> None:
    if target.exists():
        raise InputError(f"{target} is there already; choose another file")
    family, _ = _counterpart(task)
    if family is not WHISPER:
        raise InputError(f"{target}: OpenAI's file is of a Whisper; leave .pt out for a folder")
    loaded = to_openai(*_transformers_model(task))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda part: torch.save(loaded, part))
