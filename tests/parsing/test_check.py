"""Keys and classes of a config are checked, with their place, before it is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer

from anyformer.errors import InputError
from anyformer.parsing.check import check, read_yaml
from anyformer.parsing.classes import allowed_imports
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task

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
            "line 1: os.system is refused: .* unsafe_imports=\\['os'\\] opens os if you trust it",
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


@pytest.mark.parametrize("where", ["free: {a: no}", "free: {a: {b: [1, 01]}}", "any: {a: [no]}", "any: {a: {b: 1_0}}"])
def test_what_no_type_says_to_be_a_text_is_not_written_as_one_may_be(where: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    hints = {"free": dict, "any": dict[str, Any], "texts": dict[str, list[str] | str]}
    path.write_text(where)
    with pytest.raises(
        InputError, match=r"x\.yaml line 1: .*: write (no|01|1_0) in quotes where it is a text, else as"
    ):
        check(*read_yaml(path)[:1], hints, "x.yaml", {"free.a": 1, "free.a.b.1": 1, "any.a.0": 1, "any.a.b": 1})
    path.write_text("{texts: {a: [no], b: 01}, free: {a: 'no', b: [1, true]}, any: {a: no, b: 01}}")
    check(*read_yaml(path)[:1], hints, "x.yaml")
