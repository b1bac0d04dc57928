"""How a task is trained: what Lightning calls before, at and after each step, and what a checkpoint holds.

Losses are sums: they are divided by the number of targets of the whole optimiser step, accumulated batches and other
ranks included, so that 1 x 8 samples and 4 x 2 give the same gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from anyformer.errors import InputError, say
from anyformer.model.anyformer import Anyformer
from anyformer.model.lora import LoraConfig, adapt, adapters, is_adapter, merge_adapters
from anyformer.optim.optimizer import OF_GOING_ON, OptimizerConfig, layer_distances, make_optimizer, rate_factors
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.plain import plain
from anyformer.saving.base import Base
from anyformer.tasks.base.evaluation import Evaluation
from anyformer.tasks.base.examples import Examples, Generated
from anyformer.tasks.base.expert_use import ExpertUse
from anyformer.tasks.base.resume import changes, is_below
from anyformer.tasks.base.run_length import run_length
from anyformer.tasks.base.starting import warm_start
from anyformer.tasks.base.starting.pretraining import Pretraining
from anyformer.tasks.base.weight_average import WeightAverage
from anyformer.tokens import Tokenizer
from anyformer.weights.tensors import Report


class Trained(lightning.LightningModule):
    """Lightning's side of a `Task`, which brings the rest: `fit_tokenizers`, `build`, `loss`, what an evaluation takes
    (see `Evaluation`), `generate_examples`, `start_from` and `config`.
    """

    tokenizers: dict[str, Tokenizer]
    optimizer: OptimizerConfig
    init_from: str | None
    frozen: list[str] | None
    lora: LoraConfig | None
    pretrain: Pretraining | None = None
    """What is learned of the inputs alone before, where the task has such."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Anyformer | None = None
        self.average = WeightAverage()
        self.expert_use = ExpertUse()
        self.changed: list[str] = []
        """How the arguments differ from those of the checkpoint that training goes on from."""
        self.pretrained: str | None = None
        """The run of `pretrain`, in the run's own folder, which training starts from."""
        self.generated: list[Generated] = []
        """What was generated at the last validation of a training."""
        self.origin: tuple[Any] | None = None
        """The model of `init_from` with its weights, where it is of another library and has been opened. In a tuple, as
        it is no part of this module."""
        self.encoders: dict[str, dict[str, Tensor]] = {}
        """By `Pretrained` field the weights of its encoder, where its source has been opened and they have not been
        taken."""
        self.fresh: tuple[str, ...] = ()
        """The parameters that the model of `init_from` did not have."""
        self._is_fitting = False
        self.has_started = False
        """Whether training has begun before, and goes on from its own weights."""
        self._joins: dict[Tensor, int] = {}
        """The epoch, from 1, that a parameter is trained from, where that is not the first."""
        self.base: Base | None = None
        """What the adapters of `lora` were trained on, once its weights have been taken."""
        self.of_base: frozenset[str] = frozenset()
        """The names of the weights that are its own: neither trained nor saved."""
        self._n_targets = torch.zeros(())
        self._evaluation: Evaluation | None = None
        self._recent: tuple[str, ...] = ()

    # Before the first step

    def setup(self, stage: str) -> None:
        self._is_fitting = stage == "fit"
        if stage != "fit":
            return
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise InputError(
                "trainer.precision=16-mixed scales the loss until gradients overflow, which is an error here; "
                "use bf16-mixed or 32-true"
            )
        has_start = (self.pretrained or self.init_from or self.base) is not None
        if self.lora is not None and not has_start and not self._adapts_encoders:
            raise InputError(warm_start.NO_BASE)
        if self.model is None:
            if self.origin is not None:
                self.inherit_from(self.origin[0])
            else:
                warm_start.inherit_tokenizers(self, self.pretrained or self.init_from)
            self.fit_tokenizers(self.trainer.datamodule.sources["train"])

    def configure_model(self) -> None:
        is_new = self.model is None
        if is_new:
            self.build()
            if self.lora is not None:
                adapt(self, self.lora)
        if not self._is_fitting:
            return
        adapts = self._adapts_encoders
        if adapts:
            warm_start.adapt_encoders(self)
        if self.lora is None or adapts:
            if not self.has_started:
                self._start(is_new)
        elif self.base is None:
            self._start_from_base(is_new)
        if self.frozen:
            warm_start.freeze(self, self.frozen)

    def _start(self, is_new: bool) -> None:
        """Take the weights that training starts from, if any. is_new: whether the model has just been built."""
        self.has_started = True
        source, origin = self.pretrained or self.init_from, self.origin
        taken: Sequence[str] = ()
        try:
            if source is not None:
                report = self.start_from(source) if origin is None else self.take_over(origin[0], source)
                self.origin, self.fresh, taken = None, report.fresh, report.taken
                if self.trainer.is_global_zero:
                    say(str(report))
            if is_new or warm_start.awaits_encoders(self):
                self._take_encoders(taken)
        except BaseException:
            self.has_started = False
            raise
        if self._adapts_encoders and self.trainer.is_global_zero:
            say(self._trained_share())

    def _take_encoders(self, taken: Sequence[str]) -> None:
        """Take the weights of `Pretrained` fields from their sources, but for those that `init_from` has."""
        filled = warm_start.take_encoders(self, taken)
        if filled:
            names = [name for name, parameter in self.named_parameters() if parameter not in filled.parameters]
            self.fresh = tuple(name for name in names if name not in {*taken})
        if self.trainer.is_global_zero:
            for line in filled.lines:
                say(line)

    @property
    def _adapts_encoders(self) -> bool:
        """Whether `lora` adapts `Pretrained` fields, of a model that starts from no other."""
        has_start = (self.pretrained or self.init_from or self.base) is not None
        return self.lora is not None and not has_start and warm_start.has_encoders(self)

    def _start_from_base(self, is_new: bool) -> None:
        """Take the weights that adapters are added to: before there is an optimiser, as they are not trained; and where
        a run goes on too, as its checkpoints do not have them."""
        report = self.take_base(self.pretrained or self.init_from)
        if not self.has_started and self.trainer.is_global_zero:
            say(str(report))
            say(self._trained_share())
        if not self.has_started and (is_new or warm_start.awaits_encoders(self)):
            self._take_encoders(report.taken)
            report = replace(report, fresh=self.fresh or report.fresh)
        # An adapter stands where its map does.
        self.has_started, self.fresh = True, tuple(name for name in report.fresh if not is_adapter(name))

    def _trained_share(self) -> str:
        every = list(self.parameters())
        trained = sum(parameter.numel() for parameter in every if parameter.requires_grad)
        n = len(adapters(self))
        adapted = f"adapters of rank {self.lora.rank} on {n} linear maps" if n else "no adapters, the new parts alone"
        return f"{adapted}: {trained:,} of {sum(p.numel() for p in every):,} parameters are trained"

    @property
    def models(self) -> list[Anyformer]:
        """The models that are trained."""
        return [self.model]

    def distances(self) -> dict[Tensor, int]:
        """How many blocks each parameter stands before the end; what is new beside the weights that training started
        from counts as the end, wherever it stands."""
        own = dict(self.named_parameters())
        fresh = {own[name]: 0 for name in self.fresh if name in own}
        found = {parameter: n for model in self.models for parameter, n in layer_distances(model, fresh).items()}
        return found | fresh

    def configure_optimizers(self) -> dict[str, Any]:
        self._wake()
        distances = self.distances()
        if (unfreeze := self.optimizer.unfreeze) is not None:
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            self._joins = {p: begin for p in trained if (begin := unfreeze.first_epoch(distances.get(p, 0)))}
            if len(self._joins) == len(trained):
                raise InputError(
                    "optimizer.unfreeze: nothing stands behind the blocks that could be trained in the first epoch; "
                    "leave unfreeze out"
                )
        trunk = [stack for model in self.models for stack in (model.transformer, model.encoder) if stack is not None]
        optimizer = make_optimizer(self, trunk, self.optimizer, rate_factors(self, distances, self.optimizer))
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

    def on_train_start(self) -> None:
        if any(change.startswith("optimizer.") for change in self.changed):
            self._take_rates()
        self.set_rates()
        if self.optimizer.ema is not None:
            self.average.begin(self, self.device)
        else:
            self.average.forget()
        self.expert_use.find(self)
        # A run that goes on within an epoch does not begin one.
        self._rest()

    def on_train_epoch_start(self) -> None:
        self._rest()

    def on_train_end(self) -> None:
        self._wake()

    def _rest(self) -> None:
        """Take out of training what `unfreeze` has not let join yet, and nothing is computed for it. Processes that
        wait for each other's gradients need all of them: there they are left out of the step instead."""
        for parameter, first in self._joins.items():
            parameter.requires_grad_(self.trainer.world_size > 1 or self.current_epoch >= first)

    def _wake(self) -> None:
        for parameter in self._joins:
            parameter.requires_grad_(True)

    def set_rates(self) -> None:
        """Give the optimiser the learning rates of this step. The schedule does so after each, by the length that the
        run has then; here for the first step, and where that length has changed since."""
        for schedule in self.trainer.lr_scheduler_configs:
            groups = schedule.scheduler.optimizer.param_groups
            for group, base in zip(groups, schedule.scheduler.base_lrs, strict=True):
                group["lr"] = base * self._lr_factor(self.global_step)

    def _take_rates(self) -> None:
        """Give the optimiser, which a checkpoint has filled, the highest rates and the weight decay of the config."""
        fresh = self.configure_optimizers()
        for config in self.trainer.lr_scheduler_configs:
            scheduler, new = config.scheduler, fresh["lr_scheduler"]["scheduler"]
            scheduler.base_lrs = new.base_lrs
            groups = zip(scheduler.optimizer.param_groups, fresh["optimizer"].param_groups, new.base_lrs, strict=True)
            for group, own, base in groups:
                group |= {"weight_decay": own["weight_decay"], "initial_lr": base}

    # Steps

    def training_step(self, batch: Examples, batch_index: int) -> Tensor:
        loss, mean = self._counted(batch, batch.samples)
        self.log("train/loss", mean, prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def _counted(self, batch: Examples, samples: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The loss that Lightning is given, its targets counted for the step; and its mean, without that of experts."""
        with self.expert_use.training():
            loss, n_targets = self.loss(batch)
        mean = loss.detach() / n_targets.clamp(min=1e-9)
        self._n_targets = self._n_targets.to(loss.device) + n_targets
        self._recent = (*self._recent, *samples)
        if self.expert_use.layers:
            balance, logged = self.expert_use.loss(n_targets, self._add_up)
            loss = loss + balance
            for name, value in logged.items():
                self.log(f"train/{name}", value, on_step=True, on_epoch=False)
        # Lightning divides by the number of accumulated batches; the step's gradient is divided by its targets instead.
        return loss * self.trainer.accumulate_grad_batches, mean

    def _add_up(self, numbers: Tensor) -> Tensor:
        """The sums over all processes."""
        if self.trainer.world_size == 1:
            return numbers
        return self.trainer.strategy.reduce(numbers.to(self.device), reduce_op="sum")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # That of `optimizer.lr`: the others (AdamW's beside Muon, those of other layers) move in proportion.
        factor = optimizer.param_groups[0]["lr"] / self.trainer.lr_scheduler_configs[0].scheduler.base_lrs[0]
        self.log("train/lr", self.optimizer.lr * factor, on_step=True, on_epoch=False)
        for parameter, first in self._joins.items():
            if self.current_epoch < first:
                parameter.grad = None
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
        self._begin_evaluation("val")

    def validation_step(self, batch: Examples | None, batch_index: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._end_evaluation()
        # By the weights that were validated, before an average of them makes way again.
        wanted = self._is_fitting and not self.trainer.sanity_checking
        self.generated = self.generate_examples() if wanted else []
        self.average.swap(self)

    def on_test_epoch_start(self) -> None:
        self._begin_evaluation("test")

    def test_step(self, batch: Examples | None, batch_index: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._end_evaluation()

    def _begin_evaluation(self, stage: str) -> None:
        self._evaluation = self._evaluating(stage)
        self.expert_use.begin(self)

    def _evaluate(self, batch: Examples | None, number: int) -> None:
        with self.expert_use.evaluation():
            self._evaluation.take(batch, number)

    def _evaluating(self, stage: str) -> Evaluation:
        trainer = self.trainer
        return Evaluation(self, stage, len(trainer.num_test_batches if stage == "test" else trainer.num_val_batches))

    def _end_evaluation(self) -> None:
        self.expert_use.end(self._add_up)
        for name, value in self._evaluation.end().items():
            # Those of the parts, which may be many, are not for the bar.
            self.log(name, torch.as_tensor(value).float(), prog_bar=name.count("/") == 1)

    # What is kept

    def best_weights(self) -> dict[str, Tensor]:
        """The weights to keep and use, on the CPU: the moving average where there is one; those of a base left out."""
        weights = self.average.replace(self._without_base(self.state_dict()))
        return {name: value.detach().cpu() for name, value in weights.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights as `best_weights` gave them; what has been averaged since counts no more."""
        self.load_state_dict(self._with_base(weights))
        self.average.forget()

    def take_base(self, source: str | Path | None) -> Report:
        """Take the weights that the adapters of `lora` are added to, in place: see `warm_start.take_base`."""
        return warm_start.take_base(self, source)

    def merge(self) -> None:
        """Make one model of its base and its adapters, in place. Raises InputError where that cannot be."""
        merge_adapters(self)
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self.lora = self.base = None
        self.of_base = frozenset()

    def _without_base(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in weights.items() if name not in self.of_base}

    def _with_base(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict() if self.of_base else {}
        return {name: own[name] for name in own if name in self.of_base} | dict(weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average.save(checkpoint)
        if self.base is not None:
            checkpoint["base_sha256"] = self.base.sha256
            for part in ("state_dict", "average"):
                checkpoint[part] = self._without_base(checkpoint[part])
        checkpoint["config"] = self.config()
        checkpoint["of_training"] = self._of_training()
        checkpoint["fresh"] = list(self.fresh)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        before, now = self._of_today(checkpoint["config"]), self.config()
        try:
            changes({"class_path": before["class_path"]}, now, self.is_free, "task")
            changes(checkpoint.get("of_training", {}), self._of_training(), self.is_free, "task")
            self.changed = changes(before["init_args"], now["init_args"], self.is_free, "task")
        except InputError:
            if before["class_path"] == now["class_path"]:
                # Where the reason is another vocabulary, its first difference says more.
                trained = instantiate(before, self.packages).tokenizers
                for name in self.tokenizers.keys() & trained.keys():
                    trained[name].agree(self.tokenizers[name], f"tokenizers.{name}")
            raise
        self.has_started, self.fresh = True, tuple(checkpoint.get("fresh", ()))
        if self.base is not None:
            self._check_base(checkpoint.get("base_sha256"))
            checkpoint["state_dict"] = self._with_base(checkpoint["state_dict"])
            if checkpoint["average"]:
                parameters = dict(self.named_parameters())
                average = self._with_base(checkpoint["average"])
                checkpoint["average"] = {name: average[name] for name in parameters}
        self.average.load(checkpoint)

    def _of_today(self, config: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint's config with the options that there were none of when it was written, at their defaults."""
        try:
            complete = instantiate(config, self.packages).config()
        except InputError:
            return config  # What it has that there is no more is said as a difference.
        # Not those that were left out, as what a mixture has for all of its tasks.
        return {**complete, "init_args": {name: complete["init_args"][name] for name in config["init_args"]}}

    def _check_base(self, sha256: str | None) -> None:
        if self.base.sha256 != sha256:
            raise InputError(
                f"init_from: {self.base.path} has weights of SHA-256 {self.base.sha256[:16]}..., and the adapters of "
                f"the checkpoint were trained on those of {str(sha256)[:16]}...; name the model that has them"
            )

    def _of_training(self) -> dict[str, Any]:
        """The arguments that say how weights are trained, which a task's `config` does not keep."""
        return {"init_from": self.init_from, "freeze": self.frozen, "pretrain": plain(self.pretrain)}

    def is_free(self, path: str) -> bool:
        """Whether the argument of a dotted path may change when a run goes on."""
        # A base may have moved, and is known by its hash.
        moved = () if self.lora is None else ("init_from",)
        return is_below(path, *self.inference_args, *moved, *(f"optimizer.{name}" for name in OF_GOING_ON))


def divide_gradients(optimizer: torch.optim.Optimizer, n_targets: Tensor) -> Tensor:
    """Turn gradients of a sum of losses into those of its mean over the targets, in place.

    Returns a sum of their norms, (): one number that says whether all of them are finite.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch._foreach_mul_(gradients, 1 / n_targets.clamp(min=torch.finfo(torch.float32).tiny))
    return torch.stack(torch._foreach_norm(gradients)).sum()
