"""The config.yaml of an average: the model of its runs, and the records that none of them was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyformer.parsing.check import read_yaml
from anyformer.parsing.plain import differences
from anyformer.tasks.base.records import Records

Config = dict[str, Any]

OF_BATCHES = (*Records.free, "batch_size", "max_tokens", "pack", "seed")
"""Arguments of the data that do not say which records there are."""


def read_config(run: Path) -> Config | None:
    """What the config.yaml of a run says; None of one that was trained from Python."""
    path = run / "config.yaml"
    return read_yaml(path)[0] if path.exists() else None


def join_configs(configs: Sequence[Config], model: Config) -> tuple[Config, str]:
    """The config of an average, with the first run's trainer, and what is to be said of its records; "" for nothing.

    model: what stands under `model`.
    """
    data, said = common_data([config["data"] for config in configs])
    return {**configs[0], "model": model, "data": data}, said


def common_data(datas: Sequence[Config]) -> tuple[Config, str]:
    """The data of an average, and what is to be said of it.

    A record that one of the runs was trained on says nothing about their average: where they were trained on other
    folds or records, no validation is left; and no test either, where it is not the same for all. Of runs within one
    outer fold that fold is left.
    """
    one, *others = ({k: v for k, v in data.items() if k not in OF_BATCHES} for data in datas)
    differing = {place.partition(".")[0] for other in others for place, _ in differences(one, other)}
    first = dict(datas[0])
    if not differing:
        return first, ""
    if differing == {"inner_fold"}:
        # As one fold of a cross-validation, whose validation is what was held out of all of them.
        data = {**first, "inner_folds": None, "inner_fold": 0}
        return data, f"the average validates on fold {first['fold']} of data.folds, which chose nothing in its runs"
    data = {**first, "validation": None, "folds": None, "fold": 0, "inner_folds": None, "inner_fold": 0}
    if differing <= {"fold", "inner_fold"}:
        # A fraction for test is taken of both, as it was in the runs.
        both = [first["train"], first["validation"]]
        data["train"] = [each for part in both for each in _listed(part)]
        why = "each run was trained on the other folds' validation records"
    else:
        why = f"the runs differ in {', '.join(f'data.{name}' for name in sorted(differing))}"
        if "test" in differing or isinstance(first.get("test"), int | float):
            data["test"] = None
    left = " nor test" if first.get("test") is not None and data["test"] is None else ""
    return data, f"{why}: the average has no validation{left} records of its own; give others by --data.validation"


def _listed(part: Any) -> list[Any]:
    """The sources of a part; none of one that is a fraction of the others."""
    if part is None or isinstance(part, int | float):
        return []
    return part if isinstance(part, list) else [part]
