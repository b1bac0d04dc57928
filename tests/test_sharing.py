"""Fields of one name are one field in all tasks of a mixture; what is a task's own stays its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_mixture import CONTEXT, SAYINGS, TRANSFORMER, small_mixed, small_tasks
from torch import nn

from anyformer.data import Source
from anyformer.embeddings import EmbeddingConfig
from anyformer.errors import InputError
from anyformer.tasks.classify import Classify
from anyformer.tasks.fields import FieldsConfig
from anyformer.tasks.mixture import Mixture
from anyformer.tasks.pairs import Architecture
from anyformer.tasks.sequence import SequenceToSequence
from anyformer.tasks.sharing import Common, check_tokenizers, learn_shared, named_fields
from anyformer.tasks.task import Task
from anyformer.tokenizers.image import ImagePatches
from anyformer.tokenizers.text import Text
from anyformer.transformer import RelativeConfig, TransformerConfig


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


def built(**tasks: Task) -> Mixture:
    """A mixture of tasks whose vocabularies are known."""
    mixture = Mixture(tasks, TRANSFORMER)
    mixture.build()
    return mixture


def owners(mixture: Mixture, path: str) -> list[int]:
    """Which parameter each task has under a name, as numbers."""
    found = [dict(task.named_parameters()).get(path) for task in mixture.tasks.values()]
    known = list({id(p): p for p in found if p is not None})
    return [-1 if p is None else known.index(id(p)) for p in found]


# Tokenizers


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


# Parameters


def known(text: str = "abcdefg") -> Text:
    return LETTERS.fit([text])


def test_the_transformer_is_everybodys_and_fields_belong_to_their_names() -> None:
    patches = ImagePatches(size=(8, 8), patch=4, channels=1)
    mixture = built(
        one=classify({"image": patches, "text": known()}),
        two=classify({"image": patches}),
        three=classify({"picture": patches, "text": known()}, n_registers=1),
    )
    expected = {
        "model.transformer.blocks.0.attention.q.weight": [0, 0, 0],
        "model.transformer.final_norm.weight": [0, 0, 0],
        "model.embeddings.lifts.image.linear.weight": [0, 0, -1],
        "model.embeddings.types.image": [0, 0, -1],
        "model.embeddings.lifts.picture.linear.weight": [-1, -1, 0],
        "model.embeddings.lifts.text.table": [0, -1, 0],
        # Of rows and columns: the same grid, but other fields.
        "model.embeddings.positions.0.table": [0, 0, 1],
        "model.embeddings.lifts.class.table": [0, 1, 2],
        "model.embeddings.types.class": [0, 1, 2],
        "head.2.weight": [0, 1, 2],
    }
    assert {path: owners(mixture, path) for path in expected} == expected
    names = {name for name, _ in mixture.named_parameters()}
    assert {"model.transformer.blocks.0.attention.q.weight", "model.embeddings.lifts.image.linear.weight"} <= names
    assert {"model.embeddings.positions.row_column.table", "tasks.two.head.2.weight"} <= names
    assert not any(name.startswith("tasks.") and ".transformer." in name for name in names)


def test_one_table_of_positions_for_a_field_wherever_it_stands() -> None:
    plain = TransformerConfig(d_model=16, depth=1, n_heads=2)
    tasks = {
        "one": classify({"a": known()}),
        "two": classify({"b": known()}),
        "both": classify({"a": known(), "b": known()}),
    }
    mixture = Mixture(tasks, plain)
    mixture.build()
    # What places a and b in the third task places a in the first and b in the second.
    assert owners(mixture, "model.embeddings.positions.0.table") == [0, 0, 0]


@pytest.mark.parametrize("shares", [True, False])
def test_encoders_are_shared_and_attention_across_is_of_those_that_have_it(shares: bool) -> None:
    def translate(architecture: Architecture) -> SequenceToSequence:
        fields = {"en": known(), "de": known()}
        return SequenceToSequence(fields, target="de", architecture=architecture, shared_vocabulary=shares)

    mixture = built(
        first=translate("encoder_decoder"),
        second=translate("encoder_decoder"),
        prefix=translate("decoder"),
        glad=classify({"en": known()}),
    )
    assert owners(mixture, "model.encoder.blocks.0.mlp.up.weight") == [0, 0, -1, -1]
    assert owners(mixture, "model.transformer.blocks.0.cross.q.weight") == [0, 0, -1, -1]
    assert owners(mixture, "model.transformer.blocks.0.mlp.up.weight") == [0, 0, 0, 0]
    assert owners(mixture, "model.embeddings.lifts.en.table") == [0, 0, 0, 0]
    # Tied to the table, wherever that comes from.
    assert mixture.tasks["second"].head.weight is mixture.tasks["prefix"].head.weight


def test_biases_by_distance_are_everybodys() -> None:
    stack = TransformerConfig(d_model=16, depth=1, n_heads=2, relative=RelativeConfig("t5", "word"))
    tasks = {"a": classify({"a": known()}), "b": classify({"picture": ImagePatches(size=(8, 8), patch=4)})}
    mixture = Mixture(tasks, stack)
    mixture.build()
    assert owners(mixture, "model.relative.table") == [0, 0]


def test_heads_are_shared_by_name_with_the_token_that_they_read() -> None:
    patches = ImagePatches(size=(8, 8), patch=4, channels=1)
    tasks = {"one": classify({"image": patches}), "two": classify({"text": known()}), "three": classify({"c": known()})}
    mixture = Mixture(tasks, TRANSFORMER, share_heads={"two": "one"})
    mixture.build()
    for path in ("head.2.weight", "model.embeddings.lifts.class.table", "model.embeddings.types.class"):
        assert owners(mixture, path) == [0, 0, 1]


def test_what_is_one_in_a_task_and_two_in_another_is_refused() -> None:
    tied = classify({"left": known(), "right": known()}, fields=FieldsConfig(share={"right": "left"}))
    with pytest.raises(InputError, match=r"tasks\.free keeps .*lifts\.left\.table and .*lifts\.right\.table apart"):
        built(tied=tied, free=classify({"left": known(), "right": known()}))
    tied = classify({"left": known(), "right": known()}, fields=FieldsConfig(share={"right": "left"}))
    mixture = built(tied=tied, right=classify({"right": known()}))
    one, other = (task.model.embeddings for task in mixture.tasks.values())
    assert one.lifts["left"].table is other.lifts["right"].table


def test_tables_of_positions_of_other_sizes_are_refused() -> None:
    longer = replace(known(), max_len=50)
    tasks = {"one": classify({"text": known()}), "two": classify({"text": known(), "long": longer})}
    mixture = Mixture(tasks, TransformerConfig(d_model=16, depth=1, n_heads=2), embedding=EmbeddingConfig())
    with pytest.raises(
        InputError, match=r"positions\.0\.table is \(50, 16\) in tasks\.two and \(12, 16\) in tasks\.one"
    ):
        mixture.build()


def test_names_of_what_is_shared() -> None:
    common, parameter = Common(), nn.Parameter(torch.zeros(2))
    common.put("transformer.blocks.0.weight", parameter)
    common.put("transformer.blocks.1.weight", nn.Parameter(torch.ones(2)))
    assert [name for name, _ in common.named_parameters()] == [f"transformer.blocks.{i}.weight" for i in (0, 1)]
    assert common.transformer.blocks.get_submodule("0").weight is parameter


def test_fields_that_a_task_finds_are_its_own() -> None:
    from anyformer.tasks.decide import Decide
    from anyformer.tokenizers.trajectory import Vector

    assert named_fields(classify({"a": known()})).keys() == {"a"}
    tasks = {"one": Decide({"state": Vector()}), "two": Decide({"state": Vector(normalize=False)})}
    assert not named_fields(tasks["one"])
    check_tokenizers(tasks)
