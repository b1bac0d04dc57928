"""Which classes a config may name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from anyformer.choices import Checked
from anyformer.errors import InputError
from anyformer.parsing.check import check
from anyformer.parsing.classes import allowed_imports, find_class, parameters, subclasses
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify


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


def test_no_two_classes_that_a_config_may_name_bear_one_short_name() -> None:
    with allowed_imports():
        ours = {cls for cls in subclasses(Checked) if cls.__module__.startswith("anyformer.")}
    names = sorted(cls.__name__ for cls in ours)
    assert {"Classify", "Text", "Category", "Table", "Vector"} <= set(names)
    assert len(set(names)) == len(names), [name for name in set(names) if names.count(name) > 1]


def test_a_short_name_of_two_classes_is_refused_with_both_paths(tmp_path: Path) -> None:
    class Base: ...

    one = type("Twin", (Base,), {"__module__": "here"})
    two = type("Twin", (Base,), {"__module__": "there"})
    message = "Twin is the name of here.Twin and of there.Twin; give the whole path of one"
    with pytest.raises(InputError, match=message):
        find_class("Twin", [Base])
    with pytest.raises(InputError, match=f"x.yaml line 2: {message}"):
        check({"a": {"class_path": "Twin"}}, {"a": Base}, "x.yaml", {"a.class_path": 2})
    assert one is not two
