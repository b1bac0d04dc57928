"""The transformer is the published ones: the same weights give the same outputs and gradients.

Each witness is a small model of torch, timm or transformers with every parameter redrawn; its weights are carried over
by renaming alone. Its norms have a large eps and its rotary a low base, so that a wrong one would be seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.model.anyformer import Anyformer
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, Vectors, count, draw_ids, error, redraw

BARE = EmbeddingConfig(types=False, positions=[])
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=20, norm_eps=0.1)


@dataclass(frozen=True)
class Witness:
    """A published model, and ours of the same make."""

    theirs: nn.Module
    run: Callable[[], Tensor]
    """Their hidden vectors, (b, n, d)."""
    real: Tensor
    """(b, n) boolean, their places that hold a token, in the sequence of ours."""
    names: Mapping[str, str]
    """Patterns of their parameters' names, and ours. `{q,k,v}` takes three matrices apart; an empty name is unused."""
    fields: dict[str, Tokenizer]
    samples: list[Sample]
    transformer: TransformerConfig
    embedding: EmbeddingConfig = BARE
    encoder: TransformerConfig | None = None
    conditions: list[Sample] | None = None
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """Turns their tensors, or takes them apart, before they are renamed."""
    tied: tuple[str, str] | None = None
    """Two fields that share their lift, as the two sides of theirs do."""

    def carry(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their parameters, or the gradients of them, under our names."""
        carried: dict[str, list[Tensor]] = {}
        for name, tensor in self.prepare(dict(tensors)).items():
            ours = [re.sub(pattern, new, name) for pattern, new in self.names.items() if re.fullmatch(pattern, name)]
            assert len(ours) == 1, f"{name} is carried to {ours}"
            if "{q,k,v}" in ours[0]:
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    carried.setdefault(ours[0].replace("{q,k,v}", letter), []).append(part)
            elif ours[0]:
                carried.setdefault(ours[0], []).append(tensor)
        return {name: torch.cat(parts) for name, parts in carried.items()}


def disagreement(witness: Witness, zeroed: str = "", **wrong: dict) -> tuple[float, float]:
    """The largest differences between ours and theirs, of the outputs and of all gradients, in standard deviations.

    zeroed: a part of the names of parameters that are 0 on our side.
    wrong: what to set otherwise on our side, by the part of the witness: transformer, embedding, encoder.
    With either, gradients are left out.
    """
    parts = {name: replace(getattr(witness, name), **choices) for name, choices in wrong.items()}
    witness = replace(witness, **parts)
    model = Anyformer(witness.fields, witness.transformer, witness.embedding, witness.encoder)
    if witness.tied is not None:
        one, other = witness.tied
        model.embeddings.lifts[other] = model.embeddings.lifts[one]
    redraw(model)
    weights = witness.carry(dict(witness.theirs.named_parameters()))
    own = dict(model.named_parameters())
    assert wrong or weights.keys() == own.keys(), f"not carried: {weights.keys() ^ own.keys()}"
    with torch.no_grad():
        for name in weights.keys() & own.keys():
            own[name].copy_(weights[name] if not zeroed or zeroed not in name else torch.zeros_like(weights[name]))

    expected = witness.run()[witness.real]
    batch = collate(witness.samples, witness.fields)
    conditions = None if witness.conditions is None else collate(witness.conditions, witness.fields)
    found = model.eval()(batch, conditions)[batch.layout.segment > 0]
    forward = error(found, expected)
    if wrong or zeroed:
        return forward, forward

    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    (found * noise).sum().backward()
    gradients = witness.carry(
        {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in witness.theirs.named_parameters()}
    )
    # The biases of keys have a gradient of 0: its rounding is measured on the scale of the others.
    floor = 0.1 * torch.cat([gradient.flatten() for gradient in gradients.values()]).std()
    return forward, max(
        ((own[name].grad - gradient).abs().max() / gradient.std().clamp(min=floor)).item()
        for name, gradient in gradients.items()
    )


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids padded on the right with 0, and which of them are real; each (b, n)."""
    n = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (n - len(row))] for row in rows])
    return ids, torch.arange(n) < torch.tensor([[len(row)] for row in rows])


def texts(*lengths: int) -> list[list[int]]:
    """Ids 0 to 9; 10 is their pad id."""
    return [draw_ids(n, 10) for n in lengths]


def dwell_in_the_tail(up: nn.Module, down: nn.Module) -> None:
    """Turn an MLP so that GELU works where its two forms differ by a hundredth: around -2.3."""
    with torch.no_grad():
        up.weight.mul_(0.3)
        up.bias.uniform_(-2.6, -2.0)
        down.weight.mul_(40)


# torch


class Projected(nn.Module):
    """A stack of torch over projected vectors, as (b, n, 3) of a padded batch."""

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        self.source, self.target, self.stack = nn.Linear(3, 12), nn.Linear(3, 12), stack


