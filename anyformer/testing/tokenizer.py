"""The contract of tokenizers, which a modality of one's own is checked against.

Knows no modality: what a tokenizer says of itself, and a few records, are enough to hold it to the laws that the model,
the packing of samples and the data workers rest on.
"""

from __future__ import annotations

import copy
import json
import pickle
import random as python_random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser

from anyformer.errors import InputError
from anyformer.parsing.plain import plain
from anyformer.testing.lift import OWN, check_lift, check_model, kind, require, same
from anyformer.tokens import UNSEEN, Sample, Tokenizer, TokenSet, expand


def check_tokenizer(
    tokenizer: Tokenizer | type[Tokenizer],
    samples: Sequence[Any],
    *,
    fit: Iterable[Any] | None = None,
    decoded: Callable[[Any], Any] | None = None,
    tolerance: float = 1e-5,
    bad: Sequence[Any] = (),
) -> None:
    """Hold a tokenizer to its contract; an AssertionError says what is broken, and what to do.

    - It is a frozen dataclass that YAML and JSON can hold, and is equal again when it is read or sent to a worker.
    - The parts of a token set have the types and shapes that `empty`, `axes`, `sizes` and `n_relations` tell; orders
      are at least 0. Encoding changes neither the record nor any global generator, and gives the same every time; other
      draws give something else only where `augments` says so.
    - `count` is the number of tokens, and no fewer than an augmented record has.
    - Lifting a batch equals lifting each sample alone, forward and gradient; nothing but zeros comes from no content,
      the gradients then are 0 and not None; every weight of the lift has a gradient from the samples.
    - In a model, tokens in another sequence have the same vectors; samples packed into one row, padded and alone have
      the same vectors and gradients; and a sample that lacks the field changes nothing for the others.
    - `decode` gives the record again, and `show` a picture, where there are such.

    tokenizer: one, or a class whose values all have defaults. It is fitted first.
    samples: at least two records as `encode` takes them, best of unlike lengths.
    fit: what `fit` is given; the samples when left out.
    decoded: what `decode` is to give of a sample, where that is not the sample itself.
    tolerance: by how much numbers may differ from that.
    bad: records that must be refused by an InputError of one line.
    """
    name = tokenizer.__name__ if isinstance(tokenizer, type) else type(tokenizer).__name__
    require(len(samples) >= 2, f"{name}: give at least two samples, best of unlike lengths, got {len(samples)}")
    _check_class(tokenizer)
    tokenizer = tokenizer() if isinstance(tokenizer, type) else tokenizer
    tokenizer = tokenizer.fit(list(samples) if fit is None else fit)
    _check_kept(tokenizer)
    given = [_check_encoding(tokenizer, sample, f"{name}, sample {i}") for i, sample in enumerate(samples)]
    for part, inner in expand({OWN: tokenizer}).items():
        sets = [(i, sample[part]) for i, sample in enumerate(given) if part in sample]
        label = name + part.removeprefix(OWN)
        _check_empty(inner, label)
        for i, tokens in sets:
            _check_tokens(inner, tokens, f"{label}, sample {i}")
        check_lift(inner, [tokens for _, tokens in sets], label)
    check_model(tokenizer, given, name)
    _check_views(tokenizer, samples, decoded, tolerance, name)
    for record in bad:
        _check_refused(tokenizer, record, name)


# What is kept of a tokenizer.


def _check_class(tokenizer: Tokenizer | type[Tokenizer]) -> None:
    cls = tokenizer if isinstance(tokenizer, type) else type(tokenizer)
    require(issubclass(cls, Tokenizer), f"{cls.__name__}: must be a subclass of anyformer.tokens.Tokenizer")
    frozen = is_dataclass(cls) and "__dataclass_params__" in vars(cls) and cls.__dataclass_params__.frozen
    require(frozen, f"{cls.__name__}: must be a frozen dataclass: put @dataclass(frozen=True) above the class")


