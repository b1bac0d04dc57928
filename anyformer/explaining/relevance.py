"""Where a model looked for its answer: gradient times attention, carried from layer to layer, and plain rollout.

After Chefer et al. 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers", 3.1, by the numbers of its equations, and Abnar & Zuidema 2020, "Quantifying Attention Flow in
Transformers", 3. One row of the relevancy matrices is asked for, that of what is read, so that where it can be done a
row is carried down through the layers, and no matrix up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.explaining.asked import Asked
from anyformer.explaining.attention import AttentionMap, read_attention
from anyformer.tokens import Sample

MAPS = ("relevance", "rollout")
"""The maps of where a model looked: gradient times attention, and attention alone."""


@dataclass(frozen=True)
class Relevance:
    """Of each token of a sample how much of an answer goes back to it."""

    name: str
    """Of the answer: the token of a text that is written; "" where there is one answer."""
    value: float
    """The number that is explained."""
    relevance: dict[str, Tensor]
    """By field, (n,), by gradient times attention; at least 0, of no unit."""
    rollout: dict[str, Tensor]
    """By field, (n,), by attention alone; all of a sample add up to 1."""


def explain_parts(asked: Asked, sample: Sample) -> tuple[list[Relevance], list[AttentionMap], Batch, Batch | None]:
    """The relevance of each part of the answer to one sample, with the maps of its attention and what they are of."""
    device = next(asked.model.parameters()).device
    batch, conditions = (part if part is None else part.to(device) for part in asked.lay([sample]))
    # Of a model that is frozen no parameter brings a graph about.
    hook = asked.model.embeddings.register_forward_hook(lambda module, given, out: _in_graph(out))
    with torch.enable_grad():
        try:
            hidden, maps = read_attention(asked.model, batch, conditions)
        finally:
            hook.remove()
        parts = asked.parts(hidden, batch)
        found = []
        for i, (name, value) in enumerate(parts):
            of_hidden, cams = gradient_maps(value, hidden, maps, is_last=i == len(parts) - 1)
            read = read_weights(of_hidden, hidden.detach())
            relevance = relevance_of(maps, cams, read)
            flow = rollout_of(maps, read)
            found.append(
                Relevance(name, value.item(), by_field(relevance, batch, conditions), by_field(flow, batch, conditions))
            )
    return found, maps, batch, conditions


def whole_maps(asked: Asked, sample: Sample) -> dict[str, dict[str, Tensor]]:
    """By the name of the map and the field, the mean of those of all parts of the answer, (n,)."""
    return mean_maps(explain_parts(asked, sample)[0])


def mean_maps(parts: Sequence[Relevance]) -> dict[str, dict[str, Tensor]]:
    """By the name of the map and the field, (n,)."""
    found = {}
    for name in MAPS:
        every = [getattr(part, name) for part in parts]
        found[name] = {field: torch.stack([own[field] for own in every]).mean(0) for field in every[0]}
    return found


def _in_graph(out: Tensor) -> Tensor:
    return out if out.requires_grad else out.requires_grad_()


def gradient_maps(
    value: Tensor, hidden: Tensor, maps: Sequence[AttentionMap], is_last: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of a number with respect to the hidden vectors, and of every map the positive part of gradient times
    attention in the mean of the heads, (b, queries, keys) (equation 5).

    is_last: whether the graph may be let go.
    """
    of_hidden, *of_mixed = torch.autograd.grad(
        value, [hidden, *(found.mixed for found in maps)], retain_graph=not is_last, allow_unused=True
    )
    with torch.no_grad():
        pairs = zip(maps, of_mixed, strict=True)
        cams = [(found.gradient(own) * found.weights).clamp(min=0).mean(1) for found, own in pairs]
    return torch.zeros_like(hidden) if of_hidden is None else of_hidden, cams


def read_weights(gradient: Tensor, hidden: Tensor) -> Tensor:
    """How much each place is read for the answer, (b, n), of a row 1 in sum: by gradient times vector, as far as that
    is above 0; by the gradient's length where it is nowhere. 1 where only one place is read, as of a class token."""
    share = (gradient * hidden).sum(-1).clamp(min=0)
    length = gradient.norm(dim=-1)
    share = torch.where(share.sum(1, keepdim=True) > 0, share, length)
    return share / share.sum(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)


