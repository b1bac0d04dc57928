"""Smaller forests, so that each test takes a moment."""

from __future__ import annotations

import pytest

from anyformer.baselines import models


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "N_TREES", 40)
