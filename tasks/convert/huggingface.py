"""Models of other libraries as tasks of ours, and tasks of ours for other libraries: folders and files on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyformer.data.files import find_beside
from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import PART, sync_file, sync_folder, write_counted, write_tensors, write_whole
from anyformer.saving.model_folder import Undrawn
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.bare import bare_task, read_sentences
from anyformer.tasks.convert.decide import decide_design, decide_settings, decide_task, with_spaces
from anyformer.tasks.convert.sequence import (
    Pad,
    sequence_design,
    sequence_kind,
    sequence_settings,
    sequence_task,
    write_sequence_files,
)
from anyformer.tasks.convert.text import FIELD, text_design, text_kind, text_task
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.embed.embed import Embed
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.huggingface import read_vocabulary, sized_text, write_vocabulary
from anyformer.weights.families import FAMILIES, choose_family, find_bare, find_family
from anyformer.weights.huggingface import (
    CONFIG,
    WEIGHTS,
    Design,
    Family,
    find_model,
    read_folder,
    read_settings,
)
from anyformer.weights.tensors import Report
from anyformer.weights.timm_vit import to_timm


def from_transformers(
    folder: str | Path, language: str | None = None, pad: Pad | None = None, environment: str | None = None
) -> Task:
    """The task of a folder that transformers' `save_pretrained` wrote, with its weights, ready for `predict`.

    GPT2LMHeadModel goes on with a `text`, BertForMaskedLM fills the gaps of one, BertForSequenceClassification tells
    classes apart; BERT reads one sentence at a time. BertModel, RobertaModel, XLMRobertaModel, GPT2Model,
    T5EncoderModel and ViTModel give vectors (`Embed`), and so does what a folder of sentence-transformers holds.
    WhisperForConditionalGeneration and WhisperModel write down what is said in an `audio`, MarianMTModel and
    T5ForConditionalGeneration write what answers to a `text`. DecisionTransformerModel acts.
    folder: as given from the current folder, else inside $ANYFORMER_DATA or beside it; or OpenAI's file of a Whisper,
        FILE.pt, with a tokenizer.json beside it, or the folder of both.
    language: of Whisper: the one that is spoken, such as `de`; told from the sound when left out.
    pad: of Whisper: "full" fills a recording with silence to 30 seconds, as all were that it has learnt from; so it is
        when left out. "auto" puts 5 seconds behind it, as good and faster; "none" nothing, for fine-tuning without.
    environment: of a Decision Transformer: the name of the one that it acts in, where its config.json does not tell.
    Raises InputError for any other architecture, for options of these that have no counterpart here, and for a folder
    that lacks a part or is damaged.
    """
    return take_in(folder, language, pad, environment)[0]


def take_in(
    folder: str | Path, language: str | None = None, pad: Pad | None = None, environment: str | None = None
) -> tuple[Task, Report]:
    """As `from_transformers`, with what became of every tensor."""
    task, load = open_folder(folder, language, pad, environment)
    with Undrawn():
        task.build()
    return task.eval(), load()


def open_folder(
    folder: str | Path, language: str | None = None, pad: Pad | None = None, environment: str | None = None
) -> tuple[Task, Callable[[], Report]]:
    """As `take_in`, but the task is not built yet; what it is given with puts the weights into it once it is."""
    sentences = None
    path = openai_file(find_beside(folder)) if "://" not in str(folder) else None
    if path is not None:
        folder, source = path.parent, str(path)
        (read_file,) = (family.read_file for family in FAMILIES if family.read_file)
        settings, state = read_file(source)
    else:
        folder = find_model(folder)
        sentences = read_sentences(folder)
        folder = folder if sentences is None else sentences.model
        settings, state = read_settings(folder), None
    # Of a folder that makes vectors of sentences the head is of no use.
    family, architecture = (sentences and find_bare(settings)) or find_family(settings)
    settings.require(quantization_config=None)
    if state is None:
        state, source = read_folder(folder)
    settings, kind = family.settled(settings, state), family.kinds[architecture]
    if kind == "decide":
        settings = with_spaces(settings, environment)
    elif environment is not None:
        raise InputError(f"{folder}: --env is for Decision Transformers; leave it out")
    if kind != "speech" and (language is not None or pad is not None):
        raise InputError(f"{folder}: --language and --pad are for Whisper; leave them out")
    try:
        design = family.design(settings, architecture)
        acting = decide_task(design, settings) if kind == "decide" else None
    except InputError as error:
        raise InputError(str(error) if settings.path in str(error) else f"{settings.path}: {error}") from None
    if kind in ("sequence", "speech"):
        task: Task = sequence_task(family, design, settings, folder, language, pad or "full")
    elif acting is not None:
        task = acting
    elif kind == "bare":
        task = bare_task(family, design, settings, folder, sentences)
    else:
        text = sized_text(read_vocabulary(folder), design.max_len, design.vocab_size, settings.path)
        task = text_task(kind, design, text, settings)
    field = task.target if isinstance(task, SequenceToSequence) else FIELD if FIELD in task.tokenizers else None
    return task, lambda: family.load(task, field, state, settings, source)


def openai_file(place: str | Path) -> Path | None:
    """OpenAI's file of a Whisper: itself, or the only one of a folder without a config.json; None if it is none."""
    place = Path(place)
    if place.is_dir() and not (place / CONFIG).exists():
        files = sorted(place.glob("*.pt"))
        return files[0] if len(files) == 1 else None
    return place if place.suffix == ".pt" else None


