"""The pictures of the first samples of a run, which change nothing in it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from PIL import Image

from anyformer.drawing.contact_sheet import GAP, IN_A_ROW, SIDE
from anyformer.model.config import TransformerConfig
from anyformer.runs.fit import fit
from anyformer.runs.metrics_file import read_rows
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokens import Tokenizer, TokenSet


class Patches(ImagePatches):
    """Turns a picture over as its augmentation, or not."""

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        return super().encode(record[::-1].copy() if random is not None and random.random() < 0.5 else record)


class Unseen(Patches):
    """Shows nothing."""

    show = Tokenizer.show


class Undrawable(Patches):
    """Draws from every generator as it is shown, and then fails."""

    def show(self, tokens: TokenSet) -> np.ndarray:
        random.random(), np.random.rand(), torch.rand(1)
        raise ZeroDivisionError("no ink")


def trained(run: Path, tokenizer: Tokenizer, **options: Any) -> list[dict[str, str]]:
    """The metrics of two steps with dropout."""
    seed_everything(0, verbose=False)
    task = Classify({"image": tokenizer}, TransformerConfig(d_model=8, depth=1, n_heads=2, dropout=0.3))
    options = {"max_epochs": 1, "limit_train_batches": 2, "log_every_n_steps": 1} | options
    data = Records(Digits(), 0.1, batch_size=20)
    fit(task, data, run, accelerator="cpu", enable_progress_bar=False, **options)
    return read_rows(run / "metrics.csv")


def test_a_run_has_a_sheet_which_changes_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = trained(tmp_path / "seen", Patches((8, 8), 4, 1))
    with Image.open(tmp_path / "seen" / "samples.png") as sheet:
        assert sheet.width == GAP + IN_A_ROW * (SIDE + GAP)
    assert capsys.readouterr().err == ""
    assert trained(tmp_path / "unseen", Unseen((8, 8), 4, 1)) == metrics
    assert not (tmp_path / "unseen" / "samples.png").exists()
    assert trained(tmp_path / "failed", Undrawable((8, 8), 4, 1)) == metrics
    assert not (tmp_path / "failed" / "samples.png").exists()
    assert capsys.readouterr().err == f"{tmp_path / 'failed' / 'samples.png'} could not be drawn: no ink\n"


def test_a_resumed_run_keeps_its_sheet_or_gets_the_one_it_lacks(tmp_path: Path) -> None:
    sheet, tokenizer = tmp_path / "samples.png", Patches((8, 8), 4, 1)
    trained(tmp_path, tokenizer)
    drawn = sheet.read_bytes()
    sheet.write_bytes(b"mine")
    trained(tmp_path, tokenizer, max_epochs=2, resume=True)
    assert sheet.read_bytes() == b"mine"
    sheet.unlink()
    trained(tmp_path, tokenizer, max_epochs=3, resume=True)
    assert sheet.read_bytes() == drawn
