"""Fields of one name are one field in all tasks of a mixture: one tokenizer, which learns from the records of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.mixture.shared_fields import check_tokenizers, learn_shared, named_fields
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_mixture import CONTEXT, SAYINGS, small_mixed, small_tasks


class Rows(Source):
    """Records that are given."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]

    def name(self, i: int) -> str:
        return f"row {i}"


LETTERS = Text("characters", max_len=CONTEXT)


def classify(tokenizers: dict, **options: Any) -> Classify:
    return Classify(tokenizers, classes=["a", "b"], **options)


def known(text: str = "abcdefg") -> Text:
    return LETTERS.fit([text])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ImagePatches(size=(8, 8), patch=2, channels=1), r"'image', which is one field: patch is \[?4.* and \[?2"),
        (Text("characters"), r"'image', which is one field: ImagePatches and Text; make them the same, or give"),
    ],
)
def test_tasks_that_disagree_about_a_shared_tokenizer_are_refused(other: Any, message: str) -> None:
    patches = ImagePatches(size=(8, 8), patch=4, channels=1)
    one, two = classify({"image": patches}), classify({"image": other})
    with pytest.raises(InputError, match=f"tasks 'x' and 'y' disagree about the tokenizer of {message}"):
        check_tokenizers({"x": one, "y": two})
    check_tokenizers({"x": one, "y": classify({"picture": other})})
    with pytest.raises(InputError, match="tasks 'x' and 'y' disagree"):
        Mixture({"x": one, "y": two})


def test_a_shared_vocabulary_is_of_the_records_of_all(tmp_path: Path) -> None:
    data, tasks = small_mixed(tmp_path), small_tasks()
    mixture = Mixture(tasks)
    data.attach(mixture)
    data.setup("fit")
    learn_shared(tasks, data.sources["train"])
    mood, poet = tasks["mood"].tokenizers["text"], tasks["poet"].tokenizers["text"]
    assert mood == poet and mood.vocabulary is not None
    # Letters of the verses, which no saying has, and of the sayings.
    every = set("".join(SAYINGS)) | set("roses are red, violets are blue; quick is the fox and the dog is too. ")
    assert set(mood.vocabulary) == every


def test_what_one_task_gives_one_vocabulary_has_one_everywhere() -> None:
    words = Text("characters")
    there = SequenceToSequence({"en": words, "de": words}, target="de", shared_vocabulary=True)
    back = SequenceToSequence({"de": words, "en": words}, target="en", shared_vocabulary=True)
    alone = classify({"en": words})
    tasks = {"there": there, "back": back, "alone": alone}
    rows = Rows({"en": "ab", "de": "bc"}), Rows({"en": "cd", "de": "de"}), Rows({"en": "xy", "label": "a"})
    learn_shared(tasks, dict(zip(tasks, rows, strict=True)))
    found = [tokenizer for task in tasks.values() for tokenizer in task.tokenizers.values()]
    assert len(found) == 5 and len(set(found)) == 1
    assert found[0].vocabulary == "abcdexy"


def test_a_vocabulary_that_is_not_shared_is_left_alone() -> None:
    tasks = {"x": classify({"one": Text("characters")}), "y": classify({"two": Text("characters")})}
    learn_shared(tasks, {"x": Rows({"one": "a"}), "y": Rows({"two": "b"})})
    assert all(each.vocabulary is None for task in tasks.values() for each in task.tokenizers.values())


def test_fields_that_a_task_finds_are_its_own() -> None:
    from anyformer.tasks.decide.decide import Decide
    from anyformer.tokenizers.episode.continuous import Vector

    assert named_fields(classify({"a": known()})).keys() == {"a"}
    tasks = {"one": Decide({"state": Vector()}), "two": Decide({"state": Vector(normalize=False)})}
    assert not named_fields(tasks["one"])
    check_tokenizers(tasks)


def test_a_text_that_one_task_writes_has_the_vocabulary_that_another_reads() -> None:
    tasks = {
        "write": Predict({"a": known()}, {"caption": TextTarget(LETTERS)}),
        "read": classify({"caption": LETTERS}),
    }
    rows = Rows({"a": "a", "caption": "xy"}, {"a": "b", "caption": None}), Rows({"caption": "yz", "label": "a"})
    learn_shared(tasks, dict(zip(tasks, rows, strict=True)))
    found = tasks["write"].targets["caption"].text
    assert found == tasks["read"].tokenizers["caption"] and found.vocabulary == "xyz"
    tasks["write"] = Predict({"a": known()}, {"caption": TextTarget(Text("bytes"))})
    with pytest.raises(InputError, match="tasks 'write' and 'read' disagree about the tokenizer of 'caption'"):
        check_tokenizers(tasks)
