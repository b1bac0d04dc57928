"""The heads of a task with targets: what they read of the model, what they say of a batch, and the metrics of that."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.model.anyformer import Anyformer
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tasks.targets.pooling import Pool
from anyformer.tasks.targets.target import Stage, Target, TargetHead
from anyformer.tokens import Tokenizer


class TargetHeads(ABC):
    """A task that has a head for each target: its loss, its evaluation and its calibration are theirs together."""

    targets: dict[str, Target]
    tokenizers: dict[str, Tokenizer]
    choose: str | None
    """The metric that chooses the best model; the usual one when left out."""
    stage: Stage
    model: Anyformer | None
    pool: Pool | None
    """What is read for targets of the whole sample."""
    dropout: nn.Module
    heads: nn.ModuleDict

    @property
    def averaged(self) -> list[str]:
        """The targets whose predictions can be averaged over views, or over models."""
        return [name for name, target in self.targets.items() if target.averages is not None]

    @property
    def _masked(self) -> list[str]:
        return [name for name, target in self.targets.items() if target.hides]

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

    # Model

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

    def draw(self, folder: Path) -> None:
        """Draw a confusion matrix of every Category, predicted over true numbers, and what was filled in of Masked;
        the worst texts are in `worst.html`."""
        for name in self.targets:
            suffix = f"_{name}" if len(self.targets) > 1 else ""
            self.head(name).draw(folder, suffix, self.stage, self.tokenizers)

    # Use

    def aim_at_all(self, batch: Aims) -> Aims:
        """A batch in which every sample has a prediction of each target that is read of samples."""
        every = torch.arange(batch.tokens.n_samples, device=batch.tokens.layout.segment.device)
        aims = {n: replace(aim, read=every) if self.targets[n].of_samples else aim for n, aim in batch.aims.items()}
        return replace(batch, aims=aims)

    def results(self, outputs: Mapping[str, Tensor], batch: Aims) -> list[Any]:
        """The predictions of each sample as `predict` gives them, of what the heads say of a batch."""
        found = {name: self.head(name).predict_batch(name, outputs.get(name), batch) for name in batch.aims}
        return [{name: found[name][i] for name in found} for i in range(batch.tokens.n_samples)]
