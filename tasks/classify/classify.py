"""Classification: any fields in, one category out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.task import Task
from anyformer.tasks.targets.category import Category, CategoryHead
from anyformer.tasks.targets.classes import (
    balance,
    check_smoothing,
    class_index,
    class_names,
    read_labels,
    sort_classes,
)
from anyformer.tasks.targets.pooling import OWN_FIELD, Pool, Read, ReadChopper, own_tokens
from anyformer.tasks.targets.target import linear
from anyformer.tokenizers.mixing import Mixing
from anyformer.tokens import Sample, Tokenizer, expand


@dataclass(frozen=True)
class ClassifyChopper(ReadChopper):
    """Records to (sample, class index) and batches of them."""

    target: str
    """The column with the label."""
    classes: tuple[str, ...]
    mixing: Mixing | None = None
    """How samples are blended in training."""

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, labelled: bool = True
    ) -> tuple[Sample, int]:
        sample = self.conditions(record, random)
        return sample | self.own_tokens, self._index(record) if labelled else 0

    def partner(self, n: int, random: np.random.Generator) -> int | None:
        return None if self.mixing is None else self.mixing.partner(n, random)

    def mix(
        self, item: tuple[Sample, int], other: tuple[Sample, int] | None, random: np.random.Generator
    ) -> tuple[Sample, int | Tensor]:
        """With `mixing` the class becomes a distribution over the classes, whether or not there is a partner."""
        if self.mixing is None:
            return item
        sample, index = item
        target = F.one_hot(torch.tensor(index), len(self.classes)).float()
        if other is not None:
            ((name, tokenizer),) = self.tokenizers.items()
            tokens, share = tokenizer.mix(sample[name], other[0][name], self.mixing, random)
            sample = sample | {name: tokens}
            target = share * target
            target[other[1]] += 1 - share
        return sample, target

    def _index(self, record: Mapping[str, Any]) -> int:
        label = record.get(self.target)
        if is_missing(label):
            raise InputError(f"field {self.target!r} must hold the label, but it is missing or empty")
        return class_index(self.target, label, self.classes)

    def collate(self, items: Sequence[tuple[Sample, int | Tensor]], rows: Sequence[int] | None = None) -> Examples:
        """The target is (b,) class indices, or (b, classes) distributions."""
        tokens = collate([sample for sample, _ in items], expand({**self.tokenizers, **self.own}), rows)
        return Examples(tokens, torch.stack([torch.as_tensor(target) for _, target in items]))


class Classify(Task):
    """Classifies samples of any fields."""

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        target: str = "label",
        classes: list[str | int] | None = None,
        read: Read = "class",
        place_class: bool = False,
        n_registers: int = 0,
        pool_norm: bool = False,
        pool_dense: bool = False,
        head_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        mix: Mixing | None = None,
        fields: FieldsConfig = FieldsConfig(),
        init_from: str | None = None,
        freeze: list[str] | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of each input field, by the name of its column.
            transformer: sizes of the shared transformer.
            embedding: how content, type and position become a token.
            optimizer: the optimiser and its learning rate over the run.
            target: the column with the label.
            classes: names of the classes; the labels of the training part, sorted, when left out.
            read: what the head reads: a class token, the first token of the first field (as BERT's `[CLS]`, see `wrap`
                of Text), the mean of the fields' tokens, or one by learned attention.
            place_class: whether class and register tokens have a position embedding of their own.
            n_registers: register tokens (Darcet et al. 2024), which take part and are not read.
            pool_norm: whether the vector that the head reads is normed (then final_norm is usually off).
            pool_dense: whether that vector goes through a square matrix and a tanh (the pooler of BERT).
            head_dropout: on the vector that the last layer reads.
            label_smoothing: mass taken from the right class and spread over all.
            class_weights: of each class in the loss; balanced: so that all classes weigh the same in sum.
            mix: mixup and cutmix of training samples, where the one field is a picture of a fixed size, or a sound.
            fields: which inputs are left out of training samples, who sees whom, what an evaluation asks without.
            init_from: the weights that training starts from: a run folder, or a timm ViT's safetensors file.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
        """
        super().__init__(tokenizers, transformer, embedding, optimizer, init_from, freeze, fields)
        if OWN_FIELD in tokenizers:
            raise InputError(f"tokenizers: the name {OWN_FIELD!r} is taken by the task's own tokens; choose another")
        if target in tokenizers:
            raise InputError(f"target: the column {target!r} is also an input; a model would only copy it")
        check_smoothing(label_smoothing)
        if mix is not None:
            if len(tokenizers) > 1:
                raise InputError(f"mix blends samples of one field, and tokenizers has {', '.join(tokenizers)}")
            ((name, tokenizer),) = tokenizers.items()
            if tokenizer.unmixable:
                raise InputError(f"mix cannot blend the field {name!r}: {tokenizer.unmixable}, or leave mix out")
        self.target, self.read, self.mix = target, read, mix
        self.classes = None if classes is None else list(class_names(classes))
        self.class_weights, self.label_smoothing = class_weights, label_smoothing
        self.place_class, self.n_registers = place_class, n_registers
        self.pool_norm, self.pool_dense, self.head_dropout = pool_norm, pool_dense, head_dropout
        needed = {next(iter(expand(tokenizers))): "read: first"} if read == "first" else {}
        self.fields.check(self.tokenizers, list(self.own_tokens), needed)
        self.head: nn.Module | None = None

    @property
    def metric(self) -> tuple[str, str]:
        return "val/accuracy", "max"

    @property
    def answers(self) -> dict[str, list[str]]:
        return {self.target: [self.target]}

    @property
    def own_tokens(self) -> dict[str, LearnedTokens]:
        """The field of class and register tokens that every sample gets, if there are any."""
        return own_tokens(int(self.read == "class") + self.n_registers, self.place_class)

    def fit_tokenizers(self, source: Source) -> None:
        super().fit_tokenizers(source)
        labels = read_labels(source, self.target)
        if self.classes is None:
            self.classes = sort_classes(labels)
        if len(self.classes) < 2:
            raise InputError(f"column {self.target!r} must hold at least two classes, got {self.classes}")
        if self.class_weights == "balanced":
            self.class_weights = list(balance(labels, self.classes))

    def build(self) -> None:
        if self.classes is None:
            raise InputError("the classes are not known yet: give classes, or fit to data")
        if isinstance(self.class_weights, list) and len(self.class_weights) != len(self.classes):
            raise InputError(
                f"class_weights must have a number for each of the {len(self.classes)} classes, "
                f"got {len(self.class_weights)}"
            )
        fields = {**self.tokenizers, **self.own_tokens}
        self.model = Anyformer(
            fields,
            self.transformer,
            self.embedding,
            sees=self.fields.visibility(fields),
            shared=self.fields.owners(fields),
        )
        d_model = self.transformer.d_model
        self.pool = Pool(self.read, list(expand(self.tokenizers)), d_model)
        pooled = nn.LayerNorm(d_model, eps=self.transformer.norm_eps) if self.pool_norm else nn.Identity()
        if self.pool_dense:
            pooled = nn.Sequential(pooled, linear(d_model, d_model, self.transformer), nn.Tanh())
        head = linear(d_model, len(self.classes), self.transformer)
        self.head = nn.Sequential(pooled, nn.Dropout(self.head_dropout), head)
        category = Category(tuple(self.classes), self.class_weights, self.label_smoothing)
        self.scores = CategoryHead(category, nn.Identity())

    def chopper(self, training: bool) -> ClassifyChopper:
        first = next(iter(expand(self.tokenizers))) if self.read == "first" else None
        return ClassifyChopper(
            self.tokenizers,
            self.own_tokens,
            first,
            self.target,
            tuple(self.classes),
            self.mix,
            **self.fields.chopping,
        )

    def forward(self, tokens: Batch) -> Tensor:
        """Logits of every sample, (b, classes)."""
        return self.head(self.pool.read(self.model, tokens))

    def loss(self, batch: Examples) -> tuple[Tensor, Tensor]:
        return self.scores.loss(self(batch.tokens), batch.target)

    def begin_evaluation(self) -> None:
        self.scores.reset()

    def evaluate(self, batch: Examples) -> dict[str, Tensor]:
        return self.scores.evaluate(self(batch.tokens), batch.target)

    def report(self, stage: str) -> dict[str, Tensor]:
        return self.scores.compute()

    @torch.inference_mode()
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: None = None, *, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """The classes of records with their probabilities, likeliest first.

        records: dicts of fields, a value being whatever its tokenizer takes (a path, an array, a string).
        Returns for each `{"label": str, "probabilities": {class: float}}`.
        Raises InputError for a record it cannot use.
        """
        chopper, results = self.chopper(training=False), []
        self.eval()
        for start in range(0, len(records), batch_size):
            items = [chopper(record, labelled=False) for record in records[start : start + batch_size]]
            logits = self(chopper.collate(items).tokens.to(self.device))
            results += self.scores.results(logits)
        return results

    def render(self, result: Mapping[str, Any]) -> str:
        top = list(result["probabilities"].items())[:5]
        width = max(len(name) for name, _ in top)
        return "\n".join(f"{name:<{width}}  {value:6.1%}" for name, value in top)

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The label, its probability, and that of every class, in the sequence of the classes, as `p(cat)`."""
        by_class = result["probabilities"]
        columns = {f"p({name})": by_class[name] for name in self.classes}
        return {"label": result["label"], "probability": by_class[result["label"]], **columns}

    def preview(self, item: tuple[Sample, int | Tensor]) -> tuple[Sample, str]:
        """Of a distribution the two likeliest classes, with their shares."""
        sample, target = item
        if not isinstance(target, Tensor):
            return sample, self.classes[target]
        shares, indices = target.topk(2)
        words = [f"{self.classes[i]} {round(share, 2):g}" for i, share in zip(indices, shares.tolist(), strict=True)]
        return sample, " ".join(words) if shares[1] >= 0.005 else self.classes[indices[0]]

    def draw(self, folder: Path) -> None:
        """Draw the confusion matrix of the last evaluation as `confusion.png`."""
        self.scores.draw(folder, "")
