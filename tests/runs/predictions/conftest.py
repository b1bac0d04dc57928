"""A folder with goods.csv and its run, in which the test works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.goods import goods_run


@pytest.fixture(scope="session")
def goods_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("goods")
    goods_run(home)
    return home


@pytest.fixture
def at_goods(goods_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    shutil.copytree(goods_home, tmp_path / "goods")
    monkeypatch.chdir(tmp_path / "goods")
    return tmp_path / "goods"
