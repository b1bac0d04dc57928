"""Experts against an MLP at equal active parameters and tokens: a character GPT on Tiny Shakespeare.

    uv run python benchmarks/experts.py [--seeds 0 1] [--steps 1000] [--run_dir runs/experts]

configs/gpt_shakespeare_char.yaml as it stands (4 blocks, 128 wide, an MLP of 512 in each, 12 windows of 64 characters a
step, Muon), and with experts of 256 in the place of every MLP, of which each token goes through two: two of 8, or one
of 7 and one that all share. The same seed has the same windows in all. Printed are the parameters of the transformer,
and those of them that are active for a token; nats a character on the whole of val.txt, once, at the end; the processor
time of the run; and the least and largest share that an expert of any block got of the last batch of training, in
multiples of an even one. Needs $ANYFORMER_DATA/tiny_shakespeare.
"""

import argparse
import time
from pathlib import Path

import yaml

from anyformer import load
from anyformer.__main__ import main as anyformer
from anyformer.planning.parameters import measure, token_counts
from anyformer.runs.metrics_file import read_metrics

CONFIG = Path(__file__).parents[1] / "configs" / "gpt_shakespeare_char.yaml"
VARIANTS = {
    "an MLP": None,
    "2 of 8": {"n": 8, "active": 2, "d_ff": 256},
    "2 of 8, no balance": {"n": 8, "active": 2, "d_ff": 256, "balance": 0.0},
    "1 of 7, 1 shared": {"n": 7, "active": 1, "shared": 1, "d_ff": 256},
}


def train(experts, run, seed, n_steps):
    """Processor seconds of a run with some experts, or none."""
    config = yaml.safe_load(CONFIG.read_text())
    model, trainer = config["model"]["init_args"], config["trainer"]
    model["example"] = None
    model["transformer"]["experts"] = experts
    trainer |= {"max_steps": n_steps, "val_check_interval": n_steps, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    path = run.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    began = time.process_time()
    if code := anyformer(["fit", "--config", str(path), "--run_dir", str(run), f"--seed_everything={seed}"]):
        raise SystemExit(code)
    return time.process_time() - began


def sizes(run):
    """Parameters of the transformer: all, and those that are active for a token."""
    task = load(run)
    inside = [c for c in measure(task, token_counts(task, 64)).components if c.part == "transformer"]
    return sum(c.parameters for c in inside), sum(c.parameters * c.n_active // c.n_experts for c in inside)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/experts"))
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    own = parser.parse_args()
    for seed in own.seeds:
        for name in own.only:
            experts = VARIANTS[name]
            run = own.run_dir / f"{name.replace(' ', '_').replace(',', '')}_{seed}"
            seconds = train(experts, run, seed, own.steps)
            total, active = sizes(run)
            metrics = read_metrics(run)
            load_of = ""
            if experts is not None:
                least, most = (experts["n"] * metrics[f"train/experts/{which}"] for which in ("least", "most"))
                load_of = f"  experts get {least:.2f} to {most:.2f} of an even share"
            print(
                f"seed {seed}  {name:<18}  {total:>9,} parameters, {active:>7,} active  "
                f"{metrics['val/loss']:.4f} nats a character  {seconds:4.0f} s{load_of}",
                flush=True,
            )


if __name__ == "__main__":
    main()
