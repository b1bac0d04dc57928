"""A tokenizer.json on the disk, opened as a Text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Package

from anyformer.tokenizers.text.text import Text


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(package: Package, **options: Any) -> Text:
        package.save(str(tmp_path / "tokenizer.json"))
        return Text(file=str(tmp_path / "tokenizer.json"), **options).fit([])

    return load
