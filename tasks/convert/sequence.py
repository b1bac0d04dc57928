"""Encoder-decoders of other libraries as tasks that write a text, and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer as Package

from anyformer.errors import InputError
from anyformer.local_files import read_json
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.text.huggingface import read_vocabulary, sized_text, write_vocabulary
from anyformer.tokenizers.text.sentencepiece import marian_vocabularies, t5_vocabulary
from anyformer.tokenizers.text.text import Text
from anyformer.weights.huggingface import Design, Family, Kind, Settings

FIELDS = {"speech": ("audio", "text"), "sequence": ("text", "target")}
"""What the source and the target are called."""
GENERATION, SOUND, TARGET = "generation_config.json", "preprocessor_config.json", "target_tokenizer.json"
MEL, STEM = MelConfig(), AudioStem()
"""Whisper's, but for the number of bands."""
SECONDS = math.prod(STEM.strides) * MEL.hop / MEL.rate
"""Of sound that a token of Whisper's encoder stands for; its 1,500 places are 30 seconds."""
SENTENCEPIECE = {
    "spiece.model": lambda folder: [t5_vocabulary(folder)] * 2,
    "source.spm": lambda folder: list(marian_vocabularies(folder)),
}
"""What reads the vocabularies of source and target, by the file that a family has."""
HEARD = ("feature_size", "sampling_rate", "hop_length", "n_fft")
"""What of a preprocessor_config.json decides the spectrogram."""

Pad = Literal["full", "auto", "none"]
LEAST_PAD = 5.0
"""Seconds of silence behind a recording with which Whisper tiny.en writes as well as with all up to 30 seconds: a word
error rate of 0.054 on nine recordings of 2 to 26 seconds, and of 0.066 with those; with 3 seconds 0.096, with 1 or 2
0.120, and with none 1.03."""
FALLBACK = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Whisper's temperatures behind 0 (Radford et al. 2022, 4.5)."""


def sequence_task(
    family: Family, design: Design, settings: Settings, folder: Path, language: str | None = None, pad: Pad = "full"
) -> SequenceToSequence:
    """The task of a folder, without its weights.

    folder: where tokenizer and the rest lie.
    language: of speech: the one that is spoken, such as `de`; told from the sound when left out.
    pad: of speech: how much silence is put behind a recording: full, to the longest that the model takes, as it was
        trained; auto, the least that keeps its error rate; or none.
    Raises InputError for a tokenizer that is missing or of another model, and for a language that it has not.
    """
    told = Settings(read_json(path), str(path)) if (path := folder / GENERATION).is_file() else settings
    speech = family.speech
    source, target = FIELDS["sequence" if speech is None else "speech"]
    vocabularies = _vocabularies(folder, family)
    texts = [sized_text(each, design.max_len, design.vocab_size, settings.path) for each in vocabularies]
    text = texts[-1]
    _check_end(text, told)
    if speech is not None:
        if (path := folder / SOUND).is_file():
            wanted = speech.sound(design)
            heard = {name: wanted[name] for name in HEARD}
            Settings(read_json(path), str(path)).require(**heard, do_normalize=False)
        seconds = design.embedding.positions[0].sizes[0] * SECONDS
        reader: Any = Audio(
            mel=replace(MEL, n_mels=design.n_mels),
            stem=STEM,
            max_seconds=seconds,
            pad_to_seconds=seconds if pad == "full" else None,
            pad_seconds=LEAST_PAD if pad == "auto" else None,
        )
        start = speech.opening(_ids(text), told, design, language)
        closed, closed_first = speech.suppressed(_ids(text), text.encode_batch, text.eos_id, told)
        longest = design.max_len // 2
        judged = {"fallback": FALLBACK, "silence_id": speech.silence(_ids(text))}
        judged |= {"time_id": speech.times(_ids(text), design), "alignment_heads": speech.alignment(told, design)}
    else:
        reader = replace(texts[0], wrap=texts[0].can_wrap)
        first = told.get("decoder_start_token_id", None, (int, type(None)))
        first = settings.get("decoder_start_token_id", text.pad_id, (int, type(None))) if first is None else first
        start = [_spelling(text, first, settings)]
        words = told.get("bad_words_ids", None, (list, type(None))) or []
        closed = tuple(sorted(ids[0] for ids in words if isinstance(ids, list) and len(ids) == 1))
        closed_first, longest, judged = (), None, {}
    return SequenceToSequence(
        {source: reader, target: text},
        design.transformer,
        design.embedding,
        target=target,
        encoder=design.encoder,
        output=design.output,
        shared_vocabulary=speech is None,
        start=start,
        decoding=DecodeConfig(
            n_beams=told.get("num_beams", None, (int, type(None))) or 1,
            length_penalty=1.0 if told.values.get("length_penalty") is None else told.get("length_penalty", 1.0),
            max_new_tokens=longest,
            suppressed=closed,
            suppressed_first=closed_first,
            **judged,
        ),
    )


def _vocabularies(folder: Path, family: Family) -> list[str]:
    """Of the source, where it is a text, and of the target."""
    if (folder / "tokenizer.json").is_file() or family.vocabulary not in SENTENCEPIECE:
        both = [read_vocabulary(folder)] * (2 if family.speech is None else 1)
        if (folder / TARGET).is_file():
            both[-1] = Text(file=str((folder / TARGET).absolute())).fit(()).vocabulary
        return both
    if (folder / family.vocabulary).is_file():
        return SENTENCEPIECE[family.vocabulary](folder)
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


# Out


def sequence_kind(task: SequenceToSequence) -> Kind:
    """What a task is to transformers. Raises InputError if there is no such thing there."""
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
    return "speech" if isinstance(reader, Audio) else "sequence"


def _not_whisper(audio: Audio) -> bool:
    theirs = Audio(mel=replace(MEL, n_mels=audio.mel.n_mels), stem=STEM)
    own = ("max_seconds", "pad_to_seconds", "pad_seconds", "augment")
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


def write_sequence_files(task: SequenceToSequence, design: Design, family: Family, folder: Path) -> None:
    """Write tokenizer.json and what else transformers reads of a folder, the weights and config.json aside."""
    (source,) = task.inputs
    reader, text, decoding = task.tokenizers[source], task.text, task.decoding
    told = {name: value for name, value in sequence_settings(task).items() if name != "is_encoder_decoder"}
    told |= {"num_beams": decoding.n_beams, "length_penalty": decoding.length_penalty}
    if family.speech is None:
        if decoding.suppressed:
            told["bad_words_ids"] = [[i] for i in decoding.suppressed]
        write_vocabulary(reader, folder)
        if text.vocabulary != reader.vocabulary:
            (folder / TARGET).write_text(text.vocabulary, encoding="utf-8")
    else:
        speech = family.speech
        write_vocabulary(text, folder, **speech.tokenizer)
        told |= speech.generation(_ids(text), task.start or [])
        told |= {
            "max_length": text.max_len,
            "suppress_tokens": list(decoding.suppressed),
            "begin_suppress_tokens": list(decoding.suppressed_first),
            "alignment_heads": [list(each) for each in decoding.alignment_heads] or None,
        }
        (folder / SOUND).write_text(json.dumps(speech.sound(design), indent=2) + "\n", encoding="utf-8")
    (folder / GENERATION).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _ids(text: Text) -> dict[str, int]:
    """By the spelling of a token."""
    return {spelling: i for i, spelling in enumerate(text.spellings) if spelling is not None}
