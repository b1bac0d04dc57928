"""Options of the commands, parsed from what would stand on a command line."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.front.parsers import PARSERS, Options, add_fields, baseline_parser, predict_parser, require_first


def test_what_stands_first_may_not_be_an_option() -> None:
    require_first("config", "plan CONFIG", ["a.yaml", "--json"])
    with pytest.raises(InputError, match=r"the config stands first, got --json: anyformer plan CONFIG --json \.\.\."):
        require_first("config", "plan CONFIG", ["--json", "a.yaml"])


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_of_a_command_says_what_it_is_for(command: str) -> None:
    for action in PARSERS[command]()._actions:
        assert action.help, action.option_strings


def test_a_default_of_another_room_is_its_own() -> None:
    assert baseline_parser().parse_args(["a.yaml"]).records == 3000


@pytest.mark.parametrize("inputs", [[], ["image"]])
def test_fields_may_be_left_out_as_data_may_be_given(inputs: list[str]) -> None:
    parser = predict_parser()
    add_fields(parser, inputs)
    assert parser.parse_args(["runs/x"]).fields == []
    assert ("image: the record" in parser.format_help()) is bool(inputs)


def test_a_misspelt_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^there is no option --unsafe_import; did you mean 'unsafe_imports'\?$"):
        Options("cook").parse_args(["--unsafe_import", "x"])
