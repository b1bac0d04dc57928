"""Whether a task and the model that it starts from are of one make; the first option that is another is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Protocol

import torch

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.parsing.plain import plain
from anyformer.tokens import Tokenizer
from anyformer.weights.huggingface import UNUSED_ONCE_TRAINED, plain_stack

BEHIND = "name new fields, and new positions, behind those that it has"
SIZED = "say how long new fields are at the most (max_len, max_seconds), which then have tables of positions"


class Described(Protocol):
    """What is compared of a task, which need not be built."""

    tokenizers: dict[str, Tokenizer]
    transformer: TransformerConfig
    embedding: EmbeddingConfig

    @property
    def members(self) -> Mapping[str, Any]: ...

    @property
    def has_encoder(self) -> bool: ...


class Built(Protocol):
    """What is compared of a task that is built."""

    model: Anyformer


def are_family(one: type, other: type) -> bool:
    """Whether of two classes of tasks one is made from the other, and their heads are alike."""
    return issubclass(one, other) or issubclass(other, one)


def check_agreement(task: Described, source: Described, name: str) -> None:
    """Raise InputError for the first option of a task's model that differs from that of the source, with both values.

    Only what says how outputs come from weights must agree; dropout and the like may be others. name: of the source.
    """
    for path, ours, theirs in _differences(task, source):
        raise InputError(
            f"model.{path} is {shown(ours)}, and init_from {name} has {shown(theirs)}; give {shown(theirs)}"
        )


def check_places(task: Built, source: Built, name: str) -> None:
    """Raise InputError where a model places what the one that it adapts has otherwise than that, by what the data and
    new fields have decided: then it would not be without these what that is. Both are built. name: of the source."""
    ours, theirs = (each.model.embeddings for each in (task, source))
    tables = enumerate(zip(ours.placed, theirs.placed, strict=False))
    places = [(f"embedding.positions.{i}", *each, BEHIND) for i, each in tables]
    if theirs.rotary is not None:
        # Where there was none, its fields stand at 0 on the axes of new ones, and are not turned.
        places.append(("rotary positions", ours.rotary, theirs.rotary, SIZED))
    for what, *each, advice in places:
        one, other = (", ".join(getattr(place, "axes", ())) or "no axis" for place in each)
        if one != other:
            raise InputError(
                f"{what} are on {one}, and those of init_from {name}, which lora adapts, on {other}; {advice}"
            )


def _differences(task: Described, source: Described) -> Iterator[tuple[str, Any, Any]]:
    if task.members or source.members:
        return
    yield from _of("transformer", _stack(task.transformer), _stack(source.transformer))
    if are_family(type(task), type(source)):
        if task.has_encoder and source.has_encoder:
            yield from _of("encoder", *(_stack(each.encoder or each.transformer) for each in (task, source)))
        yield from _of("output", *(plain(getattr(each, "output", None)) for each in (task, source)))
    for part in ("types", "norm", "scale", "offset"):
        yield from _of(f"embedding.{part}", getattr(task.embedding, part), getattr(source.embedding, part))
    for name in task.tokenizers.keys() & source.tokenizers.keys():
        yield from _of_tokenizer(name, task.tokenizers[name], source.tokenizers[name], task.transformer.d_model)


def _stack(config: TransformerConfig) -> dict[str, Any]:
    return {
        key: plain(value)
        for key, value in plain_stack(config).items()
        if key not in (*UNUSED_ONCE_TRAINED, "layer_scale")
    }


def _of(path: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in ours:
            yield from _of(f"{path}.{key}", ours[key], theirs.get(key))
    elif ours != theirs:
        yield path, ours, theirs


def _of_tokenizer(name: str, ours: Tokenizer, theirs: Tokenizer, d_model: int) -> Iterator[tuple[str, Any, Any]]:
    """The arguments that make the lift of a field one of other sizes; those of a vocabulary are matched otherwise."""
    if type(ours) is not type(theirs) or ours.together:
        return
    for each in fields(ours):
        one, other = getattr(ours, each.name), getattr(theirs, each.name)
        if each.init and one != other:
            try:
                changed = replace(theirs, **{each.name: one})
            except InputError:  # It goes with another argument, which is looked at too.
                continue
            if _sizes(changed, d_model) != _sizes(theirs, d_model):
                yield f"tokenizers.{name}.{each.name}", plain(one), plain(other)


def _sizes(tokenizer: Tokenizer, d_model: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in tokenizer.lift(d_model).state_dict().items()}


def shown(value: Any) -> str:
    """A value as a config has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
