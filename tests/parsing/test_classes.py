"""What a config may say, and how it is told that it is wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from anyformer.errors import InputError, suggest
from anyformer.model.config import TransformerConfig
from anyformer.parsing.check import check, read_yaml
from anyformer.parsing.classes import allowed_imports, find_class, parameters
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.messages import condense
from anyformer.parsing.plain import difference, plain
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.text.text import Text

HINTS = {"trainer": Trainer, "model": Task, "data": Records}
TASK = """
model:
  class_path: Classify
  init_args:
    tokenizers:
      image:
        class_path: ImagePatches
        init_args: {patch: 4}
    transformer: {d_model: 8, n_heads: 2}
"""


def check_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with allowed_imports():
        content, lines = read_yaml(path)
        check(content, HINTS, "x.yaml", lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainr: {}", r"x.yaml line 1: there is no key 'trainr'; did you mean 'trainer'\?"),
        ("trainer:\n  max_epoch: 3", r"x.yaml line 2: trainer has no key 'max_epoch'; did you mean 'max_epochs'\?"),
        (TASK.replace("d_model", "d_modl"), r"line 9: model.transformer has no key 'd_modl'; did you mean 'd_model'\?"),
        (TASK.replace("patch:", "pach:"), r"line 8: model.tokenizers.image has no key 'pach'; did you mean 'patch'\?"),
        (TASK.replace("ImageP", "ImgP"), r"line 7: there is no class 'ImgPatches'; did you mean 'ImagePatches'\?"),
        (TASK.replace("Classify", "Trainer"), r"line 3: there is no class 'Trainer'; there are .*Classify"),
        (TASK.replace("Classify", "anyformer.tokens.TokenSet"), "line 3: anyformer.tokens.TokenSet is no Task"),
        (TASK.replace("Classify", "[3]"), r"line 3: class_path must be the name of a class, got \[3\]"),
        (
            TASK.replace("init_args:\n    tok", "arguments:\n    tok"),
            "'arguments' stands beside class_path; .* under init_args",
        ),
        (
            "model: {class_path: os.system}",
            "line 1: os.system is refused: .* --unsafe_imports os opens os if you trust it",
        ),
        (
            "data:\n  train: {class_path: subprocess.Popen, init_args: {args: ls}}",
            "line 2: subprocess.Popen is refused",
        ),
        ("data:\n  train: {class_path: Table, init_args: {path: x, cols: {}}}", "line 2: data.train has no key 'cols'"),
        (
            "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args: {monitr: val/loss}",
            r"line 4: trainer.callbacks.0 has no key 'monitr'; did you mean 'monitor'\?",
        ),
        ("trainer:\n  callbacks:\n    - class_path: os.system", "x.yaml line 3: os.system is refused"),
    ],
)
def test_a_wrong_key_or_class_is_named_with_its_place_and_the_nearest_right_one(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_text(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_right_passes(tmp_path: Path) -> None:
    check_text(TASK, tmp_path)
    check_text(TASK.replace("{patch: 4}", "{mean: [0.5], std: [0.5], size: [8, 8]}"), tmp_path)
    check_text(
        "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val/loss}}], logger: null}", tmp_path
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", r"x.yaml line 4: the key 'b' stands here twice, first in line 2; rename it$"),
        ("a: 1\nb: [{c: 1, d: {e: 1, e: 2}}]", r"x.yaml line 2: the key 'e' stands here twice, first in line 2"),
        ("a: [1", "x.yaml line 1 is not YAML: expected ',' or ']'"),
        ("- a", "x.yaml must hold keys and values, as in `trainer:`, got list"),
        ("", "x.yaml must hold keys and values, as in `trainer:`, got NoneType"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml line 1 is not YAML: could not determine a constructor"),
        (b"\xff\xfe\xfa", "config .*x.yaml cannot be read"),
    ],
)
def test_a_file_that_is_no_config_is_said_to_be_none(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_yaml(path)
    with pytest.raises(InputError, match=r"there is no config .*absent.yaml"):
        read_yaml(tmp_path / "absent.yaml")


TOKENIZERS = {"image": {"class_path": "ImagePatches", "init_args": {"size": [8, 8], "channels": 1}}}


def test_a_task_is_made_from_plain_values() -> None:
    task = instantiate({"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS}})
    again = instantiate(task.config())
    assert type(again) is Classify
    assert again.config() == task.config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_path": "os.system", "init_args": {"command": "touch bad"}}, "os.system is refused"),
        ({"class_path": "Classify", "init_args": {"tokenizers": {}}}, "tokenizers must name at least one field"),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": 7}}},
            "n_heads must divide d_model unless d_head is given, got d_model=7",
        ),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": "wide"}}},
            "model.transformer.d_model must be int, got wide",
        ),
        ({"class_path": "Classify", "init_args": {}}, "model: .*required.*tokenizers"),
    ],
)
def test_a_task_that_cannot_be_made_is_told_so_in_one_line(
    config: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        instantiate(config)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "anyformer.parsing.classes.importlib.import_module",
        "anyformer.errors.os.system",
        "builtins.exec",
    ],
)
def test_a_callable_of_a_config_cannot_name_code_of_others(name: str) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[Callback])
    value = [{"class_path": "LambdaCallback", "init_args": {"on_fit_start": name}}]
    with (
        allowed_imports(),
        pytest.raises(Exception, match=r"is not allowed"),
    ):
        parser.parse_object({"callbacks": value})


def test_a_package_is_opened_by_name_and_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opened.py").write_text(
        "from anyformer.tasks.classify import Classify\nclass Mine(Classify):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"class_path": "opened.Mine", "init_args": {"tokenizers": TOKENIZERS}}
    with pytest.raises(InputError, match=r"opened.Mine is refused: .* --unsafe_imports opened opens opened"):
        instantiate(config)
    assert type(instantiate(config, ["opened"])).__name__ == "Mine"
    with pytest.raises(InputError, match=r"opened.Mine is refused"):
        instantiate(config)
    with pytest.raises(InputError, match=r"--unsafe_imports absent cannot be imported: No module named 'absent'"):
        instantiate(config, ["absent"])


def test_a_module_in_the_current_folder_is_found_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_me.py").write_text("HERE = 1\n")
    (tmp_path / "colorsys.py").write_text("raise ImportError('in place of the one of Python')\n")
    with allowed_imports(["beside_me", "colorsys"]):
        assert sys.modules["beside_me"].HERE == 1
    assert sys.path[-1] == str(tmp_path)


def test_the_many_lines_of_jsonargparse_become_one() -> None:
    assert condense("one line") == "one line"
    nested = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'toy.Task'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'toy.Cls':
        Parser key "transformer.d_model":
          Expected a <class 'int'>. Got value: wide
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'Cls'}"""
    assert condense(nested) == "model.transformer.d_model must be int, got wide"


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("D_Modle", ["d_model", "depth"]) == "; did you mean 'd_model'?"
    assert suggest("xyz", ["b", "a"]) == "; there are a, b"
    assert suggest("xyz", []) == ""
    assert suggest("xyz", ["b", "a"], "see --help") == "; see --help"


