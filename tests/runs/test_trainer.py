"""Making a Trainer."""

from __future__ import annotations

import logging
import warnings

import pytest
from lightning.pytorch import callbacks

from anyformer.errors import InputError
from anyformer.runs.trainer import describe_options, given, make_trainer, quiet

HERE = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def test_ours_come_before_the_users_and_those_before_the_defaults() -> None:
    with quiet():
        trainer = make_trainer({**HERE, "log_every_n_steps": 3, "max_epochs": 5}, max_epochs=2)
        assert (trainer.log_every_n_steps, trainer.max_epochs) == (3, 2)
        assert make_trainer({**HERE, "log_every_n_steps": None}).log_every_n_steps == 10


def test_null_is_no_option_but_for_validation_across_epochs() -> None:
    assert given({"max_epochs": None, "precision": "32-true"}) == {"precision": "32-true"}
    assert given({"check_val_every_n_epoch": None}) == {"check_val_every_n_epoch": None}


@pytest.mark.parametrize("options", [{"accelerator": "abacus"}, {"no_such_option": 1}])
def test_options_that_lightning_refuses_are_the_users(options: dict) -> None:
    with pytest.raises(InputError, match=r"^the trainer's options cannot be used: "):
        make_trainer({**HERE, **options})


def test_quiet_leaves_out_noise_and_gives_the_levels_back() -> None:
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet():
        assert logger.level == logging.WARNING
        warnings.warn("The loader does not have many workers which may be slow", stacklevel=1)
        with pytest.warns(UserWarning, match="to act on"):
            warnings.warn("to act on", stacklevel=1)
    assert logger.level == before


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        (callbacks.LearningRateFinder(), "give model.optimizer.lr"),
        (callbacks.BatchSizeFinder(), "give data.batch_size"),
        (callbacks.GradientAccumulationScheduler({0: 2}), "give trainer.accumulate_grad_batches"),
        (callbacks.StochasticWeightAveraging(0.1), "give model.optimizer.ema"),
        (callbacks.EMAWeightAveraging(), "give model.optimizer.ema"),
        (callbacks.BackboneFinetuning(), "give model.freeze"),
        (callbacks.ModelPruning("l1_unstructured"), "prune what anyformer.load gives"),
        (callbacks.OnExceptionCheckpoint("."), "resume=True goes on"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_callback_that_cannot_do_what_it_promises_is_refused_with_what_does(callback, instead: str) -> None:
    with quiet(), pytest.raises(InputError, match=rf"^trainer.callbacks: {type(callback).__name__} .*; .*{instead}"):
        make_trainer({**HERE, "callbacks": [callback]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-true"}, "trainer.precision=bf16-true keeps .*; use bf16-mixed or 32-true"),
        ({"precision": 64}, "trainer.precision=64-true keeps"),
        ({"precision": "16-true"}, "trainer.precision=16-true keeps"),
        ({"precision": "transformer-engine"}, "the trainer's options cannot be used: .*transformer_engine"),
        ({"strategy": "fsdp", "devices": 2}, "strategy `fsdp` requires a GPU"),
        ({"strategy": "deepspeed", "devices": 2}, "DeepSpeed"),
        ({"profiler": "bogus"}, "profiler"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict, message: str) -> None:
    with quiet(), pytest.raises(InputError, match=message):
        make_trainer({**HERE, **options})


def test_what_is_left_out_is_described_as_the_default() -> None:
    assert describe_options({}) == describe_options({"log_every_n_steps": 10, "logger": True, "max_epochs": None})
    stop = describe_options({"callbacks": callbacks.EarlyStopping("val/loss", patience=4)})["callbacks"]
    assert [(each["init_args"]["monitor"], each["init_args"]["patience"]) for each in stop] == [("val/loss", 4)]