def to_transformers(task: Task, folder: str | Path) -> None:
    """Write a task as a new folder that transformers' `from_pretrained` loads: config.json, model.safetensors and the
    tokenizer; generation_config.json and preprocessor_config.json where they belong. It appears whole or not at all.

    Raises InputError that names what transformers does not support, and if there is such a folder already.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    made = _convert(task)

    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(folder):
            _write_folder(task, made, part)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(folder.absolute().parent)


def _write_folder(task: Task, made: _Export, part: Path) -> None:
    part.mkdir(parents=True)
    (part / CONFIG).write_text(json.dumps(made.settings, indent=2) + "\n", encoding="utf-8")
    if isinstance(task, SequenceToSequence):
        write_sequence_files(task, made.design, made.family, part)
    elif not isinstance(task, Decide):
        write_vocabulary(next(iter(task.tokenizers.values())), part)
    # Without this word transformers refuses the file.
    write_tensors(part / WEIGHTS, made.tensors, {"format": "pt"})
    for path in part.iterdir():
        sync_file(path)


@dataclass(frozen=True)
class _Export:
    """A task as transformers has it."""

    family: Family
    design: Design
    settings: dict[str, Any]
    """config.json."""
    tensors: dict[str, Tensor]


def _convert(task: Task) -> _Export:
    """Raises InputError for what transformers does not support."""
    family, name, design, settings = family_of(task)
    return _Export(family, design, settings, family.unload(task, name))


def family_of(task: Task) -> tuple[Family, str | None, Design, dict[str, Any]]:
    """The family of a task, its field of text, its design and its config.json.

    Raises InputError for what transformers does not support.
    """
    if isinstance(task, Embed):
        raise InputError(
            "a model without a head is as it was brought in, and is not exported; train a task with init_from its "
            "folder, and export that"
        )
    if isinstance(task, SequenceToSequence):
        kind = sequence_kind(task)
        name, design, rest = task.target, sequence_design(task), sequence_settings(task)
    elif isinstance(task, Decide):
        kind, name, design, rest = "decide", None, decide_design(task), decide_settings(task)
    else:
        kind = text_kind(task)
        name, design, rest = text_design(task, kind)
    family, settings = choose_family(kind, design, task)
    return family, name, design, settings | rest | {"dtype": "float32"}


def export(task: Task, target: str | Path) -> None:
    """Write a task for other libraries: a classifier of pictures as a new safetensors file with timm's names, a Whisper
    as OpenAI's file where FILE.pt is asked for, else a folder for transformers.

    Raises InputError for what has no counterpart there.
    """
    target = Path(target)
    is_vit = not isinstance(task, Embed) and any(
        isinstance(tokenizer, ImagePatches) for tokenizer in task.tokenizers.values()
    )
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
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda part: write_tensors(part, tensors, {"format": "pt"}))


def _to_openai(task: Task, target: Path) -> None:
    if target.exists():
        raise InputError(f"{target} is there already; choose another file")
    made = _convert(task)
    if made.family.write_file is None:
        raise InputError(f"{target}: OpenAI's file is of a Whisper; leave .pt out for a folder")
    loaded = made.family.write_file(made.settings, made.tensors)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda part: write_counted(part, lambda file: torch.save(loaded, file)))
