"""A small generator with drawn weights, its prompts, and GPT-2 as transformers has it beside ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.generation.config import GenerationConfig
from anyformer.generation.continuation import Continuation
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet
from tests.helpers.witnesses import Ids, Vectors, count, draw_ids, redraw

V = 11
TEXT, PICTURE = Ids(V, ("word",), 40), Vectors(3, ("row", "column"), (2, 5))
FIELDS = {"picture": PICTURE, "text": TEXT}


def build(encoder: bool = False, **choices) -> Generator:
    """A small model, redrawn, with a head of its own, left in training mode."""
    config = TransformerConfig(**{"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10, "dropout": 0.5, **choices})
    reader = replace(config, depth=1) if encoder else None
    model = Anyformer(FIELDS, config, EmbeddingConfig(), reader)
    head = nn.Linear(12, V)
    redraw(model)
    redraw(head)
    return Generator(model, head, "text", start=0, decode=letters)


def letters(ids: Sequence[int]) -> str:
    return "".join("abcdefghijk"[i] for i in ids)


def text(*lengths: int) -> list[Sample]:
    return [{"text": count(TEXT.encode(draw_ids(n)), 0)} for n in lengths]


def picture(n_columns: int) -> TokenSet:
    return PICTURE.encode(torch.randn(1, n_columns, 3))


@torch.no_grad()
def logits_after(generator: Generator, sample: Sample, ids: Sequence[int], condition: Sample | None = None) -> Tensor:
    """From the whole sample with the ids behind its text, without a cache. (v,)"""
    tokens = sample["text"]
    first = int(tokens.order[-1]) + 1
    both = torch.cat([tokens.content, torch.tensor(ids, dtype=torch.int64)])
    order = torch.cat([tokens.order, torch.arange(first, first + len(ids))])
    whole = {**sample, "text": TokenSet(both, torch.arange(len(both))[:, None], order)}
    model = generator.model.eval()
    conditions = None if condition is None else collate([condition], FIELDS)
    hidden = model(collate([whole], FIELDS), conditions)
    model.train()
    return generator.head(hidden[0, -1])


def ids_of(results: list[list[Continuation]]) -> list[list[int]]:
    return [each.ids for continuations in results for each in continuations]


def gpt2(vocab_size: int = 40, **sizes: int) -> tuple[nn.Module, Generator]:
    """Theirs and ours, with the same weights; its head is its table of tokens."""
    module = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    shape = {"vocab_size": vocab_size, "n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 2, **sizes}
    theirs = module.GPT2LMHeadModel(module.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)).eval()
    redraw(theirs)
    tokenizer = Ids(vocab_size, ("word",), shape["n_positions"])
    config = TransformerConfig(
        d_model=shape["n_embd"], depth=shape["n_layer"], n_heads=shape["n_head"], activation="gelu_tanh"
    )
    embedding = EmbeddingConfig(types=False, positions=[PositionConfig(("word",), "learned")])
    model = Anyformer({"text": tokenizer}, config, embedding)
    own, names = (
        dict(model.named_parameters()),
        {
            r"transformer\.wte\.weight": "embeddings.lifts.text.table",
            r"transformer\.wpe\.weight": "embeddings.positions.0.tables.0",
            r"transformer\.h\.(\d+)\.attn\.c_proj\.(.*)": r"transformer.blocks.\1.attention.o.\2",
            r"transformer\.h\.(\d+)\.mlp\.c_fc\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
            r"transformer\.h\.(\d+)\.mlp\.c_proj\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
            r"transformer\.h\.(\d+)\.ln_1\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
            r"transformer\.h\.(\d+)\.ln_2\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
            r"transformer\.ln_f\.(.*)": r"transformer.final_norm.\1",
        },
    )
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            tensor = tensor.T if re.search(r"(attn|mlp)\.c_.*weight", name) else tensor
            if found := re.fullmatch(r"transformer\.h\.(\d+)\.attn\.c_attn\.(.*)", name):
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    own[f"transformer.blocks.{found[1]}.attention.{letter}.{found[2]}"].copy_(part)
            else:
                (target,) = (
                    re.sub(pattern, new, name) for pattern, new in names.items() if re.fullmatch(pattern, name)
                )
                own[target].copy_(tensor)
    table = own["embeddings.lifts.text.table"]
    return theirs, Generator(model, lambda hidden: nn.functional.linear(hidden, table), "text")


def both(
    rows: Sequence[Sequence[int]], config: GenerationConfig, **given: float
) -> tuple[list[list[int]], list[list[int]]]:
    """New ids of transformers' and of ours; theirs up to the one that stops."""
    theirs, ours = gpt2()
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    theirs.generation_config.eos_token_id = list(config.stop_ids) or None
    out = theirs.generate(
        ids,
        attention_mask=real,
        max_new_tokens=config.max_new_tokens,
        do_sample=False,
        num_beams=config.n_beams,
        num_return_sequences=config.n_samples,
        repetition_penalty=config.repetition_penalty,
        pad_token_id=0,
        **given,
    )
    expected = []
    for row in out[:, width:].tolist():
        end = next((i for i, token in enumerate(row) if token in config.stop_ids), None)
        expected.append(row[:end])
    tokenizer = ours.model.tokenizers["text"]
    prompts = [{"text": count(tokenizer.encode(list(row)), 0)} for row in rows]
    return expected, ids_of(ours.generate(prompts, config))


ROWS = [[5, 9, 31], [7], [3, 3, 8, 20, 11, 39]]
