"""What the terminal and a program are told of a plan."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from anyformer.planning.parameters import Component, Sizes
from anyformer.planning.report import Memory, Part, Planned, Step, size

PLANNED = Planned(
    parts={
        "": Part(
            "Classify",
            {"train": 1200, "test": 30},
            {"classes": "2: a, b"},
            20,
            None,
            {"transformer": "3 blocks, 48 wide, 4 heads"},
            Sizes((Component("transformer", "query", 1000, 70), Component("head", "output", 20, 4)), {"image": 16}),
            "blocks in layers 1, 2, plain in layer 3",
        )
    },
    n_parameters=1020,
    step=Step("the CPU", 5, read=0.1, forward=0.2, backward=0.4, optimizer=0.3, samples=8, tokens=100),
    memory=Memory(4080, 4080, 8160, 1024**3, 2 * 1024**3),
    n_steps=100,
    pretraining_steps=0,
    setup_seconds=10.0,
    n_validations=2,
    validation_seconds=5.0,
    warnings=("rows are 30% full",),
    picture="runs/a/plan.png",
)


def test_the_run_takes_its_steps_and_validations() -> None:
    assert PLANNED.step.seconds == pytest.approx(1.0)
    assert PLANNED.seconds == pytest.approx(10 + 100 + 2 * 5)
    assert replace(PLANNED, pretraining_steps=40).seconds == pytest.approx(10 + 40 + 100 + 2 * 5)


def test_what_is_trained_is_told_where_some_is_frozen() -> None:
    assert "of which trained" not in str(PLANNED)
    part = PLANNED.parts[""]
    sizes = Sizes(
        (replace(part.parameters.components[0], n_frozen=900), *part.parameters.components[1:]), {"image": 16}
    )
    some = replace(PLANNED, parts={"": replace(part, parameters=sizes)})
    assert ["of", "which", "trained", "120"] in [line.split() for line in str(some).splitlines()]
    assert some.plain()["parts"][""]["parameters"]["trained"] == 120


def test_what_is_active_for_a_token_is_told_where_there_are_experts() -> None:
    assert "active" not in str(PLANNED)
    part = PLANNED.parts[""]
    first, *others = part.parameters.components
    sizes = Sizes((replace(first, n_experts=4, n_active=1), *others), {"image": 16})
    some = replace(PLANNED, parts={"": replace(part, parameters=sizes)})
    assert ["of", "which", "active", "for", "a", "token", "270"] in [line.split() for line in str(some).splitlines()]
    assert some.plain()["parts"][""]["parameters"]["active"] == 270


def test_the_terminal_is_told_all_of_it() -> None:
    shown = str(PLANNED)
    for words in (
        "records    1,200 train, 30 test",
        "classes    2: a, b",
        "an epoch   20 batches",
        "attention  blocks in layers 1, 2, plain in layer 3",
        "transformer  1,000  3 blocks, 48 wide, 4 heads",
        "74 FLOPs forward, of a sample of 16 tokens",
        "a step   1.0 s: read 100 ms, forward 200 ms, backward 400 ms, optimizer 300 ms\n",
        "on the CPU: 8 samples and 100 tokens a second",
        "at most 2 GiB, 1 GiB of it before the data and the model; weights 3.98 KiB",
        "about 2 min 0 s: 10.0 s until the first step, 100 steps, 2 validations of 5.0 s",
        "What the model sees is in runs/a/plan.png.",
        "Look at:\n- rows are 30% full",
    ):
        assert words in shown


def test_a_run_without_an_end_says_so_and_is_json_all_the_same() -> None:
    endless = replace(PLANNED, n_steps=math.inf)
    assert "without an end: give trainer.max_epochs or trainer.max_steps" in str(endless)
    values = json.loads(json.dumps(endless.plain(), allow_nan=False))
    assert values["n_steps"] is None and values["seconds"] is None
    assert values["step"]["forward"] == 0.2 and values["step"]["seconds"] == pytest.approx(1.0)
    part = values["parts"][""]
    assert part["records"]["train"] == 1200 and part["parameters"]["total"] == 1020
    assert part["parameters"]["parts"]["transformer"] == {"parameters": 1000, "flops": 70}


def test_the_parts_of_a_mixture_have_their_names() -> None:
    part = PLANNED.parts[""]
    shown = str(replace(PLANNED, parts={"digits": part, "words": replace(part, task="LanguageModel")}))
    assert "digits: Classify" in shown and "words: LanguageModel" in shown
    assert "all tasks together have 1,020 parameters" in shown


def test_sizes_are_words() -> None:
    assert [size(n) for n in (0, 999, 1024, 5.5 * 1024**4)] == ["0 B", "999 B", "1 KiB", "5.5 TiB"]
