"""The base of an adapter is known by its hash: found where it is, and refused by name and hash where it is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anyformer.errors import InputError
from anyformer.saving.atomic import write_whole
from anyformer.saving.base import Base, find_base, locate_base, write_base
from anyformer.saving.manifest import replace_folder


def model(folder: Path, value: float, base: Base | None = None) -> Path:
    """A folder as far as this goes: weights, and a base where they are an adapter."""

    def write(part: Path) -> None:
        save_file({"x": torch.full((3,), value)}, part / "weights.safetensors")
        if base is not None:
            write_base(base, part)

    folder.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(folder, write)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    model(tmp_path / "base/model", 1.0)
    model(tmp_path / "other/model", 2.0)
    model(tmp_path / "adapter/model", 3.0, find_base(tmp_path / "base"))
    return tmp_path


def test_a_base_is_found_as_a_run_a_folder_and_a_file_by_its_weights_alone(runs: Path, monkeypatch) -> None:
    whole = find_base(runs / "base")
    assert whole == Base(str(runs / "base"), whole.sha256) and re.fullmatch("[0-9a-f]{64}", whole.sha256)
    assert find_base(runs / "base/model").sha256 == whole.sha256 != find_base(runs / "other").sha256
    assert find_base(runs / "base/model/weights.safetensors").sha256 == whole.sha256
    monkeypatch.chdir(runs)
    assert find_base("base") == whole
    # A folder of transformers, in shards.
    shards = runs / "shards"
    shards.mkdir()
    for i in (1, 2):
        save_file({"x": torch.full((3,), float(i))}, shards / f"model-{i}.safetensors")
    one = find_base(shards)
    save_file({"x": torch.full((3,), 5.0)}, shards / "model-2.safetensors")
    assert find_base(shards).sha256 != one.sha256


def test_a_base_is_where_it_was_or_beside_where_both_were_moved(runs: Path) -> None:
    assert locate_base(runs / "adapter/model") == str(runs / "base")
    assert locate_base(runs / "base/model") is None
    moved = runs / "moved"
    moved.mkdir()
    for name in ("base", "adapter"):
        (runs / name).rename(moved / name)
    assert locate_base(moved / "adapter/model") == str(moved / "base")
    (moved / "base").rename(runs / "elsewhere")
    assert locate_base(moved / "adapter/model", runs / "elsewhere") == str(runs / "elsewhere")


def test_a_base_that_has_moved_or_changed_is_refused_by_name_and_hash(runs: Path) -> None:
    adapter, wanted = runs / "adapter/model", find_base(runs / "base").sha256[:16]
    other = find_base(runs / "other").sha256[:16]
    message = rf"adapter/model holds an adapter on .*/base, whose weights are of SHA-256 {wanted}\.\.\.; "
    with pytest.raises(InputError, match=rf"{message}.*/other has other weights, of SHA-256 {other}\.\.\.; say where"):
        locate_base(adapter, runs / "other")
    (runs / "base").rename(runs / "elsewhere")
    with pytest.raises(InputError, match=rf"{message}.*/base: no such file; say where the base is now by base FOLDER"):
        locate_base(adapter)
    model(runs / "base/model", 1.5)
    with pytest.raises(InputError, match=rf"{message}.*/base has other weights, of SHA-256 \w{{16}}\.\.\.; say where"):
        locate_base(adapter)


def test_another_task_of_the_same_mixture_is_not_the_base(runs: Path) -> None:
    adapter = model(runs / "of_one/model", 4.0, find_base(f"{runs}/base:one"))
    assert locate_base(adapter) == locate_base(adapter, f"{runs}/base:one") == f"{runs}/base:one"
    for place in (f"{runs}/base:two", f"{runs}/base"):
        with pytest.raises(InputError, match=rf"; {place} is not what it was trained on, {runs}/base:one; say where"):
            locate_base(adapter, place)
    with pytest.raises(InputError, match=rf"base:one is not what it was trained on, {runs}/base; say where"):
        locate_base(runs / "adapter/model", f"{runs}/base:one")


def test_what_is_no_base_is_refused(runs: Path) -> None:
    with pytest.raises(InputError, match=r"adapter holds an adapter and no whole model; .*anyformer merge .*adapter"):
        find_base(runs / "adapter")
    (runs / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no weights"):
        find_base(runs / "empty")
    with pytest.raises(InputError, match=r"^base: .*base/model holds a whole model, which needs no base beside it"):
        locate_base(runs / "base/model", runs / "other")
    for content in ({}, {"path": 1, "relative": "..", "sha256": "0"}):
        write_whole(runs / "adapter/model/base.json", json.dumps(content))
        with pytest.raises(InputError, match=r"base\.json is damaged: it must hold path, relative and sha256"):
            locate_base(runs / "adapter/model")