TORCH_NAMES = {
    r"source\.(.*)": r"embeddings.lifts.source.linear.\1",
    r"stack\.(?:encoder\.)?layers\.(\d)\.self_attn\.in_proj_(.*)": r"STACK.blocks.\1.attention.{q,k,v}.\2",
    r"stack\.(?:encoder\.)?layers\.(\d)\.self_attn\.out_proj\.(.*)": r"STACK.blocks.\1.attention.o.\2",
    r"stack\.(?:encoder\.)?layers\.(\d)\.norm1\.(.*)": r"STACK.blocks.\1.attention_residual.norm.\2",
    r"stack\.(?:encoder\.)?layers\.(\d)\.linear1\.(.*)": r"STACK.blocks.\1.mlp.up.\2",
    r"stack\.(?:encoder\.)?layers\.(\d)\.linear2\.(.*)": r"STACK.blocks.\1.mlp.down.\2",
    r"stack\.(?:encoder\.)?layers\.(\d)\.norm2\.(.*)": r"STACK.blocks.\1.mlp_residual.norm.\2",
    r"stack\.(?:encoder\.)?norm\.(.*)": r"STACK.final_norm.\1",
}
TORCH_ENCODER_NAMES = {pattern: new.replace("STACK", "encoder") for pattern, new in TORCH_NAMES.items()}
TORCH_ENCODER_NAMES |= {
    r"target\.(.*)": r"embeddings.lifts.target.linear.\1",
    r"stack\.decoder\.layers\.(\d)\.self_attn\.in_proj_(.*)": r"transformer.blocks.\1.attention.{q,k,v}.\2",
    r"stack\.decoder\.layers\.(\d)\.self_attn\.out_proj\.(.*)": r"transformer.blocks.\1.attention.o.\2",
    r"stack\.decoder\.layers\.(\d)\.multihead_attn\.in_proj_(.*)": r"transformer.blocks.\1.cross.{q,k,v}.\2",
    r"stack\.decoder\.layers\.(\d)\.multihead_attn\.out_proj\.(.*)": r"transformer.blocks.\1.cross.o.\2",
    r"stack\.decoder\.layers\.(\d)\.linear1\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
    r"stack\.decoder\.layers\.(\d)\.linear2\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
    r"stack\.decoder\.layers\.(\d)\.norm1\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
    r"stack\.decoder\.layers\.(\d)\.norm2\.(.*)": r"transformer.blocks.\1.cross_residual.norm.\2",
    r"stack\.decoder\.layers\.(\d)\.norm3\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
    r"stack\.decoder\.norm\.(.*)": r"transformer.final_norm.\1",
}
TORCH_NAMES = {pattern: new.replace("STACK", "transformer") for pattern, new in TORCH_NAMES.items()}
TORCH_NAMES[r"target\..*"] = ""
TORCH_SIZES = {"dim_feedforward": 20, "dropout": 0.0, "layer_norm_eps": 0.1, "batch_first": True}


def torch_encoder(position: str, activation: str, causal: bool = False) -> Witness:
    """nn.TransformerEncoderLayer, on a padded batch."""
    layer = nn.TransformerEncoderLayer(12, 3, activation=activation, norm_first=position == "pre", **TORCH_SIZES)
    final = nn.LayerNorm(12, eps=0.1) if position == "pre" else None
    theirs = Projected(nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False))
    redraw(theirs)
    if activation == "gelu":
        for each in theirs.stack.layers:
            dwell_in_the_tail(each.linear1, each.linear2)
    x, (_, real) = torch.randn(3, 7, 3), pad(texts(7, 4, 5))
    mask = ~torch.ones(7, 7, dtype=torch.bool).tril() if causal else None
    tokens = [Vectors().encode(row[these]) for row, these in zip(x, real, strict=True)]
    return Witness(
        theirs,
        lambda: theirs.stack(theirs.source(x), mask=mask, src_key_padding_mask=~real),
        real,
        TORCH_NAMES,
        {"source": Vectors()},
        [{"source": count(each) if causal else each} for each in tokens],
        replace(SIZES, norm_position=position, activation=activation),
    )


def torch_transformer(position: str) -> Witness:
    """nn.Transformer: an encoder and nn.TransformerDecoderLayer on it, both padded."""
    choices = {"activation": "relu", "norm_first": position == "pre", **TORCH_SIZES}
    layers = nn.TransformerEncoderLayer(12, 3, **choices), nn.TransformerDecoderLayer(12, 3, **choices)
    norms = nn.LayerNorm(12, eps=0.1), nn.LayerNorm(12, eps=0.1)
    reader = nn.TransformerEncoder(layers[0], 2, norms[0], enable_nested_tensor=False)
    writer = nn.TransformerDecoder(layers[1], 2, norms[1])
    theirs = Projected(nn.Transformer(12, 3, custom_encoder=reader, custom_decoder=writer, batch_first=True))
    redraw(theirs)
    x, y = torch.randn(3, 7, 3), torch.randn(3, 5, 3)
    (_, x_real), (_, y_real) = pad(texts(7, 4, 5)), pad(texts(2, 5, 3))
    causal = ~torch.ones(5, 5, dtype=torch.bool).tril()
    masks = {"src_key_padding_mask": ~x_real, "memory_key_padding_mask": ~x_real, "tgt_key_padding_mask": ~y_real}
    config = replace(SIZES, norm_position=position, activation="relu", final_norm=True)
    return Witness(
        theirs,
        lambda: theirs.stack(theirs.source(x), theirs.target(y), tgt_mask=causal, **masks),
        y_real,
        TORCH_ENCODER_NAMES,
        {"source": Vectors(), "target": Vectors()},
        [{"target": count(Vectors().encode(row[real]))} for row, real in zip(y, y_real, strict=True)],
        config,
        encoder=config,
        conditions=[{"source": Vectors().encode(row[real])} for row, real in zip(x, x_real, strict=True)],
    )