def _check_kept(tokenizer: Tokenizer) -> None:
    """Equal again from a config, and from a worker."""
    name = type(tokenizer).__name__
    try:
        again = pickle.loads(pickle.dumps(tokenizer))
    except Exception as error:
        raise AssertionError(f"{name}: cannot be sent to a data worker ({error}); hold plain values alone") from error
    require(again == tokenizer, f"{name}: is another after pickling; hold plain values alone, and compare by them")
    try:
        config = json.loads(json.dumps(plain(tokenizer)))
    except TypeError as error:
        raise AssertionError(
            f"{name}: a config cannot hold it ({error}); let its fields be numbers, strings, None, tuples, dicts and "
            "dataclasses of such"
        ) from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Tokenizer, "made", fail_untyped=False)
    try:
        again = parser.instantiate(parser.parse_object({"made": config})).made
    except Exception as error:
        raise AssertionError(
            f"{name}: cannot be made again from its own config: {' '.join(str(error).split())}; define it in a module, "
            "and let the types of its fields allow the values that fit gives them"
        ) from error
    before, after = (
        {f.name: getattr(each, f.name) for f in fields(tokenizer) if f.init} for each in (tokenizer, again)
    )
    other = next((key for key in before if before[key] != after[key]), None)
    require(
        other is None,
        f"{name}: field {other!r} is {before.get(other)!r} and comes back from a config as {after.get(other)!r}; "
        "turn lists into tuples in __post_init__, and annotate the field with what it holds",
    )
    require(again == tokenizer, f"{name}: is another when made again from its config; compare by the fields alone")


# Records to token sets.


def _check_encoding(tokenizer: Tokenizer, record: Any, where: str) -> Sample:
    """The token sets of a record by field, once they are known to depend on nothing but it."""
    held, before = copy.deepcopy(record), _generators()
    given = _encode(tokenizer, record)
    drawn = [_encode(tokenizer, record, seed) for seed in (0, 0, 1, 2)]
    require(
        same(before, _generators(), 0),
        f"{where}: encode draws from a generator that all share; draw from `random` alone, nothing where it is None",
    )
    require(same(record, held, 0), f"{where}: encode changes the record; copy what it changes")
    require(
        same(given, _encode(tokenizer, record), 0),
        f"{where}: encode gives something else each time without a generator; where `random` is None nothing is drawn",
    )
    require(
        same(drawn[0], drawn[1], 0),
        f"{where}: encode gives something else from the same generator; draw everything from `random`",
    )
    require(
        tokenizer.augments or all(same(given, other, 0) for other in drawn),
        f"{where}: encode draws from `random`, and `augments` says that it does not; let it be True",
    )
    counted, n = tokenizer.count(record), _total(given)
    most = max(map(_total, drawn))
    # Where augmentation may make a record longer, count tells the longest.
    require(
        counted == n or counted >= most > n,
        f"{where}: count says {counted} tokens and encode gives {n}, {most} when augmented; let count say the number, "
        "or the most that augmentation may make of it",
    )
    return given


def _encode(tokenizer: Tokenizer, record: Any, seed: int | None = None) -> Sample:
    tokens = tokenizer.encode(record) if seed is None else tokenizer.encode(record, np.random.default_rng(seed))
    if not tokenizer.parts:
        name = type(tokenizer).__name__
        require(isinstance(tokens, TokenSet), f"{name}: encode must return a TokenSet, got {type(tokens).__name__}")
        return {OWN: tokens}
    wrong = set(tokens) - set(tokenizer.parts)
    require(not wrong, f"{type(tokenizer).__name__}: encode gives {sorted(wrong)}, which `parts` does not name")
    return {f"{OWN}.{part}": inner for part, inner in tokens.items()}


def _total(sample: Sample) -> int:
    return sum(map(len, sample.values()))


def _generators() -> list[Any]:
    name, keys, *rest = np.random.get_state()
    return [python_random.getstate(), name, keys, rest, torch.random.get_rng_state()]


