"""A character GPT on Tiny Shakespeare in the budget of nanoGPT on a CPU: a plain one and ours, on the same files.

    uv run python benchmarks/gpt_shakespeare_char.py [--seed 0] [--steps 2000]

2,000 steps of 12 windows of 64 characters. The plain one has nanoGPT's block and settings (4 layers, 4 heads, 128 wide;
AdamW 1e-3 falling by a cosine to 1e-4 after 100 steps of warm-up, betas 0.9 and 0.99, weight decay 0.1 on matrices,
gradients clipped to 1). Ours is configs/gpt_shakespeare_char.yaml as it stands. Both are validated on the whole of
val.txt, in windows that do not overlap, each from an empty context, in nats a character. Needs
$ANYFORMER_DATA/tiny_shakespeare.
"""

import argparse
import math
import tempfile
from pathlib import Path

import torch
from plain_gpt import PlainGPT

from anyformer.cli import main as cli
from anyformer.data.files import find_file
from anyformer.runs.metrics_file import read_metrics

CONTEXT, BATCH = 64, 12
CONFIG = Path(__file__).parents[1] / "configs" / "gpt_shakespeare_char.yaml"


def train_plain(seed, n_steps):
    """Nats a character on val.txt, and the number of parameters."""
    texts = [Path(find_file(f"tiny_shakespeare/{part}.txt")).read_text() for part in ("train", "val")]
    number = {character: i for i, character in enumerate(sorted(set("".join(texts))))}
    train, validation = (torch.tensor([number[character] for character in text]) for text in texts)
    torch.manual_seed(seed)
    model = PlainGPT(len(number), CONTEXT, depth=4, n_heads=4, width=128)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    for step in range(n_steps):
        done = (step - 100) / max(n_steps - 100, 1)
        lr = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.5 * (1 + math.cos(math.pi * done)) * 9e-4
        for group in optimizer.param_groups:
            group["lr"] = lr
        starts = torch.randint(len(train) - CONTEXT, (BATCH,)).tolist()
        windows = torch.stack([train[start : start + CONTEXT + 1] for start in starts])
        model(windows[:, :-1], windows[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        n = (len(validation) - 1) // CONTEXT
        inputs, targets = (validation[shift : shift + n * CONTEXT].view(n, CONTEXT) for shift in (0, 1))
        total = sum(model(x, y).item() * y.numel() for x, y in zip(inputs.split(100), targets.split(100), strict=True))
    return total / (n * CONTEXT), sum(p.numel() for p in model.parameters())


def train_ours(seed, n_steps):
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--seed_everything={seed}", f"--trainer.max_steps={n_steps}", "--model.example=null"]
        assert cli.main(["fit", "--config", str(CONFIG), "--run_dir", folder, *options]) == 0
        from anyformer.saving.model_folder import load

        n_parameters = sum(p.numel() for p in load(folder).parameters())
        return read_metrics(Path(folder))["best/val/loss"], n_parameters


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    for name, train in (("plain nanoGPT", train_plain), ("anyformer", train_ours)):
        loss, n_parameters = train(options.seed, options.steps)
        print(f"{name:<14} {n_parameters:>9,} parameters  {loss:.4f} nats a character", flush=True)


if __name__ == "__main__":
    main()
