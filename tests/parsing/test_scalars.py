"""YAML as it is written."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser, get_loader

from anyformer.parsing.scalars import AsWritten, as_written, dump_yaml, load_yaml

ODD = ["01", "0x1F", "1_000", "+1", "12:30", "0b1", "on", "NO", "Yes", "off", "2020-01-01", "1.2.3"]


class Sizes:
    def __init__(
        self,
        names: list[str | int] | None = None,
        columns: dict[str, str | list[str]] | None = None,
        name: str = "",
        n: int = 0,
        rate: float = 0.0,
        is_on: bool = False,
        each: dict[int, int] | None = None,
    ) -> None: ...


def parsed(*args: str, config: str | None = None) -> dict:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sizes, "sizes")
    with as_written():
        config = parser.parse_args(args) if config is None else parser.parse_string(config)
        assert parser.parse_string(parser.dump(config)) == config
    return {name: value for name, value in vars(config.sizes).items() if value}


@pytest.mark.parametrize("odd", ODD)
def test_what_should_be_a_text_is_as_it_is_written(odd: str) -> None:
    for made in (
        parsed(config=f"sizes: {{names: [{odd}, a], columns: {{{odd}: [{odd}]}}, name: {odd}}}"),
        parsed(f"--sizes.names=[{odd},a]", f"--sizes.columns={{{odd}: [{odd}]}}", f"--sizes.name={odd}"),
    ):
        assert made == {"names": [odd, "a"], "columns": {odd: [odd]}, "name": odd}


def test_where_a_number_or_a_boolean_is_asked_for_it_is_one() -> None:
    config = "sizes: {n: 1_000, rate: 1e-3, is_on: yes, names: [3, -4], each: {2: 0x1F}}"
    assert parsed(config=config) == {"n": 1000, "rate": 1e-3, "is_on": True, "names": [3, -4], "each": {2: 31}}
    assert parsed("--sizes.n=1_000", "--sizes.is_on=on") == {"n": 1000, "is_on": True}
    assert load_yaml("on") is True and load_yaml("01") == 1


def test_it_is_told_what_is_other_than_written_and_keys_are_texts() -> None:
    content = load_yaml("{a: &a {1: on, null: 'on'}, b: {<<: *a, 2.0: 7}}")
    assert content == {"a": {"1": "on", "null": "on"}, "b": {"1": "on", "null": "on", "2.0": 7}}
    assert isinstance(content["a"]["1"], AsWritten) and not isinstance(content["a"]["null"], AsWritten)


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
    | st.sampled_from([*ODD, "1e3", "1.5", "true", "null", "~", ".nan", "<<", "1e+5", ".5"])
)
def test_every_text_comes_back_from_what_is_dumped(text: str) -> None:
    dumped = dump_yaml({"a": [text]})
    assert load_yaml(dumped) == yaml.safe_load(dumped) == {"a": [text]}


def test_jsonargparse_reads_as_before_behind_it() -> None:
    before = get_loader("yaml")
    with pytest.raises(RuntimeError), as_written():
        raise RuntimeError
    assert get_loader("yaml") is before and before("[01]") == [1]
