"""Options that override a config."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.front.overrides import check_overrides

RIGHT = (
    "--trainer.max_epochs=3",
    "--model.optimizer.lr=0.1",
    "--model.init_args.optimizer.lr=0.1",
    "--model.tokenizers.image.patch=2",
    "--model.tokenizers.image.init_args.stem.kernel=3",
    "--model.embedding.positions.scheme=joint",
    "--model.fields.dropout.image=0.1",
    "--model.optimizer.options.betas=[0.9]",
    "--model=Classify",
    "--model.class_path=Classify",
    "--data.train.columns.label=class",
    "--data.parts.digits.train=x",
    "--trainer.callbacks+=EarlyStopping",
    "--trainer.callbacks.init_args.monitor=val/loss",
    "--trainer.logger.save_dir=x",
    "--trainer.strategy.anything=x",
    "--seed_everything=1",
    "--checkpoints.keep=3",
)


@pytest.mark.parametrize("option", RIGHT)
def test_an_option_that_there_is_is_taken(option: str) -> None:
    check_overrides([option], ["config"], "anyformer fit")
    check_overrides(option.split("="), ["config"], "anyformer fit")


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--confg=x", "'config'"),
        ("--trainr.max_epochs=3", "'trainer.max_epochs'"),
        ("--optimizer.lr=3", "'model.optimizer.lr'"),
        ("--model.optimizer.rate=3", r"'model.\w+.\w+'"),
        ("--model.tokenizers.image.init_args.stem.kernl=3", "'model.tokenizers.image.init_args.stem.kernel'"),
        ("--data.train.init_args.colums=x", "'data.train.init_args.columns'"),
        ("--trainer.max_epochs.x=3", "'trainer.max_epochs'"),
    ],
)
def test_another_is_refused_with_the_nearest(option: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"^there is no option {option.split('=')[0]}; did you mean ({near})\?$"):
        check_overrides([option], ["config"], "anyformer fit")


def test_where_none_is_near_there_is_help() -> None:
    with pytest.raises(InputError, match=r"^there is no option --xyz; see anyformer fit --help$"):
        check_overrides(["--xyz"], [], "anyformer fit")


def test_classes_of_other_packages_have_arguments_of_their_own() -> None:
    mine = ["--model.tokenizers.radar.beams=3"]
    with pytest.raises(InputError, match=r"no option --model.tokenizers.radar.beams"):
        check_overrides(mine, [], "anyformer fit")
    check_overrides(mine, [], "anyformer fit", has_others=True)


@pytest.mark.parametrize("value", ["EMAWeightAveraging", '[{"class_path": "ModelPruning"}]', "LambdaCallback"])
def test_a_callback_that_cannot_work_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"^trainer.callbacks: \w+ (averages|renames|takes functions)"):
        check_overrides(["--trainer.callbacks", value], [], "anyformer fit")
