"""The ids of a corpus as one array on the disk, made once, in parallel and in little memory.

Knows text and ids; knows no tokenizer but the function that turns the one into the other, and no trainer.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tokenizers.text.corpus_cache import remember, texts_of

PIECE = 2**15
"""Characters of a text, about, that are encoded as one: one thread's work."""
BATCH = 2**20
"""Characters, about, that are encoded in one go by all threads."""
LONGEST = 2**26
"""Characters that are encoded as one where no place is found to cut a text."""
CONTEXT = 32
"""Characters on each side of a cut, over which it is looked whether it changes the ids."""

Encode = Callable[[Sequence[str]], list[np.ndarray]]


@dataclass(frozen=True)
class TokenStream:
    """The ids of a corpus, document after document, each followed by the end-of-text id. They stay on the disk."""

    path: str
    """The folder in the cache."""

    def __len__(self) -> int:
        """How many ids."""
        return self._facts["n_ids"]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return json.loads(Path(self.path, "stream.json").read_text())

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) uint16 or uint32, mapped into memory."""
        return np.memmap(Path(self.path, "ids.bin"), dtype=self._facts["dtype"], mode="r", shape=(len(self),))

    @cached_property
    def ends(self) -> np.ndarray:
        """(documents,) int64, ascending: where each document ends, one after its end-of-text id."""
        return np.load(Path(self.path, "ends.npy"), mmap_mode="r")

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the text, for bits per byte."""
        return self._facts["n_bytes"]

    def window(self, start: int, n: int) -> Tensor:
        """The n ids from start on, (n,) int64. Raises IndexError where there are not so many."""
        if start < 0 or start + n > len(self):
            raise IndexError(f"the stream has {len(self)} ids, none from {start} to {start + n}")
        return torch.from_numpy(self.ids[start : start + n].astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        # Mapped again by the process that gets it: an array would be copied.
        return {"path": self.path}


def token_stream(
    source: Source,
    encode_batch: Encode,
    *,
    key: str,
    n_ids: int,
    eos_id: int,
    cache: str | None = None,
    field: str = "text",
) -> TokenStream:
    """Turn the texts of a source into one array of ids, cached for later runs of the same text and tokenizer.

    Texts are read and encoded a few megabytes at a time. A long one is cut at spaces and line ends, where a look at the
    characters around shows that its ids are those of the whole. A run of more than 10,000 characters without such a
    place (DNA) is cut inside.

    source: records with a field of text.
    encode_batch: texts -> the ids of each, (n,) int64, in parallel, and of a single one alone.
    key: names the tokenizer; it changes whenever ids may change.
    n_ids: how many ids there are: up to 65,536 take 2 bytes each, else 4.
    eos_id: follows each document.
    cache: the folder; $XDG_CACHE_HOME/anyformer, or ~/.cache/anyformer, if left out.
    field: its name; of a corpus what its documents hold.
    Raises InputError for what the source and the tokenizer refuse, no text at all, and a cache that cannot be written.
    """
    dtype = np.dtype(np.uint16 if n_ids <= 2**16 else np.uint32)
    folder = remember(
        source,
        [key, n_ids, eos_id],
        cache,
        field,
        lambda part: _write(part, texts_of(source, field), encode_batch, dtype, eos_id),
    )
    return TokenStream(str(folder))


def _write(folder: Path, texts: Iterator[tuple[str, bool]], encode_batch: Encode, dtype: np.dtype, eos_id: int) -> None:
    n_ids, n_bytes, ends = 0, 0, array("q")
    with open(folder / "ids.bin", "wb") as file:
        for ids, last, size in _encode(texts, encode_batch, dtype, eos_id):
            file.write(ids.data)
            ends.frombytes((last + n_ids).tobytes())
            n_ids, n_bytes = n_ids + len(ids), n_bytes + size
    if not n_ids:
        raise InputError("the corpus is empty: none of its documents holds any text")
    np.save(folder / "ends.npy", np.frombuffer(ends, dtype=np.int64))
    facts = {"n_ids": n_ids, "n_bytes": n_bytes, "dtype": dtype.name}
    (folder / "stream.json").write_text(json.dumps(facts))


def _encode(
    texts: Iterator[tuple[str, bool]], encode_batch: Encode, dtype: np.dtype, eos_id: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """The ids of each batch, with those of the ends; where in it documents end; and the UTF-8 bytes of its text."""
    eos, none = np.array([eos_id]), np.zeros(0, np.int64)

    def work(batch: list[tuple[str, bool]]) -> tuple[np.ndarray, np.ndarray, int]:
        texts = [text for text, _ in batch]
        found = encode_batch(texts)
        is_end = np.array([is_end for _, is_end in batch])
        ids = np.concatenate(
            [part for ids, (_, end) in zip(found, batch, strict=True) for part in (ids, eos if end else none)]
        )
        last = np.cumsum([len(part) for part in found] + is_end)[is_end]
        # A lone surrogate becomes U+FFFD, which takes 3 bytes too.
        return ids.astype(dtype), last, len("".join(texts).encode("utf-8", "surrogatepass"))

    # Two at a time: while the threads of one are at work, the ids of the other are handed over.
    with ThreadPoolExecutor(2) as pool:
        running: deque[Future[tuple[np.ndarray, np.ndarray, int]]] = deque()
        try:
            for batch in _batches(_pieces(texts, encode_batch)):
                running.append(pool.submit(work, batch))
                if len(running) > 2:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def encode_blocks(blocks: Iterable[tuple[str, bool]], encode_batch: Encode) -> Iterator[np.ndarray]:
    """The ids of one document, (n,) int64, a piece of it after another; none of an empty one.

    blocks: of its text, and whether it ends there. Raises InputError as `token_stream` does.
    """
    return (encode_batch([piece])[0] for piece, _ in _pieces(blocks, encode_batch))


def _batches(pieces: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[0]) + 1
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(blocks: Iterable[tuple[str, bool]], encode_batch: Encode) -> Iterator[tuple[str, bool]]:
    """The blocks cut anew, into pieces of about `PIECE` characters whose ids are those of the whole document.

    Documents without a character are left out.
    """
    rest = ""
    for block, is_end in blocks:
        text, at, wanted = rest + block, 0, PIECE
        while len(text) - at > 2 * wanted:
            cut = _find_cut(text, at, at + wanted, encode_batch)
            if cut is not None:
                yield text[at:cut], False
                at, wanted = cut, PIECE
            elif wanted < LONGEST:
                wanted *= 2
            else:
                raise InputError(
                    f"a document holds {LONGEST:,} characters that this tokenizer cannot encode part by part; "
                    "give split: line, or another tokenizer"
                )
        rest = text[at:]
        if is_end:
            if text:
                yield rest, True
            rest = ""


def _find_cut(text: str, start: int, stop: int, encode_batch: Encode) -> int | None:
    """The last good place between the middle of a stretch and its end to cut a text at; None if none is found.

    Before a space that follows on a word is one for every tokenizer that parts words there first, as GPT-2 does: no
    pattern of its runs across, and none looks back. The next best are line ends, ends of words, and then any place.
    """
    low = (start + stop) // 2
    tries = [[], [], [], range(stop - 1, max(stop - 9, low), -1)]
    for mark, found in ((" ", tries[0]), ("\n", tries[1])):
        at = stop
        while len(found) < 8 and (at := text.rfind(mark, low, at)) > 0:
            if not text[at - 1].isspace():
                found.append(at)
    ends = [match.start() for match in re.finditer(r"(?<=\w)(?=\W)", text[max(low, stop - 1000) : stop])]
    tries[2] += [max(low, stop - 1000) + at for at in ends[-8:] if at]
    for places in tries:
        for at in places:
            around = text[max(at - CONTEXT, 0) : at], text[at : at + CONTEXT]
            left, right, whole = (encode_batch([part])[0] for part in (*around, "".join(around)))
            if len(left) + len(right) == len(whole) and (whole == np.concatenate([left, right])).all():
                return at
    return None
