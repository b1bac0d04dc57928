"""Attention weights, computed again from what every attention was given.

The fused kernels that the model runs give none. Its own path stays as it is: each attention notes down what it was
given and what it made of it, and the weights that are worked out from the one must give the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.errors import InputError
from anyformer.faults import MachineError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.attention import Attention, Recorded
from anyformer.model.attention.sight import BlockSight, Sight
from anyformer.model.lora import project

TOLERANCE = 1e-5
"""How far the output by the weights may be from that of the model, by its largest number where that is above 1."""
COPIES = 4
"""Of all weights that are in memory at once: they, what is hidden, their gradients and what is made of both."""


@dataclass(frozen=True)
class AttentionMap(Checked):
    """Who attended to whom in one attention of a layer."""

    stack: Literal["encoder", "transformer"]
    layer: int
    """From 0."""
    kind: Literal["self", "cross"]
    weights: Tensor
    """(b, h, queries, keys); a row of a query that sees a key adds up to 1, of one that sees none to 0."""
    seen: Tensor
    """(b, 1 or h, queries, keys) boolean: what the mask does not hide."""
    v: Tensor
    """(b, h, keys, k), what the weights are of."""
    mixed: Tensor
    """(b, queries, h * k), the weighted sums as the model has them, in its graph."""

    def __str__(self) -> str:
        return f"{self.kind}-attention of layer {self.layer + 1} of the {self.stack}"

    def gradient(self, of_mixed: Tensor | None) -> Tensor:
        """(b, h, queries, keys): the gradient with respect to the weights, by that with respect to `mixed`; None is 0.

        Each weight is the factor of a value in one sum, so that its gradient is that of the sum times the value.
        """
        if of_mixed is None:
            return torch.zeros_like(self.weights)
        return of_mixed.unflatten(2, (self.v.shape[1], -1)).transpose(1, 2) @ self.v.mT


def read_attention(
    model: Anyformer, batch: Batch, conditions: Batch | None = None
) -> tuple[Tensor, list[AttentionMap]]:
    """The hidden vectors of a batch, (rows, length, d), and the map of every attention, in the sequence of the passes.

    The model is to be in evaluation mode; what it gives is in its graph as ever. Raises MachineError where the weights
    do not fit into memory, and InputError for attention with Shaw's vectors or over compressed keys, and where they do
    not give the output of a layer.
    """
    check_memory(model, batch, conditions)
    named = list(_attentions(model))
    for stack, layer, _, attention in named:
        if attention.vectors is not None or attention.compression is not None:
            what = "relative: shaw" if attention.vectors is not None else "compress and linformer"
            raise InputError(f"layer {layer + 1} of the {stack}: explain does not know the weights of {what}")
    for *_, attention in named:
        attention.record = []
    try:
        hidden = model(batch, conditions)
        passes = [(stack, layer, kind, attention, attention.record) for stack, layer, kind, attention in named]
    finally:
        for *_, attention in named:
            attention.record = None
    return hidden, [
        _map(stack, layer, kind, attention, record[0]) for stack, layer, kind, attention, record in passes if record
    ]


def _attentions(model: Anyformer) -> Iterator[tuple[str, int, str, Attention]]:
    for name, stack in (("encoder", model.encoder), ("transformer", model.transformer)):
        for layer, block in enumerate(() if stack is None else stack.blocks):
            yield name, layer, "self", block.attention
            if hasattr(block, "cross"):
                yield name, layer, "cross", block.cross


@torch.no_grad()
def _map(stack: str, layer: int, kind: str, attention: Attention, given: Recorded) -> AttentionMap:
    b, h, n, width = given.q.shape
    k, v = (part.repeat_interleave(h // part.shape[1], 1) for part in (given.k, given.v))
    mask = _mask(given.sight, b, n, k.shape[2], given.q.device)
    scale = attention.config.attention_scale or width**-0.5
    logits = scale * given.q @ k.mT
    if mask.dtype == torch.bool:
        seen, logits = mask, logits.masked_fill(~mask, -torch.inf)
    else:
        seen, logits = mask > -torch.inf, logits + mask
    # A query that sees nothing has no weights.
    weights = logits.softmax(-1).nan_to_num(0.0)
    found = AttentionMap(stack, layer, kind, weights, seen, v, given.mixed)  # type: ignore[arg-type]
    update = project(attention.o, (weights @ v).transpose(1, 2).flatten(2), given.adapts)
    away = (update - given.update).abs().max() if update.numel() else update.new_zeros(())
    size = max(1.0, float(given.update.abs().max())) if update.numel() else 1.0
    tolerance = max(TOLERANCE, 4 * torch.finfo(update.dtype).eps)
    if not away <= tolerance * size:
        raise InputError(
            f"{found}: the weights that explain works out give an output that is off by {float(away):.2g} from the "
            "model's own; it is of a kind that explain does not know"
        )
    return found


def _mask(sight: Sight | BlockSight, b: int, n: int, m: int, device: torch.device) -> Tensor:
    """(b or 1, 1 or h, queries, keys): boolean, or float where something is added to the logits."""
    if isinstance(sight, BlockSight):
        sight = sight.at(torch.arange(n, device=device).expand(b, n), n)
    if sight.causal:
        return torch.ones(1, 1, n, m, dtype=torch.bool, device=device).tril()
    return torch.ones(1, 1, n, m, dtype=torch.bool, device=device) if sight.mask is None else sight.mask


def check_memory(model: Anyformer, batch: Batch, conditions: Batch | None = None) -> None:
    """Raise MachineError where the weights of all layers are more than the memory that is free."""
    rows, n = batch.shape
    m = 0 if conditions is None else conditions.shape[1]
    decoder = model.transformer.config
    pairs = decoder.depth * decoder.n_heads * n * (n + m)
    if model.encoder is not None:
        pairs += model.encoder.config.depth * model.encoder.config.n_heads * m * m
    device, size = batch.layout.segment.device, next(model.parameters()).itemsize
    needed, free = COPIES * size * rows * pairs, _free_memory(device)
    if needed > free:
        raise MachineError(
            f"the record has {n + m:,} tokens, and the attention weights of all layers between them take "
            f"{needed / 2**30:,.1f} GiB, of which {free / 2**30:,.1f} are free; give a shorter record"
        )


def _free_memory(device: torch.device) -> int:
    """Bytes; where the system does not say how many are free, all that it has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (free,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return 1024 * int(free)
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
