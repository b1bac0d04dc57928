"""What is learned to be predicted is what records are known again by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anyformer.data.tables import Table
from anyformer.runs.state.data_fingerprints import data_fingerprints
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text


def _hashed(task: Any, data: Records) -> dict[str, Any]:
    data.attach(task)
    data.setup("fit")
    return {name: sorted(found["sha256"]) for name, found in data_fingerprints(task, data).items()}


def test_what_is_learned_to_be_predicted_is_hashed_once_whatever_the_task(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": "a b", "lat": 1, "lon": 2, "kind": "x"}, {"text": "b a", "lat": 2, "lon": 1, "said": "c"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"text": Text("characters")}
    places = Predict(dict(fields), {"place": Regression(columns=("lat", "lon")), "kind": Category()})
    for task, columns in (
        (places, ["kind", "lat", "lon"]),
        (Classify(dict(fields), target="kind"), ["kind"]),
        (SequenceToSequence({**fields, "said": Text("characters")}, target="said"), ["said"]),
        (LanguageModel(dict(fields)), ["text"]),
    ):
        assert _hashed(task, Records(Table(str(path)))) == {"train": columns}
    (tmp_path / "a.txt").write_text("one two\n" * 50)
    corpus = Records(Corpus(str(tmp_path / "a.txt")), 0.2)
    assert _hashed(LanguageModel(dict(fields)), corpus) == {"train": ["text"], "validation": ["text"]}
