"""Encoder-decoders of transformers and OpenAI as tasks that write a text, and back: Whisper, Marian and T5."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Package

from anyformer.errors import InputError
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.text.huggingface import read_vocabulary, sized_text, write_vocabulary
from anyformer.tokenizers.text.sentencepiece import marian_vocabularies, t5_vocabulary
from anyformer.tokenizers.text.text import Text
from anyformer.weights.huggingface import Design, Family, Settings, read_json
from anyformer.weights.marian import MARIAN
from anyformer.weights.t5 import T5
from anyformer.weights.whisper import WHISPER

FIELDS = {"speech": ("audio", "text"), "text": ("text", "target")}
"""What the source and the target are called."""
GENERATION, SOUND, TARGET = "generation_config.json", "preprocessor_config.json", "target_tokenizer.json"
MEL, STEM = MelConfig(), AudioStem()
"""Whisper's, but for the number of bands."""
SECONDS = math.prod(STEM.strides) * MEL.hop / MEL.rate
"""Of sound that a token of Whisper's encoder stands for; its 1,500 places are 30 seconds."""
SPOKEN = re.compile(r"<\|[a-z]{2,3}\|>")
"""How Whisper's tokens of languages are spelt."""
START, TRANSCRIBE, PLAIN = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"
MULTILINGUAL = 51865
"""Ids at least of a Whisper that knows several languages, where nothing else says so."""
UNSAID = (*'"#()*+/:;<=>@[\\]^_`{|}~', *"「」『』", "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("')
UNSAID += ("((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪")
NOTES = tuple("♩♪♫♬♭♮♯")
"""What stands in transcripts for other sounds than speech, which Whisper is not to write."""


def sequence_task(
    use: str, design: Design, settings: Settings, folder: Path, language: str | None = None, pad: bool = False
) -> SequenceToSequence:
    """The task of a folder, without its weights.

    use: "text" or "speech", what the encoder reads. folder: where tokenizer and the rest lie.
    language: of Whisper: the one that is spoken, such as `de`; told from the sound when left out.
    pad: of Whisper: whether a recording is filled with silence to 30 seconds.
    Raises InputError for a tokenizer that is missing or of another model, and for a language that it has not.
    """
    told = Settings(read_json(path), str(path)) if (path := folder / GENERATION).is_file() else settings
    source, target = FIELDS[use]
    vocabularies = _vocabularies(folder, settings, use)
    texts = [sized_text(each, design.max_len, design.vocab_size, settings.path) for each in vocabularies]
    text = texts[-1]
    _check_end(text, told)
    if use == "speech":
        _check_sound(folder / SOUND, design)
        seconds = design.embedding.positions[0].sizes[0] * SECONDS
        reader: Any = Audio(
            mel=replace(MEL, n_mels=design.n_mels),
            stem=STEM,
            max_seconds=seconds,
            pad_to_seconds=seconds if pad else None,
        )
        start = _opening(text, told, design, language)
        closed, closed_first = _suppressed(text, told)
        longest = design.max_len // 2
    else:
        if language is not None or pad:
            raise InputError(f"{folder}: --language and --pad are for Whisper; leave them out")
        reader = replace(texts[0], wrap=texts[0].can_wrap)
        first = told.get("decoder_start_token_id", None, (int, type(None)))
        first = settings.get("decoder_start_token_id", text.pad_id, (int, type(None))) if first is None else first
        start = [_spelling(text, first, settings)]
        words = told.get("bad_words_ids", None, (list, type(None))) or []
        closed = tuple(sorted(ids[0] for ids in words if isinstance(ids, list) and len(ids) == 1))
        closed_first, longest = (), None
    return SequenceToSequence(
        {source: reader, target: text},
        design.transformer,
        design.embedding,
        target=target,
        encoder=design.encoder,
        output=design.output,
        shared_vocabulary=use == "text",
        start=start,
        decoding=DecodeConfig(
            n_beams=told.get("num_beams", None, (int, type(None))) or 1,
            length_penalty=1.0 if told.values.get("length_penalty") is None else told.get("length_penalty", 1.0),
            max_new_tokens=longest,
            suppressed=closed,
            suppressed_first=closed_first,
        ),
    )


def _vocabularies(folder: Path, settings: Settings, use: str) -> list[str]:
    """Of the source, where it is a text, and of the target."""
    if (folder / "tokenizer.json").is_file() or use == "speech":
        both = [read_vocabulary(folder)] * (2 if use == "text" else 1)
        if (folder / TARGET).is_file():
            both[-1] = Text(file=str((folder / TARGET).absolute())).fit(()).vocabulary
        return both
    if settings.values.get("model_type") == MARIAN.model_type and (folder / "source.spm").is_file():
        return list(marian_vocabularies(folder))
    if settings.values.get("model_type") == T5.model_type and (folder / "spiece.model").is_file():
        return [t5_vocabulary(folder)] * 2
    raise InputError(f"{folder} holds no tokenizer: neither tokenizer.json nor the model of SentencePiece is there")


def _spelling(text: Text, token: int | None, settings: Settings) -> str:
    spelling = None if token is None else Package.from_str(text.vocabulary).id_to_token(token)
    if spelling is None:
        raise InputError(f"{settings.path}: decoder_start_token_id is {token}, which the tokenizer does not have")
    return spelling


def _check_end(text: Text, told: Settings) -> None:
    ends = told.values.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if ends != [None] and text.eos_id not in ends:
        raise InputError(
            f"{told.path}: eos_token_id is {ends[0]}, and the tokenizer ends a text with {text.eos_id}; take both from "
            "one model"
        )


# Whisper


def _check_sound(path: Path, design: Design) -> None:
    """Raise InputError where a preprocessor_config.json wants spectrograms that are not Whisper's."""
    if path.is_file():
        Settings(read_json(path), str(path)).require(
            feature_size=design.n_mels,
            sampling_rate=MEL.rate,
            hop_length=MEL.hop,
            n_fft=MEL.window,
            do_normalize=False,
        )


def _opening(text: Text, told: Settings, design: Design, language: str | None) -> list[str | list[str]]:
    """What stands before a transcript: the start, the language or those to choose from, what is to be done."""
    known = Package.from_str(text.vocabulary).get_vocab()
    if lacking := [token for token in (START, PLAIN) if token not in known]:
        raise InputError(f"{told.path}: the tokenizer has no token {lacking[0]}; take that of a Whisper")
    several = told.values.get("is_multilingual")
    if not (design.vocab_size >= MULTILINGUAL if several is None else several):
        if language not in (None, "en"):
            raise InputError(f"--language {language}: this Whisper knows English alone")
        return [START, PLAIN]
    spoken = sorted(filter(SPOKEN.fullmatch, known), key=known.__getitem__)
    if language is not None:
        if f"<|{language}|>" not in spoken:
            codes = ", ".join(token.strip("<|>") for token in spoken)
            raise InputError(f"--language {language}: this Whisper knows {codes}")
        spoken = [f"<|{language}|>"]
    return [START, spoken[0] if len(spoken) == 1 else spoken, TRANSCRIBE, PLAIN]


def _suppressed(text: Text, told: Settings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that Whisper is not to write, and those that it is not to begin with."""
    always, first = (told.get(name, None, (list, type(None))) for name in ("suppress_tokens", "begin_suppress_tokens"))
    if always is None and told.path.endswith(".pt"):
        cut = text.encode_batch
        always = {int(ids[0]) for ids in cut([" -", " '"])}
        for sign in (*UNSAID, *NOTES):
            always |= {int(ids[0]) for ids in cut([sign, f" {sign}"]) if len(ids) == 1 or sign in NOTES}
        others = ("<|translate|>", TRANSCRIBE, START, "<|startoflm|>", "<|startofprev|>", "<|nospeech|>")
        known = Package.from_str(text.vocabulary).get_vocab()
        always |= {known[token] for token in others if token in known}
        first = [int(cut([" "])[0][0]), text.eos_id]
    if wrong := [token for token in (*(always or ()), *(first or ())) if not isinstance(token, int)]:
        raise InputError(f"{told.path}: suppress_tokens and begin_suppress_tokens must be ids, got {wrong[0]!r}")
    return tuple(sorted(set(always or ()) - {-1, text.eos_id})), tuple(sorted(set(first or ())))


# Out


def counterpart(task: SequenceToSequence) -> tuple[Family, str]:
    """The family of a task, and what its encoder reads. Raises InputError if it has none."""
    (source, *others) = task.inputs
    reader = task.tokenizers[source]
    wrong = {
        f"architecture: {task.architecture}": task.architecture != "encoder_decoder",
        f"the fields {', '.join(task.inputs)}": others,
        f"the field {source}": not isinstance(reader, Text | Audio),
        "ctc": task.ctc is not None,
    }
    if not any(wrong.values()) and isinstance(reader, Text):
        wrong |= {
            "shared_vocabulary: false": not task.shared_vocabulary,
            "a text of another kind than bpe": {reader.kind, task.text.kind} != {"bpe"},
        }
    elif not any(wrong.values()):
        wrong |= {
            "an audio other than Whisper's": _not_whisper(reader),
            "a text of another kind than bpe": task.text.kind != "bpe",
        }
    if found := [what for what, is_there in wrong.items() if is_there]:
        raise InputError(f"no encoder-decoder of transformers has a word for {found[0]}; train a model without it")
    if isinstance(reader, Audio):
        return WHISPER, "speech"
    return (T5 if task.transformer.relative is not None else MARIAN), "text"


def _not_whisper(audio: Audio) -> bool:
    theirs = Audio(mel=replace(MEL, n_mels=audio.mel.n_mels), stem=STEM)
    own = ("max_seconds", "pad_to_seconds", "augment")
    return any(getattr(audio, name) != getattr(theirs, name) for name in vars(theirs) if name not in own)


def sequence_design(task: SequenceToSequence) -> Design:
    """What a config.json would say of the task."""
    (source,) = task.inputs
    reader = task.tokenizers[source]
    sizes = {each.axes: part.sizes for each, part in zip(*_positions(task), strict=True)}
    word = sizes.get(("word",)) or (task.text.max_len,)
    return Design(
        task.transformer,
        replace(task.embedding, positions=list(task.model.embeddings.placed)),
        max_len=word[0],
        vocab_size=task.text.n_ids,
        output=task.output,
        encoder=task.encoder or task.transformer,
        n_mels=reader.mel.n_mels if isinstance(reader, Audio) else None,
    )


def _positions(task: SequenceToSequence) -> tuple[Any, Any]:
    return task.model.embeddings.placed, task.model.embeddings.positions


def sequence_settings(task: SequenceToSequence) -> dict[str, Any]:
    """What a config.json says beside the design."""
    text = task.text
    end, first = text.eos_id, task.start_ids[0]
    return {
        "is_encoder_decoder": True,
        "decoder_start_token_id": first,
        "bos_token_id": end,
        "eos_token_id": end,
        "forced_eos_token_id": None,
        "pad_token_id": end if text.pad_id is None else text.pad_id,
    }


def write_sequence_files(task: SequenceToSequence, folder: Path) -> None:
    """Write tokenizer.json and what else transformers reads of a folder, the weights and config.json aside."""
    (source,) = task.inputs
    reader, text, decoding = task.tokenizers[source], task.text, task.decoding
    told = {name: value for name, value in sequence_settings(task).items() if name != "is_encoder_decoder"}
    told |= {"num_beams": decoding.n_beams, "length_penalty": decoding.length_penalty}
    if isinstance(reader, Text):
        if decoding.suppressed:
            told["bad_words_ids"] = [[i] for i in decoding.suppressed]
        write_vocabulary(reader, folder)
        if text.vocabulary != reader.vocabulary:
            (folder / TARGET).write_text(text.vocabulary, encoding="utf-8")
    else:
        write_vocabulary(text, folder, tokenizer_class="WhisperTokenizer", processor_class="WhisperProcessor")
        told |= _whisper_generation(task)
        mel = reader.mel
        (n_places,) = next(part.sizes for each, part in zip(*_positions(task), strict=True) if each.axes == ("time",))
        seconds = round(n_places * SECONDS)
        sound = {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": mel.n_mels,
            "sampling_rate": mel.rate,
            "n_fft": mel.n_fft,
            "hop_length": mel.hop,
            "chunk_length": seconds,
            "n_samples": seconds * mel.rate,
            "nb_max_frames": seconds * mel.rate // mel.hop,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        (folder / SOUND).write_text(json.dumps(sound, indent=2) + "\n", encoding="utf-8")
    (folder / GENERATION).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _whisper_generation(task: SequenceToSequence) -> dict[str, Any]:
    """What Whisper's generation_config.json says beside what all say."""
    known = Package.from_str(task.text.vocabulary).get_vocab()
    start = task.start or []
    several = any(isinstance(each, list) or SPOKEN.fullmatch(each) for each in start)
    told = {
        "is_multilingual": several,
        "max_length": task.text.max_len,
        "return_timestamps": False,
        "suppress_tokens": list(task.decoding.suppressed),
        "begin_suppress_tokens": list(task.decoding.suppressed_first),
    }
    if PLAIN in known:
        told["no_timestamps_token_id"] = known[PLAIN]
    if several:
        told["lang_to_id"] = {token: i for token, i in known.items() if SPOKEN.fullmatch(token)}
        tasks = {"transcribe": TRANSCRIBE, "translate": "<|translate|>"}
        told["task_to_id"] = {name: known[token] for name, token in tasks.items() if token in known}
    return told
