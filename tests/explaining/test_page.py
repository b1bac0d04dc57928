"""The page: whole in one file, with its pictures and numbers beside it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.explaining.explanation import explain_sample
from anyformer.explaining.page import Page, add_belief, add_fields, add_maps, write_page
from anyformer.model.config import TransformerConfig
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.explained import FIELDS, OfClass, model_of, sample
from tests.helpers.turned import Turned, translator
from tests.helpers.witnesses import redraw

RECORD = {
    "photo": np.arange(64, dtype=np.uint8).reshape(8, 8),
    "title": "a <b> & c",
    "facts": {"age": 2.0, "sex": "f"},
}


class Addresses(HTMLParser):
    """All that a browser would ask for, and the tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(0)
    tokenizers = {
        "photo": ImagePatches(size=(8, 8), patch=4, channels=1),
        "title": Text(kind="characters").fit(["a<b>&c "]),
        "facts": Row().fit([{"age": 1.0, "sex": "f"}, {"age": 3.0, "sex": "m"}]),
    }
    task = Predict(tokenizers, {"kind": Category(("<cat>", "dog"))}, TransformerConfig(16, 2, 2), n_registers=1)
    task.build()
    redraw(task)
    return task.eval().explain(RECORD, answer="<cat>")


@pytest.fixture(scope="module")
def page(explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "new" / "folder"
    return write_page(explanation, folder, explanation.grid(2, 1), passes={"deletion": "67 forward"})


def test_a_page_is_whole_in_one_file_with_its_pictures_and_numbers_beside_it(explanation, page: Path) -> None:
    html = page.read_text()
    parsed = Addresses(html)
    assert parsed.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parsed.found)
    assert not re.search(r"url\(|@import|<script|https?:", html)
    assert len(html) < 600_000
    files = {path.name for path in page.parent.iterdir()}
    pictures = {base64.b64decode(address.partition(",")[2]) for address in parsed.found}
    assert pictures == {path.read_bytes() for path in page.parent.glob("*.png")}
    assert {"relevance_photo.png", "rollout_photo.png", "fields.png", "columns_facts.png", "deletion.png"} < files
    assert {"flow.png", "grid.png", "explanation.json", "explanation.html"} < files
    numbers = json.loads((page.parent / "explanation.json").read_text())
    assert numbers == explanation.as_dict()


def test_it_says_what_a_person_is_to_know(explanation, page: Path) -> None:
    html = page.read_text()
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S)
    assert "Why &lt;cat&gt;?" in text, "what is a name is no HTML"
    for title in ("How far to believe it", "Which field mattered", "Where it looked", "Who talks to whom"):
        assert title in text
    for name in ("relevance", "rollout"):
        assert explanation.deletion.verdict(name, "nats") in text
    assert re.search(r"own tokens, apart: class [\d.e-]+, learned 1 [\d.e-]+", text)
    assert "all 8 combinations of them were asked" in text
    # Words are coloured one by one, as they stand.
    words = re.findall(r'<span style="background: rgba\(240, 120, 20, ([\d.]+)\)"[^>]*>(.*?)</span>', html)
    title = [(float(alpha), word) for alpha, word in words[: len(RECORD["title"])]]
    assert "".join(word for _, word in title).replace("\u2423", " ") == "a &lt;b&gt; &amp; c"
    values = explanation.whole("relevance")["title"]
    assert int(np.argmax([alpha for alpha, _ in title])) == int(values.argmax())


def part(add, explanation) -> Page:
    page = Page()
    add(page, explanation)
    return page


def test_a_map_that_is_no_better_than_random_is_marked(explanation) -> None:
    found = explanation.deletion
    same = {name: tuple(found.random.mean(0).tolist()) for name in found.by_map}
    html = part(add_belief, replace(explanation, deletion=replace(found, by_map=same))).document("t")
    assert html.count("belief weak") == 2
    assert html.count("no better than random, so do not go by this map") == 2


def test_a_page_of_few_tokens_says_that_its_maps_are_not_tested() -> None:
    found = explain_sample(OfClass(model_of()), {"class": FIELDS["class"].encode()}, FIELDS, "seven")
    assert "too few tokens" in part(add_belief, found).document("t")
    assert "no field that could be left out" in part(add_fields, found).document("t")


def test_texts_are_shown_token_by_token() -> None:
    task = translator()
    task.fit_tokenizers(Turned())
    task.build()
    redraw(task)
    found = task.eval().explain(task.read_record(Turned(), 1), answer=Turned()[1][task.target])
    page = part(add_maps, found)
    html = page.document("t")
    assert f"Token by token of {task.target}" in html
    assert set(page.pictures) == {"alignment.png"}
    assert html.count("of what was written before") == len(found.parts) - 1


def test_a_folder_that_cannot_be_written_is_one_line(explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be written"):
        write_page(explanation, tmp_path / "file")


def test_samples_without_words_are_drawn_as_bars() -> None:
    own = {name: tokens for name, tokens in sample().items() if name in ("left", "class")}
    found = explain_sample(OfClass(model_of()), own, FIELDS, "seven")
    assert set(part(add_maps, found).pictures) == {"relevance_left.png", "rollout_left.png"}
