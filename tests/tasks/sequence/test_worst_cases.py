"""The worst cases: by their errors, with the inputs of those that are shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from anyformer.drawing.worst_cases import Sound
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.sequence.worst_cases import N_WORST, WorstCases
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.drawn import noise
from tests.helpers.turned import RATE, audio, sound

FIELDS = {"audio": audio(), "text": Text("bytes"), "image": ImagePatches(size=(8, 8), patch=4)}


def test_the_worst_come_first_and_theirs_are_the_only_inputs_kept() -> None:
    cases = WorstCases(FIELDS)
    for i in range(3 * N_WORST):
        wrong = i % 7
        cases.add(
            [{"text": f"source {i}"}], ["a b c d e f g"], [" ".join(["x"] * wrong + ["a b c d e f g"[2 * wrong :]])]
        )
    assert [case.score for case in cases.all] == sorted((i % 7 / 7 for i in range(3 * N_WORST)), reverse=True)
    assert [bool(case.source) for case in cases.all] == [True] * N_WORST + [False] * 2 * N_WORST
    cases.add([{}, {}], ["", "one"], ["two words", "one"], ["a row", "another"])
    assert (cases.all[0].score, cases.all[0].name, cases.all[-1].score) == (2.0, "a row", 0.0)


def test_the_first_record_is_shown_again_and_again_whatever_its_errors() -> None:
    cases = WorstCases({})
    assert cases.generated() == []
    cases.add([{}, {}], ["a b", "c d"], ["a b", "e f"], ["row 3", "row 0"])
    cases.add([{}], ["g"], ["h"], ["row 1"])
    assert cases.all[0].name == "row 0"
    assert cases.generated("en") == [Generated("a b", "a b", "en", "row 3")]


def test_inputs_are_shown_as_what_they_are(tmp_path: Path) -> None:
    cases = WorstCases(FIELDS)
    cases.draw(tmp_path)
    assert not list(tmp_path.iterdir()), "nothing has been seen"
    source = {"audio": (sound("ab"), RATE), "text": "<two> words", "image": noise(8, 8, 3)}
    shown = cases._shown(source)
    assert isinstance(shown["audio"], Sound) and np.array_equal(shown["audio"].samples, sound("ab"))
    assert shown["text"] == "<two> words" and shown["image"].shape == (8, 8, 3)
    cases.add([source, {"audio": "gone.wav"}], ["a b", "c"], ["a", "d"], ["row 1", "row 2"])
    for stage, title in (
        ("", "Worst cases"),
        ("val", "Worst cases of validation"),
        ("test", "Worst cases of the test"),
    ):
        cases.stage = stage
        cases.draw(tmp_path)
        page = (tmp_path / "worst.html").read_text()
        assert f"<h1>{title}</h1>" in page
    assert "data:audio/wav" in page and "&lt;two&gt; words" in page and "data:image/png" in page
    assert re.search("gone.wav: no such file", page) and page.index("row 2") < page.index("row 1")