@dataclass(frozen=True)
class Related(Vectors):
    """Vectors whose content is followed by the relations of its token to all others."""

    n_relations: int = 5  # type: ignore[misc]

    def encode(self, record: tuple[Tensor, Tensor], random: object = None) -> TokenSet:
        return replace(super().encode(record[0]), relation=record[1])


def torch_relations() -> Witness:
    """nn.TransformerEncoderLayer with a float mask that holds a bias for each relation and head."""
    layer = nn.TransformerEncoderLayer(12, 3, activation="gelu", norm_first=True, **TORCH_SIZES)
    theirs = Projected(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(12, eps=0.1), enable_nested_tensor=False))
    theirs.table = nn.Parameter(torch.empty(5, 3))
    redraw(theirs)
    x, (_, real), relation = torch.randn(3, 7, 3), pad(texts(7, 4, 5)), torch.randint(-1, 5, (3, 7, 7))
    relation.diagonal(dim1=1, dim2=2).clamp_(min=0)

    def run() -> Tensor:
        bias = theirs.table[relation.clamp(min=0)].permute(0, 3, 1, 2)
        bias = bias.masked_fill((relation == -1)[:, None] | ~real[:, None, None, :], -torch.inf)
        return theirs.stack(theirs.source(x), mask=bias.flatten(0, 1))

    return Witness(
        theirs,
        run,
        real,
        {**TORCH_NAMES, "table": "relation_bias.table"},
        {"source": Related()},
        [{"source": Related().encode((x[i, :n], relation[i, :n, :n]))} for i, n in enumerate((7, 4, 5))],
        SIZES,
    )


# timm


TIMM_NAMES = {
    r"patch_embed\.proj\.(.*)": r"embeddings.lifts.patch.linear.\1",
    r"blocks\.(\d)\.attn\.qkv\.(.*)": r"transformer.blocks.\1.attention.{q,k,v}.\2",
    r"blocks\.(\d)\.attn\.([qk]_norm)\.(.*)": r"transformer.blocks.\1.attention.\2.\3",
    r"blocks\.(\d)\.attn\.proj\.(.*)": r"transformer.blocks.\1.attention.o.\2",
    r"blocks\.(\d)\.norm1\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
    r"blocks\.(\d)\.norm2\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
    r"blocks\.(\d)\.ls1\.gamma": r"transformer.blocks.\1.attention_residual.scale",
    r"blocks\.(\d)\.ls2\.gamma": r"transformer.blocks.\1.mlp_residual.scale",
    r"blocks\.(\d)\.mlp\.fc1\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
    r"blocks\.(\d)\.mlp\.fc2\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
    r"norm_pre\.(.*)": r"transformer.first_norm.\1",
    r"norm\.(.*)": r"transformer.final_norm.\1",
}


def timm_vit(registers: int = 0, placed: bool = True, first_norm: bool = False, **choices) -> Witness:
    """A Vision Transformer on patches of 4 x 4 of a picture of 8 x 12, behind a class token and registers."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    theirs = timm.VisionTransformer(
        img_size=(8, 12),
        patch_size=4,
        in_chans=2,
        embed_dim=12,
        depth=2,
        num_heads=3,
        mlp_ratio=20 / 12,
        num_classes=0,
        reg_tokens=registers,
        no_embed_class=not placed,
        pre_norm=first_norm,
        norm_layer=lambda width, **_: nn.LayerNorm(width, eps=0.1),
        init_values=1.0,
        **choices,
    )
    redraw(theirs)
    images = torch.randn(5, 2, 8, 12)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    patch = Vectors(32, ("row", "column"), (2, 3), bias=not first_norm)
    prefix = LearnedTokens(1 + registers, placed)
    n_placed = 1 + registers if placed else 0

    def prepare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Their one table of positions is the prefix's and then the grid's."""
        table = tensors.pop("pos_embed")[0]
        parts = {"grid": table[n_placed:], "slots": table[:n_placed]} if placed else {"grid": table}
        kernel = tensors.pop("patch_embed.proj.weight").flatten(1)
        prefix = {name: tensors.pop(name)[0] for name in ("cls_token", "reg_token") if name in tensors}
        return tensors | parts | prefix | {"patch_embed.proj.weight": kernel}

    positions = [PositionConfig(("slot",), "joint")] if placed else []
    return Witness(
        theirs,
        lambda: theirs.forward_features(images),
        torch.ones(5, 7 + registers, dtype=torch.bool),
        {
            **TIMM_NAMES,
            "slots": "embeddings.positions.0.table",
            "cls_token": "embeddings.lifts.prefix.table",
            "reg_token": "embeddings.lifts.prefix.table",
            "grid": f"embeddings.positions.{int(placed)}.table",
        },
        {"prefix": prefix, "patch": patch},
        [{"prefix": prefix.encode(), "patch": patch.encode(grid)} for grid in patches],
        replace(SIZES, first_norm=first_norm, layer_scale=1.0, qk_norm="layernorm" if choices.get("qk_norm") else None),
        EmbeddingConfig(types=False, positions=[*positions, PositionConfig(("row", "column"), "joint")]),
        prepare=prepare,
    )


