"""Which parameters the tasks of a mixture have in common; what is a task's own stays its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from anyformer.errors import InputError
from anyformer.model.config import RelativeConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.task import Task
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.mixture.shared_weights import Common
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.batch import Architecture
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.image.patches import ImagePatches
from tests.helpers.small_mixture import TRANSFORMER
from tests.tasks.mixture.test_shared_fields import classify, known


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
        "model.embeddings.lifts.class/.table": [0, 1, 2],
        "model.embeddings.types.class/": [0, 1, 2],
        "heads.class_head.output.weight": [0, 1, 2],
    }
    assert {path: owners(mixture, path) for path in expected} == expected
    names = {name for name, _ in mixture.named_parameters()}
    assert {"model.transformer.blocks.0.attention.q.weight", "model.embeddings.lifts.image.linear.weight"} <= names
    assert {"model.embeddings.positions.row_column.table", "tasks.two.heads.class_head.output.weight"} <= names
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
    for path in (
        "heads.class_head.output.weight",
        "model.embeddings.lifts.class/.table",
        "model.embeddings.types.class/",
    ):
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


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"kind": Category(["a", "b"])}, {"kind": Category(["b", "a"])}, r"do not mean the same by targets\.kind"),
        (
            {"size": Regression(1, mean=[0.0], std=[1.0])},
            {"size": Regression(1, mean=[0.0], std=[2.0])},
            r"do not mean the same by targets\.size",
        ),
        ({"kind": Category(["a", "b"])}, {"sort": Category(["a", "b"])}, "have other targets, sort and kind, and"),
    ],
)
def test_heads_of_targets_that_mean_other_things_cannot_be_one(ours: dict, theirs: dict, message: str) -> None:
    def mixture(theirs: dict) -> Mixture:
        tasks = {"x": Predict({"a": known()}, ours), "y": Predict({"b": known()}, theirs)}
        return Mixture(tasks, TRANSFORMER, share_heads={"y": "x"})

    with pytest.raises(InputError, match=f"share_heads: y and x {message}"):
        mixture(theirs).build()
    same = mixture(dict(ours))
    same.build()
    (name, head), *_ = same.tasks["x"].heads.named_parameters()
    assert dict(same.tasks["y"].heads.named_parameters())[name] is head


def test_heads_without_a_weight_of_their_own_are_not_shared() -> None:
    # They are tied to the tables of two fields.
    def write(field: str) -> SequenceToSequence:
        return SequenceToSequence({"image": ImagePatches(size=(8, 8), patch=4), field: known()}, target=field)

    mixture = Mixture({"x": write("a"), "y": write("b")}, TRANSFORMER, share_heads={"y": "x"})
    with pytest.raises(InputError, match="share_heads: y and x have no weights of heads that could be one"):
        mixture.build()


def test_a_text_that_one_task_writes_is_the_field_that_another_reads() -> None:
    patches = ImagePatches(size=(8, 8), patch=4, channels=1)
    mixture = built(
        write=Predict({"image": patches}, {"caption": TextTarget(known())}), read=classify({"caption": known()})
    )
    assert owners(mixture, "model.embeddings.lifts.caption.table") == [0, 0]
    assert owners(mixture, "model.embeddings.types.caption") == [0, 0]
    head = mixture.tasks["write"].head("caption").output
    assert head.weight is mixture.tasks["read"].model.embeddings.lifts["caption"].table
