"""The attention pattern of CONTRIBUTING.md does what the page says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

import pytest
import torch

import anyformer.model.transformer
from anyformer.drawing.visibility import sight
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import visibility
from anyformer.model.attention.cache import Cache
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import Ids, count, redraw

TEXT = Ids(11, ("word",), max_len=9)
FIELDS = {"text": TEXT}


def block(mark: str) -> str:
    """The code of the page under a mark."""
    page = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    pattern = rf"^<!-- in tests: {re.escape(mark)} -->\n```python\n(.*?)^```$"
    (code,) = re.findall(pattern, page, re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Anyformer]:
    """A model of one block, made after the page's changes."""
    option = f"class StridedConfig(TransformerConfig):\n{indent(block('of TransformerConfig'), '    ')}"
    exec(option, config := {"TransformerConfig": TransformerConfig})
    strided = dataclass(frozen=True)(config["StridedConfig"])
    exec(block("of visibility.py"), changed := dict(vars(visibility)))
    monkeypatch.setattr(anyformer.model.transformer, "choose_pattern", changed["choose_pattern"])

    def build(stride: int | None, depth: int = 1) -> Anyformer:
        model = Anyformer(FIELDS, strided(d_model=12, n_heads=3, depth=depth, stride=stride))
        redraw(model)
        return model.eval()

    return build


@pytest.mark.parametrize("stride", [2, 3, None])
@torch.no_grad()
def test_a_stride_hides_what_stands_between(build: Callable, stride: int | None) -> None:
    model, tokens = build(stride), count(TEXT.encode([1, 2, 3, 4, 5, 6]), 0)
    before = model(collate([{"text": tokens}], FIELDS))[0]
    changed = replace(tokens, content=torch.tensor([7, 2, 3, 4, 5, 6]))
    moved = (model(collate([{"text": changed}], FIELDS))[0] - before).abs().amax(1) > 1e-6
    assert moved.tolist() == [place % (stride or 1) == 0 for place in range(6)]


@torch.no_grad()
def test_a_cache_keeps_to_the_stride_and_the_drawing_shows_it(build: Callable) -> None:
    model, tokens, cache = build(2, depth=2), count(TEXT.encode([1, 2, 3, 4]), 0), Cache()
    batch = collate([{"text": tokens}], FIELDS)
    parts = [TokenSet(tokens.content[[i]], tokens.position[[i]], tokens.order[[i]]) for i in range(4)]
    ours = torch.cat([model(collate([{"text": part}], FIELDS), cache=cache) for part in parts], 1)
    torch.testing.assert_close(ours, model(batch))
    assert len(model.transformer.patterns) == 1, "both layers share a mask"
    assert sight(model, batch)[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]
