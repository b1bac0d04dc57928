"""Making a Trainer."""

from __future__ import annotations

import logging
import warnings

import pytest

from anyformer.errors import InputError
from anyformer.runs.trainer import given, make_trainer, quiet

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
