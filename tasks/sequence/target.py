"""The text that is learnt and written as ids: what a decoder is fed, and what it is to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet


def written(ids: Sequence[int] | Tensor, start: Sequence[int]) -> TokenSet:
    """What a decoder is fed: the start tokens and the ids, one after another from order 1, behind all conditions."""
    content = torch.from_numpy(np.concatenate([start, ids]).astype(np.int64))
    place = torch.arange(content.shape[0])
    return TokenSet(content, place[:, None], place + 1)


def read_target(
    record: Mapping[str, Any], name: str, text: Text, n_start: int, allow_empty: bool = False
) -> np.ndarray:
    """The ids of a text that is to be learnt, (n,) int64.

    text: its tokenizer. n_start: tokens that stand before it.
    allow_empty: whether a text of nothing is learnt as nothing, (0,); an empty cell, too.
    Raises InputError where there is nothing to learn from.
    """
    value, field = record.get(name), f"field {name!r}"
    if allow_empty and name in record and is_missing(value):
        return np.zeros(0, dtype=np.int64)
    if value is None:
        raise InputError(f"{field} must hold the text to be learnt, but it is missing or empty")
    try:
        (ids,) = text.encode_batch([value])
    except InputError as error:
        raise InputError(f"{field}: {error}") from error
    if not len(ids):
        raise InputError(
            f"{field}: the text is empty, there is nothing to learn from it; give allow_empty: true if nothing is said"
        )
    if text.unk_id is not None and (ids == text.unk_id).any():
        unknown = next((c for c in value if (text.encode_batch([c])[0] == text.unk_id).any()), None)
        what = "a part that" if unknown is None else f"{unknown!r}, which"
        raise InputError(f"{field}: the text holds {what} is not in the vocabulary of the training records")
    if text.max_len is not None and len(ids) > (room := text.max_len - n_start):
        if not text.truncate:
            raise InputError(
                f"{field}: the text has {len(ids)} tokens, more than the {room} that max_len={text.max_len} leaves "
                "beside the start; raise max_len, or give truncate: true to cut it off"
            )
        ids = ids[:room]
    return ids
