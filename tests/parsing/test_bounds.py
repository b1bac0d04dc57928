"""A YAML that is too large, too deep, or made of aliases is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from anyformer.errors import InputError
from anyformer.parsing.bounds import MAX_DEPTH, compose
from anyformer.parsing.check import read_yaml
from anyformer.runs.experiment import Unmade, parse

PAIRS = zip("abcdefghi", "bcdefghij", strict=True)
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in PAIRS
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(2 * MAX_DEPTH))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, r"line 1: it is nested more than 100 deep"),
        ("".join(" " * i + "a:\n" for i in range(1000)), r"line \d+: it is nested more than 100 deep"),
        (CHAIN, r"line \d+: it is nested more than 100 deep"),
        (LAUGHS, r"line 6: it comes to more than 200,000 values, its aliases written out"),
        ("a: &a [*a]", r"line 1: it holds itself, by an alias"),
        ("model:\n  &a {class_path: Classify, init_args: {b: [*a]}}", r"line 2: it holds itself, by an alias"),
        ("a: [" + "1," * 5 * 2**20 + "1]", r"has 10,485,766 bytes, and at most 2,097,152 are read"),
        ("a: \0", r"is not YAML: unacceptable character"),
    ],
)
def test_a_config_that_is_made_to_fill_time_or_memory_is_refused_at_once(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(InputError, match=rf"x.yaml:? {message}") as caught:
        read_yaml(tmp_path / "x.yaml")
    assert time.process_time() - began < 2 and "\n" not in str(caught.value)
    # The same in a file that a value names, and in an option.
    (tmp_path / "main.yaml").write_text(f"model: {tmp_path}/x.yaml\ndata: {{train: Digits}}\n")
    with pytest.raises(InputError):
        parse("fit", [str(tmp_path / "main.yaml")], [], [], kind=Unmade)


def test_a_pipe_or_device_that_a_value_or_an_option_names_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("model: {class_path: Classify}\ndata: {train: /dev/zero}\n")
    with pytest.raises(InputError, match=r"main.yaml line 2: data.train: /dev/zero is a device and no file"):
        parse("fit", [str(tmp_path / "main.yaml")], [], [], kind=Unmade)
    (tmp_path / "main.yaml").write_text("model: {class_path: Classify}\ndata: {train: Digits}\n")
    for option in ("--data.test=/dev/zero", "--model.transformer=/dev/zero", "--trainer.logger=/dev/zero"):
        with pytest.raises(InputError, match=rf"^{option}: that is a device and no file"):
            parse("fit", [str(tmp_path / "main.yaml")], [option], [], kind=Unmade)


def test_what_anyone_writes_is_read(tmp_path: Path) -> None:
    text = "base: &base {patch: 4}\none: *base\ntwo: {<<: *base, size: [8, 8]}\n"
    assert yaml.safe_dump(yaml.safe_load(text)) and len(compose(text).value) == 3
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml")[0]["two"] == {"patch": 4, "size": [8, 8]}
