"""What a model generates is shown at every validation, by the weights that were validated, and kept once a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import fit
from anyformer.runs.metrics_file import read_rows
from anyformer.runs.reports.generated import FILE, WIDEST, add_generated, generated_lines
from anyformer.saving.model_folder import load
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.base.records import Records
from anyformer.tasks.language.language import OF_EXAMPLES, LanguageModel
from anyformer.tokenizers.text.text import Text


def kept(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / FILE).read_text().splitlines()]


def test_a_text_stands_below_its_reference_in_one_line_each() -> None:
    assert generated_lines([Generated("a  dog\nruns", "a dog ran", "en")]) == [
        '  en reference: "a dog ran"',
        '  en hypothesis: "a dog runs"',
    ]
    (line,) = generated_lines([Generated("so " * 200)])
    assert line.startswith('  continuation: "so so') and len(line) < WIDEST + 30


def test_lines_behind_the_last_checkpoint_are_written_anew(tmp_path: Path) -> None:
    for step in (3, 7, 11):
        add_generated(tmp_path, step, step // 4, [Generated(f"text {step}", "right", "", "row 2")])
    with open(tmp_path / FILE, "a") as file:
        file.write('{"step": 15, "hyp')
    add_generated(tmp_path, 7, 1, [Generated("again", "right"), Generated("on")])
    assert kept(tmp_path) == [
        {"step": 3, "epoch": 0, "record": "row 2", "reference": "right", "hypothesis": "text 3"},
        {"step": 7, "epoch": 1, "reference": "right", "hypothesis": "again"},
        {"step": 7, "epoch": 1, "continuation": "on"},
    ]
    add_generated(tmp_path, 9, 1, [])
    assert len(kept(tmp_path)) == 3


def test_a_language_model_goes_on_with_its_example_by_the_average_that_was_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = LanguageModel(
        {"text": Text("characters")},
        TransformerConfig(d_model=8, depth=1, n_heads=2, rotary=RotaryConfig(("word",))),
        optimizer=OptimizerConfig(lr=0.1, ema=0.5),
        context=8,
        example="to",
        cache=str(tmp_path / "cache"),
    )
    texts = [{"text": "to be or not to be"}, {"text": "that is the question"}]
    data = Records(texts, texts, batch_size=2)
    options = {"max_epochs": 2, "enable_progress_bar": None, "accelerator": "cpu", "log_every_n_steps": 1}
    fit(task, data, tmp_path / "run", **options)
    lines = kept(tmp_path / "run")
    rows = [row for row in read_rows(tmp_path / "run/metrics.csv") if row["val/loss"]]
    assert [line["step"] for line in lines] == [int(row["step"]) for row in rows]
    assert lines[0]["continuation"] != lines[1]["continuation"]
    best = min((0, 1), key=lambda i: float(rows[i]["val/loss"]))
    (found,) = load(tmp_path / "run").predict([{"text": "to"}], OF_EXAMPLES)
    assert "to" + found["continuations"][0] == lines[best]["continuation"]
    assert capsys.readouterr().out.count("  continuation: ") == 2
