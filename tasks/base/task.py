"""What all tasks share: one way from records to a loss, the optimiser's step, moving-average weights, and what is kept.

A task owns its tokenizers and the model, and lends data workers a `Chopper`. Losses are sums: they are divided by the
number of targets of the whole optimiser step, accumulated batches and other ranks included, so that 1 x 8 samples and
4 x 2 give the same gradient.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import lightning
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.data.chopper import Chopper
from anyformer.data.folders import open_source
from anyformer.data.source import Source, join_files
from anyformer.errors import InputError, say
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.optim.optimizer import OF_GOING_ON, OptimizerConfig, layer_factors, make_optimizer
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.plain import config_name, plain
from anyformer.tasks.base import warm_start
from anyformer.tasks.base.evaluation import Evaluation
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.resume import changes, is_below
from anyformer.tasks.base.run_length import run_length
from anyformer.tasks.base.weight_average import WeightAverage
from anyformer.tokens import Sample, Tokenizer
from anyformer.weights.tensors import Report

OF_TRAINING = ("init_from", "freeze")
"""Arguments that say how weights are trained, which a saved model, having its weights, does not keep."""


class Task(Checked, lightning.LightningModule, ABC):
    """A Lightning module whose model is one shared transformer over any fields.

    A task is written by filling in hooks. They stand below under four heads, and are called in this order.

    Fit:
        1. data: `open` a path, `inherit` what the tokenizers of `init_from` have learnt, `fit_tokenizers`
           to the training records.
        2. model: `build`, then `weights_of` where the weights come from `init_from`.
        3. data: `view` and `chopper`, for training and for evaluation, and `preview` for the contact sheet.
        4. model: `loss` of every training batch.
        5. evaluation, every so often: for each of `passes` `begin_evaluation`, `evaluate` of every batch, `report`; of
           several tasks also `score`. The best by `metric` is kept.
        6. at the end `draw` and `closing`.

    Use of what was saved: `build`, then `predict`, and `render`, `row` or `stream` for the terminal and tables. What
    has no `inputs` does `rollout` and `summarize` instead.

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
    ) -> None:
        """
        init_from: the weights that training starts from, see `start_from`.
        freeze: patterns of names of parameters that are not trained: `model.transformer.blocks.[0-3].*`.
        fields: how the fields take part; a task that has the argument checks it by `FieldsConfig.check`.
        """
        super().__init__()
        if not tokenizers and not self.finds_fields:
            raise InputError("tokenizers must name at least one field, got none")
        self.tokenizers = dict(tokenizers)
        self.transformer, self.embedding, self.optimizer = transformer, embedding, optimizer
        # Not `freeze`, which is a method of Lightning's.
        self.init_from, self.frozen, self.fields = init_from, freeze, fields
        self.model: Anyformer | None = None
        self.average = WeightAverage()
        self.changed: list[str] = []
        """How the arguments differ from those of the checkpoint that training goes on from."""
        self._is_fitting = self._has_started = False
        self._n_targets = torch.zeros(())
        self._evaluation: Evaluation | None = None
        self._recent: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """The task as plain values, `{"class_path": ..., "init_args": ...}`, which make it again.

        The constructor's arguments are attributes of the same name, which hold what the data has decided since.
        Those of training alone are left out.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name not in OF_TRAINING]
        arguments = {name: getattr(self, name) for name in names}
        return {"class_path": config_name(type(self)), "init_args": plain(arguments)}

    @property
    def members(self) -> Mapping[str, Task]:
        """The tasks of a mixture, by name; none of any other."""
        return {}

    @property
    def packages(self) -> list[str]:
        """The packages of a user's own classes that are in use here."""
        modules = {type(part).__module__ for part in (self, *self.tokenizers.values())}
        return sorted({name.partition(".")[0] for name in modules} - {"anyformer"})

    def _undefined(self, hook: str, instead: str = "") -> InputError:
        """What is wrong where a hook is asked of a task that has none."""
        if self.members:
            names = ", ".join(f"RUN:{name}" for name in self.members)
            return InputError(f"a mixture has no `{hook}`; load one of its tasks by name: {names}")
        return InputError(f"{type(self).__name__} has no `{hook}`{instead}")

    # Data

    finds_fields: ClassVar[bool] = False
    """Whether the data says which fields there are, and tokenizers need not be given."""

    classes: list[str] | None = None
    """The classes that the one head of a task tells apart."""

    targets: Mapping[str, Any] = MappingProxyType({})
    """The `Target` of each head, by name, where a task has several."""

    text: Tokenizer | None = None
    """The tokenizer of what a task writes."""

    @property
    def inputs(self) -> list[str]:
        """The fields that `predict` is given."""
        return list(self.tokenizers)

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

    def fit_tokenizers(self, source: Source) -> None:
        """Take what the data decides from the training records: a vocabulary, a mean; a task adds its own.

        Fields that share a lift learn as one. Raises InputError for a field that no record has.
        """
        for name, tokenizer in self.tokenizers.items():
            # An absent field is no error, and a misspelt one would be absent in every record.
            source.require(name)
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
        """The records that samples are made of, where they are others than the source's: the windows of a text."""
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

    def weights_of(self, other: Task) -> dict[str, Tensor]:
        """The weights of another model that may stand here, where they fit."""
        return other.state_dict()

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

    def draw(self, folder: Path) -> None:
        """Draw pictures of the last evaluation into a run folder."""

    def closing(self) -> str | None:
        """What is shown when training is over, beside the metrics."""
        return None

    # Use

    options: ClassVar[Any] = None
    """A dataclass of what `predict` and `stream` may be told beside the records, and the command line's `run` too; or
    one of it, whose values are the defaults."""

    inference_args: ClassVar[tuple[str, ...]] = ()
    """Arguments that say how the model is used, not what it is: an evaluation may be told others."""

    def use_as(self, other: Self) -> None:
        """Take over the arguments `inference_args` of another task."""
        for name in self.inference_args:
            setattr(self, name, getattr(other, name))

    def predict(self, records: Sequence[Mapping[str, Any]], options: Any = None) -> list[dict[str, Any]]:
        """What the model says of records, as plain values. options: of the class that `options` says, or None."""
        raise self._undefined("predict", "" if self.inputs else ", as it is given no records: use `rollout`")

    def render(self, result: Mapping[str, Any]) -> str:
        """A result of `predict` for the terminal."""
        raise self._undefined("render")

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """A result of `predict` as a row of a table, the same columns for every result; numbers and text alone."""
        return dict(result)

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

    # Lightning's side: before the first step

    def setup(self, stage: str) -> None:
        self._is_fitting = stage == "fit"
        if stage != "fit":
            return
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise InputError(
                "trainer.precision=16-mixed scales the loss until gradients overflow, which is an error here; "
                "use bf16-mixed or 32-true"
            )
        if self.model is None:
            warm_start.inherit_tokenizers(self, self.init_from)
            self.fit_tokenizers(self.trainer.datamodule.sources["train"])

    def configure_model(self) -> None:
        if self.model is None:
            self.build()
        if self._is_fitting and self.frozen:
            warm_start.freeze(self, self.frozen)

    def configure_optimizers(self) -> dict[str, Any]:
        trunk = [stack for stack in (self.model.transformer, self.model.encoder) if stack is not None]
        decay = self.optimizer.layer_decay
        factors = {} if decay is None else layer_factors(self.model, decay)
        return self._with_schedule(make_optimizer(self, trunk, self.optimizer, factors))

    def _with_schedule(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        if not self.trainer.num_training_batches or math.isinf(self.trainer.num_training_batches):
            return 0.0  # The scheduler asks once when it is made, before the length is known: see on_train_start.
        return self.optimizer.factor(step, self._total_steps())

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run. Not `trainer.estimated_stepping_batches`, which makes Lightning load the
        data anew and forget its place on resume."""
        trainer = self.trainer
        total = run_length(trainer, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
        if math.isinf(total):
            if self.optimizer.schedule == "constant" and (self.optimizer.warmup >= 1 or self.optimizer.warmup == 0):
                return 1
            raise InputError(
                "the learning rate's schedule needs the length of the run: give trainer.max_epochs or "
                "trainer.max_steps, or model.optimizer.schedule: constant with a warmup in steps"
            )
        return max(int(total), 1)

    def on_fit_start(self) -> None:
        # A run that goes on has its weights, and need not have the file any more.
        if self.init_from is not None and not self._has_started:
            report = self.start_from(self.init_from)
            if self.trainer.is_global_zero:
                say(str(report))
        self._has_started = True

    def on_train_start(self) -> None:
        if self.global_step == 0:
            # Now the length is known: set the first step's learning rate.
            for schedule in self.trainer.lr_scheduler_configs:
                groups = schedule.scheduler.optimizer.param_groups
                for group, base in zip(groups, schedule.scheduler.base_lrs, strict=True):
                    group["lr"] = base * self._lr_factor(0)
        elif any(change.startswith("optimizer.") for change in self.changed):
            self._take_rates()
        if self.optimizer.ema is not None:
            self.average.begin(self, self.device)
        else:
            self.average.forget()

    def _take_rates(self) -> None:
        """Give the optimiser, which a checkpoint has filled, the learning rates and weight decay of the config."""
        fresh = self.configure_optimizers()
        for config in self.trainer.lr_scheduler_configs:
            scheduler, new = config.scheduler, fresh["lr_scheduler"]["scheduler"]
            scheduler.base_lrs = new.base_lrs
            groups = zip(scheduler.optimizer.param_groups, fresh["optimizer"].param_groups, new.base_lrs, strict=True)
            for group, own, base in groups:
                rate = base * self._lr_factor(self.global_step)
                group |= {"weight_decay": own["weight_decay"], "initial_lr": base, "lr": rate}

    # Steps

    def training_step(self, batch: Examples, batch_index: int) -> Tensor:
        loss, mean = self._counted(*self.loss(batch), batch.samples)
        self.log("train/loss", mean, prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def _counted(self, loss: Tensor, n_targets: Tensor, samples: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The loss that Lightning is given, its targets counted for the step, and its mean."""
        self._n_targets = self._n_targets.to(loss.device) + n_targets
        self._recent = (*self._recent, *samples)
        # Lightning divides by the number of accumulated batches; the step's gradient is divided by its targets instead.
        return loss * self.trainer.accumulate_grad_batches, loss.detach() / n_targets.clamp(min=1e-9)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        n_targets = self._n_targets
        world = self.trainer.world_size
        if world > 1:
            # Ranks have averaged their gradients: world times the mean of the sums is the sum over all.
            n_targets = self.trainer.strategy.reduce(n_targets.clone(), reduce_op="mean")
        norm = divide_gradients(optimizer, n_targets)
        samples, self._recent, self._n_targets = self._recent, (), torch.zeros(())
        if not torch.isfinite(norm):
            names = ", ".join(samples[:8]) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
            raise InputError(
                f"the loss or its gradient is not finite at step {self.global_step}, before the weights were changed; "
                f"lower model.optimizer.lr or look at the samples: {names or 'unnamed'}"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.optimizer.ema is not None:
            self.average.update(self, self.optimizer.ema)

    # Evaluations

    def on_validation_epoch_start(self) -> None:
        self.average.swap(self)
        self._evaluation = self._evaluating("val")

    def validation_step(self, batch: Examples | None, batch_index: int, dataloader_idx: int = 0) -> None:
        self._evaluation.take(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics()
        self.average.swap(self)

    def on_test_epoch_start(self) -> None:
        self._evaluation = self._evaluating("test")

    def test_step(self, batch: Examples | None, batch_index: int, dataloader_idx: int = 0) -> None:
        self._evaluation.take(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log_metrics()

    def _evaluating(self, stage: str) -> Evaluation:
        trainer = self.trainer
        return Evaluation(self, stage, len(trainer.num_test_batches if stage == "test" else trainer.num_val_batches))

    def _log_metrics(self) -> None:
        for name, value in self._evaluation.end().items():
            # Those of the parts, which may be many, are not for the bar.
            self.log(name, torch.as_tensor(value).float(), prog_bar=name.count("/") == 1)

    # What is kept

    def best_weights(self) -> dict[str, Tensor]:
        """The weights to keep and use, on the CPU: the moving average where there is one."""
        return {name: value.detach().cpu() for name, value in self.average.replace(self.state_dict()).items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights as `best_weights` gave them; what has been averaged since counts no more."""
        self.load_state_dict(weights)
        self.average.forget()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average.save(checkpoint)
        checkpoint["config"] = self.config()
        checkpoint["of_training"] = {"init_from": self.init_from, "freeze": self.frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        before, now = checkpoint["config"], self.config()
        training = {"init_from": self.init_from, "freeze": self.frozen}
        try:
            changes({"class_path": before["class_path"]}, now, self.is_free, "task")
            changes(checkpoint.get("of_training", {}), training, self.is_free, "task")
            self.changed = changes(before["init_args"], now["init_args"], self.is_free, "task")
        except InputError:
            if before["class_path"] == now["class_path"]:
                # Where the reason is another vocabulary, its first difference says more.
                trained = instantiate(before, self.packages).tokenizers
                for name in self.tokenizers.keys() & trained.keys():
                    trained[name].agree(self.tokenizers[name], f"tokenizers.{name}")
            raise
        self._has_started = True
        self.average.load(checkpoint)

    def is_free(self, path: str) -> bool:
        """Whether the argument of a dotted path may change when a run goes on."""
        return is_below(path, *self.inference_args, *(f"optimizer.{name}" for name in OF_GOING_ON))


def divide_gradients(optimizer: torch.optim.Optimizer, n_targets: Tensor) -> Tensor:
    """Turn gradients of a sum of losses into those of its mean over the targets, in place.

    Returns a sum of their norms, (): one number that says whether all of them are finite.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch._foreach_mul_(gradients, 1 / n_targets.clamp(min=torch.finfo(torch.float32).tiny))
    return torch.stack(torch._foreach_norm(gradients)).sum()
