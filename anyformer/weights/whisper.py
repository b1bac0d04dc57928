"""Whisper (Radford et al. 2022) of any size, in and out: transformers' config.json and tensors, and OpenAI's file.

The encoder's sines come as a table and stay one: those of the published files are rounded to 16 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig
from anyformer.weights.huggingface import Design, Family, Settings, Speech
from anyformer.weights.marian import BLOCKS, LAYERS, STACKS, read_stacks, stack_settings
from anyformer.weights.tensors import read_pickled, rename

HEAD = "proj_out.weight"
PREFIX = "model."
"""Of all names but the head's."""
TIMES, WORDS = "model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"
NAMES = {
    "model.encoder.conv1.*": "model.embeddings.lifts.SOURCE.convolutions.0.*",
    "model.encoder.conv2.*": "model.embeddings.lifts.SOURCE.convolutions.1.*",
    TIMES: "model.embeddings.positions.TIME",
    "model.decoder.embed_tokens.weight": "model.embeddings.lifts.FIELD.table",
    WORDS: "model.embeddings.positions.WORD",
    **BLOCKS,
    **{f"model.{theirs}.layer_norm.*": f"model.{ours}.final_norm.*" for theirs, ours in STACKS.items()},
    HEAD: "head.output.weight",
}


def _design(settings: Settings, architecture: str) -> Design:
    settings.require(scale_embedding=False)
    if architecture in WHISPER.bare:
        settings.require(tie_word_embeddings=True)
    dropout = settings.get("dropout", 0.0, float)
    decoder, encoder = read_stacks(settings, 384, 4, 6, 1536, k_bias=False, dropout=dropout)
    max_len = settings.get("max_target_positions", 448)
    times = PositionConfig(
        ("time",), "sinusoidal", sizes=(settings.get("max_source_positions", 1500),), sines="whisper"
    )
    return Design(
        decoder,
        EmbeddingConfig(
            types=False,
            positions=[times, PositionConfig(("word",), "learned", sizes=(max_len,))],
            dropout=dropout,
        ),
        max_len=max_len,
        vocab_size=settings.get("vocab_size", 51865),
        output=HeadConfig(tied=settings.get("tie_word_embeddings", True)),
        encoder=encoder,
        n_mels=settings.get("num_mel_bins", 80),
    )


