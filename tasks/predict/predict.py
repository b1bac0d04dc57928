"""Prediction: any fields in, any targets out, one or many: categories, labels, numbers, texts, actions, and what is
masked in the inputs themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from anyformer.choices import Checked
from anyformer.data.source import Source
from anyformer.data.values import number_or_text
from anyformer.errors import InputError
from anyformer.generation.grammar.options import GrammarOptions
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lora import LoraConfig
from anyformer.model.vectors import Pooling
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.starting.pretraining import Pretraining
from anyformer.tasks.base.task import Task
from anyformer.tasks.explain.explainer import Question, Wanted
from anyformer.tasks.predict.batch import Item, PredictChopper, generated
from anyformer.tasks.predict.explained import prediction_question
from anyformer.tasks.predict.heads import TargetHeads
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.pooling import OWN_FIELD, Pool, Read, own_tokens
from anyformer.tasks.targets.target import Stage, Target
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer, expand


@dataclass(frozen=True)
class PredictOptions(Checked):
    """How predictions are made."""

    views: int | None = None
    """Of each record, that predictions are averaged over; as many as in evaluation when left out."""


@dataclass(frozen=True)
class WritingOptions(PredictOptions, GrammarOptions):
    """How predictions are made where some of them are texts, and which these may be."""


class Predict(TargetHeads, Task):
    """Predicts one target or several of samples of any fields."""

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
        needed = {} if self.first_field is None else {self.first_field: "read: first"}
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
    def answers(self) -> dict[str, Sequence[str]]:
        return {name: target.columns_of(name) for name, target in self.targets.items()}

    @property
    def options(self) -> type[PredictOptions]:  # type: ignore[override]
        return WritingOptions if any(isinstance(each, TextTarget) for each in self.targets.values()) else PredictOptions

    @property
    def _texts(self) -> dict[str, Tokenizer]:
        """The tokenizers of what is written, by target."""
        return generated(self.targets)

    @property
    def _reads_samples(self) -> bool:
        return any(target.of_samples for target in self.targets.values())

    @property
    def first_field(self) -> str | None:
        """The field whose first token is read."""
        return next(iter(expand(self.tokenizers))) if self.read == "first" and self._reads_samples else None

    @property
    def own_tokens(self) -> dict[str, LearnedTokens]:
        """The field of class and register tokens that every sample gets, if there are any."""
        return own_tokens(int(self.read == "class" and self._reads_samples) + self.n_registers, self.place_class)

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
                fields=FieldsConfig(sees=self._sees_of_inputs, share=self.fields.share, links=self.fields.links),
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
        return PredictChopper(*self._chopping(training), views=self.views, **self.fields.chopping(self.tokenizers))

    def _chopping(self, training: bool) -> tuple[Any, ...]:
        """The first arguments of the chopper."""
        return self.tokenizers, self.own_tokens, self.first_field, self.targets, training

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
            links=self.fields.linked(self.tokenizers),
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
        with self._held_to(options):
            for start in range(0, len(records), batch_size):
                items = [chopper(record, labelled=False) for record in records[start : start + batch_size]]
                batch = self.aim_at_all(chopper.collate(items).to(self.device))
                results += self.results(
                    self.outputs(batch, [name for name in batch.aims if name not in self._texts]), batch
                )
        return results

    @contextmanager
    def _held_to(self, options: PredictOptions | None) -> Iterator[None]:
        """With the form that options ask texts to have."""
        form = options if isinstance(options, WritingOptions) else GrammarOptions()
        heads = [self.head(name) for name, each in self.targets.items() if isinstance(each, TextTarget)]
        for head in heads:
            head.form = form
        try:
            yield
        finally:
            for head in heads:
                head.form = GrammarOptions()

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
        return name if self.first_field is not None or (isinstance(tokenizer, Text) and tokenizer.around[0]) else None

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        chopper = self.chopper(training=False)
        return [chopper.conditions(record) | chopper.own_tokens]

    def question(self, record: Mapping[str, Any], wanted: Wanted) -> Question:
        return prediction_question(self, record, wanted)

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
