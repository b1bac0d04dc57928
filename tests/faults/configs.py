"""Odd configs and command lines, and hostile files: archives, manifests, devices, texts that grow as they are read."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.faults.experiments import KINDS, before_in_place, copy_of, fit, whole, write_data
from tests.faults.harness import CANARY, NotHeldError, Row, command, damaged, is_refused, require

ODD = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**64, -(2**63), 0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf")),
    *(-float("inf"), "", " ", "nan", "null", "a", "é", "a\0b", "\ud800", "-1", "1e5", "../..", "/dev/null", "x" * 3000),
    *([], [[]], [None], [1, 2, 3], ["a"], [float("nan")], {}, {"a": 1}, {"": {}}, {1: 2}, {"class_path": 3}),
    *({"class_path": f"{CANARY}.Class"}, {"class_path": "os.system", "init_args": {"command": "touch imported"}}),
)
LASTING = ("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "depth", "n_batches", "every_n_steps")
"""A run may be as long, and a model as large, as somebody asks for."""


def odd_value(draw: random.Random, place: Path) -> None:
    """Any value of a config is another, of the same type or none."""
    kind = draw.choice(KINDS)
    write_data(place)
    content = yaml.safe_load(_resolved(kind))
    path, holder, key = draw.choice(list(_places(content)))
    value = draw.choice(ODD)
    if isinstance(value, int | float) and value > 1 and (path[-1] in LASTING or str(path[-1]).startswith("limit_")):
        return
    holder[key] = value
    (place / f"{kind}.yaml").write_text(yaml.safe_dump(content, allow_unicode=False), errors="surrogatepass")
    try:
        if not is_refused(fit(kind, "--trainer.max_steps=2")):
            _assert_finite()
    except NotHeldError as error:
        raise NotHeldError(f"{kind} {'.'.join(map(str, path))}: {str(value)[:40]!r}: {error}") from None


@cache
def _resolved(kind: str) -> str:
    return (whole(kind).home / "run" / "config.yaml").read_text()


def _places(content: Any, path: tuple = ()) -> Any:
    """Every place of a value in a config: (path, what holds it, key)."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key), content, key
        yield from _places(value, (*path, key))


def _assert_finite() -> None:
    from safetensors.torch import load_file

    weights = Path("run/model/weights.safetensors")
    if weights.exists():
        for name, tensor in load_file(weights).items():
            require(bool(tensor.isfinite().all()), f"{name} of the model is not finite")


def odd_yaml(draw: random.Random, place: Path) -> None:
    """YAML that is malformed, turns in on itself, or grows."""
    write_data(place)
    config = (place / "classify.yaml").read_text()
    lines = config.splitlines()
    deep = draw.choice((60, 3000, 100_000))
    doubled = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, draw.choice((5, 9, 30))))
    texts = [
        "a: &a [*a]\n" + config,
        "model: &m {class_path: Classify, init_args: *m}\n",
        f"a0: &a0 [x]\n{doubled}{config}",
        f"a0: &a0 [x]\n{doubled}trainer: {{max_epochs: *a4}}\n",
        f"trainer: {'[' * deep}{']' * deep}\n",
        f"trainer: {'{a: ' * deep}1{'}' * deep}\n",
        config + "x: " + "y" * 10 * 2**20,
        "\n".join(f"k{i}: {i}" for i in range(300_000)),
        f"model: !!python/object/apply:os.system ['touch {place}/imported']\n",
        f"model: !!python/module:{CANARY}\n",
        f"model: !!python/name:{CANARY}.Class\n",
        config.replace("class_path: Classify", f"class_path: {CANARY}.Class"),
        config.replace("train: Digits", f"train: {CANARY}.Class"),
        config.replace("train: Digits", f"train: {CANARY}.py"),
        config.replace("validation: 0.2", f"validation: {CANARY}"),
        config + f"trainer.profiler: {CANARY}.Class\n",
        config.replace("trainer: {", f"trainer: {{profiler: {CANARY}.Class, "),
        config.replace("trainer: {", f"trainer: {{logger: {{class_path: {CANARY}.Class}}, "),
        config.replace("trainer: {", f"trainer: {{callbacks: [{{class_path: {CANARY}.Class}}], "),
        "- a\n- b\n",
        "",
        "3",
        "\ufeff" + config,
        config.replace("\n", "\r\n"),
        config.replace("  ", "\t"),
        "--- 1\n--- 2\n",
        "? [a, b]\n: c\n" + config,
        "<<: {a: 1}\n" + config,
        "\n".join(draw.sample(lines, len(lines))),
        "\n".join(lines[: draw.randrange(len(lines))]),
    ]
    number = draw.randrange(len(texts) + 5)
    content = texts[number].encode() if number < len(texts) else damaged(config.encode(), draw)
    (place / "classify.yaml").write_bytes(content)
    try:
        is_refused(fit("classify", "--trainer.max_steps=1"))
    except NotHeldError as error:
        raise NotHeldError(f"text {number}: {error}") from None