# transformers

NO_BIASES = dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias", "mlp_bias"), False)


def gpt2() -> Witness:
    module = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 10, "eos_token_id": 10}
    sizes = {"vocab_size": 11, "n_positions": 9, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": 20}
    theirs = module.GPT2Model(module.GPT2Config(**sizes, **drops, layer_norm_epsilon=0.1))
    redraw(theirs)
    for block in theirs.h:
        dwell_in_the_tail(block.mlp.c_fc, block.mlp.c_proj)
    rows, text = texts(7, 4, 5), Ids(11, ("word",), max_len=9)
    ids, real = pad(rows)
    return Witness(
        theirs,
        lambda: theirs(ids, attention_mask=real.long()).last_hidden_state,
        real,
        {
            r"wte\.weight": "embeddings.lifts.text.table",
            r"wpe\.weight": "embeddings.positions.0.tables.0",
            r"h\.(\d)\.attn\.c_attn\.(.*)": r"transformer.blocks.\1.attention.{q,k,v}.\2",
            r"h\.(\d)\.attn\.c_proj\.(.*)": r"transformer.blocks.\1.attention.o.\2",
            r"h\.(\d)\.mlp\.c_fc\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
            r"h\.(\d)\.mlp\.c_proj\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
            r"h\.(\d)\.ln_1\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
            r"h\.(\d)\.ln_2\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
            r"ln_f\.(.*)": r"transformer.final_norm.\1",
        },
        {"text": text},
        [{"text": count(text.encode(row))} for row in rows],
        replace(SIZES, activation="gelu_tanh"),
        EmbeddingConfig(types=False, positions=[PositionConfig(("word",), "learned")]),
        prepare=lambda tensors: {
            name: tensor.T if ".c_" in name and name.endswith("weight") else tensor for name, tensor in tensors.items()
        },
    )


def llama() -> Witness:
    module = pytest.importorskip("transformers.models.llama.modeling_llama")
    sizes = {"vocab_size": 11, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "head_dim": 4}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 50.0}
    theirs = module.LlamaModel(module.LlamaConfig(**sizes, **heads, rms_norm_eps=0.1, rope_parameters=rope))
    redraw(theirs)
    rows, text = texts(7, 4, 5), Ids(11, ("word",))
    ids, real = pad(rows)
    return Witness(
        theirs,
        lambda: theirs(ids, attention_mask=real.long()).last_hidden_state,
        real,
        {
            r"embed_tokens\.weight": "embeddings.lifts.text.table",
            r"layers\.(\d)\.self_attn\.([qkvo])_proj\.(.*)": r"transformer.blocks.\1.attention.\2.\3",
            r"layers\.(\d)\.mlp\.(gate|up|down)_proj\.(.*)": r"transformer.blocks.\1.mlp.\2.\3",
            r"layers\.(\d)\.input_layernorm\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
            r"layers\.(\d)\.post_attention_layernorm\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
            r"norm\.(.*)": r"transformer.final_norm.\1",
        },
        {"text": text},
        [{"text": count(text.encode(row))} for row in rows],
        replace(
            SIZES,
            n_heads=6,
            n_kv_heads=2,
            d_head=4,
            norm="rmsnorm",
            activation="silu",
            gated=True,
            rotary=RotaryConfig(("word",), base=50.0),
            **NO_BIASES,
        ),
    )


