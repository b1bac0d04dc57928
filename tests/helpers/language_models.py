"""Small language models of three short documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyformer.model.config import TransformerConfig
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from tests.helpers.witnesses import redraw

SMALL = TransformerConfig(d_model=12, depth=2, n_heads=3)
DOCUMENTS = ("to be or not to be", "that is", "the question whether tis nobler in the mind to suffer")


def task(corpus: Corpus, tmp_path: Path, kind: str = "characters", **options: Any) -> LanguageModel:
    options = {"context": 8, "cache": str(tmp_path / "cache")} | options
    made = LanguageModel({"text": Text(kind, vocab_size=270)}, SMALL, **options)
    made.fit_tokenizers(corpus)
    made.build()
    redraw(made.model)
    return made.eval()


def examples(made: LanguageModel, corpus: Corpus, rows: list[int] | None = None, training: bool = False) -> Any:
    """All of the text as one batch."""
    source, chopper = made.view(corpus, training), made.chopper(training)
    return chopper.collate([chopper(source[i]) for i in range(len(source))], rows)


def stream_of(made: LanguageModel) -> list[int]:
    return [i for text in DOCUMENTS for i in [*made.text.encode_batch([text])[0].tolist(), made.text.eos_id]]
