"""Objects are made of configs, or it is said where one cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.parsing.instantiate import instantiate
from anyformer.tasks.classify.classify import Classify

TOKENIZERS = {"image": {"class_path": "ImagePatches", "init_args": {"size": [8, 8], "channels": 1}}}


def test_a_task_is_made_from_plain_values() -> None:
    task = instantiate({"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS}})
    again = instantiate(task.config())
    assert type(again) is Classify
    assert again.config() == task.config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_path": "os.system", "init_args": {"command": "touch bad"}}, "os.system is refused"),
        ({"class_path": "Classify", "init_args": {"tokenizers": {}}}, "tokenizers must name at least one field"),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": 7}}},
            "n_heads must divide d_model unless d_head is given, got d_model=7",
        ),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": "wide"}}},
            "model.transformer.d_model must be int, got wide",
        ),
        ({"class_path": "Classify", "init_args": {}}, "model: .*required.*tokenizers"),
    ],
)
def test_a_task_that_cannot_be_made_is_told_so_in_one_line(
    config: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        instantiate(config)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_package_is_opened_by_name_and_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opened.py").write_text(
        "from anyformer.tasks.classify import Classify\nclass Mine(Classify):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"class_path": "opened.Mine", "init_args": {"tokenizers": TOKENIZERS}}
    with pytest.raises(InputError, match=r"opened.Mine is refused: .* --unsafe_imports opened opens opened"):
        instantiate(config)
    assert type(instantiate(config, ["opened"])).__name__ == "Mine"
    with pytest.raises(InputError, match=r"opened.Mine is refused"):
        instantiate(config)
    with pytest.raises(InputError, match=r"--unsafe_imports absent cannot be imported: No module named 'absent'"):
        instantiate(config, ["absent"])
