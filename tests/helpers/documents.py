"""Files of documents for the tests of corpora, and the streams that are made of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anyformer.data.source import Source
from anyformer.tokenizers.text import corpus, document_files
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import TokenStream, token_stream


def texts(corpus: Any) -> list[str]:
    """All documents; the same whether one asks for them by number or runs through them."""
    alone = [corpus[i]["text"] for i in range(len(corpus))]
    whole, parts = [], ""
    for text, is_end in corpus.blocks():
        parts += text
        if is_end:
            whole.append(parts)
            parts = ""
    assert whole == alone and not parts and "".join(corpus.texts()) == "".join(alone)
    return alone


def write(path: Path, content: str | bytes | list[Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path, **options)
        return str(path)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def set_block(patch: pytest.MonkeyPatch, size: int) -> None:
    """Let files be read so many bytes at a time."""
    patch.setattr(corpus, "BLOCK", size)
    patch.setattr(document_files, "BLOCK", size)


def stream(source: Source, text: Text, cache: Path, encode: Any = None) -> TokenStream:
    options = {"key": text.key, "n_ids": text.n_ids, "eos_id": text.eos_id}
    return token_stream(source, encode or text.encode_batch, cache=str(cache), **options)


def refuse(texts: Sequence[str]) -> list[np.ndarray]:
    raise AssertionError("encoded again")
