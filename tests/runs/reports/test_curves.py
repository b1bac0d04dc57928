"""The curves of a run can be read: a panel a metric, no colour twice in it, the legend outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from anyformer.runs.metrics_file import MetricsFile
from anyformer.runs.reports.curves import color_stages, draw_curves, read_panels

SUBSETS = [f"without_{name}" for name in ("title", "weight", "colour")]


def metrics_of(step: int) -> dict[str, float]:
    """Of many targets, with and without some inputs, and by group."""
    found = {"train/loss": 2.0 - step, "train/lr": 0.1 / (1 + step), "val/loss": 1.0, "val/kind_a/kind/accuracy": 0.1}
    for target in [f"target_{i}" for i in range(12)]:
        for prefix in ("", *(f"{subset}/" for subset in SUBSETS)):
            found |= {f"val/{prefix}{target}/{name}": 0.5 for name in ("loss", "accuracy")}
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = MetricsFile(tmp_path)
    rows.begin()
    for step in range(3):
        rows.log_metrics(metrics_of(step), step)
    return tmp_path


def test_each_metric_of_each_target_has_a_panel_and_subsets_have_none(run: Path) -> None:
    panels = read_panels(run, by=["kind"])
    targets = {f"target_{i}/{name}" for i in range(12) for name in ("loss", "accuracy")}
    assert panels.keys() == {"loss", "lr"} | targets
    assert panels["loss"] == {"train": ([0, 1, 2], [2.0, 1.0, 0.0]), "val": ([0, 1, 2], [1.0] * 3)}
    assert next(iter(panels)) == "loss" and all(
        lines.keys() == {"val"} for name, lines in panels.items() if "/" in name
    )
    # Without its column a group would be taken for a target.
    assert "kind_a/kind/accuracy" in read_panels(run)


@pytest.mark.parametrize("n", [3, 10, 11, 40])
def test_no_two_stages_have_one_colour(n: int) -> None:
    from matplotlib.colors import to_rgb

    colors = color_stages(["val", "train", *(f"own {i}" for i in range(n - 2))])
    assert list(colors)[:2] == ["train", "val"] and len({to_rgb(color) for color in colors.values()}) == n


@pytest.mark.filterwarnings("error")
def test_the_legend_and_the_titles_stand_outside_of_all_panels(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda page, *a, **b: (drawn.append(page), saved(page, *a, **b)))
    draw_curves(run, by=["kind"])
    (page,) = drawn
    (legend,) = page.legends
    shown = [axes for axes in page.axes if axes.axison]
    assert [text.get_text() for text in legend.get_texts()] == ["train", "val"] and len(shown) == 26
    boxes = [legend.get_window_extent(), *(axes.get_tightbbox() for axes in shown)]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.bbox.x1 and box.y1 <= page.bbox.y1
        for other in boxes[i + 1 :]:
            assert not box.overlaps(other)
    with Image.open(run / "curves.png") as picture:
        assert np.asarray(picture).std() > 1


def test_a_run_without_rows_has_no_curves(tmp_path: Path) -> None:
    draw_curves(tmp_path)
    MetricsFile(tmp_path).begin()
    draw_curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()
