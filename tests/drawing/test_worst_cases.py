"""The page of the worst cases, read as a browser reads it."""

from __future__ import annotations

import base64
import io
import wave
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from anyformer.drawing.worst_cases import Case, Sound, write_worst
from tests.helpers.drawn import smooth

VOID = ("img", "meta", "br")


class Page(HTMLParser):
    """The elements of a page: each must be closed by its own end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.classes: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.sources += [found["src"]] if "src" in found else []
        self.classes += [found["class"]] if "class" in found else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())


def content(source: str, kind: str) -> io.BytesIO:
    head, _, data = source.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data, validate=True))


def test_the_worst_come_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "worst.html"
    cases = [Case({"text": f"source {i}"}, "a b", "a c", score, f"row {i}") for i, score in enumerate((0.5, 2, 0.25))]
    write_worst(path, cases, n=2, score="word error rate")
    texts = Page(path).texts
    heads = [text for text in texts if "row" in text]
    assert heads == ["1. word error rate 2 · row 1", "2. word error rate 0.5 · row 0"]
    assert "source 1" in texts and "source 2" not in texts
    assert [file.name for file in tmp_path.iterdir()] == ["worst.html"]


def test_words_are_marked_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "worst.html"
    write_worst(path, [Case({}, "the cat sat down", "a cat sat right", 0.5), Case({}, "", "oh", 0.2)])
    page = Page(path)
    assert [name for name in page.classes if name.startswith("pair ")] == [
        *("pair names", "pair substituted", "pair equal", "pair equal", "pair substituted"),
        *("pair names", "pair inserted"),
    ]
    start = page.texts.index("1. word error rate 0.5")
    assert page.texts[start + 1 :][:10] == [
        *("reference", "hypothesis"),
        *("the", "a", "cat", "cat", "sat", "sat", "down", "right"),
    ]


def test_a_text_cannot_become_a_tag(tmp_path: Path) -> None:
    path, bad = tmp_path / "worst.html", "</span><script>alert('\"&amp;\"')</script>"
    write_worst(path, [Case({bad: bad}, bad, f"{bad} <b>", 1.0, bad)], title=bad, score=bad)
    page = Page(path)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert page.texts.count(bad) == 6, "title twice, field, source, reference and hypothesis"
    assert "<b>" in page.texts


def test_a_sound_can_be_listened_to(tmp_path: Path) -> None:
    path = tmp_path / "worst.html"
    samples = np.array([0, 0.5, -1, 2, np.nan], dtype=np.float32)
    long = Sound(np.zeros(31 * 100, np.float32), 100)
    write_worst(path, [Case({"audio": Sound(samples, 8000)}, "a", "b", 1.0), Case({"audio": long}, "a", "b", 0.5)])
    page = Page(path)
    with wave.open(content(page.sources[0], "audio/wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 5)
        read = np.frombuffer(file.readframes(5), "<i2") / 32767
    assert np.allclose(read, [0, 0.5, -1, 1, 0], atol=1e-4)
    with wave.open(content(page.sources[1], "audio/wav")) as file:
        assert file.getnframes() == 3000
    assert "the first 30 of 31 s" in page.texts


def test_a_picture_can_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "worst.html"
    write_worst(path, [Case({"image": smooth(20, 30), "large": smooth(64, 2048)}, "a", "b", 1.0)])
    small, large = (Image.open(content(source, "image/png")) for source in Page(path).sources)
    assert np.array_equal(np.asarray(small), smooth(20, 30))
    assert large.size == (512, 16)


def test_a_page_without_cases_says_so(tmp_path: Path) -> None:
    path = tmp_path / "worst.html"
    write_worst(path, [])
    assert any("The 0 of 0 cases" in text for text in Page(path).texts)
