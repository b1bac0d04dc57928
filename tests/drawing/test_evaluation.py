import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from anyformer.drawing.evaluation import draw_confusion, draw_rows, draw_scatter


def is_drawn(path) -> bool:
    picture = np.asarray(Image.open(path).convert("L"))
    return picture.std() > 1


@pytest.mark.parametrize("n", [2, 31])
def test_a_confusion_matrix_is_drawn(tmp_path, n):
    draw_confusion(torch.randint(5, (n, n)), [f"class {i}" for i in range(n)], tmp_path / "a.png")
    assert is_drawn(tmp_path / "a.png")


def test_a_row_of_the_drawn_confusion_matrix_is_a_true_class(tmp_path, monkeypatch):
    pages = []
    write = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda page, *given, **options: pages.append(page) or write(page, *given, **options)
    )
    draw_confusion(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), ["cat", "dog"], tmp_path / "a.png")
    (panel,) = pages[0].axes
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("true", "predicted")
    assert [text.get_text() for text in panel.get_yticklabels()] == ["cat", "dog"]
    # Of the true cats a quarter is taken for dogs; the place of a number is (column, row).
    assert panel.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert {text.get_position(): text.get_text() for text in panel.texts} == {(0, 0): "3", (1, 0): "1", (1, 1): "2"}


@pytest.mark.parametrize("n", [1, 5, 13])
def test_numbers_are_drawn_in_panels_and_what_is_missing_is_not(tmp_path, n):
    true = torch.randn(20, n)
    true[::3] = torch.nan
    draw_scatter(true, torch.randn(20, n), [f"number {i}" for i in range(n)], tmp_path / "a.png")
    draw_scatter(true[:1], true[:1], [""] * n, tmp_path / "none.png")
    assert is_drawn(tmp_path / "a.png") and (tmp_path / "none.png").exists()


def test_pictures_are_drawn_side_by_side(tmp_path):
    rows = [[np.full((4, 6, 3), shade, np.uint8) for shade in (0, 99, 255)] for _ in range(2)]
    draw_rows(rows, ("whole", "shown", "filled in"), tmp_path / "a.png")
    assert is_drawn(tmp_path / "a.png")


@pytest.mark.parametrize(("n", "named"), [(100, 100), (101, 51), (3000, 100)])
def test_of_many_classes_some_are_named(tmp_path, monkeypatch, n, named):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: drawn.append(self) or save(self, *a, **k))
    draw_confusion(torch.eye(n), [f"class {i}" for i in range(n)], tmp_path / "a.png")
    (axes,) = drawn[0].axes
    for axis in (axes.xaxis, axes.yaxis):
        places, labels = axis.get_ticklocs(), [text.get_text() for text in axis.get_ticklabels()]
        assert labels == [f"class {place}" for place in places] and len(labels) == named
