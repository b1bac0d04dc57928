"""A folder with a config and its run, which the tests of the commands work in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anyformer.__main__ import main
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.small_cli import CONFIG


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and the run of it."""
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        assert main(["fit", "--config", "small.yaml"]) == 0
    Image.fromarray(np.asarray(Digits()[7]["image"])).save(home / "seven.png")
    (home / "empty").mkdir()
    return home


@pytest.fixture
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test works."""
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"
