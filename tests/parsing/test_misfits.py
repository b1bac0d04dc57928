"""Why a config does not fit its types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from anyformer.parsing.misfits import explain, merged, swallowed
from anyformer.parsing.scalars import load_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_nothing_is_said_of_a_config_that_fits(path: Path) -> None:
    assert explain(load_yaml(path.read_text())) is None


def model(**arguments: Any) -> dict[str, Any]:
    tokenizers = {"image": {"class_path": "ImagePatches"}}
    return {"model": {"class_path": "Classify", "init_args": {"tokenizers": tokenizers, **arguments}}}


def image(**arguments: Any) -> dict[str, Any]:
    return model(tokenizers={"image": {"class_path": "ImagePatches", "init_args": arguments}})


TRANSFORMER = {"d_model": 8, "depth": 1, "n_heads": 2}


def rotary(**arguments: Any) -> dict[str, Any]:
    return model(transformer=TRANSFORMER | {"rotary": arguments})


WRONG = [
    # A union of a block and null, given what it is not.
    (
        model(transformer=TRANSFORMER | {"rotary": True}),
        r"model.transformer.rotary must be the keys and values of RotaryConfig \(axes, base\), as in \{.*\}, got true",
    ),
    (
        model(embedding={"positions": "sinusoidal"}),
        r"model.embedding.positions must be a list of the keys and values of PositionConfig \(axes, .*\), as in "
        r"\[\{axes: .*\}\], got sinusoidal; did you mean scheme: sinusoidal\?",
    ),
    (
        model(optimizer="cosine"),
        r"model.optimizer must be the keys and values of OptimizerConfig \(name, lr, .*\), as in \{.*\}, got cosine; "
        r"did you mean schedule: cosine\?",
    ),
    # Choices.
    (
        model(optimizer={"schedule": "cosin"}),
        r"model.optimizer.schedule must be cosine, linear or constant, got cosin; did you mean 'cosine'\?",
    ),
    (
        model(class_weights="balancd"),
        r"model.class_weights must be \[float, ...\] or balanced, got balancd; did you mean 'balanced'\?",
    ),
    # Within a union, at any depth.
    (
        image(augment={"policy": 3}),
        r"model.tokenizers.image.augment.policy must be str, got 3; write in quotes what is a text",
    ),
    (
        model(embedding={"positions": [{"axes": ["row"]}, {"axes": ["row"], "scheme": "sinusoid"}]}),
        r"model.embedding.positions.1.scheme must be learned, joint or sinusoidal, got sinusoid; did you mean "
        r"'sinusoidal'\?",
    ),
    (
        model(transformer=TRANSFORMER | {"rotary": {"axes": "row"}}),
        r"model.transformer.rotary.axes must be \[str, ...\], got row",
    ),
    (
        model(transformer=TRANSFORMER | {"rotary": {"base": 3}}),
        r"model.transformer.rotary.axes is missing: RotaryConfig needs it; see anyformer help RotaryConfig",
    ),
    (image(stem={"kernl": 3}), r"model.tokenizers.image.stem has no key 'kernl'; did you mean 'kernel'\?"),
    # Numbers and lists of them.
    (image(patch="four"), "model.tokenizers.image.patch must be int, got four"),
    (image(patch=2.5), "model.tokenizers.image.patch must be int, got 2.5"),
    (image(size=8), r"model.tokenizers.image.size must be \[int, int\], got 8"),
    (image(size=[8, 8, 8]), r"model.tokenizers.image.size must be \[int, int\], got \[8, 8, 8\]"),
    (image(size=[8, "x"]), r"model.tokenizers.image.size.1 must be int, got x"),
    # Classes.
    ({"model": "Clasify"}, r"model must be a Task, got Clasify; did you mean 'Classify'\?"),
    ({"model": {"class_path": "Clasify"}}, r"model.class_path: there is no class 'Clasify'; did you mean 'Classify'\?"),
    (
        model(tokenizers={"image": "ImagePaches"}),
        r"model.tokenizers.image must be a Tokenizer, got ImagePaches; did you mean 'ImagePatches'\?",
    ),
    (
        model(tokenizers={"image": {"patch": 3}}),
        "model.tokenizers.image needs the name of a class under class_path, and its arguments under init_args",
    ),
    (
        {"trainer": {"callbacks": "EarlyStoping"}},
        r"trainer.callbacks must be \[Callback, ...\] or a Callback, got EarlyStoping; did you mean "
        r"'EarlyStopping'\?",
    ),
    (
        {"trainer": {"callbacks": ["EarlyStopping"]}},
        r"trainer.callbacks.0.monitor is missing: EarlyStopping needs it; .*",
    ),
    (
        {"data": {"train": "Digits", "on_bad_sample": "skp"}},
        r"data.on_bad_sample must be fail or skip, got skp; did you mean 'skip'\?",
    ),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_the_reason_names_the_key_and_what_may_stand_there(content: dict[str, Any], message: str) -> None:
    found = explain(content)
    assert found is not None and re.fullmatch(message, found), found


def test_what_is_not_known_here_is_left_to_others() -> None:
    mine = {"class_path": "mine.Radar", "init_args": {"beams": "many"}}
    assert explain(model(tokenizers={"radar": mine})) is None
    assert explain({"trainer": {"max_time": "tomorrow", "strategy": {"class_path": "DDPStrategy"}}}) is None
    # Texts of numbers and booleans become these.
    assert explain(model(optimizer={"lr": "1e-3"}, place_class="yes")) is None


def test_options_lie_over_the_files_they_override() -> None:
    files = [image(patch=2), {"trainer": {"max_epochs": 1}}]
    options = {
        "model.tokenizers.image.patch": "4",
        "model.init_args.optimizer.lr": "0.5",
        "trainer.callbacks": "[{class_path: Timer}]",
        "trainer.callbacks.init_args.duration": "x",
        "data.train": "Digits",
        "data.train.init_args.part": "train",
    }
    whole = merged(files, iter(options.items()))
    assert whole["model"]["init_args"] == {
        "tokenizers": {"image": {"class_path": "ImagePatches", "init_args": {"patch": 4}}},
        "optimizer": {"lr": 0.5},
    }
    assert whole["trainer"] == {
        "max_epochs": 1,
        "callbacks": [{"class_path": "Timer", "init_args": {"duration": "x"}}],
    }
    assert whole["data"]["train"] == {"class_path": "Digits", "init_args": {"part": "train"}}
    assert files[0] == image(patch=2)
    callbacks = {"trainer": {"callbacks": [{"class_path": "Timer"}]}}
    merged([callbacks], iter([("trainer.callbacks.init_args.duration", "x")]))
    assert callbacks == {"trainer": {"callbacks": [{"class_path": "Timer"}]}}


def test_a_source_that_an_option_writes_out_is_no_path() -> None:
    options = {"data.train": "{class_path: Table, init_args: {path: 3}}"}
    whole = merged([image()], iter(options.items()))
    assert swallowed(whole, iter(options.items())) == (
        "data.train.path must be str, got 3; write in quotes what is a text"
    )
    right = {"data.train": "{class_path: Table, init_args: {path: x.csv}}", "model.read": "[x]"}
    assert swallowed(merged([image()], iter(right.items())), iter(right.items())) is None
    plain = {"data.train": "x.csv"}
    assert swallowed(merged([image()], iter(plain.items())), iter(plain.items())) is None
