"""When each token of a text is said, by what the cross-attention of a few heads looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.attention.attention import Attention
from anyformer.model.transformer import Transformer

SMOOTHED = 7
"""Frames, the median of which is taken."""


def chosen_heads(stack: Transformer, heads: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """By layer its heads, of those given; all of the upper half of the layers where none are."""
    depth, n_heads = len(stack.blocks), stack.config.n_heads
    if wrong := [each for each in heads if each[0] >= depth or each[1] >= n_heads]:
        raise InputError(
            f"alignment_heads names head {wrong[0][1]} of layer {wrong[0][0]}, from 0, and the decoder has {depth} "
            f"layers of {n_heads} heads"
        )
    found: dict[int, list[int]] = {}
    for layer, head in heads or [(layer, head) for layer in range(depth // 2, depth) for head in range(n_heads)]:
        found.setdefault(layer, []).append(head)
    return found


def attention_weights(
    stack: Transformer, heads: dict[int, list[int]], run: Callable[[], Any], places: Sequence[Tensor]
) -> list[Tensor]:
    """How much the queries of each row attend to some places of the memory, among these: of each row (heads, n, places)
    float32.

    run: lets the stack read. places: of each row (places,) int64.
    """
    layers = {stack.blocks[layer].cross: own for layer, own in heads.items()}
    asked: list[tuple[Attention, Tensor, Tensor]] = []
    for layer in layers:
        layer.record = []
    try:
        run()
        asked = [(layer, *layer.record[0][:2]) for layer in layers]
    finally:
        for layer in layers:
            layer.record = None
    return [
        torch.cat([_weights(layer, q[row], k[row][:, own], layers[layer]) for layer, q, k in asked])
        for row, own in enumerate(places)
    ]


def _weights(layer: Attention, q: Tensor, k: Tensor, heads: Sequence[int]) -> Tensor:
    """q: (h, n, k) and k: (h', m, k), of one row. Returns (heads, n, m)."""
    shared = len(q) // len(k)
    scale = layer.config.attention_scale or q.shape[-1] ** -0.5
    q, k = q[list(heads)].float(), k[[head // shared for head in heads]].float()
    return (scale * q @ k.mT).softmax(-1)


def token_places(weights: Tensor, n_before: int) -> list[int]:
    """Where each token begins, and where the last ends: numbers of places, by dynamic time warping.

    weights: (heads, n, places): of the tokens that are read. n_before of them stand before the one at which the first
        of the text is predicted; the last is the end of the text.
    """
    std, mean = torch.std_mean(weights, 1, correction=0, keepdim=True)
    scaled = (weights - mean) / std.clamp(min=1e-9)
    if scaled.shape[2] > SMOOTHED // 2:
        wide = F.pad(scaled, (SMOOTHED // 2, SMOOTHED // 2), mode="reflect")
        scaled = wide.unfold(2, SMOOTHED, 1).median(-1).values
    matrix = scaled.mean(0)[n_before:-1]
    rows, columns = warp(-matrix.double().numpy(force=True))
    return columns[np.searchsorted(rows, np.arange(len(matrix)))].tolist()


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path from one corner of a matrix to the other, by steps of one row, one column or both (dynamic time
    warping, Sakoe and Chiba 1978): the rows and the columns that it goes through, neither of which ever falls.

    cost: (n, m).
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    step = np.zeros((n + 1, m + 1), dtype=np.int8)
    total[0, 0] = 0.0
    # Along a diagonal nothing waits for anything else.
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        step[i, j] = chosen = before.argmin(0)
        total[i, j] = cost[i - 1, j - 1] + before[chosen, np.arange(len(i))]
    path, i, j = [], n, m
    while i:
        path.append((i - 1, j - 1))
        taken = step[i, j]
        i, j = i - (taken != 2), j - (taken != 1)
    rows, columns = zip(*reversed(path), strict=True)
    return np.array(rows), np.array(columns)
