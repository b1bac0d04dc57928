"""Options of the commands, parsed from what would stand on a command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from anyformer.cli.arguments import described, read_options
from anyformer.errors import InputError
from anyformer.front.parsers import Options, add_options


@dataclass(frozen=True)
class Cooking:
    """How a dish is made."""

    minutes: float = 5.0
    """On the fire, up to 90 % of them covered."""
    salted: bool = True
    """Whether salt is added."""
    heat: Literal["low", "high"] = "low"
    """Of the fire."""
    herbs: tuple[str, ...] = ()
    """In their sequence."""
    lambda_: int | None = None
    """A word that Python keeps."""


def parsed(*args: str, of: Cooking | type[Cooking] = Cooking) -> Cooking:
    parser = Options("cook")
    add_options(parser, *described(of))
    return read_options(parser.parse_args(args), of)


def test_a_dataclass_comes_back_as_its_options_say() -> None:
    assert parsed() == Cooking()
    given = parsed("--minutes", "2.5", "--no-salted", "--heat", "high", "--herbs", "dill", "mint", "--lambda", "3")
    assert given == Cooking(2.5, False, "high", ("dill", "mint"), 3)


def test_the_values_of_one_are_the_defaults() -> None:
    assert parsed("--heat", "high", of=Cooking(minutes=9.0)) == Cooking(9.0, heat="high")


def test_the_help_is_that_of_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "up to 90 % of them covered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--minuts", "3"], "there is no option --minuts; did you mean 'minutes'"),
        (["--minutes", "long"], r"argument --minutes: invalid float value: 'long'; see anyformer cook --help"),
        (["--heat", "medium"], "argument --heat: invalid choice: 'medium'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(args: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parsed(*args)
    assert "\n" not in str(raised.value)
