"""Where positions enter attention by rotation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.rotary import rotate
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.packing import collate
from anyformer.tokens import Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, Vectors, by_sample, count, draw_ids, redraw

TEXT, PICTURE = Ids(11, ("word",), max_len=7), Vectors(3, ("row", "column"), (2, 5))
FIELDS = {"text": TEXT, "picture": PICTURE}
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10)


def attend(rotary: tuple[str, ...], fields: dict[str, Tokenizer], sample: dict[str, TokenSet]) -> dict[str, Tensor]:
    config = replace(SIZES, d_head=8, rotary=RotaryConfig(rotary))
    torch.manual_seed(1)
    model = Anyformer(fields, config, EmbeddingConfig(positions=[]))
    redraw(model)
    batch = collate([sample], fields)
    return by_sample(batch, model.eval()(batch), [sample])[0]


def move(tokens: TokenSet, by: list[float]) -> TokenSet:
    return replace(tokens, position=tokens.position + torch.tensor(by, dtype=tokens.position.dtype))


def test_rotary_knows_only_differences_of_position() -> None:
    sample = {"text": count(TEXT.encode(draw_ids(6)))}
    here = attend(("word",), FIELDS, sample)["text"]
    there = attend(("word",), FIELDS, {"text": move(sample["text"], [100])})["text"]
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    spread = replace(sample["text"], position=2 * sample["text"].position)
    assert (here - attend(("word",), FIELDS, {"text": spread})["text"]).abs().max() > 0.1


def test_rotary_axes_turn_apart() -> None:
    sample = {"picture": PICTURE.encode(torch.randn(2, 3, 3))}
    here = attend(("row", "column"), FIELDS, sample)["picture"]
    there = attend(("row", "column"), FIELDS, {"picture": move(sample["picture"], [7, 40])})["picture"]
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    turned = replace(sample["picture"], position=sample["picture"].position.flip(1))
    assert (here - attend(("row", "column"), FIELDS, {"picture": turned})["picture"]).abs().max() > 0.01


def test_rotary_on_two_axes_is_that_of_qwen2_vl() -> None:
    qwen = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")
    q, k = torch.randn(2, 6, 3, 8).unbind()
    place = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    angles = torch.outer(torch.arange(3.0), 10_000.0 ** (-torch.arange(0, 4, 2) / 4))[place].flatten(1)
    angles = torch.cat([angles, angles], dim=1)
    theirs = qwen.apply_rotary_pos_emb_vision(q, k, angles.cos(), angles.sin())
    config = replace(SIZES, d_head=8, rotary=RotaryConfig(("row", "column")))
    embeddings = Embeddings({"picture": PICTURE}, config, EmbeddingConfig())
    rotation = embeddings.rotation(collate([{"picture": PICTURE.encode(torch.randn(2, 3, 3))}], {"picture": PICTURE}))
    for ours, other in zip((q, k), theirs, strict=True):
        torch.testing.assert_close(rotate(ours.transpose(0, 1)[None], rotation)[0].transpose(0, 1), other)


def test_a_field_without_a_rotary_axis_stands_at_0_on_it() -> None:
    axisless, at_0 = Ids(11), Ids(11, ("word",))
    text = TEXT.encode(draw_ids(4))
    bag = axisless.encode([1, 2, 3])
    placed = replace(bag, position=torch.zeros(3, 1, dtype=torch.int64))
    ours = attend(("word",), {"bag": axisless, "text": TEXT}, {"bag": bag, "text": text})
    theirs = attend(("word",), {"bag": at_0, "text": TEXT}, {"bag": placed, "text": text})
    torch.testing.assert_close(ours, theirs)
    moved = attend(("word",), {"bag": at_0, "text": TEXT}, {"bag": move(placed, [2]), "text": text})
    assert (moved["text"] - theirs["text"]).abs().max() > 0.1


def test_rotary_takes_continuous_positions() -> None:
    tokens = TEXT.encode(draw_ids(4))
    halves = replace(tokens, position=tokens.position / 2)
    here, there = (attend(("word",), FIELDS, {"text": each})["text"] for each in (halves, move(halves, [0.25])))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    assert (here - attend(("word",), FIELDS, {"text": tokens})["text"]).abs().max() > 0.1


# Rotation


def test_rotation_turns_pairs_by_their_angle() -> None:
    x, angle = torch.tensor([3.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4), torch.tensor([torch.pi / 2, torch.pi])
    turned = rotate(x, (angle.cos(), angle.sin()))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 0.0, 3.0, -2.0]), atol=1e-6, rtol=0)
