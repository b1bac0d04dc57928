"""Masked content as a target: tokens of an input are hidden and predicted at their own places.

One objective for patches of pictures (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners"), slices of
sound, texts (Devlin et al. 2019, "BERT") and all else whose lift takes one piece of content a token.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.batch import Batch, FieldTokens
from anyformer.drawing.evaluation import draw_rows
from anyformer.errors import InputError, nearest
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Metric, ratio
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.lifts import FeatureLookup, Lookup
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tasks.targets.target import Stage, Target, TargetHead, check_weight, linear
from anyformer.tokenizers.pretrained import Pretrained
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer, TokenSet, expand

N_DRAWN = 8
"""Samples on `reconstructions.png`."""
EPSILON = 1e-6
"""Added to the variance of a token's content: of what is one even shade it is 0."""


METRICS = {
    "loss": LOSS,
    # Of ids.
    "accuracy": Metric("max", ("found", "targets"), ratio),
}


@dataclass(frozen=True)
class Masked(Target):
    """What is hidden of an input, whose name is the target's; it needs no label.

    In place of a hidden token's content the model sees a learned vector; its position it sees. Of a record that the
    model is evaluated on, or used for, the same tokens are hidden every time.

    In training the other targets are read of the same batch, with inputs hidden; in evaluation and use of the whole.
    """

    share: float = 0.75
    """Of a sample's tokens that are hidden, at least one."""
    normalize: bool | None = None
    """Whether the content to be predicted is normed within each token, by its own mean and deviation (He et al. 2022,
    4.1); when left out of pictures alone, whose tokens stand in rows and columns. Not of ids."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    of_samples = False
    hides = True
    means = ("normalize",)

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 < self.share < 1:
            raise InputError(f"share must lie between 0 and 1, got {self.share}")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def columns_of(self, name: str) -> tuple[str, ...]:
        return ()

    def normalizes(self, tokenizer: Tokenizer) -> bool:
        """Whether the content of a field is normed within each token."""
        if self.normalize is not None:
            return self.normalize
        return {"row", "column"} <= set(tokenizer.axes)

    def check(self, name: str, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Of tokens of a set, without relations, nothing can be predicted."""
        inputs = expand(tokenizers)
        if name not in inputs:
            raise InputError(f"targets.{name}: there is no input {name!r} to be masked{nearest(name, inputs)}")
        tokenizer = inputs[name]
        if isinstance(tokenizer, Pretrained):
            raise InputError(
                f"targets.{name}: a Pretrained field is read by an encoder of its own, and no token of it can be "
                "masked; mask another input"
            )
        if not tokenizer.axes and not tokenizer.n_relations:
            raise InputError(
                f"targets.{name}: the tokens of {type(tokenizer).__name__} have no positions, so nothing tells one "
                "that is hidden from another; mask an input whose tokens have some"
            )

    def value(self, name: str, record: Mapping[str, Any]) -> None:
        """Nothing: what is predicted is in the inputs."""

    def hide(
        self, name: str, tokens: TokenSet, tokenizer: Tokenizer, random: np.random.Generator | None, alone: bool
    ) -> TokenSet:
        n = len(tokens)
        if len(tokens.content) != n:
            raise InputError(
                f"field {name!r}: {n} tokens are made of {len(tokens.content)} pieces of content, and a token alone "
                "cannot be masked; take a lift without convolutions (stem: null)"
            )
        if random is None:
            random = np.random.default_rng(zlib.crc32(tokens.content.numpy().tobytes()))
        able = np.arange(n)
        if isinstance(tokenizer, Text) and tokenizer.special_ids:
            able = able[~np.isin(tokens.content.numpy(), tokenizer.special_ids)]
        most = len(able) - int(alone and len(able) == n)
        n_masked = min(max(round(self.share * len(able)), 1), max(most, 0))
        masked = torch.zeros(n, dtype=torch.bool)
        masked[torch.from_numpy(random.permutation(able)[:n_masked])] = True
        return replace(tokens, masked=masked)

    def aim(self, name: str, values: Sequence[None], batch: Batch) -> Aim:
        tokens = batch.fields[name]
        masked = tokens.masked
        places = torch.zeros(0, dtype=torch.int64) if masked is None else masked.nonzero().squeeze(1)
        return Aim(tokens.index[places], tokens.content[places], tokens.sample[places])

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> MaskedHead:
        return MaskedHead(name, self, model, transformer)

    def render(self, result: Mapping[str, Any]) -> str:
        loss = "-" if result["loss"] is None else f"loss {result['loss']:.4g}"
        return f"{result['text']}  ({loss})" if result.get("text") else loss

    def row(self, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{name}_{each}": value for each, value in result.items()}


class MaskedHead(TargetHead):
    """Predicts the content of a field: ids by the table that lifts them, all else by a linear map.

    Of tokens of several features (atoms, as Hu et al. 2020, "Strategies for Pre-training Graph Neural Networks", 3.1.2)
    losses and accuracy are means over the features.
    """

    def __init__(self, name: str, target: Masked, model: Anyformer, transformer: TransformerConfig) -> None:
        super().__init__(METRICS)
        self.tokenizer = model.tokenizers[name]
        empty = self.tokenizer.empty().content
        self.is_ids, self.sizes = not empty.is_floating_point(), ()
        self.normalizes = not self.is_ids and target.normalizes(self.tokenizer)
        if self.is_ids:
            lift = model.embeddings.lifts[name]
            if isinstance(lift, FeatureLookup):
                self.sizes = lift.sizes
                self.output: nn.Module = linear(transformer.d_model, sum(self.sizes), transformer)
            elif isinstance(lift, Lookup):
                self.output = Head(lift, transformer, HeadConfig(bias=True))
            else:
                raise InputError(
                    f"targets.{name}: {type(self.tokenizer).__name__} has ids of its own kind; "
                    "only those that a table lifts can be predicted"
                )
            self.sums["found"] = Sums()
        else:
            self.output = linear(transformer.d_model, empty.shape[1:].numel(), transformer)
        self.drawn: list[tuple[np.ndarray, ...]] = []

    def wanted(self, content: Tensor) -> Tensor:
        """What is predicted of content, (t, values): itself, or normed within each token."""
        content = content.flatten(1)
        if not self.normalizes:
            return content
        mean, deviation = _moments(content)
        return (content - mean) / deviation

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of ids the cross-entropy, in nats; else the mean over a token's values of the squared error."""
        if self.is_ids and not self.sizes:
            loss = self.output.loss(vectors, values)
        else:
            loss = self.each_loss(vectors, values).sum()
        return loss, loss.new_tensor(len(values))

    def each_loss(self, vectors: Tensor, values: Tensor) -> Tensor:
        """The loss of every token, (t,)."""
        if self.is_ids:
            pairs = zip(self._logits(vectors), values.view(len(values), -1).T, strict=True)
            each = [nn.functional.cross_entropy(logits.float(), ids, reduction="none") for logits, ids in pairs]
            return torch.stack(each).mean(0)
        return ((self.output(vectors).float() - self.wanted(values)) ** 2).mean(1)

    def evaluate(self, vectors: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(vectors, values)
        if self.is_ids:
            found = (self._found(vectors) == values).double()
            self.sums["found"].update(found.view(len(values), -1).mean(1).sum())
        return {}

    def _logits(self, vectors: Tensor) -> Sequence[Tensor]:
        """Of the ids, (t, ids); of each feature where there are several."""
        logits = self.output(vectors)
        return logits.split(self.sizes, -1) if self.sizes else [logits]

    def _found(self, vectors: Tensor) -> Tensor:
        """The likeliest ids, (t,) or (t, features)."""
        found = torch.stack([logits.argmax(-1) for logits in self._logits(vectors)], -1)
        return found if self.sizes else found.squeeze(-1)

    def reset(self) -> None:
        super().reset()
        self.drawn = []

    def filled(self, vectors: Tensor, tokens: FieldTokens) -> Tensor:
        """The content of a field with what is predicted in the place of what is masked.

        vectors: (masked, d). A token that was normed gets its own mean and deviation back (as the pictures of He et
        al. 2022 do), which the model does not know.
        """
        content, masked = tokens.content.clone(), tokens.masked
        if self.is_ids:
            content[masked] = self._found(vectors)
            return content
        found = self.output(vectors).float()
        if self.normalizes:
            mean, deviation = _moments(content[masked].flatten(1))
            found = found * deviation + mean
        content[masked] = found.view_as(content[masked]).to(content.dtype)
        return content

    @torch.no_grad()
    def fill(self, vectors: Tensor, tokens: FieldTokens, n: int) -> list[dict[str, Any]]:
        """Of each of n samples the mean `loss` of what is masked, and of a Text the `text` with it filled in.

        vectors: (masked, d). Where nothing is masked both are None.
        """
        has_text = isinstance(self.tokenizer, Text)
        made: list[dict[str, Any]] = [{"loss": None, **({"text": None} if has_text else {})} for _ in range(n)]
        if tokens.masked is None:
            return made
        owners = tokens.sample[tokens.masked]
        losses = self.each_loss(vectors, tokens.content[tokens.masked])
        for i in owners.unique().tolist():
            made[i]["loss"] = losses[owners == i].mean().item()
        if has_text:
            numbers = tokens.sample.unique_consecutive().tolist()
            for i, each in zip(numbers, token_sets(tokens, self.filled(vectors, tokens)), strict=True):
                made[i]["text"] = self.tokenizer.decode(each)
        return made

    def evaluate_batch(self, name: str, vectors: Tensor, batch: Aims) -> tuple[Tensor, dict[str, Tensor]]:
        self.keep(vectors, batch.tokens.fields[name])
        return super().evaluate_batch(name, vectors, batch)

    def predict_batch(self, name: str, vectors: Tensor, batch: Aims) -> list[dict[str, Any]]:
        return self.fill(vectors, batch.tokens.fields[name], batch.tokens.n_samples)

    @torch.no_grad()
    def keep(self, vectors: Tensor, tokens: FieldTokens) -> None:
        """Keep what the field was, what was shown of it, and what was made of it, of some samples, as pictures."""
        if len(self.drawn) >= N_DRAWN or tokens.masked is None or self.is_ids:
            return
        filled = self.filled(vectors, tokens)
        shown = tokens.content.masked_fill(tokens.masked.view(-1, *[1] * (tokens.content.ndim - 1)), 0)
        parts = [token_sets(tokens, content) for content in (tokens.content, shown, filled)]
        for sets in zip(*parts, strict=True):
            pictures = [self.tokenizer.show(each) for each in sets]
            if len(self.drawn) < N_DRAWN and pictures[0] is not None:
                self.drawn.append(tuple(pictures))

    def draw(self, folder: Path, suffix: str, stage: Stage = "", inputs: Mapping[str, Tokenizer] = {}) -> None:
        if self.drawn:
            draw_rows(self.drawn, ("whole", "shown", "filled in"), folder / f"reconstructions{suffix}.png")


def _moments(content: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the deviation of each token's content, (t, values): (t, 1) each."""
    mean = content.mean(1, keepdim=True)
    return mean, (((content - mean) ** 2).mean(1, keepdim=True) + EPSILON).sqrt()


def token_sets(tokens: FieldTokens, content: Tensor) -> list[TokenSet]:
    """The sets of the samples that have a field, on the CPU, with other content. One piece of content a token."""
    sizes = torch.unique_consecutive(tokens.sample, return_counts=True)[1].tolist()
    parts = zip(content.cpu().split(sizes), tokens.position.cpu().split(sizes), tokens.extents, strict=True)
    return [TokenSet(own, position, extent=extent) for own, position, extent in parts]
