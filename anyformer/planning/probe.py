"""What there is to see of a task and its data before it is trained: batches, samples to draw, and sizes in words.

Knows loaders and what all tasks have; no trainer.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from anyformer.batch import Batch
from anyformer.data.batch_plan import Draw
from anyformer.data.loader import Loader
from anyformer.drawing.token_strips import samples_of
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.planning.token_budget import Budget, stacks
from anyformer.tokenizers.pretrained import Pretrained
from anyformer.tokens import Sample, expand

N_LOOKED = 8
"""Batches that are looked at, spread over the first epoch."""


class Looked(NamedTuple):
    batches: list[list[Batch]]
    """Of each batch its stacks."""
    examples: list[Any]
    """The batches as a task takes them."""
    bad: list[str]
    """What was said of samples that cannot be used."""
    n: int
    """Samples asked for."""


def _spread(loader: Loader) -> Iterator[list[Draw]]:
    """Some batches of the first epoch, at even distances."""
    wanted = np.unique(np.linspace(0, len(loader) - 1, N_LOOKED).astype(int)).tolist()
    return (draws for i, draws in enumerate(loader.plan.epoch(0)) if i in wanted)


def look(loader: Loader, patience: float) -> Looked:
    """Batches at even distances, for so many seconds at most."""
    samples = loader.samples
    until = time.perf_counter() + patience
    examples, bad, n = [], [], 0
    for draws in _spread(loader):
        n += len(draws)
        used, rows = [], []
        for draw in draws:
            try:
                used.append(samples[draw])
                rows.append(draw.row)
            except InputError as error:
                bad.append(str(error))
        if used:
            numbered = None if rows[0] is None else np.unique(rows, return_inverse=True)[1].tolist()
            examples.append(samples.chopper.collate(used, numbered))
        if time.perf_counter() > until:
            break
    return Looked([stacks(each) for each in examples], examples, bad, n)


def drawable(task: Any, loader: Loader, n: int) -> Iterator[tuple[Sample, str]]:
    """Samples as token sets, of batches at even distances, with a few words each."""
    samples = loader.samples
    firsts = itertools.chain(*itertools.zip_longest(*(draws[:n] for draws in _spread(loader))))
    for draw, item in itertools.islice(replace(samples, on_bad_sample="skip").usable(filter(None, firsts)), n):
        row = None if draw.row is None else [0]
        words = [task.preview(item)[1], samples.source.name(draw.index)]
        yield samples_of(stacks(samples.chopper.collate([item], row))), " · ".join(filter(None, words))


def sizes(task: Any) -> dict[str, str]:
    """What the data has decided, in words."""
    found = {}
    for name, target in task.targets.items():
        found[name] = type(target).__name__
        if (classes := getattr(target, "classes", None)) is not None:
            shown = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            found[name] += f", {len(classes)} classes: {shown}"
    for name, tokenizer in expand(task.learnt).items():
        words = [type(tokenizer).__name__]
        if n_ids := getattr(tokenizer, "n_ids", None):
            words.append(f"{n_ids:,} ids")
        if isinstance(tokenizer, Pretrained):
            words.append(f"the {type(tokenizer.inner).__name__} of {tokenizer.source}")
            words.append(_stack_in_words(tokenizer.found.transformer))
        known = tokenizer.sizes
        axes = [f"{axis} {known[axis]}" if axis in known else axis for axis in tokenizer.axes]
        if axes:
            words.append(f"on {' x '.join(axes)}")
        # Of an input that is a target too, and of a text that is written, both.
        found[name] = ", ".join([*words, *([found[name]] if name in found else [])])
    return found


def _stack_in_words(config: TransformerConfig) -> str:
    return f"{count(config.depth, 'block')}, {config.d_model} wide, {count(config.n_heads, 'head')}"


def trunk(task: Any) -> dict[str, str]:
    """The sizes of the stacks, in words."""
    model, found = _model(task), {}
    for name, stack in (("transformer", model.transformer), ("encoder", model.encoder)):
        if stack is not None:
            config = stack.config
            found[name] = _stack_in_words(config)
            if (experts := config.experts) is not None:
                n_blocks = sum(map(config.has_experts, range(config.depth)))
                found[name] += f", {experts.n} experts ({experts.active} active) in {count(n_blocks, 'block')}"
    return found


@torch.no_grad()
def engines(task: Any, examples: Sequence[Any]) -> str:
    """How self-attention takes some batches, layer by layer, in words: plain, dense or blocks."""
    model = _model(task)
    device = next(model.parameters()).device
    # Of each layer of a stack what it was, in whatever batch.
    taken: dict[str, list[dict[str, None]]] = {}
    for each in examples:
        parts = [part if part is None else part.to(device) for part in task.model_inputs(each)]
        for stack, own in model.engines(*parts).items():
            layers = taken.setdefault(stack, [{} for _ in own])
            for layer, engine in zip(layers, own, strict=True):
                layer[engine] = None
    words = []
    for stack, layers in taken.items():
        groups: dict[str, list[str]] = {}
        for number, layer in enumerate(layers, start=1):
            groups.setdefault(" or ".join(sorted(layer)), []).append(str(number))
        told = [
            engine if len(groups) == 1 else f"{engine} in layer{'s' if len(own) > 1 else ''} {', '.join(own)}"
            for engine, own in groups.items()
        ]
        words.append((f"{stack} " if len(taken) > 1 else "") + ", ".join(told))
    return "; ".join(words)


def _model(task: Any) -> Anyformer:
    return next(module for module in task.modules() if isinstance(module, Anyformer))


def tokens_of(task: Any, budget: Budget | None) -> dict[str, int]:
    """Tokens of each field of the model in a sample of the middle, 0 where none was seen."""
    seen = {} if budget is None else {field.name: round(field.median) for field in budget.fields}
    return {name: seen.get(name, 0) for name in _model(task).tokenizers}


def count(n: int, what: str) -> str:
    """
    >>> count(1, "block"), count(3, "block")
    ('1 block', '3 blocks')
    """
    return f"{n} {what}{'s' if n > 1 else ''}"
