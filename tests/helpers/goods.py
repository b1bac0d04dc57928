"""A table of goods, and the run of a small model of it that was not trained: two targets of a number, a word and a
text."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch

from anyformer.data.tables import Table
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.saving.model_folder import save
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text

COLUMNS = ("sku", "grams", "colour", "title", "kind", "price")
CONFIG = """\
model:
  class_path: Predict
  init_args:
    tokenizers:
      weight: {class_path: Row}
      colour: {class_path: Row}
      title: {class_path: Text, init_args: {kind: characters}}
    transformer: {d_model: 8, depth: 1, n_heads: 2, rotary: {axes: [word]}}
    targets: {kind: {class_path: Category}, price: {class_path: Regression}}
data:
  train:
    class_path: Table
    init_args:
      path: goods.csv
      columns: {weight: [grams], colour: [colour], title: title, kind: kind, price: price}
"""


def goods(n: int, seed: int = 0) -> list[list[str]]:
    """Rows of `COLUMNS`."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        kind = draw.choice(["car", "frog"])
        grams = draw.gauss({"car": 5, "frog": 1}[kind], 1)
        title = f"{draw.choice(['old', 'new'])} {kind}"
        rows.append([f"S{i:04}", f"{grams:.2f}", draw.choice(["red", "blue"]), title, kind, f"{10 * grams:.1f}"])
    return rows


def write_goods(path: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    """A CSV of some of the columns."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([row[COLUMNS.index(name)] for name in columns] for row in rows)
    return path


def goods_run(folder: Path) -> Path:
    """goods.csv in a folder, and beside it the folder of its run."""
    write_goods(folder / "goods.csv", goods(100))
    columns = {"weight": ["grams"], "colour": ["colour"], "title": "title", "kind": "kind", "price": "price"}
    torch.manual_seed(0)
    task = Predict(
        {"weight": Row(), "colour": Row(), "title": Text("characters")},
        {"kind": Category(), "price": Regression()},
        TransformerConfig(d_model=8, depth=1, n_heads=2, rotary=RotaryConfig(("word",))),
    )
    task.fit_tokenizers(Table(str(folder / "goods.csv"), columns))
    task.configure_model()
    run = folder / "run"
    run.mkdir()
    save(task, run / "model")
    (run / "config.yaml").write_text(CONFIG)
    return run