def bert() -> Witness:
    """Two sentences, which are two fields: the types are the token types."""
    module = pytest.importorskip("transformers.models.bert.modeling_bert")
    sizes = {"vocab_size": 11, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    drops = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 10}
    config = module.BertConfig(**sizes, **drops, intermediate_size=20, max_position_embeddings=9, layer_norm_eps=0.1)
    theirs = module.BertModel(config, add_pooling_layer=False)
    redraw(theirs)
    rows, sentence, starts = texts(7, 4, 6), Ids(11, ("word",), max_len=9), (3, 1, 4)
    ids, real = pad(rows)
    types = (torch.arange(7) >= torch.tensor(starts)[:, None]).long()
    samples = []
    for row, start in zip(rows, starts, strict=True):
        second = sentence.encode(row[start:])
        second = replace(second, position=second.position + start)
        samples.append({"first": sentence.encode(row[:start]), "second": second})

    layer, block = r"encoder\.layer\.(\d)\.", r"transformer.blocks.\1."

    def prepare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        kinds = tensors.pop("embeddings.token_type_embeddings.weight")
        return tensors | {"first": kinds[0], "second": kinds[1]}

    return Witness(
        theirs,
        lambda: theirs(ids, attention_mask=real.long(), token_type_ids=types).last_hidden_state,
        real,
        {
            r"embeddings\.word_embeddings\.weight": "embeddings.lifts.first.table",
            r"(first|second)": r"embeddings.types.\1",
            r"embeddings\.position_embeddings\.weight": "embeddings.positions.0.tables.0",
            r"embeddings\.LayerNorm\.(.*)": r"embeddings.norm.\1",
            rf"{layer}attention\.self\.([qkv])\w+\.(.*)": rf"{block}attention.\2.\3",
            rf"{layer}attention\.output\.dense\.(.*)": rf"{block}attention.o.\2",
            rf"{layer}attention\.output\.LayerNorm\.(.*)": rf"{block}attention_residual.norm.\2",
            rf"{layer}intermediate\.dense\.(.*)": rf"{block}mlp.up.\2",
            rf"{layer}output\.dense\.(.*)": rf"{block}mlp.down.\2",
            rf"{layer}output\.LayerNorm\.(.*)": rf"{block}mlp_residual.norm.\2",
        },
        {"first": sentence, "second": sentence},
        samples,
        replace(SIZES, norm_position="post"),
        EmbeddingConfig(norm=True, positions=[PositionConfig(("word",), "learned")]),
        prepare=prepare,
        tied=("first", "second"),
    )