@torch.no_grad()
def relevance_of(maps: Sequence[AttentionMap], cams: Sequence[Tensor], read: Tensor) -> tuple[Tensor, Tensor | None]:
    """The relevance of the transformer's tokens, (b, n), and of the encoder's, (b, m), for what is read.

    What a token has of itself from the start (the identity in equation 1) is taken off.
    """
    own = [(found.kind, cam) for found, cam in zip(maps, cams, strict=True) if found.stack == "transformer"]
    below = [cam for found, cam in zip(maps, cams, strict=True) if found.stack == "encoder"]
    row = _carried(read, [cam for kind, cam in own if kind == "self"]) - read
    if not any(kind == "cross" for kind, _ in own):
        return row, None
    n = read.shape[1]
    to_own = torch.eye(n, dtype=read.dtype, device=read.device).expand(len(read), n, n)
    to_memory = None
    for kind, cam in own:
        if kind == "self":
            # Equations 6 and 7.
            to_memory = None if to_memory is None else to_memory + cam @ to_memory
            to_own = to_own + cam @ to_own
        else:
            # Equation 10, but for its last factor, which is the same in all layers and comes in the end.
            added = _normalized(to_own).mT @ cam
            to_memory = added if to_memory is None else to_memory + added
    asked = (read[:, None] @ to_memory)[:, 0]
    # The normalised matrix of the encoder (equations 8 and 9) times this row: R - 1 with rows that add up to 1, plus 1.
    sums = asked.new_ones(asked.shape)
    for cam in below:
        sums = sums + (cam @ sums[:, :, None])[:, :, 0]
    sums = sums - 1
    scaled = torch.where(sums > 0, asked / sums.clamp(min=torch.finfo(sums.dtype).tiny), 0)
    return row, _carried(scaled, below) - scaled + asked


def _carried(row: Tensor, cams: Sequence[Tensor]) -> Tensor:
    """A row (b, n) times the relevancy matrix of a stack, the product of 1 + cam from the last layer to the first."""
    for cam in reversed(cams):
        row = row + (row[:, None] @ cam)[:, 0]
    return row


def _normalized(relevancy: Tensor) -> Tensor:
    """Equations 8 and 9; rows of tokens that nothing flowed to are those of the identity."""
    eye = torch.eye(relevancy.shape[1], dtype=relevancy.dtype, device=relevancy.device)
    gained = relevancy - eye
    return gained / gained.sum(-1, keepdim=True).clamp(min=torch.finfo(gained.dtype).tiny) + eye


@torch.no_grad()
def rollout_of(maps: Sequence[AttentionMap], read: Tensor) -> tuple[Tensor, Tensor | None]:
    """As `relevance_of`, by attention alone: in each layer half of a token stays what it is, and half is the mean of
    what it attends to, in the mean of the heads. Of cross-attention likewise, which the paper does not have."""
    row, to_memory = read, None
    for found in reversed([found for found in maps if found.stack == "transformer"]):
        went = (row[:, None] @ found.weights.mean(1))[:, 0] / 2
        # What sees nothing stays whole.
        row = row - row * found.weights.mean(1).sum(-1) / 2
        if found.kind == "self":
            row = row + went
        else:
            to_memory = went if to_memory is None else to_memory + went
    if to_memory is not None:
        for found in reversed([found for found in maps if found.stack == "encoder"]):
            to_memory = (to_memory + (to_memory[:, None] @ found.weights.mean(1))[:, 0]) / 2
    return row, to_memory


def by_field(rows: tuple[Tensor, Tensor | None], batch: Batch, conditions: Batch | None) -> dict[str, Tensor]:
    """The values of the tokens of each field, (n,) on the CPU, of a batch of one sample."""
    found = {}
    for values, part in zip(rows, (batch, conditions), strict=True):
        if part is not None and values is not None:
            flat = values.flatten().cpu()
            found |= {name: flat[own.index.cpu()] for name, own in part.fields.items() if len(own.index)}
    return found
