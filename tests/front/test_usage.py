"""`anyformer fit --help`."""

from __future__ import annotations

import re

import pytest

from anyformer.front.usage import first_sentence, fit_help


def test_our_options_come_first_in_groups_and_those_of_lightning_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = fit_help()
    places = [shown.index(each) for each in ("--resume", "--model.optimizer ", "--data.train ", "--checkpoints.keep")]
    assert places == sorted(places)
    ours, theirs = shown.split("Lightning's Trainer")
    assert "--trainer." not in ours
    _, *lines = theirs.splitlines()
    assert len(lines) > 30
    # A line each.
    assert all(re.match(r"  --trainer\.\w+  +\S", line) and len(line) <= 100 for line in lines)


def test_a_sentence_ends_at_a_full_stop() -> None:
    assert first_sentence("As in e.g. a picture. Or not.") == "As in e.g. a picture."
