"""One model of four sensors beside a model of each, and what these come to together, for every set of sensors.

    uv run python benchmarks/digit_sensors.py [--run_dir runs/digit_sensors] [--seed 0] [--picture sensors.png]

Trains configs/digit_sensors.yaml into RUN_DIR, and the same with one sensor alone into RUN_DIR_alone/SENSOR: the same
transformer, optimiser and epochs, nothing left out of the samples. Given again it goes on. Late fusion is the product
of the probabilities that the models of single sensors give (Kittler et al. 1998, the product rule, classes being
equally likely). The table has the accuracy on the validation records at the end of training: they choose nothing.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml

from anyformer import load
from anyformer.__main__ import main as anyformer
from anyformer.data.source import join_files
from anyformer.runs.experiment import parse

CONFIG = Path(__file__).parents[1] / "configs" / "digit_sensors.yaml"


def train(run, seed, sensor=None):
    """Train all sensors, or one, or go on with what is there; returns the best model."""
    if (run / "metrics.csv").exists():
        arguments = ["--resume", str(run)]
    else:
        config = yaml.safe_load(CONFIG.read_text())
        # Once, so that the model that is kept is the last.
        config["trainer"]["check_val_every_n_epoch"] = config["trainer"]["max_epochs"]
        if sensor is not None:
            config["model"]["init_args"]["tokenizers"] = {sensor: config["model"]["init_args"]["tokenizers"][sensor]}
            del config["model"]["init_args"]["fields"]
        path = run.with_name(f"{run.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        arguments = ["--config", str(path), "--run_dir", str(run), f"--seed_everything={seed}"]
    if code := anyformer(["fit", *arguments]):
        raise SystemExit(code)
    return load(run)


def probabilities(model, records, classes):
    """(records, classes)."""
    return np.array([[result["probabilities"][name] for name in classes] for result in model.predict(records)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/digit_sensors"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    own = parser.parse_args()
    together = train(own.run_dir, own.seed)
    sensors = list(together.tokenizers)
    alone = {name: train(own.run_dir.with_name(f"{own.run_dir.name}_alone") / name, own.seed, name) for name in sensors}

    source = parse("fit", [str(CONFIG)], [], []).datamodule.given["validation"]
    records = [join_files(source[i], source.folder_of(i), together.tokenizers) for i in range(len(source))]
    classes = sorted({record["digit"] for record in records})
    truth = np.array([classes.index(record["digit"]) for record in records])
    single = {name: np.log(probabilities(alone[name], only(records, [name]), classes) + 1e-12) for name in sensors}
    rows = []
    for n in range(1, len(sensors) + 1):
        for present in combinations(sensors, n):
            found = probabilities(together, only(records, present), classes)
            each = [(single[name].argmax(1) == truth).mean() for name in present]
            fused = sum(single[name] for name in present)
            rows.append((present, (found.argmax(1) == truth).mean(), max(each), (fused.argmax(1) == truth).mean()))
    print("| sensors | one model of all | best single | late fusion |\n|---|---:|---:|---:|")
    for present, *figures in rows:
        print(f"| {', '.join(present)} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    costs = [
        (one, other, accuracy - before)
        for one, before, *_ in rows
        for other, accuracy, *_ in rows
        if set(one) < set(other) and len(other) == len(one) + 1
    ]
    one, other, change = min(costs, key=lambda cost: cost[2])
    (added,) = set(other) - set(one)
    print(f"\nThe sensor that helps least: {added} beside {', '.join(one)}, {change:+.3f}")
    if own.picture is not None:
        draw(rows, own.picture)


def only(records, present):
    return [{name: record[name] for name in present} for record in records]


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    height = np.arange(len(rows))[::-1]
    for k, label in enumerate(("one model of all", "best single", "late fusion")):
        axes.barh(height + 0.27 * (1 - k), [row[1 + k] for row in rows], 0.27, label=label)
    axes.set_yticks(height, [" + ".join(row[0]) for row in rows])
    axes.set_xlabel("accuracy in validation")
    axes.set_xlim(0, 1)
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
