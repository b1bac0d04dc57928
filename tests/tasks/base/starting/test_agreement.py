"""An option that says how outputs come from weights is the source's, or refused with both values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anyformer.errors import InputError
from anyformer.model.config import ExpertsConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.tasks.base.starting.agreement import check_agreement, check_places
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.chat import ChatModel
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text

SIZES = TransformerConfig(d_model=12, depth=2, n_heads=3, rotary=RotaryConfig(("row",)))
IMAGE = ImagePatches(size=(8, 8), patch=4, channels=1)


def image(transformer: TransformerConfig = SIZES, tokenizer: ImagePatches = IMAGE, **options: Any) -> Classify:
    return Classify({"image": tokenizer}, transformer, EmbeddingConfig(**options))


def speech(**options: Any) -> SequenceToSequence:
    audio = Audio(mel=MelConfig(n_mels=options.pop("n_mels", 16)))
    return SequenceToSequence(
        {"audio": audio, "text": Text("bytes", max_len=9)}, TransformerConfig(12, 2, 3), **options
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            image(replace(SIZES, d_model=24)),
            image(),
            "transformer.d_model is 24, and init_from runs/a has 12",
        ),
        (image(replace(SIZES, depth=1)), image(), "transformer.depth is 1, .* has 2; give 2"),
        (image(replace(SIZES, d_ff=24)), image(), "transformer.d_ff is 24, and init_from runs/a has 48"),
        (image(replace(SIZES, activation="relu")), image(), "transformer.activation is relu, .* has gelu"),
        (
            image(replace(SIZES, rotary=RotaryConfig(("row",), 5.0))),
            image(),
            "transformer.rotary.base is 5.0, .* 10",
        ),
        (image(replace(SIZES, rotary=None)), image(), "transformer.rotary is null"),
        (
            image(replace(SIZES, experts=ExpertsConfig())),
            image(),
            "transformer.experts is {'n': 8.*has null; give null",
        ),
        (
            image(replace(SIZES, experts=ExpertsConfig(active=1))),
            image(replace(SIZES, experts=ExpertsConfig())),
            "transformer.experts.active is 1, .* has 2; give 2",
        ),
        (image(norm=True), image(), "embedding.norm is true, and init_from runs/a has false"),
        (image(tokenizer=replace(IMAGE, channels=3)), image(), "tokenizers.image.channels is 3, .* has 1"),
        (image(tokenizer=replace(IMAGE, patch=2)), image(), "tokenizers.image.patch is 2, .* has 4"),
        (speech(encoder=TransformerConfig(12, 1, 3)), speech(), "encoder.depth is 1, .* has 2"),
        (speech(output=HeadConfig(tied=False)), speech(), "output.tied is false, .* has true"),
        (image(types=False), image(), "embedding.types is false, .* has true"),
        (
            LanguageModel({"text": Text("bytes")}, SIZES, output=HeadConfig(scaled=True)),
            ChatModel({"text": Text("bytes")}, transformer=SIZES),
            "output.scaled is true, .* has false",
        ),
        (speech(n_mels=20), speech(), r"tokenizers.audio.mel is .*'n_mels': 20"),
    ],
)
def test_what_disagrees_is_named_with_both_values(ours: Any, theirs: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^model.{message}"):
        check_agreement(ours, theirs, "runs/a")


def placed(**tokenizers: Any) -> Classify:
    task = Classify(tokenizers, TransformerConfig(d_model=24, depth=1, n_heads=3), classes=["a", "b"])
    task.build()
    return task


def test_what_a_model_adapts_stays_placed_as_it_was() -> None:
    text, short = Text("bytes"), Text("bytes", max_len=9)
    sound, heard = (Audio(mel=MelConfig(n_mels=16), max_seconds=seconds) for seconds in (None, 1.0))
    for ours, theirs in (
        (placed(text=text, audio=heard), placed(text=text)),
        (placed(text=short, image=IMAGE), placed(text=short)),
        (placed(image=IMAGE, text=text), placed(image=IMAGE)),
    ):
        check_places(ours, theirs, "runs/a")
    message = r"^embedding.positions.0 are on row, column, and those of init_from runs/a, .* on word; name new fields"
    with pytest.raises(InputError, match=message):
        check_places(placed(image=IMAGE, text=short), placed(text=short), "runs/a")
    message = r"^rotary positions are on word, time, and those of .*, which lora adapts, on word; say how long new"
    with pytest.raises(InputError, match=message):
        check_places(placed(text=text, audio=sound), placed(text=text), "runs/a")


def test_what_training_alone_goes_by_may_be_otherwise() -> None:
    other = replace(SIZES, dropout=0.1, drop_path=0.1, d_ff=48, d_head=4, final_norm=True)
    check_agreement(image(other, replace(IMAGE, size=(16, 8), mean=(0.1,)), dropout=0.2), image(), "runs/a")
    ours, theirs = ExpertsConfig(balance=0.5, d_ff=48, normalize=True), ExpertsConfig()
    check_agreement(image(replace(SIZES, experts=ours)), image(replace(SIZES, experts=theirs)), "runs/a")
