"""A field read by the encoder of a trained model: its vectors are those of the model, whatever stands beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.pretrained import EncoderConfig, EncoderLift, EncoderPool, Pretrained
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

TEXTS = ["to be", "or not to be, that is the question", "whether"]
SIZES = TransformerConfig(d_model=8, depth=1, n_heads=2)
WORDS = EmbeddingConfig(positions=[PositionConfig(("word",), "joint", (40,))])


def of_text(pool: EncoderPool = "tokens", **more) -> Pretrained:
    text = Text("bytes", max_len=40)
    return Pretrained("runs/x", pool=pool).opened(EncoderConfig("text", {"text": text}, SIZES, WORDS, **more))


def of_field(tokenizer: Tokenizer, *positions: PositionConfig, pool: EncoderPool = "tokens") -> Pretrained:
    """With a class token, as a ViT has."""
    inside = {"field": tokenizer, "class": LearnedTokens(1)}
    embedding = EmbeddingConfig(positions=list(positions))
    return Pretrained("runs/x", pool=pool).opened(EncoderConfig("field", inside, SIZES, embedding, False, "class"))


def encoded(lift: EncoderLift, tokenizer: Pretrained, texts: list[str]) -> list[Tensor]:
    """The vectors of texts in one batch, before the linear map, of each text its own."""
    sets = [tokenizer.encode(text) for text in texts]
    batch = collate([{"text": tokens} for tokens in sets], {"text": tokenizer})
    return list(lift.encoded(batch.fields["text"].inside).split(list(map(len, sets))))


def test_the_tokens_stand_where_those_of_the_record_do() -> None:
    tokenizer = of_text()
    inner = tokenizer.inner.encode(TEXTS[1])
    tokens = tokenizer.encode(TEXTS[1])
    assert tokenizer.axes == ("word",) and tokenizer.sizes == {"word": 40}
    assert torch.equal(tokens.position, inner.position) and len(tokens) == tokenizer.count(TEXTS[1]) == len(inner)
    assert tokenizer.decode(tokens) == TEXTS[1] and tokenizer.pieces(tokens) == tokenizer.inner.pieces(inner)


@pytest.mark.parametrize("pool", ["class", "mean", "last"])
def test_a_pooled_record_is_one_token_without_a_position(pool: EncoderPool) -> None:
    tokenizer, whole = of_text(pool, class_field="text"), of_text(class_field="text")
    tokens = tokenizer.encode(TEXTS[1])
    assert tokens.position.shape == (1, 0) and tokenizer.axes == () and tokenizer.count(TEXTS[1]) == 1
    lift = tokenizer.lift(4).eval()
    every = whole.lift(4).eval()
    every.load_state_dict(lift.state_dict())
    for one, all_ in zip(encoded(lift, tokenizer, TEXTS), encoded(every, whole, TEXTS), strict=True):
        expected = {"class": all_[0], "mean": all_.mean(0), "last": all_[-1]}[pool]
        torch.testing.assert_close(one[0], expected)


def test_a_record_of_no_tokens_gives_none_and_reads_nothing() -> None:
    for pool in ("tokens", "mean"):
        tokens = of_text(pool).encode("")
        assert not len(tokens) and tokens.inside is None and of_text(pool).count("") == 0


def test_no_record_knows_of_its_neighbours() -> None:
    tokenizer = of_text()
    lift = tokenizer.lift(4).double().eval()
    for together, text in zip(encoded(lift, tokenizer, TEXTS), TEXTS, strict=True):
        (alone,) = encoded(lift, tokenizer, [text])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_a_causal_encoder_sees_none_behind() -> None:
    ends = "to be", "to go"
    for causal in (True, False):
        tokenizer = of_text(causal=causal)
        first, second = encoded(tokenizer.lift(4).eval(), tokenizer, list(ends))
        same = torch.equal(first[:3], second[:3])
        assert same == causal


def test_dropout_acts_in_training_alone() -> None:
    config = replace(of_text().found, transformer=replace(SIZES, dropout=0.5))
    tokenizer = of_text().opened(config)
    lift = tokenizer.lift(4)
    drawn = [encoded(lift, tokenizer, TEXTS)[0] for _ in range(2)]
    assert not torch.equal(*drawn)
    lift.eval()
    still = [encoded(lift, tokenizer, TEXTS)[0] for _ in range(2)]
    assert torch.equal(*still)


def test_neither_its_relations_nor_its_files_are_lost() -> None:
    molecules = of_field(Molecule("graph"))
    tokens = molecules.encode("CCO")
    assert tokens.relation is None and tokens.inside["field"].relation is not None
    assert not molecules.n_relations
    pictures = of_field(ImagePatches((8, 8), patch=4))
    assert pictures.reads_files and ".png" in pictures.endings
    assert of_field(Row()).takes_columns and not pictures.takes_columns


def test_what_is_one_source_is_inherited_and_another_is_not() -> None:
    known, unknown = of_text(), Pretrained("runs/x")
    assert unknown.inherit(known) == known
    assert Pretrained("runs/y").inherit(known).encoder is None
    assert Pretrained("runs/x", field="title").inherit(known).encoder is None
    with pytest.raises(InputError, match=r"tokenizers\.text: not the encoder .* trained with, which is that of 'text'"):
        known.agree(of_field(ImagePatches((8, 8), patch=4)), "tokenizers.text")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Pretrained(""), "source must name a run"),
        (lambda: Pretrained("runs/x").encode("a"), "the model of runs/x has not been opened"),
        (lambda: Pretrained("runs/x").fit([]), "train by anyformer.fit"),
        (lambda: of_text("class"), "pool: runs/x has no class token; take mean, last or tokens"),
        (lambda: of_text().encode(3), "a text must be a string, got int"),
        (lambda: Pretrained("runs/x", pool="max"), "Pretrained.pool must be"),
    ],
)
def test_what_cannot_be_is_refused(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()
