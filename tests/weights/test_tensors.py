"""Tensors are read from local files and set by name; a run of ours gives its weights; what does not fit is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anyformer.errors import InputError
from anyformer.saving.model_folder import load, save
from anyformer.tasks.classify.classify import Classify
from anyformer.weights.tensors import Report, read_tensors
from anyformer.weights.timm_vit import load_timm
from tests.helpers.damage import cut, flip
from tests.helpers.witnesses import redraw
from tests.weights.test_timm_vit import CLASSES, IMAGE, SIZES, classifier, same, vit, wide, written


def test_a_long_list_is_cut() -> None:
    report = Report("here", ("a",), (), tuple("bcdefg"), ())
    assert str(report) == "weights from here: 1 tensors taken, 6 fresh (b, c, d, e and 2 more)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.safetensors", r"none\.safetensors: no such file; looked for"),
        (lambda folder: folder, r"is no file; give the \.safetensors file itself"),
        (lambda folder: "https://host/vit.safetensors", r"nothing is loaded from the network, got https://host"),
    ],
    ids=["absent", "folder", "address"],
)
def test_what_is_no_local_file_is_refused(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tensors(make(tmp_path))


@pytest.mark.parametrize("harm", [cut, lambda path: path.write_text("weights"), lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_said_to_be_so(tmp_path: Path, harm: Callable[[Path], Any]) -> None:
    path = written(tmp_path / "vit.safetensors")
    harm(path)
    with pytest.raises(InputError, match=r"vit\.safetensors is damaged or no safetensors file \(.+\); copy or convert"):
        load_timm(classifier(), path)


@pytest.mark.parametrize("ending", ["pt", "pth", "bin"])
def test_a_pickle_is_not_opened(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vit.{ending}"
    torch.save(vit().state_dict(), path)
    with pytest.raises(InputError, match=rf"vit\.{ending} may run code when it is read, .* convert it to safetensors"):
        load_timm(classifier(), path)


# In from a run of ours


def test_a_run_of_ours_gives_all_its_weights(tmp_path: Path) -> None:
    one, other = classifier(), classifier()
    save(one, tmp_path / "run" / "model")
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        redraw(other)
        report = other.start_from(folder)
        assert not report.fresh and not report.unused and not report.resized
        assert same(dict(other.state_dict()), dict(one.state_dict()))


def test_a_run_of_another_image_size_has_its_positions_resized(tmp_path: Path) -> None:
    # As many patches in another grid: 2 x 3 and 3 x 2.
    one, other = classifier(), classifier(image=replace(IMAGE, size=(12, 8)))
    save(one, tmp_path)
    report = other.start_from(tmp_path)
    assert report.resized == ("model.embeddings.positions.0.table",)
    grids = [made.model.embeddings.positions[0] for made in (one, other)]
    grids[0].resize((3, 2))
    torch.testing.assert_close(grids[1].table, grids[0].table)


@pytest.mark.parametrize("classes", [["a", "b"], ["b", "a", "c", "d", "e"]], ids=["fewer", "in another sequence"])
def test_other_classes_get_a_new_head(tmp_path: Path, classes: list[str]) -> None:
    one, other = classifier(), classifier(classes=classes)
    save(one, tmp_path)
    before = other.head("label").output.weight.clone()
    report = other.start_from(tmp_path)
    assert report.fresh == ("heads.class_head.output.weight", "heads.class_head.output.bias") == report.unused
    assert torch.equal(other.head("label").output.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transformer": wide(d_model=24)}, r"model\.transformer\.d_model is 24, and init_from .* has 12; give 12"),
        ({"transformer": wide(depth=1)}, r"model\.transformer\.depth is 1, and init_from .* has 2; give 2"),
        ({"n_registers": 2}, r"lifts\.class/\.table is \(1, 12\), and .* is \(3, 12\); make n_registers"),
    ],
    ids=["width", "depth", "registers"],
)
def test_a_run_of_other_sizes_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    save(classifier(), tmp_path)
    with pytest.raises(InputError, match=message):
        classifier(**options).start_from(tmp_path)


def test_a_run_that_is_damaged_or_none_is_refused(tmp_path: Path) -> None:
    task = classifier()
    with pytest.raises(InputError, match=r"holds no model"):
        task.start_from(tmp_path)
    with pytest.raises(InputError, match=r"no such file; looked for"):
        task.start_from(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"nothing is loaded from the network, got https://host/run"):
        task.start_from("https://host/run")
    save(task, tmp_path)
    flip(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged \(its SHA-256"):
        task.start_from(tmp_path)


class Mine(Classify):
    """A user's own task."""


def test_a_run_of_a_class_that_is_not_in_use_here_is_refused(tmp_path: Path) -> None:
    made = [kind({"image": IMAGE}, SIZES, classes=CLASSES) for kind in (Mine, Mine, Classify)]
    made[0].build()
    save(made[0], tmp_path)
    assert not made[1].start_from(tmp_path).fresh
    with pytest.raises(InputError, match=r"Mine is refused: a config may name classes of anyformer"):
        made[2].start_from(tmp_path)


def test_start_from_takes_a_file_of_timm_too(tmp_path: Path) -> None:
    one, other = classifier(), classifier()
    path = written(tmp_path / "vit.safetensors")
    assert one.start_from(path).source == str(path)
    load_timm(other, path)
    assert same(dict(one.state_dict()), dict(other.state_dict()))
    save(one, tmp_path / "model")
    assert same(dict(load(tmp_path).state_dict()), dict(one.state_dict()))
