"""Prediction: any fields in, any targets out, one or many: categories, labels, numbers, texts, actions, and what is
masked in the inputs themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.data.source import Source
from anyformer.data.values import number_or_text
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lora import LoraConfig
from anyformer.model.vectors import Pooling
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.starting.pretraining import Pretraining
from anyformer.tasks.base.task import Task
from anyformer.tasks.predict.batch import Item, PredictChopper, generated
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.pooling import OWN_FIELD, Pool, Read, own_tokens
from anyformer.tasks.targets.target import Stage, Target, TargetHead
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer, expand


@dataclass(frozen=True)
class PredictOptions(Checked):
    """How predictions are made."""

    views: int | None = None
    """Of each record, that predictions are averaged over; as many as in evaluation when left out."""


class Predict(Task):
    """Predicts one target or several of samples of any fields."""

    options: ClassVar[type[PredictOptions]] = PredictOptions
    inference_args: ClassVar[tuple[str, ...]] = ("views",)

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        targets: dict[str, Target],
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        read: Read = "class",
        place_class: bool = False,
        n_registers: int = 0,
        pool_norm: bool = False,
        pool_dense: bool = False,
        head_dropout: float = 0.0,
        choose: str | None = None,
        views: int = 1,
        fields: FieldsConfig = FieldsConfig(),
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
        pretrain: Pretraining | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of each input field, by the name of its column.
            targets: what is predicted, by the name of its column: Category, Labels, Regression, TextTarget,
                ActionTarget; and by the name of an input Masked. One that a record lacks is not counted; a record
                without any is an error.
            transformer: sizes of the shared transformer.
            embedding: how content, type and position become a token.
            optimizer: the optimiser and its learning rate over the run.
            read: what targets of the whole sample read: a class token, the first token of the first field, the mean of
                the fields' tokens, or one by learned attention.
            place_class: whether class and register tokens have a position embedding of their own.
            n_registers: register tokens (Darcet et al. 2024), which take part and are not read.
            pool_norm: whether the vector that targets of the whole sample read is normed (then final_norm is usually
                off).
            pool_dense: whether that vector goes through a square matrix and a tanh (the pooler of BERT).
            head_dropout: on that vector, before the last layer.
            choose: the metric that chooses the best model: such as rmse where there is one target and price/rmse where
                there are several; by default the usual one of a single target, and the loss of several.
            views: in validation, test and use predictions are averaged over so many views of a record: itself, and
                others as its tokenizers would augment it in training; probabilities are, and numbers in the units of
                the data. It costs time in proportion. What is written has no mean.
            fields: which inputs are left out of training samples, who sees whom, what an evaluation asks without.
            init_from: the model that training starts from: a run folder, or a checkpoint of another library, as
                `import` takes it; what a config leaves out is taken from it.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
            pretrain: what is learned of the inputs alone before, on the training records and those of data.unlabelled.
        """
        super().__init__(tokenizers, transformer, embedding, optimizer, init_from, freeze, fields, lora=lora)
        self.pretrain = pretrain
        self.targets, self.read, self.choose = dict(targets), read, choose
        self.heads = nn.ModuleDict()
        self.stage: Stage = ""
        self.place_class, self.n_registers = place_class, n_registers
        self.pool_norm, self.pool_dense, self.head_dropout = pool_norm, pool_dense, head_dropout
        self._check_targets()
        needed = {} if self._first is None else {self._first: "read: first"}
        self.fields.check(self.tokenizers, [*self.own_tokens, *self._texts], needed)
        self.check_views(views)
        self.views = views
        self.pool: Pool | None = None
        if pretrain is not None:
            self.pretraining()

    def _check_targets(self) -> None:
        """Raise InputError for names that mean two things or none."""
        if not self.targets:
            raise InputError("targets must name at least one, got none")
        if OWN_FIELD in {*self.tokenizers, *self._texts}:
            raise InputError(f"the name {OWN_FIELD!r} is taken by the task's own tokens; choose another")
        for name, target in self.targets.items():
            target.check(name, self.tokenizers)
        self._check_choice()

    def _check_choice(self) -> None:
        if self.choose is not None and self.choose not in (known := self._best):
            raise InputError(f"choose must be one of {', '.join(known)}, got {self.choose!r}")

    def check_views(self, views: int) -> None:
        """Raise InputError where there are not so many views of a record, or no mean of what is predicted of them."""
        if views < 1:
            raise InputError(f"views must be at least 1, got {views}")
        if views == 1:
            return
        for name, target in self.targets.items():
            if target.averages is None and not target.hides:
                raise InputError(f"views: there is no mean of what is predicted of {name!r}; leave views out")
        if not self.averaged:
            raise InputError("views: what is masked is predicted of one view alone, and there is no other target")
        if not any(tokenizer.augments for tokenizer in self.tokenizers.values()):
            names = ", ".join(self.tokenizers)
            raise InputError(
                f"views: all {views} would be the same, as nothing augments {names} in training; give a tokenizer "
                "augment, or leave views out"
            )

    @property
    def averaged(self) -> list[str]:
        """The targets whose predictions can be averaged over views, or over models."""
        return [name for name, target in self.targets.items() if target.averages is not None]

    @property
    def answers(self) -> dict[str, Sequence[str]]:
        return {name: target.columns_of(name) for name, target in self.targets.items()}

    @property
    def _texts(self) -> dict[str, Tokenizer]:
        """The tokenizers of what is written, by target."""
        return generated(self.targets)

    @property
    def _masked(self) -> list[str]:
        return [name for name, target in self.targets.items() if target.hides]

    @property
    def _reads_samples(self) -> bool:
        return any(target.of_samples for target in self.targets.values())

    @property
    def _first(self) -> str | None:
        """The field whose first token is read."""
        return next(iter(expand(self.tokenizers))) if self.read == "first" and self._reads_samples else None

    @property
    def own_tokens(self) -> dict[str, LearnedTokens]:
        """The field of class and register tokens that every sample gets, if there are any."""
        return own_tokens(int(self.read == "class" and self._reads_samples) + self.n_registers, self.place_class)

    def _prefix(self, name: str) -> str:
        """What goes before the metrics of a target."""
        return f"{name}/" if len(self.targets) > 1 else ""

    @property
    def _best(self) -> dict[str, str]:
        """The metrics that may choose the best model, and which is best; the usual one first."""
        each = {
            f"{self._prefix(name)}{called}": metric.best
            for name, target in self.targets.items()
            for called, metric in target.metrics.items()
            # What a head gives is known once the data is.
            if self.head_name(name) not in self.heads or self.head(name).sums.has(metric)
        }
        return {"loss": "min"} | each if len(self.targets) > 1 else each

    @property
    def metric(self) -> tuple[str, str]:
        name = self.choose or next(iter(self._best))
        return f"val/{name}", self._best[name]

    @property
    def metric_scale(self) -> float:
        name, _, metric = self.metric[0].removeprefix("val/").rpartition("/")
        return self.targets[name or next(iter(self.targets))].scale(metric)

    def pretraining(self) -> Predict:
        """Fills in what is hidden of the inputs, by the same tokenizers and transformer, of which all is trained."""
        try:
            return Predict(
                self.tokenizers,
                {name: Masked(share) for name, share in self.pretrain.masked.items()},
                self.transformer,
                self.embedding,
                self.pretrain.optimizer or self.optimizer,
                read=self.read,
                place_class=self.place_class,
                n_registers=self.n_registers,
                fields=FieldsConfig(sees=self._sees_of_inputs, share=self.fields.share),
                init_from=self.init_from,
            )
        except InputError as error:
            raise InputError(f"pretrain.masked: {error}") from None

    @property
    def _sees_of_inputs(self) -> dict[str, list[str]]:
        """`fields.sees` without the fields that are no inputs: the class token, what is written."""
        inputs = {*self.tokenizers, *expand(self.tokenizers)}
        return {
            name: [each for each in seen if each in inputs] for name, seen in self.fields.sees.items() if name in inputs
        }

    # Data

    def fit_tokenizers(self, source: Source) -> None:
        super().fit_tokenizers(source)
        self.targets = {name: target.fit(name, source) for name, target in self.targets.items()}

    @property
    def learnt(self) -> dict[str, Tokenizer]:
        return {**self.tokenizers, **{name: self.targets[name].learnt for name in self._texts}}

    def inherit(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        super().inherit(tokenizers)
        for name in self._texts.keys() & tokenizers.keys():
            target = self.targets[name]
            self.targets[name] = target.with_learnt(target.learnt.inherit(tokenizers[name]))

    @property
    def packages(self) -> list[str]:
        modules = {type(target).__module__ for target in self.targets.values()}
        return sorted({*super().packages, *(name.partition(".")[0] for name in modules)} - {"anyformer"})

    def chopper(self, training: bool) -> PredictChopper:
        return PredictChopper(*self._chopping(training), views=self.views, **self.fields.chopping)

    def _chopping(self, training: bool) -> tuple[Any, ...]:
        """The first arguments of the chopper."""
        return self.tokenizers, self.own_tokens, self._first, self.targets, training

    # Model

    def build(self) -> None:
        fields = {**self.tokenizers, **self.own_tokens, **self._texts}
        self.model = Anyformer(
            fields,
            self.transformer,
            self.embedding,
            sees=self._sees(fields),
            shared=self.fields.owners(fields),
            maskable=self._masked,
        )
        if self._reads_samples:
            names = list(expand(self.tokenizers))
            self.pool = Pool(self.read, names, self.transformer, self.pool_norm, self.pool_dense)
        self.dropout = nn.Dropout(self.head_dropout)
        heads = {name: target.head(name, self.model, self.transformer) for name, target in self.targets.items()}
        self.heads = nn.ModuleDict({self.head_name(name): head for name, head in heads.items()})
        self._check_choice()

    def _sees(self, fields: Mapping[str, Tokenizer]) -> dict[str, list[str]] | None:
        """Who sees whom: what `fields.sees` says, and of texts that are written none another."""
        sees = self.fields.visibility(fields)
        if len(self._texts) < 2:
            return sees
        every, sees = list(expand(fields)), sees or {}
        own = {
            name: [each for each in sees.get(name, every) if each == name or each not in self._texts]
            for name in self._texts
        }
        return sees | own

    def head_name(self, name: str) -> str:
        """What the head of a target is called among the modules, whose names hold no dot and are not those of a
        module's own attributes: `type`, `values`."""
        return f"{name.replace('.', '/')}_head"

    def head(self, name: str) -> TargetHead:
        return self.heads[self.head_name(name)]

    def _read(self, batch: Batch, names: Sequence[str], aims: Mapping[str, Aim]) -> dict[str, Tensor]:
        """The vectors that some targets are predicted from, by target."""
        if not names:
            return {}
        of_samples = [name for name in names if self.targets[name].of_samples]
        if len(of_samples) == len(names):
            pooled, hidden = self.pool.read(self.model, batch), None
        else:
            hidden = self.model(batch)
            pooled = self.pool(hidden, batch) if of_samples else None
            hidden = hidden.flatten(0, 1)
        if pooled is not None:
            pooled = self.dropout(pooled)
        return {name: (pooled if name in of_samples else hidden)[aims[name].read] for name in names}

    def loss(self, batch: Aims) -> tuple[Tensor, Tensor]:
        vectors = self._read(batch.tokens, list(self.targets), batch.aims)
        heads = {name: self.head(name) for name in self.targets}
        return self._sum({n: head.loss(head(vectors[n]), batch.aims[n].values) for n, head in heads.items()})

    def _sum(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The weighted sum of the losses of the targets, and of how many they are over."""
        weights = {name: target.weight for name, target in self.targets.items()}
        return (
            sum(weights[name] * loss for name, (loss, _) in parts.items()),
            sum(weights[name] * n for name, (_, n) in parts.items()),
        )

    # Metrics

    def begin_evaluation(self) -> None:
        for head in self.heads.values():
            head.reset()

    def evaluate(self, batch: Aims) -> dict[str, Tensor]:
        return self.take(self.outputs(batch, list(batch.aims)), batch)

    def take(self, outputs: Mapping[str, Tensor], batch: Aims) -> dict[str, Tensor]:
        """Take what heads say of a batch, by target, into the metrics; returns scores as `evaluate` does."""
        scores = {}
        for name, own in outputs.items():
            samples, found = self.head(name).evaluate_batch(name, own, batch)
            for metric, score in found.items():
                # NaN for a sample that has none.
                of_samples = torch.full((batch.tokens.n_samples,), torch.nan)
                of_samples[samples.cpu().long()] = score.detach().cpu().float()
                scores[f"{self._prefix(name)}{metric}"] = of_samples
        return scores

    def outputs(self, batch: Aims, names: Sequence[str]) -> dict[str, Tensor]:
        """What the heads of some targets say of a batch, by target; where it has several views, in their mean."""
        vectors = self._vectors(batch, names)
        found = {name: self.head(name)(own) for name, own in vectors.items()}
        if not batch.views:
            return {name: self.head(name).calibrated(own) for name, own in found.items()}
        averaged = [name for name in names if name in self.averaged]
        sums = {name: self.head(name).to_mean(found[name]) for name in averaged}
        for view in batch.views.values():
            for name, own in self._read(view, averaged, batch.aims).items():
                sums[name] = sums[name] + self.head(name).to_mean(self.head(name)(own))
        n = 1 + len(batch.views)
        found |= {name: self.head(name).from_mean(total / n) for name, total in sums.items()}
        return {name: self.head(name).calibrated(own) for name, own in found.items()}

    def _vectors(self, batch: Aims, names: Sequence[str]) -> dict[str, Tensor]:
        """The vectors that some targets are predicted from: what is masked is so for its own target alone."""
        if batch.whole is None:
            return self._read(batch.tokens, names, batch.aims)
        masked = [name for name in names if name in self._masked]
        others = [name for name in names if name not in masked]
        return self._read(batch.tokens, masked, batch.aims) | self._read(batch.whole, others, batch.aims)

    def report(self, stage: str) -> dict[str, Tensor]:
        """The mean loss, and the metrics of every target, under its name where there are several.

        Those of which the evaluation saw nothing are left out, but for the one that chooses the best model.
        """
        self.stage = stage
        sums = {name: (self.head(name).sums["loss"], self.head(name).sums["targets"]) for name in self.targets}
        sums = {name: (loss.compute(), n.compute()) for name, (loss, n) in sums.items()}
        loss, n = self._sum(sums)
        metrics = {
            f"{self._prefix(name)}{metric}": value
            for name in self.targets
            for metric, value in self.head(name).compute().items()
        }
        metrics = {"loss": loss / n} | {name: value for name, value in metrics.items() if name != "loss"}
        unseen = [self._prefix(name) for name, (_, n) in sums.items() if not n]
        chosen = self.metric[0].removeprefix("val/")
        return {
            name: value
            for name, value in metrics.items()
            if name == chosen or not any(name.startswith(prefix) for prefix in unseen)
        }

    @property
    def _calibrated(self) -> list[str]:
        return [name for name, target in self.targets.items() if target.calibrate]

    @property
    def calibrates(self) -> bool:
        return bool(self._calibrated)

    def begin_calibration(self) -> None:
        for name in self._calibrated:
            self.head(name).begin_calibration()

    def end_calibration(self) -> dict[str, float | str]:
        found = {}
        for name in self._calibrated:
            found[f"{self._prefix(name)}ece"] = self.head(name).end_calibration()
            self.targets[name] = replace(self.targets[name], temperature=self.head(name).temperature)
        return found

    def forget_calibration(self) -> list[float]:
        fitted = {name: t for name in self.targets if (t := self.head(name).temperature) != 1}
        for name in fitted:
            self.head(name).temperature = 1.0
            self.targets[name] = replace(self.targets[name], temperature=1.0)
        return list(fitted.values())

    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        return {name: rows for name in self.targets if (rows := self.head(name).by_class())}

    def generate_examples(self) -> list[Generated]:
        return [
            each for name in self.targets for each in self.head(name).generated(name if len(self.targets) > 1 else "")
        ]

    # Use

    @takes_records
    @torch.inference_mode()
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: PredictOptions | None = None, *, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """What the model says of records, by target, as plain values.

        records: dicts of fields, a value being whatever its tokenizer takes (a path, an array, a string); or what else
            holds some, see `takes_records`. Options may be given by their names: views=8.
        Returns for each a dict: of a Category `{"label", "probabilities"}`, likeliest first; of Labels `{"labels",
        "probabilities"}`, the labels those above a half; of Regression a number, or a list, or a dict where it has
        columns; of TextTarget the text; of ActionTarget the action; of Masked `{"loss"}`, how far what is filled in is
        off, and of a text the `text` with it; None each where the record lacks the input. `Classify` gives that of its
        one target.
        Raises InputError for a record it cannot use.
        """
        chopper, results = self.chopper(training=False), []
        if options is not None and options.views is not None:
            self.check_views(options.views)
            chopper = replace(chopper, views=options.views)
        self.eval()
        for start in range(0, len(records), batch_size):
            items = [chopper(record, labelled=False) for record in records[start : start + batch_size]]
            batch = self.aim_at_all(chopper.collate(items).to(self.device))
            results += self.results(
                self.outputs(batch, [name for name in batch.aims if name not in self._texts]), batch
            )
        return results

    def true_values(self, record: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {column for name, each in self.targets.items() if each.of_numbers for column in each.columns_of(name)}
        values = super().true_values(record)
        return {name: number_or_text(value) if name in numbers else value for name, value in values.items()}

    @property
    def default_pool(self) -> Pooling:  # type: ignore[override]
        return "class" if self.read in ("class", "first") and self._reads_samples else "mean"

    @property
    def class_field(self) -> str | None:  # type: ignore[override]
        if self.read == "class" and self._reads_samples:
            return OWN_FIELD
        name, tokenizer = next(iter(expand(self.tokenizers).items()))
        return name if self._first is not None or (isinstance(tokenizer, Text) and tokenizer.around[0]) else None

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        chopper = self.chopper(training=False)
        return [chopper.conditions(record) | chopper.own_tokens]

    def aim_at_all(self, batch: Aims) -> Aims:
        """A batch in which every sample has a prediction of each target that is read of samples."""
        every = torch.arange(batch.tokens.n_samples, device=batch.tokens.layout.segment.device)
        aims = {n: replace(aim, read=every) if self.targets[n].of_samples else aim for n, aim in batch.aims.items()}
        return replace(batch, aims=aims)

    def results(self, outputs: Mapping[str, Tensor], batch: Aims) -> list[Any]:
        """The predictions of each sample as `predict` gives them, of what the heads say of a batch."""
        found = {name: self.head(name).predict_batch(name, outputs.get(name), batch) for name in batch.aims}
        return [{name: found[name][i] for name in found} for i in range(batch.tokens.n_samples)]

    def render(self, result: Mapping[str, Any]) -> str:
        shown = {name: self.targets[name].render(value) for name, value in result.items()}
        if len(shown) == 1:
            return next(iter(shown.values()))
        width = max(map(len, shown))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in shown.items())

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The results of all targets, side by side."""
        columns = [self.targets[name].row(name, value) for name, value in result.items()]
        return {key: value for part in columns for key, value in part.items()}

    def preview(self, item: Item) -> tuple[Sample, str]:
        words = [target.words(item.values[name]) for name, target in self.targets.items() if name in item.values]
        return item.sample, " | ".join(words)

    def draw(self, folder: Path) -> None:
        """Draw a confusion matrix of every Category, predicted over true numbers, and what was filled in of Masked;
        the worst texts are in `worst.html`."""
        for name in self.targets:
            suffix = f"_{name}" if len(self.targets) > 1 else ""
            self.head(name).draw(folder, suffix, self.stage, self.tokenizers)

    # Kept

    def is_free(self, path: str) -> bool:
        # What is fitted when training is over changes nothing of it.
        return path.rpartition(".")[2] in ("calibrate", "temperature") or super().is_free(path)

    def strange_weights(self, other: Task) -> list[str]:
        """The heads of targets whose outputs mean something else there: other classes, another mean."""
        theirs = {other.head_name(name): target for name, target in other.targets.items()}
        ours = {self.head_name(name): target for name, target in self.targets.items()}
        return [
            f"heads.{name}." for name, target in ours.items() if name not in theirs or not target.agrees(theirs[name])
        ]
