"""Tables and sines of positions against their papers and other implementations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.model.positions import JointPositions, PositionConfig, resize_grid
from anyformer.packing import collate
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import Ids

SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10)


def test_a_joint_table_has_a_row_for_every_place_of_the_grid() -> None:
    joint = JointPositions((2, 3, 5), 4)
    grid = joint.table.view(2, 3, 5, 4)
    position = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5))
    assert torch.equal(joint(position), grid.reshape(30, 4))
    assert torch.equal(joint(torch.tensor([[1, 2, 3]])), grid[1, 2, 3][None])


@pytest.mark.parametrize("new", [(7, 4), (2, 3), (3, 10), (3, 5)], ids=str)
def test_a_resized_joint_table_is_that_of_timm(new: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm.layers")
    table = torch.randn(3 * 5, 4)
    theirs = timm.resample_abs_pos_embed(table[None], list(new), [3, 5], num_prefix_tokens=0)[0]
    torch.testing.assert_close(resize_grid(table, (3, 5), new), theirs)
    if new == (7, 4):
        assert (resize_grid(table.view(3, 5, 4).transpose(0, 1).reshape(15, 4), (5, 3), new) - theirs).abs().max() > 0.1


# Sines


def sines(kind: str, positions: Tensor, axes: tuple[str, ...] = ("word",), d_model: int = 12) -> Tensor:
    config = EmbeddingConfig(types=False, positions=[PositionConfig(axes, "sinusoidal", sines=kind)])
    tokenizer = Ids(3, axes)
    embeddings = Embeddings({"text": tokenizer}, replace(SIZES, d_model=d_model), config)
    torch.nn.init.zeros_(embeddings.lifts["text"].table)
    tokens = TokenSet(torch.zeros(len(positions), dtype=torch.int64), positions)
    batch = collate([{"text": tokens}], {"text": tokenizer})
    return batch.by_field(embeddings(batch))["text"]


def test_interleaved_sines_are_those_of_the_paper() -> None:
    paper = torch.empty(9, 12)
    for pos in range(9):
        for i in range(6):
            paper[pos, 2 * i] = torch.sin(torch.tensor(pos / 10_000 ** (2 * i / 12)))
            paper[pos, 2 * i + 1] = torch.cos(torch.tensor(pos / 10_000 ** (2 * i / 12)))
    torch.testing.assert_close(sines("interleaved", torch.arange(9)[:, None]), paper)
    for other in ("halves", "whisper"):
        assert (sines(other, torch.arange(9)[:, None]) - paper).abs().max() > 0.1


def test_sines_in_halves_are_those_of_marian() -> None:
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    table = marian.MarianSinusoidalPositionalEmbedding(9, 12)
    torch.testing.assert_close(sines("halves", torch.arange(9)[:, None]), table.create_weight().detach())


def test_sines_of_whisper_are_those_of_whisper() -> None:
    whisper = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    table = whisper.sinusoids(9, 12)
    torch.testing.assert_close(sines("whisper", torch.arange(9)[:, None]), table)
    assert (sines("halves", torch.arange(9)[:, None]) - table).abs().max() > 0.01


def test_sines_divide_d_model_among_the_axes_and_may_be_continuous() -> None:
    place = torch.tensor([[0.5, 3.0], [2.0, -1.25]])
    both = sines("halves", place, ("row", "time"))
    torch.testing.assert_close(both[:, :6], sines("halves", place[:, :1], d_model=6))
    torch.testing.assert_close(both[:, 6:], sines("halves", place[:, 1:], d_model=6))
    with pytest.raises(
        InputError, match="sinusoidal positions on 2 axes need a d_model that is a multiple of 4, got 6"
    ):
        sines("halves", place, ("row", "time"), d_model=6)


def test_sines_with_a_size_are_a_table_that_another_may_replace() -> None:
    fields = {"text": Ids(3, ("word",))}
    config = PositionConfig(("word",), "sinusoidal", sizes=(9,), sines="halves")
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(types=False, positions=[config]))
    assert not any("positions" in name for name, _ in embeddings.named_parameters()), "they are not learned"
    table = embeddings.positions[0]
    place = torch.arange(9)[:, None]
    assert torch.equal(table(place), sines("halves", place))
    embeddings.load_state_dict(embeddings.state_dict() | {"positions.0.table": table.table.half().float()})
    assert torch.equal(table(place), sines("halves", place).half().float())
    with pytest.raises(InputError, match=r"field 'text' reaches word 9, but the learned positions hold 9"):
        embeddings(collate([{"text": fields["text"].encode([0] * 10)}], fields))


def test_a_position_config_fits_together() -> None:
    with pytest.raises(InputError, match=r"positions\.axes must name at least one axis, got none"):
        PositionConfig(())
    with pytest.raises(InputError, match=r"must have a number for each of the axes row, column, got \[3\]"):
        PositionConfig(("row", "column"), sizes=(3,))
    with pytest.raises(InputError, match=r"positions\.sizes must be at least 1, got \[3, 0\]"):
        PositionConfig(("row", "column"), sizes=(3, 0))
    with pytest.raises(InputError, match=r"positions\.base must be above 0, got 0"):
        PositionConfig(("word",), "sinusoidal", base=0)
    with pytest.raises(InputError, match=r"positions\.sizes makes a table of the sines on one axis; leave it out"):
        PositionConfig(("row", "column"), "sinusoidal", sizes=(3, 3))


def test_a_joint_table_takes_another_grid():
    positions = JointPositions((2, 3), 5)
    corner = positions(torch.tensor([[1, 2]]))
    expected = resize_grid(positions.table, (2, 3), (4, 7))
    positions.resize((4, 7))
    assert positions.sizes == (4, 7)
    assert torch.equal(positions(torch.tensor([[3, 6]])), expected[-1:])
    assert not torch.equal(positions(torch.tensor([[1, 2]])), corner)
