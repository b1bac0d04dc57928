"""The laws of vectors that a tokenizer is checked by, see `tokenizer.py`: of its lift alone, and of it in a model.

Lifting a batch equals lifting each sample alone; the sequence of tokens, their neighbours in a row and fields that are
absent change nothing; gradients reach every weight of the lift. All in float64, where nothing is lost by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, Tokenizer, TokenSet, expand

OWN, BESIDE = "own", "beside"
"""The field that is checked, and one that every sample has beside it."""


def require(holds: bool, message: str) -> None:
    """Raise AssertionError with the message unless it holds; python -O does not take this out, as it does an assert."""
    if not holds:
        raise AssertionError(message)


@contextmanager
def _drawn_weights() -> Iterator[None]:
    """While it lasts, weights are drawn from a seed of their own, and the generator that all share is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _redraw(module: nn.Module) -> nn.Module:
    """All weights anew, in float64: what starts at zero would hide that something is wrong with it."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def _content(tokens: TokenSet) -> Tensor:
    return tokens.content.double() if tokens.content.is_floating_point() else tokens.content


def _lifted(lift: nn.Module, sets: Sequence[TokenSet], tokenizer: Tokenizer, where: str) -> Tensor:
    """The vectors of some sets, lifted together as a batch does it."""
    content: Any = torch.cat([_content(tokens) for tokens in (tokenizer.empty(), *sets)])
    if tokenizer.inside:
        laid = _in_double(collate([{OWN: tokens} for tokens in sets], {OWN: tokenizer}))
        content = laid.fields[OWN].inside
    try:
        return lift(content, tuple(tokens.extent for tokens in sets if len(tokens.content)))
    except Exception as error:
        raise AssertionError(
            f"{where}: the lift cannot be called on (content {kind(content)}, extents): {error}; it takes the content "
            "of all samples of a batch, be it none, in whatever precision its weights have"
        ) from error


def check_lift(tokenizer: Tokenizer, sets: Sequence[TokenSet], where: str) -> None:
    """The laws of a lift by itself. Raises AssertionError.

    sets: of several records. where: the tokenizer, for the messages.
    """
    d_model = 24
    with _drawn_weights():
        lift = _redraw(tokenizer.lift(d_model))
        together = _lifted(lift, sets, tokenizer, where)
        n = sum(map(len, sets))
        require(
            together.shape == (n, d_model),
            f"{where}: the lift must return a vector for each of the {n} tokens, ({n}, {d_model}), "
            f"got {tuple(together.shape)}",
        )
        alone = torch.cat([_lifted(lift, [tokens], tokenizer, where) for tokens in sets])
        require(
            same(together, alone, 1e-8),
            f"{where}: lifting a batch is not lifting each sample alone: something of one reaches another; go by the "
            "extents, and let every layer see zeros beyond the edges of each sample",
        )
        backwards = _lifted(lift, sets[::-1], tokenizer, where).split([len(tokens) for tokens in sets[::-1]])
        require(
            same(torch.cat(backwards[::-1]), alone, 1e-8),
            f"{where}: the vectors of a sample change with its place in the batch; the lift may go by nothing but "
            "the sample's own content and extent",
        )
        weight = torch.randn(n, d_model, dtype=torch.float64)
        names = [name for name, _ in lift.named_parameters()]
        of_batch, of_each = (_gradients(lift, (vectors * weight).sum()) for vectors in (together, alone))
        for name, first, second in zip(names, of_batch, of_each, strict=True):
            require(
                first is not None and second is not None and bool(first.any()),
                f"{where}: no gradient reaches the lift's weight {name!r} from these samples; use it in forward, or "
                "give samples that need it",
            )
            require(
                same(first, second, 1e-8),
                f"{where}: the gradient of the lift's weight {name!r} is another for a batch than for each sample",
            )
        nothing = _lifted(lift, [], tokenizer, where)
        require(
            nothing.shape == (0, d_model),
            f"{where}: the lift of no content must be (0, {d_model}), got {tuple(nothing.shape)}",
        )
        for name, gradient in zip(names, _gradients(lift, nothing.sum()), strict=True):
            require(
                gradient is not None and not gradient.any(),
                f"{where}: where the field is absent, the gradient of the lift's weight {name!r} must be 0 and not "
                "None; run the layers on the content of no samples too",
            )


def _gradients(module: nn.Module, loss: Tensor) -> list[Tensor | None]:
    parameters = list(module.parameters())
    if not parameters or not loss.requires_grad:
        return [None] * len(parameters)
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True))


def check_model(tokenizer: Tokenizer, given: Sequence[Sample], name: str) -> None:
    """The laws of a small model with this field and another. Raises AssertionError.

    given: the sets of several records by field, `OWN` or its parts. name: of the tokenizer, for the messages.
    """
    tokenizers = {OWN: tokenizer, BESIDE: LearnedTokens(2)}
    every = expand(tokenizers)
    axes = dict.fromkeys(axis for inner in every.values() for axis in inner.axes)
    positions = [PositionConfig((axis,), "sinusoidal") for axis in axes]
    samples = [sample | {BESIDE: LearnedTokens(2).encode()} for sample in given]
    absent = {BESIDE: samples[0][BESIDE]}
    with _drawn_weights():
        sizes = TransformerConfig(d_model=16, depth=2, n_heads=2, final_norm=False)
        model = _redraw(Anyformer(tokenizers, sizes, EmbeddingConfig(positions=positions)))
        # Of the trunk as they were: attention far from uniform, hidden values of order 1.
        for parameter in model.transformer.parameters():
            with torch.no_grad():
                parameter.uniform_(0.5, 1.5) if parameter.ndim == 1 else parameter.normal_(std=0.3)

        def run(batch: Sequence[Sample], rows: Sequence[int] | None = None) -> dict[str, Tensor]:
            laid = _in_double(collate(batch, every, rows))
            return laid.by_field(model(laid))

        alone = [run([sample]) for sample in samples]
        joined = {field: torch.cat([vectors[field] for vectors in alone]) for field in every}
        loss = {field: torch.randn_like(vectors) for field, vectors in joined.items()}

        def gradients(vectors: Mapping[str, Tensor]) -> list[Tensor | None]:
            return _gradients(model, sum((vectors[field] * loss[field]).sum() for field in every))

        expected = gradients(joined)
        for how, rows in (("packed into one row", [0] * len(samples)), ("padded to the longest", None)):
            vectors = run(samples, rows)
            require(
                all(same(vectors[field], joined[field], 1e-8) for field in every),
                f"{name}: samples {how} have other vectors than alone; let positions, orders, relations and the lift "
                "of a sample depend on nothing but the sample",
            )
            require(
                all(same(*pair, 1e-8) for pair in zip(gradients(vectors), expected, strict=True)),
                f"{name}: samples {how} give other gradients than alone; see to the lift",
            )
        shuffled = [_shuffle(sample, every, model) for sample in samples]
        for i, (sample, places) in enumerate(shuffled):
            vectors = run([sample])
            require(
                all(same(vectors[field], alone[i][field][places[field]], 1e-8) for field in every),
                f"{name}, sample {i}: the same tokens in another sequence have other vectors; say where a token stands "
                "by its position and its order, and not by its place among the tokens",
            )
        lacking = run([absent, *samples[1:]])
        later = {field: torch.cat([vectors[field] for vectors in alone[1:]]) for field in every}
        later[BESIDE] = torch.cat([run([absent])[BESIDE], later[BESIDE]])
        require(
            all(same(lacking[field], later[field], 1e-8) for field in every),
            f"{name}: a sample without the field changes the vectors of the others; see to the lift",
        )
        nothing = run([absent, absent])[BESIDE].sum()
        lifts = model.embeddings.lifts
        for gradient in _gradients(lifts, nothing):
            require(
                gradient is not None,
                f"{name}: in a batch without the field a weight of the lift has no gradient; run the layers on the "
                "content of no samples too",
            )


def _in_double(batch: Batch) -> Batch:
    return replace(
        batch,
        fields={
            name: replace(
                tokens,
                content=tokens.content.double() if tokens.content.is_floating_point() else tokens.content,
                inside=None if tokens.inside is None else _in_double(tokens.inside),
            )
            for name, tokens in batch.fields.items()
        },
    )


def _shuffle(sample: Sample, tokenizers: Mapping[str, Tokenizer], model: Anyformer) -> tuple[Sample, dict[str, Tensor]]:
    """The tokens of every field in another sequence, and which ones they are; a field whose lift looks at neighbours in
    the content, as a convolution does, stays as it is."""
    shuffled, places = dict(sample), {}
    for name in tokenizers:
        n = len(sample[name]) if name in sample else 0
        places[name] = torch.arange(n)
        if name == BESIDE or n < 2 or len(sample[name].content) != n or sample[name].inside is not None:
            continue
        tokens, drawn = sample[name], torch.randperm(n)
        other = replace(
            tokens,
            content=tokens.content[drawn],
            position=tokens.position[drawn],
            order=tokens.order[drawn],
            relation=None if tokens.relation is None else tokens.relation[drawn][:, drawn],
            edges=None if tokens.edges is None else _renumbered(tokens.edges, drawn),
        )
        lift = model.embeddings.lifts[name]
        before, after = (lift(_content(each), (each.extent,)) for each in (tokens, other))
        if same(after, before[drawn], 1e-8):
            shuffled[name], places[name] = other, drawn
    return shuffled, places


def _renumbered(edges: Tensor, drawn: Tensor) -> Tensor:
    """The same edges where token `drawn[i]` has become token i."""
    places = drawn.argsort()
    return torch.cat([places[edges[:, :2]], edges[:, 2:]], 1)


def kind(tensor: Tensor | Batch) -> str:
    if isinstance(tensor, Batch):
        return f"a batch of {tensor.n_samples} samples"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def same(value: Any, other: Any, tolerance: float) -> bool:
    """Whether two values are the same, numbers up to a tolerance, which is relative where they are above 1."""
    if value is None or other is None:
        return value is other
    if is_dataclass(value) and type(value) is type(other):
        return all(same(getattr(value, f.name), getattr(other, f.name), tolerance) for f in fields(value))
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(same(value[key], other[key], tolerance) for key in value)
    are_arrays = isinstance(value, Tensor | np.ndarray) or isinstance(other, Tensor | np.ndarray)
    if are_arrays or (isinstance(value, int | float) and isinstance(other, int | float)):
        first, second = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for v in (value, other))
        if "O" in (first.dtype.kind, second.dtype.kind) or "U" in (first.dtype.kind, second.dtype.kind):
            return first.tolist() == second.tolist()
        if first.shape != second.shape:
            return False
        largest = np.abs(second[np.isfinite(second)]).max(initial=1) if second.dtype.kind == "f" else 1
        return bool(np.allclose(first, second, rtol=0, atol=tolerance * largest, equal_nan=True))
    if isinstance(value, tuple | list) and isinstance(other, tuple | list):
        return len(value) == len(other) and all(same(*pair, tolerance) for pair in zip(value, other, strict=True))
    return bool(value == other)
