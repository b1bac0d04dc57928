"""Content + type + position, and where positions enter attention by rotation."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.rotary import rotate
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.model.lifts import Projection
from anyformer.model.positions import JointPositions, PositionConfig, resize_grid
from anyformer.packing import collate
from anyformer.tokens import Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, Vectors, by_sample, count, draw_ids, redraw

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


# Rotary


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
    embeddings = build(tokenizers={"picture": PICTURE}, d_head=8, rotary=RotaryConfig(("row", "column")))
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
    with pytest.raises(
        InputError, match=r"no field has the axis 'time' .*, and embedding\.axes may name those that only"
    ):
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


def test_a_joint_table_takes_another_grid():
    positions = JointPositions((2, 3), 5)
    corner = positions(torch.tensor([[1, 2]]))
    expected = resize_grid(positions.table, (2, 3), (4, 7))
    positions.resize((4, 7))
    assert positions.sizes == (4, 7)
    assert torch.equal(positions(torch.tensor([[3, 6]])), expected[-1:])
    assert not torch.equal(positions(torch.tensor([[1, 2]])), corner)


def test_fields_of_the_same_ids_may_share_one_table() -> None:
    fields = {name: Ids(3, ("word",)) for name in ("source", "other", "target")}
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(positions=[]), shared={"target": "source"})
    tables = [name for name, _ in embeddings.named_parameters() if "lifts" in name]
    assert tables == ["lifts.source.table", "lifts.other.table"] == [n for n in embeddings.state_dict() if "lifts" in n]
    sample = {name: tokenizer.encode([1, 2]) for name, tokenizer in fields.items()}
    batch = collate([sample], fields)
    vectors = {name: part - embeddings.types[name] for name, part in batch.by_field(embeddings(batch)).items()}
    torch.testing.assert_close(vectors["source"], embeddings.lifts["source"].table[1:])
    torch.testing.assert_close(vectors["target"], vectors["source"])
    embeddings(batch).sum().backward()
    assert torch.equal(embeddings.lifts["target"].table.grad, 2 * embeddings.lifts["other"].table.grad)
    with pytest.raises(InputError, match="fields 'source' and 'target' cannot share a lift: they have other ids"):
        Embeddings(fields | {"target": Ids(4)}, SIZES, EmbeddingConfig(positions=[]), shared={"target": "source"})


def test_any_lift_may_be_shared_and_the_fields_stay_apart_by_their_types() -> None:
    fields = {"left": PICTURE, "right": PICTURE, "text": TEXT}
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(), shared={"right": "left"})
    # By nothing else: so they begin far from one another, where that of a field with a lift of its own begins small.
    sizes = {name: vector.abs().mean() for name, vector in embeddings.types.items()}
    assert min(sizes["left"], sizes["right"]) > 5 * sizes["text"]
    redraw(embeddings)
    assert not [name for name, _ in embeddings.named_parameters() if "lifts.right" in name]
    picture = PICTURE.encode(torch.randn(2, 5, 3))
    batch = collate([{"left": picture}, {"right": picture}], fields)
    rows = embeddings(batch)
    types = embeddings.types
    torch.testing.assert_close(rows[0] - types["left"], rows[1] - types["right"])
    # What both fields ask of the weights adds up; where both are absent it is 0.
    (rows[1].sum()).backward()
    alone = embeddings.lifts["left"].linear.weight.grad.clone()
    embeddings.zero_grad()
    embeddings(batch).sum().backward()
    torch.testing.assert_close(embeddings.lifts["left"].linear.weight.grad, 2 * alone)
    embeddings.zero_grad()
    embeddings(collate([{"text": TEXT.encode([1])}], fields)).sum().backward()
    assert not embeddings.lifts["left"].linear.weight.grad.any()

    copied = deepcopy(embeddings)
    with torch.no_grad():
        copied.lifts["left"].linear.weight.zero_()
    assert torch.equal(embeddings(batch), rows)
    one, other = copied(batch)
    torch.testing.assert_close(other - types["right"], one - types["left"])
    for shared, message in (
        ({"right": "text"}, "fields 'text' and 'right' cannot share a lift: they are of other content"),
        ({"text": "right", "right": "left"}, "fields 'right' and 'text' cannot share a lift: that of 'right' is"),
    ):
        with pytest.raises(InputError, match=message):
            Embeddings(fields, SIZES, EmbeddingConfig(), shared=shared)


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
