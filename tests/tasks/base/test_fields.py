"""What a config says of the fields: names that are none, and how inputs of several fields are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.parsing.instantiate import instantiate
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer
from tests.helpers.witnesses import Ids, Vectors


@dataclass(frozen=True)
class Eye(Tokenizer):
    """A record of a picture and a vector."""

    size: int = 3

    @property
    def parts(self) -> dict[str, Tokenizer]:
        return {"image": Vectors(self.size), "vector": Ids()}

    def encode(self, record: Any, random: object = None) -> Any:
        return {name: part.encode(record[name]) for name, part in self.parts.items() if name in record}

    def empty(self) -> Any:
        raise NotImplementedError

    def lift(self, d_model: int) -> Any:
        raise NotImplementedError


INPUTS = {"left": Eye(), "right": Eye(), "text": Ids()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dropout": {"txt": 0.5}},
            r"fields\.dropout: there is no field 'txt'; there are left, left\.image, left\.vector, right, .*text; "
            r"did you mean 'text'\?$",
        ),
        ({"dropout": {"answer": 0.5}}, r"fields\.dropout: there is no field 'answer'"),
        ({"dropout": {"text": 1.0}}, r"fields\.dropout\.text must be at least 0 and below 1, got 1\.0"),
        ({"dropout": {"text": -0.1}}, r"fields\.dropout\.text must be at least 0 and below 1, got -0\.1"),
        ({"dropout": {"right": 0.1}}, r"fields\.dropout: 'right\.image' cannot be left out, because read: first needs"),
        ({"sees": {"text": ["left", "claas"]}}, r"fields\.sees: there is no field 'claas'; .* mean 'class'\?"),
        ({"sees": {"texts": ["left"]}}, r"fields\.sees: there is no field 'texts'; .* did you mean 'text'\?"),
        ({"share": {"right": "lift"}}, r"fields\.share: there is no field 'lift'; .* did you mean 'left'\?"),
        ({"share": {"right": "left", "left": "text"}}, r"fields\.share: 'left' is lifted by another's weights itself"),
        ({"share": {"class": "left"}}, r"fields\.share: there is no field 'class'; there are left, right, text$"),
        ({"share": {"text": "answer"}}, r"fields\.share: there is no field 'answer'; there are left, right, text$"),
        ({"share": {"left": "left"}}, r"fields\.share: 'left' is lifted by another's weights itself"),
        ({"without": [["left"], ["lft"]]}, r"fields\.without: there is no field 'lft'"),
        ({"without": [[]]}, r"fields\.without: each must name some inputs, once each, got \[\]"),
        ({"without": [["text", "text"]]}, r"fields\.without: each must name some inputs, once each"),
        (
            {"without": [["left", "text", "right.image", "right.vector"]]},
            r"fields\.without: left, text, right\.image, right\.vector leaves no input; name fewer",
        ),
        ({"without": [["left", "text"], ["text", "left"]]}, r"fields\.without names the same inputs twice"),
        (
            {"links": [{"column": "edges", "from": "left", "to": "text"}]},
            r"fields\.links\.0\.from: there is no field 'left'",
        ),
        ({"without": [["right"]]}, r"fields\.without: 'right\.image' cannot be left out, because read: first needs it"),
    ],
    ids=str,
)
def test_what_names_no_field_or_leaves_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FieldsConfig(**options).check(INPUTS, ["class", "answer"], {"right.image": "read: first"})


def test_what_is_right_passes() -> None:
    FieldsConfig(
        {"left": 0.5, "right.vector": 0.9},
        {"answer": ["answer", "left.image"], "class": ["text"]},
        {"right": "left", "answer": "text"},
        [["left"], ["left", "text"], ["right.vector"]],
        "kind",
        [{"column": "edges", "from": "left.image", "to": "text", "edges_only": True}],
    ).check(INPUTS, ["class", "answer"], lifted=["answer"])


def test_an_input_of_several_fields_means_all_of_them_and_one_alone_goes_before() -> None:
    config = FieldsConfig(sees={"left.image": ["left.image"], "left": ["left", "text"], "text": ["right.vector"]})
    assert config.visibility(INPUTS) == {
        "left.image": ["left.image"],
        "left.vector": ["left.image", "left.vector", "text"],
        "text": ["right.vector"],
    }
    assert FieldsConfig().visibility(INPUTS) is None
    owners = FieldsConfig(share={"right": "left"}).owners(INPUTS)
    assert owners == {"right.image": "left.image", "right.vector": "left.vector"}
    with pytest.raises(InputError, match=r"fields\.share: 'right' and 'left' must have the same tokenizer"):
        FieldsConfig(share={"right": "left"}).owners(INPUTS | {"right": Eye(4)})


def test_a_config_says_it_in_plain_values() -> None:
    patches = {"class_path": "ImagePatches", "init_args": {"size": [8, 8], "channels": 1}}
    plain = {
        "dropout": {"left": 0.5},
        "sees": {"right": ["right", "class"]},
        "share": {"right": "left"},
        "without": [["left"]],
        "by": "kind",
        "links": [{"column": "edges", "from": "left", "to": "right", "kinds": ["on"], "directed": False}],
    }
    arguments = {"tokenizers": {"left": patches, "right": patches}, "fields": plain}
    task = instantiate({"class_path": "Classify", "init_args": arguments})
    assert task.fields == FieldsConfig(**plain)
    assert task.config()["init_args"]["fields"] == plain
    assert instantiate(task.config()).fields == task.fields
    with pytest.raises(InputError, match=r"model\.fields has no key 'drop'; did you mean 'dropout'"):
        instantiate({"class_path": "Classify", "init_args": {**arguments, "fields": {"drop": {}}}})


def test_fields_that_share_a_lift_learn_of_the_data_as_one() -> None:
    texts = {name: Text("characters", max_len=4) for name in ("left", "right", "other")}
    task = Classify(texts, fields=FieldsConfig(share={"right": "left"}))
    task.fit_tokenizers(Words())
    left, right, other = (task.tokenizers[name].vocabulary for name in texts)
    assert left == right != other
    assert [task.tokenizers["left"].decode(ids) for ids in task.tokenizers["right"].encode_batch(["abc"])] == ["abc"]
    task.build()
    lifts = [name for name, _ in task.named_parameters() if ".lifts." in name]
    assert lifts == [f"model.embeddings.lifts.{name}.table" for name in ("left", "other", "class/")]


@dataclass(frozen=True)
class Words(Source):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"left": "ab", "right": "bc", "other": "xyz", "label": i}

    def name(self, i: int) -> str:
        return f"words row {i}"


def test_a_task_refuses_what_its_fields_cannot_be() -> None:
    tokenizers = {"left": Ids(), "right": Ids()}
    with pytest.raises(InputError, match=r"fields\.sees: there is no field 'clas'; .* did you mean 'class'\?"):
        Classify(tokenizers, fields=FieldsConfig(sees={"clas": ["left"]}))
    with pytest.raises(InputError, match=r"fields\.dropout: 'left' cannot be left out, because read: first needs it"):
        Classify(tokenizers, read="first", fields=FieldsConfig({"left": 0.1}))
    Classify(tokenizers, read="first", fields=FieldsConfig({"right": 0.1}))
