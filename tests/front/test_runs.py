"""Files and folders that a command names."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.front.runs import check_config, check_config_or_run, check_fields, check_run

IMAGE = {"image": {"endings": [".png"]}, "text": {"endings": []}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "cat.png").touch()
    (tmp_path / "cats.zip").touch()
    monkeypatch.chdir(tmp_path)


def test_what_is_there_is_right() -> None:
    check_run("runs/digits")
    check_run("runs/digits:task")
    check_config("mine.yaml")
    check_config_or_run("runs/digits")
    check_fields(["image=cat.png", "text=no.png", "text,image=cat.png"], "runs/digits", IMAGE)
    # What may be a pattern, lie in a zip, or be no path at all, is for the reader to say.
    check_fields(["image=*.png", "image=cats.zip/1.png", "image=-", "image=somewhere"], "runs/digits", IMAGE)


def test_what_is_not_is_named_with_the_nearest_beside_it() -> None:
    with pytest.raises(InputError, match=r"^there is no run folder runs/digts; .*; did you mean 'runs/digits'\?$"):
        check_run("runs/digts")
    with pytest.raises(InputError, match=r"^there is no run folder none/x; a run is .* written$"):
        check_run("none/x")
    with pytest.raises(InputError, match=r"^there is no config mime.yaml; did you mean 'mine.yaml'\?$"):
        check_config("mime.yaml")
    with pytest.raises(InputError, match=r"^there is no config cnf/digits.yaml; did you mean '.*/digits.yaml'\?$"):
        check_config_or_run("cnf/digits.yaml")
    with pytest.raises(InputError, match=r"^field 'image': car.png: no such file; .*; did you mean 'cat.png'\?$"):
        check_fields(["image=car.png"], "runs/digits", IMAGE)


def test_a_file_of_the_data_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "dog.png").touch()
    with pytest.raises(InputError, match=r"looked for dog.png and data/dog.png"):
        check_fields(["image=dog.png"], "runs/digits", IMAGE)
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path / "sets"))
    check_fields(["image=dog.png"], "runs/digits", IMAGE)


def test_a_field_that_the_model_has_not_is_named() -> None:
    with pytest.raises(InputError, match=r"^the model of runs/digits has no field 'imgae'; did you mean 'image'\?$"):
        check_fields(["imgae=cat.png"], "runs/digits", IMAGE)
