"""Classification: any fields in, one category out. It is `Predict` with one target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.starting.pretraining import Pretraining
from anyformer.tasks.predict.batch import Item, PredictChopper
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.aims import Aims
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.pooling import Read
from anyformer.tokenizers.mixing import Mixing
from anyformer.tokens import Tokenizer


@dataclass(frozen=True)
class ClassifyChopper(PredictChopper):
    """Records to items and batches of them, blended in training."""

    mixing: Mixing | None = None
    """How samples are blended."""

    def partner(self, n: int, random: np.random.Generator) -> int | None:
        return None if self.mixing is None else self.mixing.partner(n, random)

    def mix(self, item: Item, other: Item | None, random: np.random.Generator) -> Item:
        """With `mixing` the class becomes a distribution over the classes, whether or not there is a partner."""
        if self.mixing is None:
            return item
        ((column, category),) = self.targets.items()
        sample, shares = item.sample, F.one_hot(item.values[column], len(category.classes)).float()
        if other is not None:
            ((name, tokenizer),) = self.tokenizers.items()
            tokens, share = tokenizer.mix(sample[name], other.sample[name], self.mixing, random)
            sample = sample | {name: tokens}
            shares = share * shares
            shares[other.values[column]] += 1 - share
        return item._replace(sample=sample, values={column: shares})


class Classify(Predict):
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
        choose: str | None = None,
        views: int = 1,
        fields: FieldsConfig = FieldsConfig(),
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
        pretrain: Pretraining | None = None,
        calibrate: bool = False,
        temperature: float = 1.0,
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
            choose: the metric that chooses the best model: accuracy when left out; f1, loss, of two classes auroc, of
                more than five top5.
            views: in validation, test and use probabilities are averaged over so many views of a record: itself, and
                others as its tokenizers would augment it in training. It costs time in proportion.
            fields: which inputs are left out of training samples, who sees whom, what an evaluation asks without.
            init_from: the model that training starts from: a run folder, or a checkpoint of another library, as
                `import` takes it; what a config leaves out is taken from it.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
            pretrain: what is learned of the inputs alone before, on the training records and those of data.unlabelled.
            calibrate: whether after training a temperature is fitted on the validation records, so that probabilities
                are as often right as they say; no prediction changes.
            temperature: what logits are divided by in evaluation and use; what calibrate fits.
        """
        super().__init__(
            tokenizers,
            {target: Category(classes, class_weights, label_smoothing, 1.0, calibrate, temperature)},
            transformer,
            embedding,
            optimizer,
            read,
            place_class,
            n_registers,
            pool_norm,
            pool_dense,
            head_dropout,
            choose,
            views,
            fields,
            init_from,
            freeze,
            lora,
            pretrain,
        )
        if mix is not None:
            if len(tokenizers) > 1:
                raise InputError(f"mix blends samples of one field, and tokenizers has {', '.join(tokenizers)}")
            ((name, tokenizer),) = tokenizers.items()
            if tokenizer.unmixable:
                raise InputError(f"mix cannot blend the field {name!r}: {tokenizer.unmixable}, or leave mix out")
        self.target, self.mix = target, mix

    # Its arguments, which the target holds.

    @property
    def category(self) -> Category:
        return self.targets[self.target]  # type: ignore[return-value]

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, in the sequence of the logits."""
        return None if self.category.classes is None else list(self.category.classes)

    @classes.setter
    def classes(self, names: Sequence[str] | None) -> None:
        self.targets = {self.target: replace(self.category, classes=names)}

    @property
    def class_weights(self) -> list[float] | str | None:
        weights = self.category.class_weights
        return list(weights) if isinstance(weights, tuple) else weights

    @property
    def label_smoothing(self) -> float:
        return self.category.label_smoothing

    @property
    def calibrate(self) -> bool:
        return self.category.calibrate

    @property
    def temperature(self) -> float:
        return self.category.temperature

    def head_name(self, name: str) -> str:
        # One name, so that weights fit whatever the column is called.
        return "class_head"

    def chopper(self, training: bool) -> ClassifyChopper:
        return ClassifyChopper(
            *self._chopping(training), views=self.views, mixing=self.mix, **self.fields.chopping(self.tokenizers)
        )

    def forward(self, tokens: Batch) -> Tensor:
        """Logits of every sample, (b, classes)."""
        head = self.head(self.target)
        return head.calibrated(head(self.dropout(self.pool.read(self.model, tokens))))

    def results(self, outputs: Mapping[str, Tensor], batch: Aims) -> list[dict[str, Any]]:
        """The classes of each sample with their probabilities, likeliest first: `{"label": str, "probabilities":
        {class: float}}`."""
        return [result[self.target] for result in super().results(outputs, batch)]

    def render(self, result: Mapping[str, Any]) -> str:
        top = list(result["probabilities"].items())[:5]
        width = max(len(name) for name, _ in top)
        return "\n".join(f"{name:<{width}}  {value:6.1%}" for name, value in top)

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The label, its probability, and that of every class, in the sequence of the classes, as `p(cat)`."""
        by_class = result["probabilities"]
        columns = {f"p({name})": by_class[name] for name in self.category.classes}
        return {"label": result["label"], "probability": by_class[result["label"]], **columns}
