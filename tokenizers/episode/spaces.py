"""Which tokenizer is for which space of gymnasium, and what is nested in Dict and Tuple spaces by the names of fields.

A leaf of a nested space is a field of its own: `state.image`, `state.vector`, `action.0`. A space is kept in a run as
a string, in the JSON that Minari writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from anyformer.errors import InputError, nearest
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Categories, Letters
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import StepTokenizer

LEAVES = Box, Discrete, MultiDiscrete, MultiBinary, Text
"""The kinds of space that have a tokenizer."""
DECIDED = "shape", "counts", "starts", "characters"
"""Arguments of a step tokenizer that the space alone decides; others may be given against it."""


def plain(space: Space) -> str:
    """A space as text: Minari's JSON, in which bounds that are all the same are one number. Raises InputError for a
    kind that has no tokenizer."""
    # Minari takes a sixth of a second to import, and only a task of episodes needs it.
    from minari.serialization import serialize_space

    leaves(space, "space")
    return json.dumps(_map_boxes(serialize_space(space, to_string=False), _shorten))


def read_space(text: str) -> Space:
    """The space of `plain`, or of Minari. Raises InputError for any other text."""
    from minari.serialization import deserialize_space

    try:
        return deserialize_space(_map_boxes(json.loads(text), _lengthen))
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"a space must be the JSON that Minari writes, got {text[:60]!r} ({error})") from None


def _map_boxes(facts: dict[str, Any], function: Any) -> dict[str, Any]:
    """The JSON of a space with a function applied to the bounds of every Box in it."""
    inner = facts.get("subspaces")
    if isinstance(inner, dict):
        return facts | {"subspaces": {key: _map_boxes(part, function) for key, part in inner.items()}}
    if isinstance(inner, list):
        return facts | {"subspaces": [_map_boxes(part, function) for part in inner]}
    if facts["type"] == "Box":
        return facts | {side: function(facts[side], facts["shape"]) for side in ("low", "high")}
    return facts


def _shorten(bound: Any, shape: list[int]) -> Any:
    flat = np.unique(np.array(bound))
    return flat.item() if len(flat) == 1 else bound


def _lengthen(bound: Any, shape: list[int]) -> Any:
    return np.broadcast_to(np.array(bound), shape).tolist()


def leaves(space: Space, name: str) -> dict[str, Space]:
    """The spaces without parts by the names of their fields: `{name: space}`, or `name.key` for those of a Dict or
    Tuple, nested ones with all keys. Raises InputError for a kind without a tokenizer, or two leaves of one name."""
    if isinstance(space, LEAVES):
        return {name: space}
    if not isinstance(space, Dict | Tuple):
        kinds = ", ".join(kind.__name__ for kind in (*LEAVES, Dict, Tuple))
        raise InputError(f"{name}: a space of kind {type(space).__name__} has no tokenizer; there are some for {kinds}")
    found: dict[str, Space] = {}
    for key, inner in _parts(space):
        for leaf, one in leaves(inner, f"{name}.{key}").items():
            if leaf in found:
                raise InputError(f"{leaf}: two parts of the space have this name; rename a key")
            found[leaf] = one
    return found


def _parts(space: Dict | Tuple) -> list[tuple[Any, Space]]:
    return list(space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces))


def split(space: Space, name: str, values: Any) -> dict[str, np.ndarray]:
    """A nested batch of values, dicts and tuples of arrays (n, ...), as an array for each leaf, (n, *shape).

    Raises InputError where values have not the parts of the space, or another shape.
    """
    if isinstance(space, Text):
        if np.ndim(values) != 1:
            raise InputError(f"{name}: must be one text for each of n values, got {np.shape(values)}")
        texts = np.empty(len(values), dtype=object)
        texts[:] = values
        return {name: texts}
    if isinstance(space, LEAVES):
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            is_text = array.dtype.kind == "U"
            raise InputError(f"{name}: must be numbers, got {'text' if is_text else array.dtype.name}")
        if array.ndim == 0 or array.shape[1:] != space.shape:
            raise InputError(f"{name}: must be {('n', *space.shape)} for n values, got {array.shape}")
        return {name: array}
    wanted = dict if isinstance(space, Dict) else tuple
    if not isinstance(values, Mapping if wanted is dict else tuple | list):
        raise InputError(f"{name}: must be a {wanted.__name__} of arrays, got {type(values).__name__}")
    given = values if wanted is dict else dict(enumerate(values))
    found = {}
    for key, inner in _parts(space):
        if key not in given:
            near = nearest(str(key), list(map(str, given)))
            raise InputError(f"{name}.{key}: the data lacks it; there are {', '.join(map(str, given))}{near}")
        found |= split(inner, f"{name}.{key}", given[key])
    return found


def nest(space: Space, name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `split`: a nested batch, as vector environments take and give it."""
    if isinstance(space, Dict):
        return {key: nest(inner, f"{name}.{key}", arrays) for key, inner in _parts(space)}
    if isinstance(space, Tuple):
        return tuple(nest(inner, f"{name}.{key}", arrays) for key, inner in _parts(space))
    return tuple(arrays[name].tolist()) if isinstance(space, Text) else arrays[name]


