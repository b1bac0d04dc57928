"""An ensemble: several models of one task, each with its own tokenizers and weights, whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.task import Task
from anyformer.tasks.ensemble.batch import EnsembleChopper, Readings
from anyformer.tasks.predict.predict import Predict, PredictOptions
from anyformer.tokens import Tokenizer


class Ensemble(Task):
    """Averages the predictions of several models: probabilities of classes and labels, numbers in the data's units.

    They are of one task, with the same fields, and the same classes or numbers; all else may differ: sizes, weights,
    vocabularies, means. It holds all of them: memory and time are the sums of theirs. What is masked of an input is not
    predicted. It is made of trained models and cannot be trained itself.
    """

    options: ClassVar[type[PredictOptions]] = PredictOptions
    inference_args: ClassVar[tuple[str, ...]] = ("views",)

    def __init__(self, runs: list[Predict], views: int | None = None) -> None:
        """
        Args:
            runs: the tasks of the models.
            views: of each record, that every model's predictions are averaged over; when left out as many as its own
                config says.
        """
        if len(runs) < 2:
            raise InputError(f"runs must be at least two, got {len(runs)}")
        first, *others = runs
        for i, other in enumerate(others, 1):
            if found := disagreement(first, other):
                raise InputError(f"runs.{i} cannot be averaged with the first: {found}")
        super().__init__(first.tokenizers, first.transformer, first.embedding, first.optimizer, fields=first.fields)
        self.runs = nn.ModuleList(runs)
        self.targets = {name: first.targets[name] for name in first.averaged}
        self.views = views
        if views is not None:
            self.check_views(views)

    def config(self) -> dict[str, Any]:
        init_args = {"runs": [run.config() for run in self.runs], "views": self.views}
        return {"class_path": type(self).__name__, "init_args": init_args}

    def check_views(self, views: int) -> None:
        """Raise InputError where one of the models cannot average over so many."""
        for run in self.runs:
            run.check_views(views)

    @property
    def first(self) -> Predict:
        """The model whose heads add up the metrics, and say what predictions look like."""
        return self.runs[0]  # type: ignore[return-value]

    @property
    def packages(self) -> list[str]:
        return sorted({package for run in self.runs for package in run.packages})

    # Data

    @property
    def answers(self) -> Mapping[str, Sequence[str]]:
        return {name: self.first.answers[name] for name in self.targets}

    @property
    def learnt(self) -> dict[str, Tokenizer]:
        raise InputError("an ensemble is several models, and training starts from one; name one of its runs")

    def fit_tokenizers(self, source: Source) -> None:
        raise self._untrained()

    def chopper(self, training: bool) -> EnsembleChopper:
        if training:
            raise self._untrained()
        choppers = tuple(
            replace(
                run.chopper(training=False),
                targets={name: run.targets[name] for name in self.targets},
                views=run.views if self.views is None else self.views,
            )
            for run in self.runs
        )
        return EnsembleChopper(self.tokenizers, choppers, by=self.fields.by)

    # Model

    def build(self) -> None:
        for run in self.runs:
            run.configure_model()

    def loss(self, batch: Readings) -> tuple[Tensor, Tensor]:
        raise self._untrained()

    def setup(self, stage: str) -> None:
        if stage == "fit":
            raise self._untrained()
        super().setup(stage)

    def _untrained(self) -> InputError:
        return InputError("an ensemble is not trained: train its runs, and average them anew")

    def outputs(self, batch: Readings) -> dict[str, Tensor]:
        """What the heads of the first model would have to say of a batch to predict the mean of all."""
        aims, sums = batch.parts[0].aims, dict.fromkeys(self.targets, 0.0)
        for i, run in enumerate(self.runs):
            # The others are read where the first has something to be predicted.
            for name, own in run.outputs(replace(batch.parts[i], aims=aims), list(self.targets)).items():
                sums[name] = sums[name] + run.head(name).to_mean(own)
        return {name: self.first.head(name).from_mean(total / len(self.runs)) for name, total in sums.items()}

    # Evaluation

    @property
    def metric(self) -> tuple[str, str]:
        return self.first.metric

    @property
    def metric_scale(self) -> float:
        return self.first.metric_scale

    def begin_evaluation(self) -> None:
        self.first.begin_evaluation()

    def evaluate(self, batch: Readings) -> dict[str, Tensor]:
        return self.first.take(self.outputs(batch), batch.parts[0])

    def report(self, stage: str) -> dict[str, Tensor]:
        return self.first.report(stage)

    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        return {name: rows for name, rows in self.first.by_class().items() if name in self.targets}

    def draw(self, folder: Path) -> None:
        self.first.draw(folder)

    # Use

    @takes_records
    @torch.inference_mode()
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: PredictOptions | None = None, *, batch_size: int = 64
    ) -> list[Any]:
        """The mean of what the models say of records, as one of them says it; see `Predict.predict`."""
        chopper, results = self.chopper(training=False), []
        if options is not None and options.views is not None:
            self.check_views(options.views)
            chopper = replace(chopper, choppers=tuple(replace(each, views=options.views) for each in chopper.choppers))
        self.eval()
        for start in range(0, len(records), batch_size):
            items = [chopper(record, labelled=False) for record in records[start : start + batch_size]]
            batch = chopper.collate(items).to(self.device)
            aimed = self.first.aim_at_all(batch.parts[0])
            batch = replace(batch, parts={**batch.parts, 0: aimed})
            results += self.first.results(self.outputs(batch), aimed)
        return results

    def true_values(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return self.first.true_values(record)

    def render(self, result: Mapping[str, Any]) -> str:
        return self.first.render(result)

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return self.first.row(result)


def disagreement(one: Predict, other: Predict) -> str | None:
    """Why the predictions of two models have no mean; None where they have one."""
    kinds = [type(each).__name__ for each in (one, other)]
    if len({*kinds}) > 1:
        return f"they are a {kinds[0]} and a {kinds[1]}"
    cutters = [{name: type(t).__name__ for name, t in each.tokenizers.items()} for each in (one, other)]
    if cutters[0] != cutters[1]:
        return f"their fields are {_listed(cutters[0])} and {_listed(cutters[1])}"
    kinds = [{name: type(t).__name__ for name, t in each.targets.items() if not t.hides} for each in (one, other)]
    if kinds[0] != kinds[1]:
        return f"their targets are {_listed(kinds[0])} and {_listed(kinds[1])}"
    for name in kinds[0]:
        if (names := one.targets[name].averages) is None:
            return f"there is no mean of what is predicted of {name!r}, {kinds[0][name]}"
        for argument in names:
            before, now = (getattr(each.targets[name], argument) for each in (one, other))
            if before != now:
                return f"the {argument} of {name!r} are {_shown(before)} and {_shown(now)}"
    return None if kinds[0] else "there is no mean of what is masked, and no other target"


def _listed(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in named.items())


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
