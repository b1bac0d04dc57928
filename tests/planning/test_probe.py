"""What is seen of a task before it is trained, of samples that can be counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anyformer.data.batch_plan import plan_batches
from anyformer.data.loader import Loader
from anyformer.data.samples import Samples
from anyformer.data.source import Source
from anyformer.model.config import ExpertsConfig, RotaryConfig, TransformerConfig
from anyformer.planning.probe import N_LOOKED, drawable, engines, look, sizes, tokens_of, trunk
from anyformer.planning.token_budget import count_budget
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text

SMALL = TransformerConfig(d_model=8, depth=2, n_heads=2, rotary=RotaryConfig(("word",)))


class Words(Source):
    """As many letters as their number, from 0, which is no text to learn from."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": "x" * i if i else 7, "label": "ab"[i % 2]}

    def name(self, i: int) -> str:
        return f"words {i}"


def built(**options: Any) -> Classify:
    task = Classify({"text": Text("bytes")}, SMALL, classes=["a", "b"], **options)
    task.build()
    return task


def loader(task: Classify, **options: Any) -> Loader:
    samples = Samples(Words(), task.chopper(True), True)
    given = {"batch_size": 2, "shuffle": False} | options
    return Loader(samples, plan_batches(40, **given))


def test_batches_are_looked_at_from_the_first_to_the_last() -> None:
    looked = look(loader(built()), patience=60)
    assert len(looked.batches) == N_LOOKED and looked.n == 2 * N_LOOKED
    assert looked.bad == ["words 0: field 'text': a text must be a string, got int"]
    budget = count_budget(looked.batches)
    # Of the first pair one is left, and the last is of 38 and 39 letters.
    assert budget.n_samples == 2 * N_LOOKED - 1 and budget.fields[0].most == 39


def test_a_look_ends_when_patience_does() -> None:
    assert len(look(loader(built()), patience=0).batches) == 1


def test_packed_rows_are_looked_at_as_they_are() -> None:
    lengths = [max(i, 1) + 1 for i in range(40)]
    looked = look(loader(built(), batch_size=None, max_tokens=80, lengths=lengths, pack=True), patience=60)
    assert count_budget(looked.batches).packed and len(looked.bad) <= 1


def test_samples_to_draw_come_from_all_over_the_epoch_with_words() -> None:
    task = built()
    found = list(drawable(task, loader(task), 3))
    assert len(found) == 3
    (sample, words), *_ = found
    assert words == "a · words 4" and set(sample) == {"text", "class"}
    numbers = [int(words.split()[-1]) for _, words in found]
    assert numbers == [4, 10, 16], "the first of each batch that is looked at, words 0 left out"
    assert [len(sample["text"]) for sample, _ in found] == numbers


def test_sizes_are_said_in_words() -> None:
    task = built()
    assert sizes(task) == {"label": "Category, 2 classes: a, b", "text": "Text, 258 ids, on word"}
    assert trunk(task) == {"transformer": "2 blocks, 8 wide, 2 heads"}
    budget = count_budget(look(loader(task), 60).batches)
    assert tokens_of(task, budget) == {"text": round(budget.fields[0].median), "class": 1}
    assert tokens_of(task, None) == {"text": 0, "class": 0}
    many = Predict({"image": ImagePatches((8, 8), 4, 1)}, {"kind": Category(classes=tuple("abc"))}, SMALL)
    assert sizes(many) == {"kind": "Category, 3 classes: a, b, c", "image": "ImagePatches, on row 2 x column 2"}
    both = Predict(
        {"image": ImagePatches((8, 8), 4, 1)}, {"image": Masked(0.5), "word": TextTarget(Text("bytes"))}, SMALL
    )
    assert sizes(both) == {
        "image": "ImagePatches, on row 2 x column 2, Masked",
        "word": "Text, 258 ids, on word, TextTarget",
    }


@pytest.mark.parametrize("n", [1, 20])
def test_many_classes_are_told_by_the_first(n: int) -> None:
    task = Classify({"text": Text("bytes")}, SMALL, classes=list(range(n)))
    told = sizes(task)["label"]
    assert told.startswith(f"Category, {n} classes: 0") and told.endswith("..." if n > 12 else "0")


def test_an_encoder_has_its_sizes_too() -> None:
    texts = {name: Text("bytes") for name in ("a", "b")}
    task = SequenceToSequence(texts, SMALL, target="b", encoder=replace(SMALL, depth=1, n_heads=1))
    task.build()
    assert trunk(task) == {"transformer": "2 blocks, 8 wide, 2 heads", "encoder": "1 block, 8 wide, 1 head"}


def test_experts_are_said_with_the_sizes() -> None:
    task = Classify({"text": Text("bytes")}, replace(SMALL, experts=ExpertsConfig(n=4, every=2)), classes=["a", "b"])
    task.build()
    assert trunk(task) == {"transformer": "2 blocks, 8 wide, 2 heads, 4 experts (2 active) in 1 block"}


def test_how_attention_takes_the_batches_is_told_by_layer() -> None:
    task = built()
    assert engines(task, look(loader(task), 60).examples) == "dense or plain", "where rows are padded, dense"
    local = replace(SMALL, patterns=({"window": {"word": 4}}, {}))
    task = Classify({"text": Text("bytes")}, local, classes=["a", "b"])
    task.build()
    long = [task.chopper(True)({"text": "x" * 1200, "label": "a"})]
    assert engines(task, [task.chopper(True).collate(long)]) == "blocks in layer 1, plain in layer 2"
    fewer = replace(SMALL, patterns=({"compress": 4}, {"linformer": 8, "length": 2000}))
    task = Classify({"text": Text("bytes")}, fewer, classes=["a", "b"])
    task.build()
    assert engines(task, [task.chopper(True).collate(long)]) == "compressed in layer 1, linformer in layer 2"
    texts = {name: Text("bytes") for name in ("a", "b")}
    translator = SequenceToSequence(texts, SMALL, target="b", encoder=replace(SMALL, depth=1))
    translator.build()
    pair = translator.chopper(True)({"a": "xx", "b": "yyy"})
    assert engines(translator, [translator.chopper(True).collate([pair])]) == "transformer plain; encoder plain"
    assert engines(task, []) == ""
