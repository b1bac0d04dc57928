"""Content + type + position, whose axes are known, and what is masked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings, default_positions
from anyformer.model.lifts import Projection
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokens import Tokenizer
from tests.helpers.witnesses import Ids, Vectors, draw_ids, redraw

TEXT, PICTURE = Ids(11, ("word",), max_len=7), Vectors(3, ("row", "column"), (2, 5))
FIELDS = {"text": TEXT, "picture": PICTURE}
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10)


def build(
    config: EmbeddingConfig = EmbeddingConfig(), tokenizers: dict[str, Tokenizer] = FIELDS, **choices
) -> Embeddings:
    embeddings = Embeddings(tokenizers, replace(SIZES, **choices), config)
    redraw(embeddings)
    return embeddings.eval()


# The sum


@pytest.mark.parametrize("types", [True, False], ids=["types", "no types"])
@pytest.mark.parametrize("scale", [True, False], ids=["scaled", "not scaled"])
@pytest.mark.parametrize("norm", [True, False], ids=["normed", "not normed"])
@pytest.mark.parametrize("offset", [True, False], ids=["offset", "not offset"])
def test_a_token_is_its_content_its_type_and_its_position(types: bool, scale: bool, norm: bool, offset: bool) -> None:
    positions = [PositionConfig(("word",)), PositionConfig(("row", "column"))]
    embeddings = build(EmbeddingConfig(types=types, scale=scale, norm=norm, offset=offset, positions=positions))
    pixels = torch.randn(2, 3, 3)
    batch = collate([{"text": TEXT.encode([4, 9, 1])}, {"picture": PICTURE.encode(pixels)}], FIELDS)
    rows = embeddings(batch)

    factor = 12**0.5 if scale else 1.0
    word = factor * embeddings.lifts["text"].table[9] + embeddings.positions[0].tables[0][1]
    row, column = embeddings.positions[1].tables
    patch = factor * embeddings.lifts["picture"].linear(pixels[1, 2]) + row[1] + column[2]
    if types:
        word, patch = word + embeddings.types["text"], patch + embeddings.types["picture"]
    if norm:
        word, patch = embeddings.norm(word), embeddings.norm(patch)
    if offset:
        word, patch = word + embeddings.offset, patch + embeddings.offset
    torch.testing.assert_close(rows[0, 1], word)
    torch.testing.assert_close(rows[1, 5], patch)
    assert torch.equal(rows[0, 3:], torch.zeros(3, 12)), "0 at padding, also where the sum is normed"


def test_fields_that_share_a_lift_begin_with_types_that_tell_them_apart() -> None:
    fields = {"left": PICTURE, "right": PICTURE, "above": PICTURE, "question": TEXT, "answer": TEXT}
    shared = {"right": "left", "answer": "question"}
    sizes = replace(SIZES, d_model=192)
    types = Embeddings(fields, sizes, EmbeddingConfig(), shared=shared).types
    strengths = {name: vector.std().item() for name, vector in types.items()}
    # About as strong as what a lift puts out; ids begin weak, and so do fields that differ by their lifts.
    assert strengths == pytest.approx(
        {"left": 0.5, "right": 0.5, "above": 0.02, "question": 0.02, "answer": 0.02}, rel=0.3
    )


def test_fields_with_an_axis_in_common_share_its_positions() -> None:
    fields = {"question": TEXT, "answer": TEXT, "bag": Ids(11)}
    embeddings = build(EmbeddingConfig(types=False, positions=[PositionConfig(("word",))]), fields)
    for lift in embeddings.lifts.values():
        torch.nn.init.zeros_(lift.table)
    batch = collate([{name: fields[name].encode([1, 2]) for name in fields}], fields)
    vectors = batch.by_field(embeddings(batch))
    assert torch.equal(vectors["question"], vectors["answer"]) and vectors["question"].any()
    assert not vectors["bag"].any(), "a set has no positions"
    assert len(embeddings.positions) == 1


def test_positions_left_out_are_a_joint_table_for_what_rotary_does_not_cover() -> None:
    plain = build()
    assert [(config.axes, config.scheme) for config in plain.placed] == [
        (("word",), "joint"),
        (("row", "column"), "joint"),
    ]
    assert [table.sizes for table in plain.positions] == [(7,), (2, 5)]
    rotary = build(rotary=RotaryConfig(("word",)))
    assert [config.axes for config in rotary.placed] == [("row", "column")]


def test_a_field_needs_no_table_where_every_stack_that_may_read_it_goes_by_its_axes() -> None:
    word, both = (replace(SIZES, d_head=8, rotary=RotaryConfig(axes)) for axes in (("word",), ("word", "time")))
    timed = replace(word, relative=RelativeConfig("alibi", "time"))
    for axes, stacks, placed in (
        (("word",), [word], False),
        (("word",), [word, SIZES], True),
        (("time",), [word, both], True),
        (("word", "time"), [word], True),
        (("word", "time"), [both, timed], False),
        ((), [SIZES], False),
    ):
        expected = [PositionConfig(axes, "joint")] if placed else []
        assert default_positions([(axes, stacks), (axes, stacks)]) == expected


def test_without_a_word_on_positions_attention_goes_by_rotary_ones_where_no_tokenizer_tells_a_size() -> None:
    fields = {"note": Vectors(3, ("word",)), "picture": PICTURE}
    found, given = build(tokenizers=fields), build(tokenizers=fields, rotary=RotaryConfig(("word",)))
    for each in (found, given):
        assert each.rotary.axes == ("word",) and [config.axes for config in each.placed] == [("row", "column")]
    # Of a field of several axes the others keep a table.
    tree = {"tree": Sized(3, ("word", "depth"))}
    for each in (build(tokenizers=tree), build(tokenizers=tree, rotary=RotaryConfig(("word",)))):
        assert each.rotary.axes == ("word",) and [config.axes for config in each.placed] == [("depth",)]
        assert [table.sizes for table in each.positions] == [(4,)]
    # Where a size is told, or all is said, it is as it was; and what has no room is said.
    assert build().rotary is None and build(rotary=RotaryConfig(("word",))).rotary.axes == ("word",)
    with pytest.raises(InputError, match="learned positions on the axis 'word' need its size"):
        Embeddings(fields, replace(SIZES, d_head=3), EmbeddingConfig())
    with pytest.raises(InputError, match="learned positions on the axis 'word' need its size"):
        build(EmbeddingConfig(positions=[PositionConfig(("word",))]), fields)


@dataclass(frozen=True)
class Sized(Vectors):
    """Of two axes it knows the size of the second alone."""

    @property
    def sizes(self) -> dict[str, int]:
        return {self.axes[1]: 4}


# What cannot be


@pytest.mark.parametrize("scheme", ["learned", "joint"])
def test_a_position_beyond_its_table(scheme: str) -> None:
    embeddings = build(
        EmbeddingConfig(positions=[PositionConfig(("word",), scheme), PositionConfig(("row", "column"), scheme)])
    )
    message = r"field 'text' reaches word 7, but the learned positions hold 7 \(0 to 6\); cut the data shorter"
    with pytest.raises(InputError, match=message):
        embeddings(collate([{"text": TEXT.encode([1] * 8)}], FIELDS))
    with pytest.raises(InputError, match=r"field 'picture' reaches column 5, but the learned positions hold 5"):
        embeddings(collate([{"picture": PICTURE.encode(torch.randn(1, 6, 3))}], FIELDS))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            PositionConfig(("frame",)),
            "no field has the axis 'frame' that positions name, .*; there are word, row, column",
        ),
        (PositionConfig(("word", "row")), "no single field has all the axes word, row of a position embedding"),
    ],
    ids=["unknown", "of two fields"],
)
def test_positions_name_axes_that_a_field_has(positions: PositionConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(EmbeddingConfig(positions=[positions]))


def test_rotary_names_axes_that_a_field_has() -> None:
    with pytest.raises(InputError, match=r"the axis 'time' .*, and embedding\.axes may name those that only"):
        build(rotary=RotaryConfig(("time",)))
    build(EmbeddingConfig(axes=("time",)), rotary=RotaryConfig(("time",)))


def test_dropout_on_the_sum_is_below_1() -> None:
    with pytest.raises(InputError, match=r"embedding\.dropout must be at least 0 and below 1, got 1\.0"):
        EmbeddingConfig(dropout=1.0)


def test_a_learned_table_needs_a_size() -> None:
    message = "learned positions on the axis 'row' need its size, which no tokenizer tells; give transformer\\.rotary"
    fields = {"picture": Vectors(3, ("row", "column"))}
    with pytest.raises(InputError, match=message):
        build(tokenizers=fields)
    sized = build(EmbeddingConfig(positions=[PositionConfig(("row", "column"), sizes=(4, 6))]), fields)
    assert sized.positions[0].sizes == (4, 6)


def test_a_table_has_no_rows_for_continuous_positions():
    @dataclass(frozen=True)
    class Stamps(Vectors):
        def empty(self):
            return replace(super().empty(), position=torch.zeros(0, 1))

    fields = {"readings": Stamps(3, ("time",))}
    config = TransformerConfig(d_model=8, n_heads=2)
    with pytest.raises(
        InputError, match="field 'readings' is continuous on time, where a table of positions has no rows"
    ):
        Embeddings(fields, config, EmbeddingConfig(positions=[PositionConfig(("time",), sizes=(5,))]))
    with pytest.raises(InputError, match="where a table of positions has no rows"):
        Embeddings(fields, config, EmbeddingConfig(positions=[PositionConfig(("time",), "sinusoidal", sizes=(5,))]))
    Embeddings(fields, config, EmbeddingConfig(positions=[PositionConfig(("time",), "sinusoidal")]))


# What is not shown


@pytest.mark.parametrize("name", ["text", "picture", "sound"])
def test_what_is_masked_cannot_be_seen_and_a_learned_vector_stands_there(name: str) -> None:
    fields = {"text": TEXT, "picture": PICTURE, "sound": Smooth(3)}
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(scale=True), maskable=list(fields))
    redraw(embeddings)
    record = draw_ids(5) if name == "text" else torch.randn(*(2, 5, 3) if name == "picture" else (5, 3))
    shown = fields[name].encode(record)
    masked = torch.arange(len(shown)) % 3 == 1
    hidden = replace(shown, masked=masked)
    rows = embeddings(collate([{name: hidden}], fields))[0]
    # Whatever the content of the masked is, bit for bit, also where the lift looks at neighbours.
    others = torch.where(masked.view(-1, *[1] * (shown.content.ndim - 1)), 1, shown.content)
    assert not torch.equal(others, shown.content)
    assert torch.equal(embeddings(collate([{name: replace(hidden, content=others)}], fields))[0], rows)
    vector = 12**0.5 * embeddings.masks[name] + embeddings.types[name]
    if name == "sound":
        torch.testing.assert_close(rows[masked], vector.expand(int(masked.sum()), -1))
    else:
        assert torch.equal(rows[~masked], embeddings(collate([{name: shown}], fields))[0][~masked])
    rows.sum().backward()
    expected = 12**0.5 * int(masked.sum())
    torch.testing.assert_close(embeddings.masks[name].grad, torch.full((12,), expected))
    assert all(not embeddings.masks[other].grad.any() for other in fields if other != name)


def test_a_sample_that_is_masked_changes_nothing_for_one_that_is_not() -> None:
    embeddings = Embeddings(FIELDS, SIZES, EmbeddingConfig(), maskable=["text"])
    redraw(embeddings)
    shown = TEXT.encode([1, 2, 3])
    hidden = replace(shown, masked=torch.tensor([True, False, True]))
    mixed = collate([{"text": shown}, {"text": hidden}], FIELDS)
    assert mixed.fields["text"].masked.tolist() == [False] * 3 + [True, False, True]
    plain = collate([{"text": shown}, {"text": shown}], FIELDS)
    assert plain.fields["text"].masked is None
    assert torch.equal(embeddings(mixed)[0], embeddings(plain)[0])
    embeddings(plain).sum().backward()
    assert not embeddings.masks["text"].grad.any(), "0, not None, where nothing is masked"
    with pytest.raises(ValueError, match="field 'text' has masked tokens; name it in maskable"):
        build()(mixed)


@dataclass(frozen=True)
class Smooth(Vectors):
    """Its lift looks at the token before."""

    def lift(self, d_model: int) -> nn.Module:
        return Before(self.d_content, d_model)


class Before(Projection):
    def forward(self, content: Tensor, extents: object = ()) -> Tensor:
        return super().forward(content + content.roll(1, 0))
