"""Training on pictures of many shapes: several packed in a row against each padded to the longest, in turn.

    uv run python benchmarks/mixed_shapes.py [--device cuda] [--rounds 5] [--batches 3]

Sides uniform in 16 to 64 pixels, seed 0, batches of 64 in the order they were drawn, patch 4; one model, 192 wide, 6
layers, 3 heads, float32, fused AdamW. The fill f is the share of real tokens where every picture is padded to the
longest of its batch, which is what packing can save at the most: a ratio of 1 / f would be all of it. Rounds go A B A B
over the same batches; the figures are medians over the rounds. Cutting and collation are not in the step, which data
workers do beside the training.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.optim.optimizer import make_optimizer
from anyformer.packing import pack
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches

BATCH, CLASSES = 64, 10


def make_step(device):
    task = Classify(
        {"image": ImagePatches(size=None, patch=4, channels=3)},
        TransformerConfig(d_model=192, depth=6, n_heads=3),
        EmbeddingConfig(positions=[PositionConfig(("row", "column"), "sinusoidal")]),
        classes=[str(i) for i in range(CLASSES)],
    )
    task.build()
    task.to(device)
    optimizer = make_optimizer(task, [task.model.transformer], task.optimizer)

    def step(batch):
        loss, n_targets = task.loss(batch)
        loss.backward()
        assert divide_gradients(optimizer, n_targets).isfinite()
        optimizer.step()
        optimizer.zero_grad()

    return task, step


def make_batches(task, n, device):
    """The same pictures, padded and packed; and the share of real tokens of each."""
    random, chopper = np.random.default_rng(0), task.chopper(training=True)
    batches = {"padded": [], "packed": []}
    for _ in range(n):
        sides = random.integers(16, 65, (BATCH, 2))
        pictures = [random.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
        items = [chopper({"image": picture, "label": str(i % CLASSES)}) for i, picture in enumerate(pictures)]
        lengths = [sum(map(len, sample.values())) for sample, _ in items]
        batches["padded"].append(chopper.collate(items).to(device))
        batches["packed"].append(chopper.collate(items, pack(lengths, max(lengths))).to(device))
    fills = {
        name: statistics.mean((b.tokens.layout.segment > 0).float().mean().item() for b in every)
        for name, every in batches.items()
    }
    return batches, fills


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    task, step = make_step(options.device)
    batches, fills = make_batches(task, options.batches, options.device)
    rates = {name: [] for name in batches}
    for turn in range(options.rounds + 1):
        for name, every in batches.items():
            start = time.perf_counter()
            for batch in every:
                step(batch)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                rates[name].append(BATCH * len(every) / (time.perf_counter() - start))
    padded, packed = (statistics.median(rates[name]) for name in ("padded", "packed"))
    f = fills["padded"]
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    print(f"fill f of padding to the longest {f:.3f}, of packed rows {fills['packed']:.3f}")
    print(f"padded {padded:6.1f} images/s, packed {packed:6.1f} images/s")
    print(f"ratio {packed / padded:.2f}, {packed / padded * f:.2f} / f")


if __name__ == "__main__":
    main()
