"""Which parts are trained, with what rate, from which epoch on."""

from __future__ import annotations

from dataclasses import replace

import torch

from anyformer.optim.optimizer import OptimizerConfig, Unfreezing
from anyformer.planning.training import how_trained, show_training
from anyformer.tasks.base.starting.warm_start import freeze
from anyformer.tasks.classify.classify import Classify
from tests.helpers.small_run import small_options


def built(**optimizer):
    options = small_options()
    task = Classify(
        **options
        | {"classes": ["a", "b"], "transformer": replace(options["transformer"], depth=3), "mix": None}
        | {"optimizer": OptimizerConfig(**optimizer)}
    )
    with torch.device("meta"):
        task.build()
    return task


def test_a_model_that_is_trained_alike_has_no_table():
    assert how_trained(built(name="muon")) == [] and show_training([]) == ""


def test_rates_blocks_and_what_is_frozen_are_told_by_part():
    task = built(name="muon", lr=0.02, adamw_lr=0.004, lr_mults={"heads.*": 0.5}, unfreeze=Unfreezing(2, 0))
    freeze(task, ["model.embeddings.types.*", "model.transformer.blocks.0.*"])
    rows = {row.part: row for row in how_trained(task)}
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in task.parameters())
    blocks = rows["model.transformer.blocks.1-2"]
    assert blocks.rates == (0.02, 0.004) and blocks.epoch == 3
    assert rows["model.transformer.blocks.0"].rates == rows["model.embeddings.types"].rates == ()
    assert rows["heads.class_head.output"].rates == (0.002,) and rows["heads.class_head.output"].epoch == 1
    table = show_training(list(rows.values())).splitlines()
    assert table[0].split() == ["trained", "parameters", "learning", "rate", "from", "epoch"]
    (line,) = [line.split() for line in table if line.startswith("model.transformer.blocks.1-2")]
    assert line[2:] == ["0.02,", "0.004", "3"]
    frozen = sum(row.parameters for row in rows.values() if not row.rates)
    total = sum(row.parameters for row in rows.values())
    assert table[-1] == f"{total - frozen:,} of {total:,} parameters are trained" and frozen > 0


def test_layer_decay_gives_every_block_a_row():
    rows = {row.part: row.rates for row in how_trained(built(lr=0.8, layer_decay=0.5))}
    assert [rows[f"model.transformer.blocks.{i}"] for i in range(3)] == [(0.1,), (0.2,), (0.4,)]
    assert rows["model.embeddings.lifts.image"] == (0.05,) and rows["model.transformer.final_norm"] == (0.8,)
