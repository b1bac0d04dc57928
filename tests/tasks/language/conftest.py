"""The corpus of the small language models."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyformer.tokenizers.text.corpus import Corpus
from tests.helpers.language_models import DOCUMENTS


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(DOCUMENTS))
    return Corpus(str(path), split="line")
