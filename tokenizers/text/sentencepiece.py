"""Vocabularies of SentencePiece (Kudo and Richardson 2018) as a tokenizer.json: the files of T5 and Marian.

Only Unigram models (Kudo 2018) are read: what these two are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.local_files import MAX_JSON, read_bytes, read_json

SPACE = "\u2581"
"""What stands for a space in a piece."""
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
N_GAPS = 100
"""Of T5: `<extra_id_0>` and so on stand for the gaps of a text, behind the pieces, the last one first."""
UNIGRAM, NORMAL, USER_DEFINED = 1, 1, 4
"""Numbers by which a file says what kind of model it is, and what kind a piece is."""
FOREIGN = -1e4
"""The score of pieces of the other language: what nothing but an unknown character costs more than."""


@dataclass(frozen=True)
class Pieces:
    """What a .spm or .model file says."""

    scores: dict[str, float]
    """By piece, in the sequence of their ids."""
    kinds: dict[str, int]
    characters: bytes
    """How characters are normalised, as the `tokenizers` package takes it; empty where they are not."""
    trims: bool
    """Whether spaces that say nothing are taken out."""


def read_pieces(path: Path) -> Pieces:
    """Read a SentencePiece file. Raises InputError if it is damaged or no Unigram model."""
    try:
        scores, kinds, kind, characters, trims = {}, {}, UNIGRAM, b"", True
        for field, part in _fields(read_bytes(path, MAX_JSON)):
            if field == 1:
                piece = dict(_fields(part))
                name = piece[1].decode()
                scores[name] = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                kinds[name] = piece.get(3, NORMAL)
            elif field == 2:
                kind = dict(_fields(part)).get(3, UNIGRAM)
            elif field == 3:
                normalizer = dict(_fields(part))
                characters, trims = normalizer.get(2, b""), bool(normalizer.get(4, True))
    except (OSError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise InputError(f"{path} is damaged, or no SentencePiece model ({error!r}); copy it anew") from None
    if kind != UNIGRAM or not scores:
        raise InputError(f"{path}: only SentencePiece models of the kind unigram can be brought in")
    return Pieces(scores, kinds, characters, trims)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The numbered fields of a protocol buffer: numbers as int, all else as bytes."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else number()
        if at + size > len(data):
            raise ValueError("it is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def unigram(pieces: Pieces, ids: Mapping[str, int], special: tuple[str, ...] = (PAD, END, UNKNOWN)) -> str:
    """A tokenizer.json that cuts a text as the pieces do, and gives them these ids; `</s>` is put behind a text.

    ids: of pieces and of others, from 0 and without gaps. A piece that is not among them is not used.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    entries = [(name, pieces.scores.get(name, FOREIGN)) for name in sorted(ids, key=ids.__getitem__)]
    package = Tokenizer(models.Unigram(entries, unk_id=ids[UNKNOWN], byte_fallback=False))
    steps = [normalizers.Precompiled(pieces.characters)] if pieces.characters else []
    if pieces.trims:
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    package.normalizer = normalizers.Sequence(steps)
    package.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    package.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    package.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, ids[END])])
    package.add_special_tokens(list(special))
    # Pieces that a text is searched for before it is cut, such as the language that Marian is to write.
    apart = [name for name, kind in pieces.kinds.items() if kind == USER_DEFINED and name not in special]
    apart += [name for name in ids if name.startswith(">>") and name.endswith("<<")]
    package.add_tokens([AddedToken(name, normalized=False) for name in apart if name in ids])
    return package.to_str()


def t5_vocabulary(folder: Path) -> str:
    """Of spiece.model, with the tokens for gaps behind the pieces."""
    pieces = read_pieces(folder / "spiece.model")
    gaps = [f"<extra_id_{i}>" for i in reversed(range(N_GAPS))]
    ids = {name: i for i, name in enumerate([*pieces.scores, *gaps])}
    return unigram(pieces, ids, (PAD, END, UNKNOWN, *gaps))


def marian_vocabularies(folder: Path) -> tuple[str, str]:
    """Of the source and of the target, which share their ids: source.spm, target.spm and vocab.json.

    Raises InputError if one is missing or damaged.
    """
    ids = read_json(folder / "vocab.json")
    if sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))) or not {PAD, END, UNKNOWN} <= ids.keys():
        raise InputError(f"{folder / 'vocab.json'} must give its pieces the ids from 0, {PAD}, {END} and {UNKNOWN} too")
    source, target = (unigram(read_pieces(folder / f"{side}.spm"), ids) for side in ("source", "target"))
    return source, target