def odd_command(draw: random.Random, place: Path) -> None:
    """Command lines that are none."""
    copy_of("classify", place)
    words = [
        *("fit", "test", "validate", "predict", "plan", "params", "collect", "import", "export", "run", "nothing"),
        *("--config", "classify.yaml", "--run_dir", "--resume", "run", "--folds", "--seeds", "2", "-1", "image=x.png"),
        *("--json", "--output", "out.csv", "--help", "--print_config", "--unsafe_imports", "--trainer", "--model"),
        *("--data", "--model=3", "--trainer=3", "--data=3", "--seed_everything", "--seed_everything=-1", "--", "-"),
        *("=", "--=", "--trainer.max_epochs", "--trainer.max_epochs=nan", "--model.optimizer.lr=nan", "image=", "=x"),
        *("a\udcffb", "image=a\udcff.png", "é", "\0", "image=a\0b", "", " ", "run:x", "https://example.org/run", "."),
        *("--data.train", f"--data.train={CANARY}.py", f"--model={CANARY}.Class", "--env", "--episodes", "--policy"),
        *(f"--trainer.profiler={CANARY}.Class", f"--trainer.logger={CANARY}.Class", "--model.transformer.d_model=0"),
    ]
    argv = draw.choices(words, k=draw.randrange(1, 6))
    if draw.random() < 0.7:
        argv = [draw.choice(words[:10]), *argv]
    if draw.random() < 0.5:
        argv = ["fit", "--config", "classify.yaml", "--trainer.max_steps=1", "--run_dir", "other", *argv[1:]]
    try:
        is_refused(command(*argv, before=before_in_place(None)))
    except NotHeldError as error:
        raise NotHeldError(f"{argv}: {error}") from None


def hostile(draw: random.Random, place: Path) -> None:
    """A file that is no file, or far more than it seems, where an input is looked for."""
    copy_of("classify", place)
    os.mkfifo(place / "pipe")
    kind = draw.choice(("zero", "pipe", "folder", "bomb", "zips", "escape", "link", "huge", "pickle", "null", "full"))
    path = {"zero": "/dev/zero", "pipe": "pipe", "folder": "run", "null": "/dev/null", "full": "/dev/full"}.get(
        kind, "x"
    )
    if kind in ("bomb", "zips", "escape"):
        with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            if kind == "bomb":
                with archive.open("a.png", "w", force_zip64=True) as file:
                    for _ in range(3 * 2**10):
                        file.write(bytes(2**20))
            elif kind == "zips":
                archive.writestr("a.png", b"PK\3\4" * 99)
            else:
                archive.writestr("../../escaped.png", b"a")
                archive.writestr("/escaped.png", b"a")
        path = draw.choice(("x.zip", "x.zip/a.png"))
    elif kind == "link":
        os.symlink("x", "x")
    elif kind == "huge":
        with open("x", "wb") as file:
            file.truncate(2**40)
    elif kind == "pickle":
        Path("x").write_bytes(pickle.dumps(_Bomb(str(place / "imported"))))
    ending = draw.choice(("", ".png", ".csv", ".pt", ".npz", ".yaml", ".jsonl", ".safetensors"))
    if path in ("x", "pipe") and ending:
        os.rename(path, path + ending) if not os.path.islink(path) else os.symlink(path + ending, path + ending)
        path += ending
    argv = draw.choice(
        [
            ("fit", "--config", path),
            ("fit", "--config", "classify.yaml", "--run_dir", "other", f"--data.train={path}"),
            ("predict", "run", f"image={path}"),
            ("import", path, "other"),
            ("fit", "--config", "classify.yaml", "--run_dir", "other", f"--model.init_from={path}"),
            ("predict", path, "image=a"),
            ("plan", path),
        ]
    )
    try:
        is_refused(command(*argv, before=before_in_place(None)))
    except NotHeldError as error:
        raise NotHeldError(f"{argv} ({kind}): {error}") from None


class _Bomb:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (self.mark, "w")


