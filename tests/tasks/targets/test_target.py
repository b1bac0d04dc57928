import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.metrics.metric import LOSS
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.action import ActionTarget
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.target import TargetHead, aim_at_samples, known_values
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.episode.discrete import Categories
from anyformer.tokenizers.text.text import Text

SMALL = TransformerConfig(d_model=6, depth=1, n_heads=2, init_std=0.5)


@dataclass(frozen=True)
class Rows(Source):
    """Records given as they are."""

    records: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.records[i]

    def name(self, i: int) -> str:
        return f"row {i}"


def column(name: str, values: list[Any]) -> Rows:
    """Records of one column; None is a record without it."""
    return Rows(tuple({} if value is None else {name: value} for value in values))


def test_the_records_that_lack_a_column_are_left_out_and_all_without_it_are_an_error():
    assert known_values(column("kind", ["a", None, math.nan, "b", "", " "]), "kind") == ["a", "b"]
    with pytest.raises(InputError, match="no column 'kind'"):
        known_values(column("other", ["a"]), "kind")


NOTHING = (None, math.nan, np.float32("nan"), "", " ")


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_what_is_missing_is_so_for_every_target(value):
    of_all = {
        "category": Category(classes=("a", "b", "nan")),
        "labels": Labels(classes=("a", "b", "nan")),
        "numbers": Regression(n=1, scaling="none"),
        "columns": Regression(columns=("column",), scaling="none"),
        "done": ActionTarget(Categories(counts=(3,), shape=())),
    }
    assert is_missing(value)
    for name, target in of_all.items():
        assert target.value("column", {"column": value}) is None, name
    if not isinstance(value, str):
        assert TextTarget(Text("bytes")).value("column", {"column": value}) is None
    assert not any(map(is_missing, (0, 0.0, False, "a", "nan", [], np.array([math.nan]))))


def test_samples_without_a_target_are_not_aimed_at():
    aim = aim_at_samples([None, torch.tensor([1.0, 2.0]), None, torch.tensor([3.0, 4.0])], torch.zeros(0, 2))
    assert aim.read.tolist() == aim.sample.tolist() == [1, 3] and aim.values.tolist() == [[1, 2], [3, 4]]
    assert aim_at_samples([None], torch.zeros(0, 2)).values.shape == (0, 2)


class Zero(TargetHead):
    """A loss of 3 for two predictions."""

    def loss(self, vectors, values):
        return torch.tensor(3.0), torch.tensor(2.0)


def test_the_mean_loss_is_that_of_all_batches_since_the_reset():
    head = Zero({"loss": LOSS})
    assert head.compute()["loss"].isnan()
    for _ in range(2):
        head.add_loss(torch.zeros(2, 6), torch.zeros(2))
    assert head.compute()["loss"] == 1.5
    head.reset()
    assert head.compute()["loss"].isnan()