def _check_tokens(tokenizer: Tokenizer, tokens: TokenSet, where: str) -> None:
    """The parts of a set, against what the tokenizer says of itself."""
    n, empty = len(tokens), tokenizer.empty()
    for part in ("content", "position"):
        is_, told = getattr(tokens, part), getattr(empty, part)
        require(
            is_.dtype == told.dtype and is_.shape[1:] == told.shape[1:],
            f"{where}: {part} is {kind(is_)}, and that of empty() is {kind(told)}; let them differ in length alone",
        )
        require(bool(torch.isfinite(is_).all()), f"{where}: {part} is not finite; refuse or fill in what is missing")
    require(
        tokens.content.dtype in (torch.int64, torch.float32),
        f"{where}: content must be int64 or float32, got {kind(tokens.content)}",
    )
    axes = tokenizer.axes
    require(
        tokens.position.shape == (n, len(axes)) and tokens.position.dtype in (torch.int64, torch.float32),
        f"{where}: position must be ({n}, {len(axes)}) int64 or float32 for axes {axes}, got {kind(tokens.position)}",
    )
    for i, axis in enumerate(axes):
        reach, size = tokens.position[:, i].max().item() if n else 0, tokenizer.sizes.get(axis)
        require(
            size is None or reach < size,
            f"{where}: stands at {reach:g} on the axis {axis}, and `sizes` says {size} places; let sizes tell the most",
        )
        if not tokens.position.is_floating_point():
            lowest = tokens.position[:, i].min().item() if n else 0
            require(lowest >= 0, f"{where}: stands at {lowest} on the axis {axis}; whole positions start at 0")
    require(
        tokens.order.dtype == torch.int64 and not (tokens.order < 0).any(),
        f"{where}: order must be int64 and at least 0, got {kind(tokens.order)} from "
        f"{tokens.order.min().item() if n else 0}; leave it out where all tokens see all",
    )
    require(
        len(tokens.extent) == len(empty.extent),
        f"{where}: extent is {tokens.extent}, and that of empty() {empty.extent}; let both have as many sides",
    )
    if (relation := tokens.relation) is not None and n:
        lowest, highest = map(int, relation.aminmax())
        require(
            relation.dtype == torch.int64 and lowest >= UNSEEN and highest < tokenizer.n_relations,
            f"{where}: relations must be int64 from {UNSEEN} to {tokenizer.n_relations - 1} (n_relations - 1), got "
            f"{relation.dtype} from {lowest} to {highest}",
        )
        require(not (relation.diagonal() == UNSEEN).any(), f"{where}: a token must see itself: relation[i, i] != -1")

    if (edges := tokens.edges) is not None:
        lowest, highest = map(int, edges[:, 2].aminmax()) if len(edges) else (0, -1)
        require(
            edges.dtype == torch.int64 and lowest >= 0 and highest < tokenizer.n_relations,
            f"{where}: kinds of edges must be int64 from 0 to {tokenizer.n_relations - 1} (n_relations - 1), got "
            f"{edges.dtype} from {lowest} to {highest}",
        )
    require(
        (edges is None) == (empty.edges is None),
        f"{where}: encode and empty() must both give edges, a list of none where there are none, or neither",
    )
    require(edges is not None or not tokenizer.edges_only, f"{where}: edges_only is set, and there is no list of edges")


def _check_empty(tokenizer: Tokenizer, where: str) -> None:
    empty = tokenizer.empty()
    require(
        isinstance(empty, TokenSet) and not len(empty) and not len(empty.content),
        f"{where}: empty() must be a TokenSet of no tokens",
    )


# And back.


def _check_views(
    tokenizer: Tokenizer,
    samples: Sequence[Any],
    decoded: Callable[[Any], Any] | None,
    tolerance: float,
    name: str,
) -> None:
    if tokenizer.parts:
        return
    for i, sample in enumerate(samples):
        tokens = tokenizer.encode(sample)
        wanted = sample if decoded is None else decoded(sample)
        with suppress(NotImplementedError):
            back = tokenizer.decode(tokens)
            require(
                same(back, wanted, tolerance),
                f"{name}, sample {i}: decode gives {_short(back)} where {_short(wanted)} is wanted; mend decode, give "
                "`tolerance` for what rounding loses, or say by `decoded` what it is to give",
            )
        picture = tokenizer.show(tokens)
        require(
            picture is None
            or (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)),
            f"{name}, sample {i}: show must return (rows, columns, 3) uint8 or None, got {_short(picture)}",
        )


def _check_refused(tokenizer: Tokenizer, record: Any, name: str) -> None:
    try:
        tokenizer.encode(record)
    except InputError as error:
        require("\n" not in str(error), f"{name}: what is wrong with {_short(record)} must be said in one line")
        return
    except Exception as error:
        raise AssertionError(
            f"{name}: {_short(record)} must be refused by an InputError that says what to do, and raises "
            f"{type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{name}: {_short(record)} must be refused by an InputError, and is taken")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
