"""The models that `Pretrained` fields of a task name, opened: what encodes the field, and its weights.

A tokenizer knows no task, so that it cannot open one: this is done for it, once, before training begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anyformer.errors import InputError, nearest
from anyformer.model.by_field import module_name
from anyformer.model.config import RotaryConfig
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.plain import plain
from anyformer.tasks.base.task import Task
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.embed.embed import Embed
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.start.opening import describe_model, open_model
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.pretrained import EncoderConfig, Pretrained
from anyformer.tokens import Tokenizer, expand


def open_encoders(task: Task, packages: Sequence[str] = ()) -> None:
    """Let the `Pretrained` fields of a task, or of the tasks of a mixture, find what their sources are, in place, and
    hand it their weights. A task that has been built has them.

    What a field has in the model of `init_from` too is taken from there, and its source is not looked at.
    packages: beside anyformer, that a run's config may name classes of.
    Raises InputError, with the field, for a source that is not there or has no encoder of one field.
    """
    if task.model is not None or task.has_started:
        return
    for member, field, tokenizer in _pretrained(task):
        if field in member.encoders or _is_in_start(task, field, tokenizer, packages):
            continue
        try:
            member.tokenizers[field], member.encoders[field] = _open(tokenizer, packages)
        except InputError as error:
            raise InputError(f"model.{_path(task, member)}tokenizers.{field}.source: {error}") from error


def has_unopened(task: Task) -> bool:
    """Whether a field of a task is `Pretrained` and does not know its source."""
    return any(tokenizer.encoder is None for _, _, tokenizer in _pretrained(task))


def _pretrained(task: Task) -> Iterator[tuple[Task, str, Pretrained]]:
    for member in (task.members or {"": task}).values():
        for field, tokenizer in list(member.tokenizers.items()):
            if isinstance(tokenizer, Pretrained):
                yield member, field, tokenizer
            if isinstance(tokenizer, Facets) and any(isinstance(cut, Pretrained) for cut in tokenizer.cuts.values()):
                raise InputError(
                    f"model.{_path(task, member)}tokenizers.{field}: a Pretrained cannot be one of the cuts of a "
                    "record; give it a field of its own"
                )


def _path(task: Task, member: Task) -> str:
    return next((f"tasks.{name}." for name, each in task.members.items() if each is member), "")


def _is_in_start(task: Task, field: str, tokenizer: Pretrained, packages: Sequence[str]) -> bool:
    """Whether the model of `init_from` has the field, with weights that may have been trained since."""
    source = task.pretrained or task.init_from
    start = None if source is None else describe_model(source, packages)
    if start is None:
        return False
    for member in (start.members or {"": start}).values():
        theirs = member.tokenizers.get(field)
        if theirs is not None and tokenizer.is_same(theirs):
            task.inherit_from(start)
            return True
    return False


def _open(tokenizer: Pretrained, packages: Sequence[str]) -> tuple[Pretrained, dict[str, Tensor]]:
    name = tokenizer.source
    source = open_model(name, packages)
    if source is None:
        raise InputError(f"{name} does not say of which model it is; put timm's config.json beside it")
    _check_kind(source, name)
    if source.base is not None:
        source.merge()
    field = _find_field(source, tokenizer)
    encoder, names = _describe(source, field, name)
    if tokenizer.options:
        own = _changed(encoder.tokenizer, tokenizer.options)
        encoder = replace(encoder, tokenizers={**encoder.tokenizers, field: own})
    opened = tokenizer.opened(encoder)
    return opened, _weights(opened, source, names)


def _check_kind(source: Task, name: str) -> None:
    if source.members:
        raise InputError(
            f"{name} is a mixture; name one of its tasks: {' or '.join(f'{name}:{m}' for m in source.members)}"
        )
    if isinstance(source, Decide):
        raise InputError(
            f"{name} is a policy, which reads the steps of an episode and no field by itself; name a model of "
            "pictures, texts, sounds or the like"
        )
    if source.model is None:
        raise InputError(f"{name} is a {type(source).__name__}, which has no model of its own; name one of a run")
    if isinstance(source, LanguageModel) and source.masking is None and source.samples == "documents":
        raise InputError(
            f"{name} is a causal language model of documents, which only goes on from the start of one; name a model "
            "that was trained on windows (as GPT-2), or one that reads a text as a whole: a BERT, a classifier, masked"
        )


def _find_field(source: Task, tokenizer: Pretrained) -> str:
    fields = list(expand({name: source.tokenizers[name] for name in source.inputs}))
    if tokenizer.field is None and len(fields) == 1:
        return fields[0]
    if tokenizer.field is None:
        raise InputError(f"{tokenizer.source} reads the fields {', '.join(fields)}; say by `field` which one it is")
    if tokenizer.field not in fields:
        raise InputError(
            f"{tokenizer.source} reads no field {tokenizer.field!r}; there are {', '.join(fields)}"
            f"{nearest(tokenizer.field, fields)}"
        )
    return tokenizer.field


def _changed(tokenizer: Tokenizer, options: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer with other arguments, as a config has them."""
    config = plain(tokenizer)
    try:
        return instantiate({**config, "init_args": {**config["init_args"], **options}})
    except InputError as error:
        raise InputError(f"options: {str(error).removeprefix('config.json: ')}") from None