def join(space: Space, name: str, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """Single values, one for each row of the arrays, as an environment takes them: a number, an array, a dict, ..."""
    if isinstance(space, Dict | Tuple):
        inner = {key: join(part, f"{name}.{key}", arrays) for key, part in _parts(space)}
        rows = zip(*inner.values(), strict=True)
        return [dict(zip(inner, row, strict=True)) if isinstance(space, Dict) else row for row in rows]
    array = arrays[name]
    return array.tolist() if isinstance(space, Discrete | Text) else [np.asarray(row, space.dtype) for row in array]


def step_tokenizer(space: Space, given: StepTokenizer | None = None, name: str = "") -> StepTokenizer:
    """The tokenizer of a leaf: the given one with what the space decides filled in, or the usual one.

    Box: `Vector`, or `Frames` where it holds pictures (uint8 of several axes). Discrete, MultiDiscrete, MultiBinary:
    `Categories`. Text: `Letters`. name: of the field, for messages.
    Raises InputError where the given one is not for such a space, or was made for another.
    """
    kind, facts = type(space).__name__, _facts(space)
    if given is None:
        given = _usual(space)
    where = f"tokenizers.{name}: " if name else ""
    if kind not in given.spaces:
        is_for = f"is for {', '.join(given.spaces)}" if given.spaces else "is for no space"
        raise InputError(f"{where}{type(given).__name__} {is_for}, and the space is a {kind}; leave it out")
    open_ones = {}
    for part in fields(given):
        if part.name not in facts:
            continue
        held = getattr(given, part.name)
        if part.name in DECIDED and held not in (None, facts[part.name]):
            raise InputError(f"{where}{part.name} is {held}, and the space says {facts[part.name]}; leave it out")
        if held is None:
            open_ones[part.name] = facts[part.name]
    try:
        return replace(given, **open_ones)
    except InputError as error:
        raise InputError(f"{where}{error}") from None


def _usual(space: Space) -> StepTokenizer:
    if isinstance(space, Box):
        return Frames() if space.dtype == np.uint8 and len(space.shape) in (2, 3, 4) else Vector()
    return Letters() if isinstance(space, Text) else Categories()


def _facts(space: Space) -> dict[str, Any]:
    """What a leaf decides of its tokenizer, by the names of arguments."""
    if isinstance(space, Text):
        return {"characters": space.characters, "max_len": space.max_length}
    facts: dict[str, Any] = {"shape": tuple(map(int, space.shape)), "dtype": str(np.dtype(space.dtype))}
    if isinstance(space, Box):
        for side in ("low", "high"):
            bounds = getattr(space, side).reshape(-1).tolist()
            facts[side] = tuple(bound if math.isfinite(bound) else None for bound in bounds)
        return facts
    if isinstance(space, MultiBinary):
        n = math.prod(facts["shape"])
        return facts | {"counts": (2,) * n, "starts": (0,) * n}
    counts = np.reshape(space.n if isinstance(space, Discrete) else space.nvec, -1).tolist()
    return facts | {"counts": tuple(counts), "starts": tuple(np.reshape(space.start, -1).tolist())}


def check(space: Space, name: str, values: Any, place: str, seen: bool = False) -> None:
    """Raise InputError, naming leaf and step, for values that are not of the space.

    values: a nested batch, (t, ...). place: where they are from, for the message: "cart.npz episode 3".
    seen: they are observations, which may lie outside the bounds of a vector: files hold what was rounded, and wrappers
    change it. Where the space is of uint8 they must be whole numbers, as others may be pictures from 0 to 1.
    """
    try:
        arrays = split(space, name, values)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    for leaf, inner in leaves(space, name).items():
        tokenizer, array = step_tokenizer(inner), arrays[leaf]
        if seen and isinstance(inner, Box) and inner.dtype == np.uint8 and array.dtype.kind == "f":
            raise InputError(
                f"{place}: {leaf}: the space is of uint8, {inner.low.min()} to {inner.high.max()}, got {array.dtype}; "
                "give whole numbers"
            )
        if not (seen and isinstance(tokenizer, Vector)):
            tokenizer.check(array, f"{place}: {leaf}")


def compare(now: Space, before: Space, what: str) -> None:
    """Raise InputError, with the first difference, where a space is not the one that a model was trained with.

    what: "observation" or "action", for the message. A bound that is infinite on one side and the precision of floats
    are no difference: not every format tells them.
    """
    ours, theirs = leaves(before, what), leaves(now, what)
    for leaf in [*ours, *(leaf for leaf in theirs if leaf not in ours)]:
        if leaf not in theirs or leaf not in ours:
            change = "had" if leaf in ours else "had not"
            raise InputError(
                f"{leaf}: training {change} this part of the {what} space; play the environment trained in"
            )
        one, other = ours[leaf], theirs[leaf]
        was, is_now = ({"kind": type(space).__name__, **_facts(space)} for space in (one, other))
        for fact in was:
            if fact not in is_now or not _alike(fact, was[fact], is_now[fact]):
                raise InputError(
                    f"{leaf}: the {what} space had {fact} {was[fact]} in training, and it is {is_now.get(fact)} now; "
                    "play the environment that the model was trained in"
                )


def _alike(fact: str, one: Any, other: Any) -> bool:
    if fact == "dtype":
        return np.dtype(one).kind == np.dtype(other).kind
    if fact in ("low", "high"):
        return all(None in pair or math.isclose(*pair, rel_tol=1e-6) for pair in zip(one, other, strict=True))
    return one == other