def hostile_manifest(draw: random.Random, place: Path) -> None:
    """A run folder whose files were made by somebody else."""
    copy_of("classify", place)
    outside = place / "precious"
    outside.write_text("precious")
    folder = place / "run" / draw.choice(("checkpoints", "model"))
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    line = json.loads(lines[-1])
    odd = draw.choice(
        [
            {**line, "file": "../../precious"},
            {**line, "file": str(outside)},
            {**line, "file": ""},
            {**line, "file": "."},
            {**line, "file": 3},
            {**line, "file": None},
            {**line, "file": "a\0b"},
            {**line, "size": "many"},
            {**line, "sha256": None},
            {"file": line["file"]},
            {},
            [],
            3,
            None,
            "x",
            {**line, "size": 10**30},
        ]
    )
    how = draw.randrange(5)
    if how == 0:
        manifest.write_text("\n".join([*lines, json.dumps(odd)]) + "\n")
    elif how == 1:
        manifest.write_text("\n".join([json.dumps(odd), *lines]) + "\n")
    elif how == 2:
        manifest.write_text(json.dumps(odd))
    elif how == 3:
        manifest.write_text("[" * 100_000)
    else:
        manifest.unlink()
        os.symlink("/dev/zero", manifest) if draw.random() < 0.5 else os.mkfifo(manifest)
    (folder / "notes.txt").write_text("mine")
    argv = draw.choice([("fit", "--resume", "run", "--trainer.max_epochs=3"), ("test", "run")])
    try:
        is_refused(command(*argv, before=before_in_place(None)))
    except NotHeldError as error:
        raise NotHeldError(f"{argv[0]} {folder.name} {how} {odd}: {error}") from None
    require(outside.read_text() == "precious", "a file outside the run was changed")
    require((folder / "notes.txt").exists() or folder.name == "model", "a file that is not ours was deleted")


def odd_names(draw: random.Random, place: Path) -> None:
    """Files whose names are no text, or odd."""
    copy_of("classify", place)
    odd = draw.choice(
        ("a\udcff", "a\nb", "-x", " ", "a b", "é", "e\u0301", "[1]", "*", "a'\"", "=", "x" * 240, "\udce9")
    )
    folder = place / (odd if draw.random() < 0.5 else "pictures")
    folder.mkdir(exist_ok=True)
    from PIL import Image

    from anyformer.tokenizers.image.sources import Digits

    for i in range(2):
        Image.fromarray(Digits()[i]["image"]).save(folder / f"{odd}{i}.png", "PNG")
    shutil.copy(place / "people.csv", place / f"{odd}.csv")
    shutil.copy(place / "classify.yaml", place / f"{odd}.yaml")
    argv = draw.choice(
        [
            ("predict", "run", f"image={folder}"),
            ("predict", "run", f"image={folder}", "--json"),
            ("predict", "run", f"image={folder}", "--output", f"{odd}.csv"),
            ("predict", "run", f"image={folder}", "--output", "out.jsonl"),
            ("predict", "run", f"image={folder / (odd + '0.png')}"),
            ("fit", "--config", f"{odd}.yaml", "--trainer.max_steps=1"),
            ("fit", "--config", "classify.yaml", "--trainer.max_steps=1", "--run_dir", odd),
            (
                "fit",
                "--config",
                "predict.yaml",
                "--trainer.max_steps=1",
                "--run_dir",
                "o",
                "--data.train",
                f"{odd}.csv",
            ),
            ("export", "run", f"{odd}.safetensors"),
            ("collect", "--env", "CartPole-v1", "--policy", "random", "--episodes", "1", "--output", odd),
        ]
    )
    try:
        is_refused(command(*argv, before=before_in_place(None)))
    except NotHeldError as error:
        raise NotHeldError(f"{argv}: {error}") from None


def not_finite(draw: random.Random, place: Path) -> None:
    """NaN and infinity among the data, and in weights that are taken over."""
    write_data(place)
    odd = draw.choice(("nan", "inf", "-inf", "1e400", "1e308", "NaN"))
    kind = draw.choice(("predict", "decide", "init_from"))
    options: tuple[str, ...] = ("--trainer.max_epochs=1",)
    if kind == "predict":
        path = place / "people.csv"
        lines = path.read_text().splitlines()
        at = draw.randrange(1, len(lines))
        sex, _, label = lines[at].split(",")
        lines[at] = f"{sex},{odd},{label}"
        path.write_text("\n".join(lines) + "\n")
    elif kind == "decide":
        import numpy as np

        arrays = dict(np.load(place / "walks.npz"))
        arrays[draw.choice(("observations", "rewards"))].reshape(-1)[draw.randrange(120)] = float(odd)
        np.savez(place / "walks.npz", **arrays)
    else:
        from safetensors.torch import load_file, save_file

        weights = load_file(whole("classify").home / "run" / "model" / "weights.safetensors")
        name = draw.choice(sorted(weights))
        weights[name].view(-1)[0] = float(odd)
        save_file(weights, place / "odd.safetensors")
        kind, options = "classify", (*options, "--model.init_from=odd.safetensors")
    if not is_refused(fit(kind, *options)):
        _assert_finite()


ROWS = [
    Row("odd value of a config", odd_value, 1000),
    Row("malformed YAML", odd_yaml, 300),
    Row("odd command line", odd_command, 500),
    Row("hostile file or archive", hostile, 200),
    Row("hostile manifest", hostile_manifest, 200),
    Row("odd name of a file", odd_names, 200),
    Row("NaN or infinity", not_finite, 100),
]
