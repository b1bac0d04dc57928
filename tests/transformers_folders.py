"""Small models of transformers in folders on the disk: every parameter redrawn, and a tokenizer trained on a few lines.

Import it behind `pytest.importorskip("transformers")`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)
from transformers.utils import logging
from witnesses import error, redraw

from anyformer.tasks.exchange import from_transformers
from anyformer.tasks.task import Task
from anyformer.weights import Family
from anyformer.weights.pretrained import read_settings

logging.disable_progress_bar()

LINES = [
    "to be or not to be that is the question",
    "whether tis nobler in the mind",
    "être ou ne pas être, là est 東京",
]
ODD = [
    "to be",
    "The  Mind\nis\ttis, être 東京 🙂!",
    "e\u0301 \u00e9 \u200d\ufeff x",
    "<|endoftext|>a [CLS] b [SEP] c[MASK] d [PAD] <eos>",
    "x" * 25,
]
"""Texts with what a tokenizer may stumble on, the spelling of special tokens too."""


def byte_level() -> GPT2Tokenizer:
    package = Tokenizer(models.BPE())
    package.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    package.train_from_iterator(LINES, trainer)
    learnt = json.loads(package.to_str())["model"]
    return GPT2Tokenizer(vocab=learnt["vocab"], merges=[tuple(pair) for pair in learnt["merges"]])


def word_pieces(**options: Any) -> BertTokenizer:
    package = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    package.normalizer = normalizers.BertNormalizer()
    package.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    package.train_from_iterator(
        LINES, trainers.WordPieceTrainer(vocab_size=90, special_tokens=specials, show_progress=False)
    )
    return BertTokenizer(vocab=package.get_vocab(), **options)


def gpt2(folder: Path, tokenizer: Any = None, **options: Any) -> nn.Module:
    """A GPT-2, also written into the folder."""
    tokenizer = tokenizer or byte_level()
    end = tokenizer.eos_token_id
    sizes = {"vocab_size": len(tokenizer), "n_positions": 48, "n_embd": 12, "n_layer": 2, "n_head": 3}
    config = GPT2Config(**(sizes | {"layer_norm_epsilon": 0.1, "bos_token_id": end, "eos_token_id": end} | options))
    return _write(GPT2LMHeadModel(config), tokenizer, folder)


def bert(folder: Path, kind: str = "masked", tokenizer: Any = None, **options: Any) -> nn.Module:
    """A BERT with the head for masked tokens or for "classes", also written into the folder."""
    tokenizer = tokenizer or word_pieces()
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "hidden_size": 12, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 3, "intermediate_size": 20, "layer_norm_eps": 0.1}
    if kind == "classes":
        sizes["id2label"] = {0: "dull", 1: "fair", 2: "fine"}
    model = BertForMaskedLM if kind == "masked" else BertForSequenceClassification
    return _write(model(BertConfig(**(sizes | options))), tokenizer, folder)


def _write(model: nn.Module, tokenizer: Any, folder: Path) -> nn.Module:
    redraw(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


def padded(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """A batch as transformers takes it, padded on the right."""
    n = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (n - len(row))] for row in rows])
    mask = torch.arange(n) < torch.tensor([[len(row)] for row in rows])
    return {"input_ids": ids, "attention_mask": mask.long()}


def disagreement(family: Family, folder: Path, theirs: nn.Module, expected: Tensor, task: Task, found: Tensor) -> float:
    """The largest difference of the outputs, and of the gradients of all parameters, in standard deviations."""
    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    (found * noise).sum().backward()
    # Gradients go the way of the weights.
    carried = from_transformers(folder)
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    family.load(carried, "text", gradients, read_settings(folder), "the gradients")
    wanted = dict(carried.named_parameters())
    floor = 0.1 * torch.cat([gradient.flatten() for gradient in wanted.values()]).std()
    off = [
        ((parameter.grad - wanted[name]).abs().max() / wanted[name].std().clamp(min=floor)).item()
        for name, parameter in task.named_parameters()
    ]
    return max(error(found, expected), *off)