def bloom() -> Witness:
    """ALiBi for a number of heads that is no power of two, and a norm after the embeddings."""
    module = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    sizes = {"vocab_size": 11, "hidden_size": 12, "n_layer": 2, "n_head": 3, "layer_norm_epsilon": 0.1}
    drops = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    theirs = module.BloomModel(module.BloomConfig(**sizes, **drops))
    redraw(theirs)
    for block in theirs.h:
        dwell_in_the_tail(block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h)
    rows, text = texts(7, 4, 6), Ids(11, ("word",))
    ids, real = pad(rows)

    def prepare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Theirs has queries, keys and values of a head beside each other."""
        return {
            name: tensor.unflatten(0, (3, 3, 4)).transpose(0, 1).flatten(0, 2) if "query_key_value" in name else tensor
            for name, tensor in tensors.items()
        }

    return Witness(
        theirs,
        lambda: theirs(ids, attention_mask=real.long(), use_cache=False).last_hidden_state,
        real,
        {
            r"word_embeddings\.weight": "embeddings.lifts.text.table",
            r"word_embeddings_layernorm\.(.*)": r"embeddings.norm.\1",
            r"h\.(\d)\.self_attention\.query_key_value\.(.*)": r"transformer.blocks.\1.attention.{q,k,v}.\2",
            r"h\.(\d)\.self_attention\.dense\.(.*)": r"transformer.blocks.\1.attention.o.\2",
            r"h\.(\d)\.mlp\.dense_h_to_4h\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
            r"h\.(\d)\.mlp\.dense_4h_to_h\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
            r"h\.(\d)\.input_layernorm\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
            r"h\.(\d)\.post_attention_layernorm\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
            r"ln_f\.(.*)": r"transformer.final_norm.\1",
        },
        {"text": text},
        [{"text": count(text.encode(row))} for row in rows],
        replace(SIZES, d_ff=48, activation="gelu_tanh", relative=RelativeConfig("alibi", "word")),
        EmbeddingConfig(types=False, norm=True, positions=[]),
        prepare=prepare,
    )


def decision_transformer() -> Witness:
    """Windows of steps, padded on the left; each step a return, a state and an action. Two begin within an episode."""
    module = pytest.importorskip("transformers.models.decision_transformer.modeling_decision_transformer")
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"state_dim": 5, "act_dim": 3, "hidden_size": 12, "max_ep_len": 15, "n_layer": 2, "n_head": 3}
    theirs = module.DecisionTransformerModel(
        module.DecisionTransformerConfig(**sizes, **drops, n_inner=20, n_positions=4)
    )
    redraw(theirs)
    lengths, starts, n = (6, 2, 5), (0, 13, 4), 6
    states, actions, returns = torch.randn(3, n, 5), torch.randn(3, n, 3), torch.randn(3, n, 1)
    real = torch.arange(n) >= n - torch.tensor(lengths)[:, None]
    steps = (
        torch.arange(n) - n + torch.tensor([sum(pair) for pair in zip(lengths, starts, strict=True)])[:, None]
    ) * real
    widths = {"return": 1, "state": 5, "action": 3}
    fields = {name: Vectors(width, ("step",), (15,)) for name, width in widths.items()}
    samples = []
    for i in range(3):
        window = {}
        for j, (name, values) in enumerate(zip(fields, (returns, states, actions), strict=True)):
            tokens = fields[name].encode(values[i, real[i]])
            order = 3 * torch.arange(len(tokens)) + j
            window[name] = replace(tokens, position=steps[i, real[i]][:, None], order=order)
        samples.append(window)

    def prepare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor[0] if "wpe" in name else tensor.T if ".c_" in name and name.endswith("weight") else tensor
            for name, tensor in tensors.items()
        }

    block = r"transformer.blocks.\1."
    return Witness(
        theirs,
        lambda: (
            theirs(
                states=states, actions=actions, returns_to_go=returns, timesteps=steps, attention_mask=real.long()
            ).last_hidden_state
        ),
        real.repeat_interleave(3, 1),
        {
            r"embed_return\.(.*)": r"embeddings.lifts.return/.linear.\1",
            r"embed_(state|action)\.(.*)": r"embeddings.lifts.\1.linear.\2",
            r"embed_timestep\.weight": "embeddings.positions.0.tables.0",
            r"embed_ln\.(.*)": r"embeddings.norm.\1",
            r"encoder\.wpe\.weight": "embeddings.offset",
            r"encoder\.h\.(\d)\.attn\.c_attn\.(.*)": rf"{block}attention.{{q,k,v}}.\2",
            r"encoder\.h\.(\d)\.attn\.c_proj\.(.*)": rf"{block}attention.o.\2",
            r"encoder\.h\.(\d)\.mlp\.c_fc\.(.*)": rf"{block}mlp.up.\2",
            r"encoder\.h\.(\d)\.mlp\.c_proj\.(.*)": rf"{block}mlp.down.\2",
            r"encoder\.h\.(\d)\.ln_1\.(.*)": rf"{block}attention_residual.norm.\2",
            r"encoder\.h\.(\d)\.ln_2\.(.*)": rf"{block}mlp_residual.norm.\2",
            r"encoder\.ln_f\.(.*)": r"transformer.final_norm.\1",
            r"encoder\.wte\.weight|predict_.*": "",
        },
        fields,
        samples,
        # Its norm of the embeddings keeps its eps, whatever the config says.
        replace(SIZES, activation="relu", norm_eps=1e-5),
        EmbeddingConfig(types=False, norm=True, offset=True, positions=[PositionConfig(("step",), "learned")]),
        prepare=prepare,
    )


BUCKETS = RelativeConfig("t5", "word", n_buckets=8, max_distance=6)
ONE_SIDED = replace(BUCKETS, bidirectional=False)


def t5() -> Witness:
    """T5 v1.1: learned biases by distance, two-sided in the encoder and one-sided in the decoder."""
    module = pytest.importorskip("transformers.models.t5.modeling_t5")
    sizes = {"vocab_size": 11, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 2}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    rest = {"num_heads": 3, "dropout_rate": 0.0, "layer_norm_epsilon": 0.1, "feed_forward_proj": "gated-gelu"}
    theirs = module.T5Model(module.T5Config(**sizes, **buckets, **rest))
    # Without a scale the logits are sqrt(5) as large.
    redraw(theirs, spread=1.0)
    text = Ids(11, ("word",))
    questions, answers = texts(7, 4, 5), texts(2, 6, 3)
    (ids, real), (answer_ids, answer_real) = pad(questions), pad(answers)
    config = replace(
        SIZES, d_head=5, norm="rmsnorm", attention_scale=1.0, activation="gelu_tanh", gated=True, **NO_BIASES
    )
    names = {r"shared\.weight": "embeddings.lifts.source.table"}
    for theirs_name, ours, bias in (
        ("encoder", "encoder", "encoder_relative"),
        ("decoder", "transformer", "relative"),
    ):
        block = rf"{theirs_name}\.block\.(\d)\.layer\.\d\."
        last = 1 if theirs_name == "encoder" else 2
        names |= {
            rf"{block}SelfAttention\.([qkvo])\.weight": rf"{ours}.blocks.\1.attention.\2.weight",
            rf"{block}EncDecAttention\.([qkvo])\.weight": rf"{ours}.blocks.\1.cross.\2.weight",
            rf"{block}SelfAttention\.relative_attention_bias\.weight": f"{bias}.table",
            rf"{block}DenseReluDense\.wi_0\.weight": rf"{ours}.blocks.\1.mlp.gate.weight",
            rf"{block}DenseReluDense\.wi_1\.weight": rf"{ours}.blocks.\1.mlp.up.weight",
            rf"{block}DenseReluDense\.wo\.weight": rf"{ours}.blocks.\1.mlp.down.weight",
            rf"{theirs_name}\.final_layer_norm\.weight": f"{ours}.final_norm.weight",
        }
        for layer, part in {0: "attention", 1: "cross", last: "mlp"}.items():
            norm = rf"{theirs_name}\.block\.(\d)\.layer\.{layer}\.layer_norm\.weight"
            names[norm] = rf"{ours}.blocks.\1.{part}_residual.norm.weight"

    return Witness(
        theirs,
        lambda: (
            theirs(
                ids, attention_mask=real.long(), decoder_input_ids=answer_ids, decoder_attention_mask=answer_real.long()
            ).last_hidden_state
        ),
        answer_real,
        names,
        {"source": text, "target": text},
        [{"target": count(text.encode(row))} for row in answers],
        replace(config, relative=ONE_SIDED),
        encoder=replace(config, relative=BUCKETS),
        conditions=[{"source": text.encode(row)} for row in questions],
        tied=("source", "target"),
    )


def marian() -> Witness:
    """Post-norm, scaled embeddings, sines in halves, the two stacks of unlike widths."""
    module = pytest.importorskip("transformers.models.marian.modeling_marian")
    sizes = {"vocab_size": 11, "decoder_vocab_size": 11, "d_model": 12, "encoder_layers": 2, "decoder_layers": 2}
    heads = {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 20, "decoder_ffn_dim": 14}
    drops = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    rest = {"max_position_embeddings": 9, "activation_function": "swish", "scale_embedding": True, "pad_token_id": 10}
    rest |= dict.fromkeys(("bos_token_id", "eos_token_id", "forced_eos_token_id", "decoder_start_token_id"), 10)
    theirs = module.MarianModel(module.MarianConfig(**sizes, **heads, **drops, **rest))
    redraw(theirs)
    text = Ids(11, ("word",))
    questions, answers = texts(7, 4, 5), texts(2, 6, 3)
    (ids, real), (answer_ids, answer_real) = pad(questions), pad(answers)
    config = replace(SIZES, norm_position="post", norm_eps=1e-5, activation="silu")
    names = {r"shared\.weight": "embeddings.lifts.source.table", r".*embed_positions\.weight": ""}
    for theirs_name, ours in {"encoder": "encoder", "decoder": "transformer"}.items():
        layer, block = rf"{theirs_name}\.layers\.(\d)\.", rf"{ours}.blocks.\1."
        names |= {
            rf"{layer}self_attn\.([qkv])_proj\.(.*)": rf"{block}attention.\2.\3",
            rf"{layer}self_attn\.out_proj\.(.*)": rf"{block}attention.o.\2",
            rf"{layer}encoder_attn\.([qkv])_proj\.(.*)": rf"{block}cross.\2.\3",
            rf"{layer}encoder_attn\.out_proj\.(.*)": rf"{block}cross.o.\2",
            rf"{layer}self_attn_layer_norm\.(.*)": rf"{block}attention_residual.norm.\2",
            rf"{layer}encoder_attn_layer_norm\.(.*)": rf"{block}cross_residual.norm.\2",
            rf"{layer}final_layer_norm\.(.*)": rf"{block}mlp_residual.norm.\2",
            rf"{layer}fc1\.(.*)": rf"{block}mlp.up.\2",
            rf"{layer}fc2\.(.*)": rf"{block}mlp.down.\2",
        }
    return Witness(
        theirs,
        lambda: (
            theirs(
                ids, attention_mask=real.long(), decoder_input_ids=answer_ids, decoder_attention_mask=answer_real.long()
            ).last_hidden_state
        ),
        answer_real,
        names,
        {"source": text, "target": text},
        [{"target": count(text.encode(row))} for row in answers],
        replace(config, d_ff=14),
        EmbeddingConfig(types=False, scale=True, positions=[PositionConfig(("word",), "sinusoidal", sines="halves")]),
        encoder=config,
        conditions=[{"source": text.encode(row)} for row in questions],
        tied=("source", "target"),
    )


WITNESSES: dict[str, Callable[[], Witness]] = {
    "torch encoder, pre, gelu": lambda: torch_encoder("pre", "gelu"),
    "torch encoder, pre, relu": lambda: torch_encoder("pre", "relu"),
    "torch encoder, post, gelu": lambda: torch_encoder("post", "gelu"),
    "torch encoder, post, relu": lambda: torch_encoder("post", "relu"),
    "torch encoder, causal": lambda: torch_encoder("pre", "gelu", causal=True),
    "torch encoder, relations": torch_relations,
    "torch transformer, pre": lambda: torch_transformer("pre"),
    "torch transformer, post": lambda: torch_transformer("post"),
    "timm vit": timm_vit,
    "timm vit, q/k norm": lambda: timm_vit(qk_norm=True),
    "timm vit, registers with positions": lambda: timm_vit(registers=3),
    "timm vit, registers without": lambda: timm_vit(registers=3, placed=False),
    "timm vit, norm before": lambda: timm_vit(first_norm=True, qk_norm=True),
    "gpt2": gpt2,
    "llama": llama,
    "bert": bert,
    "bloom": bloom,
    "t5": t5,
    "marian": marian,
    "decision transformer": decision_transformer,
}


@pytest.mark.parametrize("name", WITNESSES)
def test_ours_is_theirs(name: str) -> None:
    forward, gradient = disagreement(WITNESSES[name]())
    assert forward < 1e-4 and gradient < 1e-4


@pytest.mark.parametrize("name", WITNESSES)
def test_no_part_is_so_small_that_its_absence_would_pass(name: str) -> None:
    parts = ["attention.q.weight", "attention.o.weight", "mlp.down.weight"]
    if WITNESSES[name]().encoder is not None:
        parts += ["cross.q.weight", "cross.o.weight"]
    for part in parts:
        assert disagreement(WITNESSES[name](), zeroed=part)[0] > 1e-2, part


WRONG: dict[str, dict[str, list[dict]]] = {
    "torch encoder, pre, gelu": {
        "transformer": [
            {"norm_position": "post", "final_norm": True},
            {"norm": "rmsnorm"},
            {"norm_eps": 1e-5},
            {"norm_affine": False},
            {"final_norm": False},
            {"first_norm": True},
            {"activation": "gelu_tanh"},
            {"activation": "relu"},
            {"activation": "relu2"},
            {"activation": "silu"},
            {"gated": True},
            {"n_heads": 2},
            {"qk_norm": "layernorm"},
            {"qk_norm": "rmsnorm"},
            {"attention_scale": 1.0},
            {"q_bias": False},
            {"v_bias": False},
            {"o_bias": False},
            {"mlp_bias": False},
            {"layer_scale": 1.0},
            {"depth": 1},
        ],
        "embedding": [{"types": True}, {"scale": True}, {"norm": True}],
    },
    "torch encoder, pre, relu": {"transformer": [{"activation": "gelu"}, {"activation": "relu2"}]},
    "torch encoder, post, gelu": {"transformer": [{"norm_position": "pre"}, {"final_norm": True}]},
    "torch transformer, pre": {
        "transformer": [{"final_norm": False}, {"norm_position": "post"}, {"v_bias": False}, {"o_bias": False}],
        "encoder": [{"final_norm": False}, {"norm_position": "post"}, {"activation": "gelu"}],
    },
    "timm vit": {
        "transformer": [{"layer_scale": None}, {"qk_norm": "layernorm"}, {"first_norm": True}, {"final_norm": False}],
        "embedding": [
            {"positions": []},
            {"positions": [PositionConfig(("row", "column"), "joint")]},
            {"positions": [PositionConfig(("slot",), "joint"), PositionConfig(("row", "column"), "learned")]},
        ],
    },
    "timm vit, norm before": {
        "transformer": [{"first_norm": False}, {"qk_norm": None}, {"qk_norm": "rmsnorm"}, {"k_bias": False}],
    },
    "gpt2": {
        "transformer": [{"activation": "gelu"}, {"final_norm": False}, {"norm_eps": 1e-5}],
        "embedding": [{"positions": []}, {"positions": [PositionConfig(("word",), "sinusoidal")]}],
    },
    "llama": {
        "transformer": [
            {"rotary": None},
            {"rotary": RotaryConfig(("word",))},
            {"norm": "layernorm"},
            {"norm_eps": 1e-5},
            {"gated": False},
            {"activation": "gelu"},
            *({name: True} for name in NO_BIASES if name != "k_bias"),
        ],
    },
    "bloom": {
        "transformer": [{"relative": None}, {"relative": BUCKETS}, {"activation": "gelu"}],
        "embedding": [{"norm": False}],
    },
    "decision transformer": {
        "transformer": [
            {"activation": "gelu"},
            {"activation": "relu2"},
            {"final_norm": False},
            {"first_norm": True},
            {"norm_eps": 0.1},
            {"attention_scale": 1.0},
            {"norm_position": "post"},
        ],
        "embedding": [
            {"norm": False},
            {"offset": False},
            {"types": True},
            {"scale": True},
            {"positions": []},
            {"positions": [PositionConfig(("step",), "sinusoidal")]},
        ],
    },
    "bert": {"embedding": [{"norm": False}, {"types": False}, {"positions": []}]},
    "t5": {
        "transformer": [
            {"attention_scale": None},
            {"activation": "relu"},
            {"gated": False},
            {"relative": None},
            {"relative": BUCKETS},
            {"relative": replace(ONE_SIDED, max_distance=5)},
            {"relative": RelativeConfig("alibi", "word")},
        ],
        "encoder": [
            {"attention_scale": None},
            {"norm": "layernorm"},
            {"relative": None},
            {"relative": ONE_SIDED},
            {"relative": replace(BUCKETS, max_distance=3)},
        ],
    },
    "marian": {
        "embedding": [
            {"scale": False},
            *(
                {"positions": [PositionConfig(("word",), "sinusoidal", sines=kind)]}
                for kind in ("interleaved", "whisper")
            ),
            {"positions": [PositionConfig(("word",), "sinusoidal", sines="halves", base=1000.0)]},
        ],
        "encoder": [{"activation": "relu"}],
    },
}
"""What is set wrong on our side, by witness and part."""


@pytest.mark.parametrize(
    ("name", "part", "wrong"),
    [(name, part, wrong) for name, parts in WRONG.items() for part, wrongs in parts.items() for wrong in wrongs],
    ids=lambda value: str(value).replace("Config", ""),
)
def test_an_option_set_wrong_is_seen(name: str, part: str, wrong: dict) -> None:
    assert disagreement(WITNESSES[name](), **{part: wrong})[0] > 1e-2