def _settings(design: Design) -> dict[str, Any]:
    sizes = {each.axes: each.sizes for each in design.embedding.positions}
    return stack_settings(design) | {
        "max_source_positions": (sizes.get(("time",)) or (1500,))[0],
        "max_target_positions": design.max_len,
        "num_mel_bins": design.n_mels,
        "vocab_size": design.vocab_size,
        "scale_embedding": False,
        "tie_word_embeddings": design.output.tied,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    left_out = {HEAD} if settings.get("tie_word_embeddings", True) else set()
    # Alone, without a head, the model's names have nothing before them.
    prefix = "" if any(name.startswith(PREFIX) for name in state) else PREFIX
    return {prefix + name: tensor for name, tensor in state.items() if name not in left_out}


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    for kind, table in (("type.source", TIMES), ("type", WORDS)):
        vector = pieces.pop(kind, None)
        # Adding 0 would turn -0 into 0.
        if vector is not None and vector.any():
            pieces[table] = pieces[table] + vector
    return pieces


# What stands before a transcript, and what is not to stand in it.

SPOKEN = re.compile(r"<\|[a-z]{2,3}\|>")
"""How tokens of languages are spelt."""
START, TRANSCRIBE, PLAIN = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"
TRANSLATE = "<|translate|>"
PREVIOUS = "<|startofprev|>"
"""What stands before the text before."""
SILENCE = ("<|nospeech|>", "<|nocaptions|>")
"""How the token that says that nothing is said is spelt, now and in the first files."""
MULTILINGUAL = 51865
"""Ids at least of a Whisper that knows several languages, where nothing else says so."""
UNSAID = (*'"#()*+/:;<=>@[\\]^_`{|}~', *"「」『』", "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("')
UNSAID += ("((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪")
NOTES = tuple("♩♪♫♬♭♮♯")
"""What stands in transcripts for other sounds than speech, which is not to be written."""


def _opening(ids: Mapping[str, int], told: Settings, design: Design, language: str | None) -> list[str | list[str]]:
    """The start, the language or those to choose from, what is to be done."""
    if lacking := [token for token in (START, PLAIN) if token not in ids]:
        raise InputError(f"{told.path}: the tokenizer has no token {lacking[0]}; take that of a Whisper")
    several = told.values.get("is_multilingual")
    if not (design.vocab_size >= MULTILINGUAL if several is None else several):
        if language not in (None, "en"):
            raise InputError(f"--language {language}: this Whisper knows English alone")
        return [START, PLAIN]
    spoken = sorted(filter(SPOKEN.fullmatch, ids), key=ids.__getitem__)
    if language is not None:
        if f"<|{language}|>" not in spoken:
            codes = ", ".join(token.strip("<|>") for token in spoken)
            raise InputError(f"--language {language}: this Whisper knows {codes}")
        spoken = [f"<|{language}|>"]
    return [START, spoken[0] if len(spoken) == 1 else spoken, TRANSCRIBE, PLAIN]


def _suppressed(
    ids: Mapping[str, int], cut: Callable[[list[str]], Any], end: int, told: Settings
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """As generation_config.json lists them; OpenAI's file lists none, and has those of its library."""
    always, first = (told.get(name, None, (list, type(None))) for name in ("suppress_tokens", "begin_suppress_tokens"))
    if always is None and told.path.endswith(".pt"):
        always = {int(each[0]) for each in cut([" -", " '"])}
        for sign in (*UNSAID, *NOTES):
            always |= {int(each[0]) for each in cut([sign, f" {sign}"]) if len(each) == 1 or sign in NOTES}
        others = (TRANSLATE, TRANSCRIBE, START, "<|startoflm|>", PREVIOUS, *SILENCE)
        always |= {ids[token] for token in others if token in ids}
        first = [int(cut([" "])[0][0]), end]
    if wrong := [token for token in (*(always or ()), *(first or ())) if not isinstance(token, int)]:
        raise InputError(f"{told.path}: suppress_tokens and begin_suppress_tokens must be ids, got {wrong[0]!r}")
    return tuple(sorted(set(always or ()) - {-1, end})), tuple(sorted(set(first or ())))


def _silence(ids: Mapping[str, int]) -> int | None:
    return next((ids[token] for token in SILENCE if token in ids), None)


HEADS = {
    (4, 6, 51864): "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    (4, 6, 51865): "2.2 3.0 3.2 3.3 3.4 3.5",
    (6, 8, 51864): "3.3 4.7 5.1 5.5 5.7",
    (6, 8, 51865): "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    (12, 12, 51864): "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    (12, 12, 51865): "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    (
        24,
        16,
        51864,
    ): "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    (24, 16, 51865): "13.15 15.4 15.15 16.1 20.0 23.4",
    (32, 20, 51866): "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    (4, 20, 51866): "2.4 2.11 3.3 3.6 3.11 3.14",
}
"""Of OpenAI's models, whose files do not say it: the heads of the cross-attention that follow what is said, as their
library lists them: layer.head from 0, by layers and heads of the decoder and ids. large and large-v2 are alike here."""


def _alignment(told: Settings, design: Design) -> tuple[tuple[int, int], ...]:
    """As generation_config.json lists them, or for OpenAI's file the list of its library."""
    heads = told.get("alignment_heads", None, (list, type(None)))
    if heads is None:
        sizes = design.transformer.depth, design.transformer.n_heads, design.vocab_size
        heads = [each.split(".") for each in HEADS.get(sizes, "").split()] if told.path.endswith(".pt") else []
    try:
        return tuple((int(layer), int(head)) for layer, head in heads)
    except (TypeError, ValueError) as error:
        raise InputError(f"{told.path}: alignment_heads must be pairs of a layer and a head, got {heads}") from error


def _times(ids: Mapping[str, int], design: Design) -> int | None:
    """The id of 0.00 seconds: behind the last that the tokenizer needs to know."""
    first = ids[PLAIN] + 1
    return first if first + N_TIMES <= design.vocab_size else None


def _generation(ids: Mapping[str, int], start: Sequence[str | list[str]]) -> dict[str, Any]:
    several = any(isinstance(each, list) or SPOKEN.fullmatch(each) for each in start)
    told: dict[str, Any] = {"is_multilingual": several, "return_timestamps": False}
    if PLAIN in ids:
        told["no_timestamps_token_id"] = ids[PLAIN]
    if several:
        told["lang_to_id"] = {token: i for token, i in ids.items() if SPOKEN.fullmatch(token)}
        tasks = {"transcribe": TRANSCRIBE, "translate": TRANSLATE}
        told["task_to_id"] = {name: ids[token] for name, token in tasks.items() if token in ids}
    return told


N_TIMES = 1501
"""Ids of times, from 0 to 30 seconds in steps of 0.02."""

# Its sound.

RATE, WINDOW, HOP = 16_000, 400, 160
"""Samples a second, of a frame, and from a frame to the next; two frames are a place of the encoder."""


def _sound(design: Design) -> dict[str, Any]:
    (n_places,) = next(each.sizes for each in design.embedding.positions if each.axes == ("time",))
    seconds = round(n_places * 2 * HOP / RATE)
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": design.n_mels,
        "sampling_rate": RATE,
        "n_fft": WINDOW,
        "hop_length": HOP,
        "chunk_length": seconds,
        "n_samples": seconds * RATE,
        "nb_max_frames": seconds * RATE // HOP,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


# OpenAI's file.

OPENAI_PARTS = {
    **{
        f"{own}.{part}.*": f"{theirs}.{name}.*"
        for own, theirs in {"attn": "self_attn", "cross_attn": "encoder_attn"}.items()
        for part, name in {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}.items()
    },
    "attn_ln.*": "self_attn_layer_norm.*",
    "cross_attn_ln.*": "encoder_attn_layer_norm.*",
    "mlp.0.*": "fc1.*",
    "mlp.2.*": "fc2.*",
    "mlp_ln.*": "final_layer_norm.*",
}
OPENAI = {
    "encoder.conv1.*": "model.encoder.conv1.*",
    "encoder.conv2.*": "model.encoder.conv2.*",
    "encoder.positional_embedding": TIMES,
    "decoder.token_embedding.weight": "model.decoder.embed_tokens.weight",
    "decoder.positional_embedding": WORDS,
    **{
        f"{stack}.blocks.*.{own}": f"model.{stack}.layers.*.{theirs}"
        for stack in STACKS
        for own, theirs in OPENAI_PARTS.items()
    },
    "encoder.ln_post.*": "model.encoder.layer_norm.*",
    "decoder.ln.*": "model.decoder.layer_norm.*",
}
"""OpenAI's names and transformers'."""
DIMS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""OpenAI's sizes and transformers'."""


def read_openai(path: str | Path) -> tuple[Settings, dict[str, Tensor]]:
    """A file of OpenAI's: its sizes as a config.json says them, and its tensors under transformers' names.

    Runs nothing that the file holds. Raises InputError if it is none of these.
    """
    loaded = read_pickled(path)
    dims, state = (loaded.get(part) if isinstance(loaded, dict) else None for part in ("dims", "model_state_dict"))
    if not isinstance(dims, Mapping) or not isinstance(state, Mapping):
        raise InputError(f"{path} is no Whisper of OpenAI: it must hold dims and model_state_dict")
    if lacking := DIMS.keys() - dims.keys():
        raise InputError(f"{path}: dims lacks {', '.join(sorted(lacking))}")
    if dims["n_audio_state"] != dims["n_text_state"]:
        raise InputError(f"{path}: encoder and decoder differ in width, which no Whisper does")
    values = {theirs: dims[own] for own, theirs in DIMS.items()}
    values |= {f"{stack}_ffn_dim": 4 * dims["n_audio_state"] for stack in STACKS}
    named = {"model_type": WHISPER.model_type, "architectures": [WHISPER.architecture("speech")]}
    tensors = {rename(name, OPENAI) or name: tensor for name, tensor in state.items()}
    return Settings(named | values, str(path)), tensors


def to_openai(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What OpenAI's file holds, of a config.json's values and tensors under transformers' names.

    Raises InputError for what its sizes cannot say.
    """
    wide = 4 * settings["d_model"]
    wrong = {
        f"a d_ff other than {wide}, four times d_model": {settings[f"{stack}_ffn_dim"] for stack in STACKS} != {wide},
        f"activation: {settings['activation_function']}": settings["activation_function"] != "gelu",
        "output.tied: false": not settings["tie_word_embeddings"],
    }
    if found := [what for what, is_there in wrong.items() if is_there]:
        raise InputError(f"OpenAI's Whisper does not support {found[0]}; export a folder for transformers instead")
    own = {theirs: name for name, theirs in OPENAI.items()}
    return {
        "dims": {name: settings[theirs] for name, theirs in DIMS.items()},
        "model_state_dict": {rename(name, own): tensor for name, tensor in tensors.items()},
    }


WHISPER = Family(
    "whisper",
    {"WhisperForConditionalGeneration": "speech"},
    _design,
    _settings,
    NAMES,
    LAYERS,
    _apart,
    _together,
    speech=Speech(
        _opening,
        _suppressed,
        _silence,
        _times,
        _alignment,
        _generation,
        _sound,
        {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"},
    ),
    bare={"WhisperModel": "speech"},
    read_file=read_openai,
    write_file=to_openai,
)
