"""Options that override a config, as they stand on the command line."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.parsing.options import options_in


def test_a_value_stands_behind_its_option_or_in_it() -> None:
    args = ["--a.b=1", "--c", "-2", "--d", "--e+=x", "--f", "g=h"]
    assert list(options_in(args)) == [("a.b", "1"), ("c", "-2"), ("d", ""), ("e", "x"), ("f", "g=h")]


def test_what_stands_alone_is_refused() -> None:
    with pytest.raises(InputError, match=r"^'b.yaml' stands alone"):
        list(options_in(["--a", "1", "b.yaml"]))
