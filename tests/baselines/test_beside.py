"""The best simple model in one line, where it takes seconds."""

from __future__ import annotations

import time
from pathlib import Path

from anyformer.baselines.beside import best_beside
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows

TASK = Classify({"text": Text()}, target="label")


def rows(n: int) -> Rows:
    return Rows([{"text": ("a red dog", "a blue cat")[i % 2], "label": i % 2} for i in range(n)])


def test_few_records_are_told_and_of_many_the_command() -> None:
    told = best_beside(TASK, Records(rows(30), rows(6)), "anyformer baseline x.yaml")
    assert told == (
        "The best simple model on the same records: logistic regression on text, val/accuracy 1.0000 "
        "(anyformer baseline x.yaml)"
    )
    ask = "Simple models on the same records: anyformer baseline x.yaml"
    assert best_beside(TASK, Records(rows(2500)), "anyformer baseline x.yaml") == ask
    # Nor where there are many classes, which models take long for.
    many = Classify({"text": Text()}, target="label", classes=[str(i) for i in range(101)])
    assert best_beside(many, Records(rows(30), rows(6)), "anyformer baseline x.yaml") == ask
    # What is wrong is said by the command.
    assert best_beside(TASK, Records(str(Path("none.csv"))), "anyformer baseline x.yaml") == ask


def test_records_that_are_slow_to_read_are_not_waited_for() -> None:
    class Slow(Rows):
        def __getitem__(self, i: int) -> dict:
            time.sleep(0.005)
            return super().__getitem__(i)

    source = Slow(rows(1500).rows)
    assert best_beside(TASK, Records(source), "anyformer baseline x.yaml").startswith("Simple models")
    assert sum(source.n_read) <= 10
