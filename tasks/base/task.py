"""A task: what is learned of records, with one way from these to a loss, to metrics and to predictions.

It owns its tokenizers and the model, and lends data workers a `Chopper`. How it is trained is in `training.py`.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from torch import Tensor

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.data.chopper import Chopper
from anyformer.data.folders import open_source
from anyformer.data.source import Source, join_files
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.parsing.plain import config_name, plain
from anyformer.tasks.base.examples import Examples, Generated
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.starting import warm_start
from anyformer.tasks.base.training import Trained
from anyformer.tasks.base.vectors import Embedder
from anyformer.tasks.explain.explainer import Explainer
from anyformer.tokens import Sample, Tokenizer
from anyformer.weights.tensors import Report

NOT_SAVED = ("init_from", "freeze", "pretrain")
"""Arguments that say how weights are trained, which a saved model, having its weights, does not keep."""


class Task(Checked, Trained, Embedder, Explainer, ABC):
    """A Lightning module whose model is one shared transformer over any fields.

    A task is written by filling in hooks. They stand below under four heads, and are called in this order.

    Fit:
        1. data: `open` a path, `inherit` what the tokenizers of `init_from` have learnt, `fit_tokenizers`
           to the training records, which are to pass `check_inputs` (by `answers` and `may_copy`).
        2. model: `build`, then `strange_weights` where weights come from `init_from`.
        3. data: `view` and `chopper`, for training and for evaluation, and `preview` for the contact sheet.
        4. model: `loss` of every training batch.
        5. evaluation, every so often: for each of `passes` `begin_evaluation`, `evaluate` of every batch, `report`; of
           several tasks also `score`; then `generate_examples`. The best by `metric` is kept.
        6. at the end `draw`, `closing` and `usage`.

    Use of what was saved: `build`, then `predict`, and `render`, `row` or `stream` for the terminal and tables; what
    has no `inputs` does `rollout` and `summarize` instead. `embed` takes vectors, by `samples_of`;
    `explain` says why, by `question`.

    A task defines `metric`, `build` and `loss`, and also `chopper`, `evaluate`, `report`, `predict` and `render`, as
    far as they are asked of it; all others have a default.
    """

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        transformer: TransformerConfig,
        embedding: EmbeddingConfig,
        optimizer: OptimizerConfig,
        init_from: str | None = None,
        freeze: list[str] | None = None,
        fields: FieldsConfig = FieldsConfig(),
        lora: LoraConfig | None = None,
    ) -> None:
        """
        init_from: the weights that training starts from, see `start_from`.
        freeze: patterns of names of parameters that are not trained: `model.transformer.blocks.[0-3].*`.
        fields: how the fields take part; a task that has the argument checks it by `FieldsConfig.check`.
        lora: low-rank adapters on what `init_from` gives, which is not trained then.
        """
        super().__init__()
        if not tokenizers and not self.finds_fields:
            raise InputError("tokenizers must name at least one field, got none")
        self.tokenizers = {name: tokenizer.named(name) for name, tokenizer in tokenizers.items()}
        self.transformer, self.embedding, self.optimizer = transformer, embedding, optimizer
        # Not `freeze`, which is a method of Lightning's.
        self.init_from, self.frozen, self.fields, self.lora = init_from, freeze, fields, lora

    def config(self) -> dict[str, Any]:
        """The task as plain values, `{"class_path": ..., "init_args": ...}`, which make it again.

        The constructor's arguments are attributes of the same name, which hold what the data has decided since.
        Those of training alone are left out.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name not in NOT_SAVED]
        arguments = {name: getattr(self, name) for name in names}
        return {"class_path": config_name(type(self)), "init_args": plain(arguments)}

    @property
    def members(self) -> Mapping[str, Task]:
        """The tasks of a mixture, by name; none of any other."""
        return {}

    @property
    def packages(self) -> list[str]:
        """The packages of a user's own classes that are in use here."""
        inside = (inner for tokenizer in self.tokenizers.values() for inner in tokenizer.inside.values())
        modules = {type(part).__module__ for part in (self, *self.tokenizers.values(), *inside)}
        return sorted({name.partition(".")[0] for name in modules} - {"anyformer"})

    def _undefined(self, hook: str, instead: str = "") -> InputError:
        """What is wrong where a hook is asked of a task that has none."""
        if self.members:
            names = ", ".join(f"RUN:{name}" for name in self.members)
            return InputError(f"a mixture has no `{hook}`; load one of its tasks by name: {names}")
        return InputError(f"{type(self).__name__} has no `{hook}`{instead}")

    late_metrics: tuple[str, ...] = ()
    """The metrics that the few batches before training do not give, and a whole validation does: those of playing."""

    # Data

    finds_fields: ClassVar[bool] = False
    """Whether the data says which fields there are, and tokenizers need not be given."""

    targets: Mapping[str, Any] = MappingProxyType({})
    """The `Target` of each head, by name, where a task has such."""

    text: Tokenizer | None = None
    """The tokenizer of what a task writes."""

    added_fields: Sequence[str] = ()
    """The fields that a config does not name and the source of `init_from` has added."""

    @property
    def inputs(self) -> list[str]:
        """The fields that `predict` is given."""
        return list(self.tokenizers)

    @property
    def link_columns(self) -> list[str]:
        """The columns of records that give edges between the inputs' tokens, and may be left out."""
        return list(dict.fromkeys(link["column"] for link in self.fields.links))

    def open(self, path: str) -> Source:
        """The records of a path that `data.train` and the like give: class folders or a table."""
        return open_source(path)

    @property
    def learnt(self) -> dict[str, Tokenizer]:
        """The tokenizers of all fields that the data has taught something, by the field."""
        return self.tokenizers

    @property
    def alike(self) -> list[list[str]]:
        """Groups of fields that learn together, as they have one vocabulary or one lift."""
        return [list(pair) for pair in self.fields.share.items()]

    def inherit(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Take over what the tokenizers of another model have learnt, before the data is asked."""
        for name in self.tokenizers.keys() & tokenizers.keys():
            self.tokenizers[name] = self.tokenizers[name].inherit(tokenizers[name])

    @property
    def answers(self) -> Mapping[str, Sequence[str]]:
        """By target the fields of a record that it is read from, which no input may hold too."""
        return {}

    @property
    def predicted(self) -> list[str]:
        """The fields of a record that are learned to be predicted."""
        return list(dict.fromkeys(chain.from_iterable(self.answers.values())))

    def may_copy(self, name: str) -> bool:
        """Whether an input may be read from the column of a target all the same."""
        return False

    def check_inputs(self, source: Source) -> None:
        """Raise InputError for a column that both a target and an input are read from, whatever these are called."""
        for target, fields in self.answers.items():
            for name in self.inputs:
                for columns, *answer in zip(source.columns_of(name), *map(source.columns_of, fields), strict=True):
                    shared = [] if self.may_copy(name) else sorted(columns.intersection(chain(*answer)))
                    if found := next((each for each in shared if self.tokenizers[name].reads_column(each)), None):
                        raise InputError(
                            f"the column {found!r} of the target {target!r} is also in the input {name!r}, which a "
                            f"model would only copy; take it out of the columns of {name!r}"
                        )

    def fit_tokenizers(self, source: Source) -> None:
        """Take what the data decides from the training records: a vocabulary, a mean; a task adds its own.

        Fields that share a lift learn as one. Raises InputError for a field that no record has, and for an input that
        holds the answer.
        """
        self.check_inputs(source)
        for column in self.link_columns:
            source.require(column)
        for name, tokenizer in self.tokenizers.items():
            # An absent field is no error, and a misspelt one would be absent in every record.
            try:
                source.require(name)
            except InputError as error:
                if name in self.added_fields:
                    raise InputError(
                        f"model.tokenizers.{name} comes from init_from {self.init_from} ({name}: null leaves it out): "
                        f"{error}"
                    ) from None
                raise
            if type(tokenizer).fit is Tokenizer.fit or name in self.fields.share:
                continue
            alike = [name, *(other for other, owner in self.fields.share.items() if owner == name)]
            fitted = tokenizer.fit(value for each in alike for value in self.values(source, each))
            for each in alike:
                if self.tokenizers[each] == tokenizer:
                    self.tokenizers[each] = fitted

    def values(self, source: Source, name: str) -> Iterator[Any]:
        """What the records hold in one field, as its tokenizer takes it; those without it are left out."""
        for i, value in enumerate(source.known(name)):
            if value is not None:
                yield join_files({name: value}, source.folder_of(i), self.tokenizers)[name]

    def view(self, source: Source, training: bool) -> Source:
        """The records that samples are made of, where they are others than the source's: the windows of a text.

        Raises InputError for an input that holds the answer.
        """
        self.check_inputs(source)
        return source

    def chopper(self, training: bool) -> Chopper:
        """What data workers need to turn records into batches."""
        raise self._undefined("chopper")

    def preview(self, item: Any) -> tuple[Sample, str]:
        """The token sets of an item of the training chopper, and a few words on its target, for `samples.png`."""
        return {}, ""

    # Model

    @property
    def own_tokens(self) -> Mapping[str, Tokenizer]:
        """The fields of learned tokens that every sample gets, if there are any."""
        return {}

    @property
    def read_fields(self) -> dict[str, Tokenizer]:
        """The tokenizers of the fields that the model reads, be they given or written before."""
        return self.learnt

    @property
    def conditions(self) -> list[str]:
        """The fields of the model that an encoder reads, where there is one; the transformer reads the others."""
        return []

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder before a decoder."""
        return False

    @abstractmethod
    def build(self) -> None:
        """Make the model and the heads, once what the data decides is known."""

    def strange_weights(self, other: Task) -> list[str]:
        """What the names of those weights begin with that mean something else in another model, and are not taken
        from it though they may fit."""
        return []

    @abstractmethod
    def loss(self, batch: Examples) -> tuple[Tensor, Tensor]:
        """The sum of the losses of a batch, and how many targets (or the sum of their weights) it is over; both ()."""

    def model_inputs(self, batch: Examples) -> tuple[Batch, Batch | None]:
        """What the transformer reads of a batch, and the encoder, where there is one; for `sees.png`."""
        return batch.tokens, None

    # Evaluation

    @property
    @abstractmethod
    def metric(self) -> tuple[str, str]:
        """The metric that chooses the best model, and whether "max" or "min" is best."""

    @property
    def metric_scale(self) -> float:
        """What a metric that is best when least is measured by: about what it is for a constant prediction, where it
        has a unit that would else decide its `score`; 1 for one without a unit."""
        return 1.0

    def score(self, value: float) -> float:
        """A value of its metric on a scale on which more is better and 1 is perfect, to be averaged with others.

        One that is best when least becomes exp(-value / `metric_scale`), which is the same in every unit. It depends on
        nothing but the task's config, and so is the same when a run goes on or its model is tested later.
        """
        return value if self.metric[1] == "max" else math.exp(-value / self.metric_scale)

    def passes(self, training: bool = False) -> list[tuple[str, Chopper]]:
        """The passes of an evaluation: what goes before the names of the metrics of each, and what chops its records.

        What `fields.without` asks for comes first and the whole last, so that what is drawn is the whole's. Of training
        there is one pass.
        """
        whole = self.chopper(training)
        subsets = [] if training else self.fields.without
        return [
            *((f"without_{'+'.join(names)}/", replace(whole, without=tuple(names))) for names in subsets),
            ("", whole),
        ]

    @property
    def grouped_by(self) -> list[str]:
        """The columns that metrics are given by."""
        each = [task.fields.by for task in (self.members or {"": self}).values()]
        return list(dict.fromkeys(by for by in each if by is not None))

    def begin_evaluation(self) -> None:
        """Forget the metrics and the cases of the evaluation before."""
        return None

    def evaluate(self, batch: Examples) -> Mapping[str, Tensor] | None:
        """Take a batch of an evaluation into the metrics that `report` gives.

        Returns scores of which metrics by group are the means, by name, each (b,) float, NaN for a
        sample that has none; None where there are none.
        """
        raise self._undefined("evaluate")

    def report(self, stage: str) -> dict[str, Tensor | float]:
        """The metrics of an evaluation that is over, by name, of all ranks together.

        stage: "val" or "test".
        """
        raise self._undefined("report")

    @property
    def calibrates(self) -> bool:
        """Whether anything is fitted on the validation records after training, see `Category.calibrate`."""
        return any(member.calibrates for member in self.members.values())

    def begin_calibration(self) -> None:
        """Keep of the next evaluation what `end_calibration` fits to."""
        for member in self.members.values():
            member.begin_calibration()

    def end_calibration(self) -> dict[str, float | str]:
        """The temperatures of what is calibrated, from now on in use, by the name of its calibration error in `report`;
        why there is none, in words, where the evaluation gives none."""
        return {
            f"{name}/{metric}": fitted
            for name, member in self.members.items()
            for metric, fitted in member.end_calibration().items()
        }

    def forget_calibration(self) -> list[float]:
        """Take all temperatures back to 1, as for other weights than they were fitted to; returns those that were
        others."""
        return [each for member in self.members.values() for each in member.forget_calibration()]

    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        """By target, precision, recall, F1 and support of each class in the last evaluation, see `TargetHead.by_class`;
        targets without classes are left out."""
        return {}

    def generate_examples(self) -> list[Generated]:
        """What the model generates, to be read while it learns: of the first record of the evaluation that is over."""
        return []

    def draw(self, folder: Path) -> None:
        """Draw pictures of the last evaluation into a run folder."""

    def closing(self) -> str | None:
        """What is shown when training is over, beside the metrics."""
        return None

    # Use

    options: ClassVar[Any] = None
    """A dataclass of the options of `predict` and `stream`, on the command line too; or one of it, whose values are
    the defaults."""

    inference_args: ClassVar[tuple[str, ...]] = ()
    """Arguments that say how the model is used, not what it is: an evaluation may be given others."""

    def use_as(self, other: Self) -> None:
        """Take over the arguments `inference_args` of another task."""
        for name in self.inference_args:
            setattr(self, name, getattr(other, name))

    def predict(self, records: Sequence[Mapping[str, Any]], options: Any = None) -> list[dict[str, Any]]:
        """What the model says of records, as plain values. options: of the class that `options` says, or None.

        A task decorates it with `takes_records`, and is then given a list whatever a program hands over.
        """
        raise self._undefined("predict", "" if self.inputs else ", as it is given no records: use `rollout`")

    def take_record(self, record: Mapping[str, Any], folder: str) -> dict[str, Any]:
        """What `predict` is given of a record of a source. folder: where its file names start from."""
        return join_files({name: record[name] for name in self.inputs if name in record}, folder, self.tokenizers)

    def read_record(self, source: Source, i: int) -> dict[str, Any]:
        """What `predict` is given of record i of a source."""
        return self.take_record(source[i], source.folder_of(i))

    @property
    def truths(self) -> list[str]:
        """The fields of a record that hold the true values of what `predict` says of it."""
        return [name for name in self.predicted if name not in self.inputs]

    def true_values(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Those that a record has, as they stand beside the predictions."""
        return {name: record[name] for name in self.truths if name in record}

    def rows_of_test(self, source: Source) -> Iterator[dict[str, Any]] | None:
        """What `test` and `validate` write of the records of a source, as rows; None where it is what `predict` says of
        each."""
        return None

    @property
    def shows_predictions(self) -> bool:
        """Whether they write anything."""
        return type(self).predict is not Task.predict

    def render(self, result: Mapping[str, Any]) -> str:
        """A result of `predict` for the terminal."""
        raise self._undefined("render")

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """A result of `predict` as a row of a table, the same columns for every result; numbers and text alone."""
        return dict(result)

    def rows(self, result: Mapping[str, Any], whole: bool = False) -> list[dict[str, Any]]:
        """The rows of a table that a result of `predict` comes to: one, but where a record has many predictions.

        whole: with all that the result holds, lists and dicts too, for JSON.
        """
        return [dict(result) if whole else self.row(result)]

    def stream(self, record: Mapping[str, Any], options: Any = None) -> Iterator[str]:
        """A result for the terminal, piece by piece as it comes to be."""
        yield self.render(self.predict([record], options)[0])

    def ending(self, options: Any = None) -> str:
        """What the names of files end in that results are written as, where the options ask for a form of its own;
        `render` takes the options then."""
        return ""

    def rollout(self, options: Any = None, folder: Path | None = None) -> Iterator[dict[str, Any]]:
        """What a task does that has no inputs and is told `options`, result by result; pictures go into the folder."""
        raise self._undefined("rollout", ", as it is given records: use `predict`")

    def summarize(self, results: Sequence[Mapping[str, Any]]) -> str:
        """What the results of `rollout` come to, for the terminal."""
        return f"{len(results)} results"

    @property
    def usage(self) -> str | None:
        """What `predict` is given on the command line, for example; None where the model cannot be used by it."""
        return None if type(self).predict is Task.predict else " ".join(f"{name}=..." for name in self.inputs)

    # A warm start

    def pretraining(self) -> Task:
        """The task of `pretrain`, whose weights this one starts from."""
        raise self._undefined("pretraining")

    def inherit_from(self, other: Task) -> None:
        """Take over what another task's tokenizers have learnt."""
        self.inherit(other.learnt)

    def start_from(self, source: str | Path) -> Report:
        """Take the weights of another model, in place: what fits by name and shape, see `take`.

        source: a run folder of ours, or what `save` wrote; or a safetensors file of a timm VisionTransformer. Of a run
        that told other classes apart, or in another sequence, the last layer is not taken.
        Raises InputError if there is none, it is damaged or of other sizes.
        """
        return warm_start.start_from(self, source)

    def take_over(self, other: Task, source: str) -> Report:
        """As `start_from`, of another task that has its weights."""
        return warm_start.take_weights(self, other, source)