def _describe(source: Task, field: str, name: str) -> tuple[EncoderConfig, dict[str, str]]:
    """What encodes a field of a task by itself; and what the task's model calls its tensors, where otherwise."""
    model, own = source.model, dict(source.own_tokens)
    tokenizers = {field: expand(source.tokenizers)[field], **own}
    embeddings, stack = model.embeddings, model.reader
    if tokenizers[field].n_relations and any(
        each.n_relations for other, each in model.tokenizers.items() if other != field
    ):
        raise InputError(f"{name} has several fields with relations, whose biases are one table; name one of one field")
    if getattr(source.fields, "links", None):
        raise InputError(f"{name} has links between tokens (fields.links), which records of another task do not give")
    names = {f"embeddings.lifts.{module_name(field)}.": f"embeddings.lifts.{_owner(source, field)}."}
    if stack is model.encoder:
        names |= {"transformer.": "encoder.", "relative.": "encoder_relative."}
        names |= {"relation_bias.": "encoder_relation_bias."}
    axes = [set(each.axes) for each in tokenizers.values()]
    positions = []
    for i, (config, module) in enumerate(zip(embeddings.placed, embeddings.positions, strict=True)):
        if any(set(config.axes) <= each for each in axes):
            names[f"embeddings.positions.{len(positions)}."] = f"embeddings.positions.{i}."
            positions.append(replace(config, sizes=tuple(module.sizes) or None))
    transformer, rotary = stack.config, embeddings.rotary
    if transformer.rotary is None and rotary is not None and stack is model.transformer:
        # Those that the model has chosen itself.
        transformer = replace(transformer, rotary=RotaryConfig(tuple(rotary.axes)))
    every = tuple(dict.fromkeys(axis for each in embeddings.axes.values() for axis in each))
    seen = source.fields.visibility({**source.tokenizers, **own})
    encoder = EncoderConfig(
        field,
        tokenizers,
        transformer,
        replace(embeddings.config, positions=positions, axes=every),
        _is_causal(source),
        source.class_field if source.class_field in tokenizers else None,
        seen and {key: [each for each in seen[key] if each in tokenizers] for key in seen if key in tokenizers},
    )
    return encoder, names


def _owner(source: Task, field: str) -> str:
    """The module whose weights lift a field of the source."""
    shared = source.fields.owners({**source.tokenizers, **source.own_tokens})
    return module_name(shared.get(field, field))


def _is_causal(source: Task) -> bool:
    return source.causal if isinstance(source, Embed) else isinstance(source, LanguageModel) and source.masking is None


def _weights(tokenizer: Pretrained, source: Task, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of the encoder by their names in it. Raises InputError for one of another shape in the source."""
    with torch.device("meta"):
        own = tokenizer.lift(8).encoder.state_dict()
    theirs, found = source.model.state_dict(), {}
    for name, wanted in own.items():
        before = next((old + name.removeprefix(new) for new, old in names.items() if name.startswith(new)), name)
        if before not in theirs or theirs[before].shape != wanted.shape:
            has = f"has it as {tuple(theirs[before].shape)}" if before in theirs else "does not have it"
            raise InputError(
                f"options: with them {name} is {tuple(wanted.shape)}, and {tokenizer.source} {has}; leave out what "
                "changes the shape of weights"
            )
        found[name] = theirs[before].detach().cpu().clone()
    return found
