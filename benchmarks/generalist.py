"""One model for five tasks beside a model for each: equal width and depth, equal data, equal steps of each task.

    uv run python benchmarks/generalist.py [--only mixture digits ...] [--run_dir runs/generalist] [--steps 6500]

Trains configs/generalist.yaml into RUN_DIR, and each of its tasks alone into RUN_DIR_alone/TASK: the same transformer,
embedding, optimiser and records, and as many steps of the optimiser as the mixture has turns of the task, with
validations at the same share of them. Given again it goes on: what was stopped where it stopped, and what is done is
left. --only says which are trained, by default all, and with no name after it none. --steps is the length of the
mixture, and scales all others; of another length a run needs another --run_dir.

The table has the metrics of validation at the end of training, and of the test records where there are some, of all
that is trained by then.
"""

import argparse
from pathlib import Path

import yaml

from anyformer.__main__ import main as anyformer
from anyformer.parsing.plain import plain
from anyformer.runs.experiment import parse
from anyformer.runs.metrics_file import read_metrics
from anyformer.tasks.mixture.data import plan_turns
from anyformer.tasks.mixture.shared_fields import OF_ALL

CONFIG = Path(__file__).parents[1] / "configs" / "generalist.yaml"
MIXTURE = "mixture"


class Plan:
    """The runs: their configs and folders, by name."""

    def __init__(self, run, steps):
        self.mixture = parse("fit", [str(CONFIG)], [], [])
        self.content = yaml.safe_load(self.mixture.resolved)
        whole = self.content["trainer"]["max_steps"]
        self.steps = {MIXTURE: steps or whole} | self._turns(steps or whole)
        self.folders = {name: run.with_name(f"{run.name}_alone") / name for name in self.steps} | {MIXTURE: run}

    def _turns(self, n_steps):
        """How many of the mixture's steps are each task's."""
        model, data, trainer = (
            self.content["model"]["init_args"],
            self.content["data"]["init_args"],
            self.content["trainer"],
        )
        if not (model["sampling"] or {}).keys() == model["tasks"].keys() or data["n_batches"] is None:
            raise SystemExit(f"{CONFIG}: sampling must name all tasks, and data.n_batches the steps of an epoch")
        turns = plan_turns(
            dict.fromkeys(model["tasks"], 1),
            sampling=model["sampling"],
            n_batches=data["n_batches"],
            accumulate=trainer["accumulate_grad_batches"],
            seed=self.content["seed_everything"],
        )
        before = turns.before(*divmod(n_steps * turns.accumulate, len(turns)))
        return {name: n // turns.accumulate for name, n in before.items()}

    def config(self, name):
        """The config of a run: of the mixture, or of one of its tasks alone."""
        trainer = dict(self.content["trainer"])
        every = trainer["val_check_interval"] * self.steps[name] / self.content["trainer"]["max_steps"]
        trainer |= {"max_steps": self.steps[name], "val_check_interval": max(1, round(every))}
        if name == MIXTURE:
            return self.content | {"trainer": trainer}
        of_all, task = self.content["model"]["init_args"], self.mixture.model.tasks[name]
        model = dict(self.content["model"]["init_args"]["tasks"][name])
        shared = {each: of_all[each] for each in OF_ALL if each != "encoder" or task.has_encoder}
        # With the axes of all tasks, so that rotary positions turn the same parts of the vectors.
        shared["embedding"] = plain(task.embedding)
        data = dict(self.content["data"]["init_args"]["parts"][name])
        data.pop("seed", None)
        model["init_args"] = {**model["init_args"], **shared}
        return {"seed_everything": self.content["seed_everything"], "model": model, "data": data, "trainer": trainer}

    def train(self, name):
        folder = self.folders[name]
        if (folder / "metrics.csv").exists():
            before = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_steps"]
            if before != self.steps[name]:
                raise SystemExit(
                    f"{folder} is of {before} steps, and not of {self.steps[name]}: give another --run_dir"
                )
            arguments = ["--resume", str(folder)]
        else:
            path = folder.with_name(f"{folder.name}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(self.config(name), sort_keys=False, allow_unicode=True))
            arguments = ["--config", str(path), "--run_dir", str(folder)]
        if code := anyformer(["fit", *arguments]):
            raise SystemExit(code)

    def show(self):
        """The metrics of both, side by side."""
        together = read_metrics(self.folders[MIXTURE])
        rows = [("", "steps", "mixture", "alone")]
        for name in self.mixture.model.tasks:
            alone = read_metrics(self.folders[name])
            shared = {key.replace(f"/{name}/", "/", 1): v for key, v in together.items() if f"/{name}/" in key}
            for figure in sorted(alone.keys() | shared.keys()):
                if figure.startswith(("val/", "test/")):
                    values = (f"{found[figure]:.4f}" if figure in found else "-" for found in (shared, alone))
                    rows.append((f"{name} {figure}", str(self.steps[name]), *values))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            print("  ".join([first.ljust(widths[0]), *cells]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/generalist"))
    parser.add_argument("--steps", type=int)
    own = parser.parse_args()
    plan = Plan(own.run_dir, own.steps)
    names = list(plan.steps) if own.only is None else own.only
    for name in names:
        if name not in plan.steps:
            raise SystemExit(f"--only: there is no {name!r}; there are {', '.join(plan.steps)}")
    for name in names:
        plan.train(name)
    plan.show()


if __name__ == "__main__":
    main()