def test_arguments_are_known_unless_any_is_taken() -> None:
    @dataclass
    class Plain:
        a: int
        b: str = ""

    class Open:
        def __init__(self, **rest: int) -> None: ...

    assert list(parameters(Plain)) == ["a", "b"]
    assert parameters(Open) is None
    assert find_class("Classify", [Task]) is Classify
    assert find_class("anyformer.tasks.classify.classify.Classify", [Task]) is Classify
    assert find_class("Absent", [Task]) is find_class("anyformer.absent.Class", [Task]) is None


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 2]}, "c": None}, None),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b.1 was 2 and is now 3"),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, "a had 3 entries and has now 2"),
        ({"a": 1}, {"b": 1}, "a is gone"),
        ({}, {"b": 1}, "b is new"),
        ({"a": [1]}, {"a": None}, "a was [1] and is now None"),
    ],
)
def test_the_first_difference_of_two_configs_is_named(before: dict, now: dict, found: str | None) -> None:
    assert difference(before, now) == found


def test_what_a_config_holds_is_plain_and_what_it_chooses_has_a_name() -> None:
    field = Text(kind="characters")
    made = plain({"sizes": TransformerConfig(d_model=8), "text": field, "files": (Path("a"), 1.5, None)})
    assert made["files"] == ["a", 1.5, None]
    assert made["sizes"]["d_model"] == 8 and "class_path" not in made["sizes"]
    assert made["text"]["class_path"] == "Text"
    assert made["text"]["init_args"]["kind"] == "characters"
