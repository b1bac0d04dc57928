"""What a config leaves out comes from the model that it starts from, and nothing of its training or data."""

from __future__ import annotations

from typing import Any

import pytest

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.chat import ChatModel
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.start.completion import complete
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text

SIZES = TransformerConfig(d_model=12, depth=2, n_heads=3, dropout=0.1)


def speech() -> SequenceToSequence:
    text = Text("characters", max_len=30, vocabulary="abc")
    return SequenceToSequence(
        {"audio": Audio(pad_to_seconds=2.0), "text": text}, SIZES, encoder=SIZES, label_smoothing=0.1
    )


def completed(source: Any, class_path: str | None = None, **init_args: Any) -> dict[str, Any]:
    found = complete({"class_path": class_path, "init_args": init_args}, source, "runs/a")
    return found.model["init_args"] | {"": found}


def test_all_of_the_model_is_taken_and_nothing_of_its_training() -> None:
    args = completed(speech(), init_from="runs/a")
    found = args.pop("")
    assert found.model["class_path"] == "SequenceToSequence" and found.changed == ()
    theirs = speech().config()["init_args"]
    assert args == {
        key: value for key, value in theirs.items() if key not in ("optimizer", "lora", "label_smoothing", "choose")
    } | {"init_from": "runs/a"}
    assert {"transformer", "encoder", "tokenizers.audio", "tokenizers.text"} <= set(found.taken)


def test_times_are_unlearned_unless_the_config_names_them() -> None:
    source = speech()
    source.decoding = DecodeConfig(time_id=9, alignment_heads=((0, 1),), n_beams=2)
    found = completed(source)["decoding"]
    assert (found["time_id"], found["n_beams"]) == (None, 2) and list(found["alignment_heads"]) == [[0, 1]]
    assert completed(source, decoding={"time_id": 9})["decoding"]["time_id"] == 9


def test_a_part_that_is_given_stays_and_the_rest_of_it_is_taken() -> None:
    given = {"audio": {"init_args": {"pad_to_seconds": None}}}
    args = completed(speech(), tokenizers=given, transformer={"dropout": 0.3}, optimizer={"lr": 0.1})
    assert args["transformer"]["dropout"] == 0.3 and args["transformer"]["d_model"] == 12
    assert args["tokenizers"]["audio"]["init_args"]["pad_to_seconds"] is None
    assert args["tokenizers"]["audio"]["class_path"] == "Audio" and "text" in args["tokenizers"]
    assert args["optimizer"] == {"lr": 0.1} and "transformer.depth" in args[""].taken
    assert args[""].changed == ("tokenizers.audio.pad_to_seconds from 2.0 to null",)


def test_fields_are_left_out_by_null_and_new_ones_need_a_class() -> None:
    new = {"class_path": "ImagePatches"}
    assert list(completed(speech(), tokenizers={"audio": None, "image": new})["tokenizers"]) == ["text", "image"]
    with pytest.raises(InputError, match=r"tokenizers.audoi has no class_path, .* runs/a .*; did you mean 'audio'"):
        completed(speech(), tokenizers={"audoi": {"init_args": {"pad_to_seconds": None}}})
    # The target of another name stands in the place of theirs.
    args = completed(speech(), target="words", tokenizers={"words": new, "audio": {}})
    assert list(args["tokenizers"]) == ["audio", "words"] and args[""].added == ()
    assert completed(speech(), tokenizers={"text": {"init_args": {"kind": "bytes"}}})[""].added == ("audio",)


def test_no_field_is_added_where_each_that_is_given_has_a_class() -> None:
    args = completed(speech(), tokenizers={"text": {"class_path": "Text", "init_args": {"kind": "characters"}}})
    assert list(args["tokenizers"]) == ["text"] and args[""].added == ()


def test_a_class_takes_the_context_and_the_head_of_one_that_it_is_made_from() -> None:
    plain = LanguageModel({"messages": Text("bytes")}, SIZES, output=HeadConfig(tied=False), context=64, example="So")
    chat = completed(plain, "ChatModel")
    assert chat["context"] == 64 and chat["output"]["tied"] is False and "example" not in chat
    back = completed(ChatModel({"messages": Text("bytes")}, transformer=SIZES, context=32), "LanguageModel")
    assert back["context"] == 32 and list(back["tokenizers"]) == ["messages"]
    # Others have a head that may be another's.
    assert "output" not in completed(plain, "SequenceToSequence")


def test_another_vocabulary_takes_over_nothing_of_the_old_one() -> None:
    text = completed(speech(), tokenizers={"text": {"class_path": "Text", "init_args": {"kind": "bytes"}}})
    init_args = text["tokenizers"]["text"]["init_args"]
    assert init_args["kind"] == "bytes" and init_args["max_len"] == 30 and "vocabulary" not in init_args


def test_another_task_takes_the_inputs_and_the_trunk_and_the_data_decides_classes() -> None:
    patches, optimizer = {"image": ImagePatches(mean=(0.3,))}, OptimizerConfig()
    image = Classify(patches, SIZES, optimizer=optimizer, classes=["a", "b"], read="mean")
    assert not {"classes", "optimizer"} & completed(image).keys()
    args = completed(image, "Predict", targets={"x": {"class_path": "Regression"}})
    assert args["read"] == "mean" and args["tokenizers"]["image"]["init_args"]["mean"] == [0.3]
    assert "target" not in args and args[""].model["class_path"] == Predict.__name__
    assert list(completed(speech(), "Classify")["tokenizers"]) == ["audio"]


def test_what_the_data_of_the_source_decided_is_not_taken() -> None:
    image = Classify(
        {"image": ImagePatches()}, SIZES, classes=["a", "b"], calibrate=True, temperature=2.5, lora=LoraConfig(rank=2)
    )
    assert not {"classes", "calibrate", "temperature", "lora"} & completed(image, init_from="runs/a").keys()
    kind = Category(("a", "b"), (0.3, 1.7), calibrate=True, temperature=3.0)
    price = Regression(scaling="log", mean=(5.0,), std=(2.0,))
    several = Predict({"image": ImagePatches()}, {"kind": kind, "price": price}, SIZES)
    theirs = completed(several)["targets"]
    assert theirs["kind"] == {"class_path": "Category", "init_args": {"weight": 1.0}}
    assert (
        theirs["price"]["init_args"]["scaling"] == "log" and not {"mean", "std"} & theirs["price"]["init_args"].keys()
    )
    # Targets that are given are all that there are, as they are given.
    given = {"kind": {"class_path": "Category"}}
    args = completed(several, targets=given)
    assert args["targets"] == given and not any("targets" in each for each in args[""].taken)
