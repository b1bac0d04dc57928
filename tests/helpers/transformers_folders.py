"""Small models of transformers in folders on the disk: every parameter redrawn, and a tokenizer trained on a few lines.

Import it behind `pytest.importorskip("transformers")`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    DecisionTransformerConfig,
    DecisionTransformerModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.utils import logging

from anyformer.tasks.base.task import Task
from anyformer.tasks.convert.huggingface import from_transformers
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.huggingface import Family, read_folder, read_settings
from tests.helpers.witnesses import error, redraw

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


def unigrams() -> PreTrainedTokenizerFast:
    """As T5 and Marian cut texts, `</s>` behind each."""
    package = Tokenizer(models.Unigram())
    package.normalizer = normalizers.Replace(" {2,}", " ")
    package.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="always")
    package.decoder = decoders.Metaspace("\u2581", prepend_scheme="always")
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=specials, unk_token="<unk>", show_progress=False)
    package.train_from_iterator(LINES, trainer)
    package.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=package, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=40
    )


SPOKEN = ("en", "de", "haw")
WHISPER_TOKENS = [
    *("<|startoftranscript|>", *(f"<|{language}|>" for language in SPOKEN), "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", "<|0.00|>", "<|0.02|>"),
]


def byte_level_of_whisper() -> WhisperTokenizer:
    package = byte_level()
    learnt = json.loads(package.backend_tokenizer.to_str())["model"]
    vocab = {piece: i for piece, i in learnt["vocab"].items() if piece != "<|endoftext|>"}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[tuple(pair) for pair in learnt["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": WHISPER_TOKENS[:-2]})
    tokenizer.add_tokens(WHISPER_TOKENS[-2:])
    return tokenizer


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


def whisper(folder: Path, **options: Any) -> nn.Module:
    """A Whisper of one second, also written into the folder."""
    tokenizer = byte_level_of_whisper()
    ids = tokenizer.get_vocab()
    end, start = tokenizer.eos_token_id, ids["<|startoftranscript|>"]
    sizes = {"vocab_size": len(tokenizer), "d_model": 12, "max_source_positions": 50, "max_target_positions": 40}
    sizes |= {f"{stack}_layers": 2 for stack in ("encoder", "decoder")}
    sizes |= {"encoder_attention_heads": 3, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 28, "num_mel_bins": 16}
    named = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    model = WhisperForConditionalGeneration(WhisperConfig(**(sizes | named | options)))
    redraw(model)
    # It is no formula where it comes from a file.
    model.model.encoder.embed_positions.weight.data.normal_(0, 1)
    model.generation_config = GenerationConfig(
        **named,
        is_multilingual=True,
        lang_to_id={f"<|{language}|>": ids[f"<|{language}|>"] for language in SPOKEN},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_length=model.config.max_target_positions,
        suppress_tokens=[1, 2, 7, start],
        begin_suppress_tokens=[ids["\u0120"], end],
        return_timestamps=False,
    )
    seconds = model.config.max_source_positions // 50
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=seconds).save_pretrained(folder)
    return _written(model, tokenizer, folder)


def marian(folder: Path, tokenizer: Any = None, **options: Any) -> nn.Module:
    """A Marian, also written into the folder."""
    tokenizer = tokenizer or unigrams()
    pad = tokenizer.pad_token_id
    sizes = {"vocab_size": len(tokenizer), "d_model": 12, "max_position_embeddings": 40, "scale_embedding": True}
    sizes |= {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 14, "activation_function": "swish"}
    named = {"pad_token_id": pad, "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": pad}
    model = MarianMTModel(MarianConfig(**(sizes | named | {"forced_eos_token_id": None} | options)))
    redraw(model)
    model.final_logits_bias.normal_(0, 0.5)
    model.generation_config.bad_words_ids = [[pad]]
    return _written(model, tokenizer, folder)


V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def t5(folder: Path, tokenizer: Any = None, **options: Any) -> nn.Module:
    """A T5 v1.0, or with `V1_1` one of v1.1, also written into the folder."""
    tokenizer = tokenizer or unigrams()
    pad = tokenizer.pad_token_id
    sizes = {"vocab_size": len(tokenizer) + 5, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_heads": 3}
    sizes |= {"num_layers": 2, "num_decoder_layers": 3, "layer_norm_epsilon": 0.1}
    sizes |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    named = {"pad_token_id": pad, "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": pad}
    model = T5ForConditionalGeneration(T5Config(**(sizes | named | options)))
    if not model.config.scale_decoder_outputs:
        # It says of every head that it is tied.
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.shared.weight))
        model.all_tied_weights_keys.pop("lm_head.weight")
    # Without a scale the logits of attention are sqrt(5) as large.
    redraw(model, spread=1.0)
    return _written(model, tokenizer, folder)


def decision_transformer(folder: Path, **options: Any) -> nn.Module:
    """A Decision Transformer, also written into the folder."""
    sizes = {"state_dim": 5, "act_dim": 3, "hidden_size": 12, "max_ep_len": 30, "n_layer": 2, "n_head": 3}
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = DecisionTransformerModel(DecisionTransformerConfig(**(sizes | drops | {"n_positions": 7} | options)))
    redraw(model)
    model.save_pretrained(folder)
    return model.eval()


def _written(model: nn.Module, tokenizer: Any, folder: Path) -> nn.Module:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


def _write(model: nn.Module, tokenizer: Any, folder: Path) -> nn.Module:
    redraw(model)
    return _written(model, tokenizer, folder)


def padded(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """A batch as transformers takes it, padded on the right."""
    n = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (n - len(row))] for row in rows])
    mask = torch.arange(n) < torch.tensor([[len(row)] for row in rows])
    return {"input_ids": ids, "attention_mask": mask.long()}


def disagreement(
    family: Family,
    folder: Path,
    theirs: nn.Module,
    expected: Tensor,
    task: Task,
    found: Tensor,
    only_ours: Sequence[str] = (),
) -> float:
    """The largest difference of the outputs, and of the gradients of all parameters, in standard deviations.

    only_ours: parameters of ours, 0 where they have none.
    """
    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    (found * noise).sum().backward()
    # Gradients go the way of the weights.
    carried = from_transformers(folder)
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    # Fixed tables have none, and are what they are.
    gradients |= {name: p.detach() for name, p in theirs.named_parameters() if not p.requires_grad}
    gradients |= {name: buffer.grad for name, buffer in theirs.named_buffers() if buffer.grad is not None}
    settings = family.settled(read_settings(folder), read_folder(folder)[0])
    name = carried.target if isinstance(carried, SequenceToSequence) else "text"
    family.load(carried, None if family is DECISION_TRANSFORMER else name, gradients, settings, "the gradients")
    wanted = dict(carried.named_parameters())
    floor = 0.1 * torch.cat([gradient.flatten() for gradient in wanted.values()]).std()
    off = [
        ((parameter.grad - wanted[name]).abs().max() / wanted[name].std().clamp(min=floor)).item()
        for name, parameter in task.named_parameters()
        if name not in only_ours
    ]
    return max(error(found, expected), *off)
