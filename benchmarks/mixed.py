"""Training with half the fields absent: what is there packed, against each field padded to its longest, in turn.

    uv run python benchmarks/mixed.py [--device cuda] [--rounds 5] [--batches 3] [--batch 32] [--tiny] [--only an4]

Samples of easy_vqa (a picture and a question) and of an4 (a recording and its transcript), from $ANYFORMER_DATA, each
without one of its two fields, drawn with seed 0; and batches of both, where every sample has one field of four. Padded,
each field of a batch takes as many places in every row as its longest, absent or not, its content is filled with 0, and
a mask hides the rest, as a plain PyTorch model has it; packed, there are no other tokens than those that are there. The
model is the same and ours, 192 wide, 6 layers, 3 heads, float32, fused AdamW; so is the loss, which is seen to first.

The fill f is the share of real tokens among the padded. Rounds go A B A B over the same batches; the figures are
medians over the rounds. Reading, cutting and collation are not in the step, which data workers do beside the training.
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from anyformer.data.tables import Table
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import make_optimizer
from anyformer.packing import pack
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet

CLASSES = 13
SOURCES = {
    "easy_vqa": Table("easy_vqa/train.jsonl.gz", {"image": "image", "question": "question"}, root="train_images.zip"),
    "an4": Table("an4/train.csv", {"audio": "file", "transcript": "transcript"}, root="flac"),
}
TOKENIZERS = {
    "image": ImagePatches((64, 64), patch=8, channels=3),
    "question": Text("bytes"),
    "audio": Audio(MelConfig(n_mels=64)),
    "transcript": Text("bytes"),
}


def make_task(tiny, device):
    rotary = RotaryConfig(axes=("row", "column", "word", "time"))
    sizes = {"d_model": 32, "depth": 1, "n_heads": 1} if tiny else {"d_model": 192, "depth": 6, "n_heads": 3}
    task = Classify(TOKENIZERS, TransformerConfig(**sizes, rotary=rotary), classes=list(map(str, range(CLASSES))))
    task.build()
    return task.to(device)


def make_step(task):
    optimizer = make_optimizer(task, [task.model.transformer], task.optimizer)

    def step(batch):
        loss, n_targets = task.loss(batch)
        loss.backward()
        assert divide_gradients(optimizer, n_targets).isfinite()
        optimizer.step()
        optimizer.zero_grad()

    return step


# Batches


def read_items(task, names, n, random):
    """Items of samples that have one of their two fields each, of the named sets in turn."""
    chopper = task.chopper(training=True)
    items = []
    for number in range(n):
        source = SOURCES[names[number % len(names)]]
        i = int(random.integers(len(source)))
        kept = random.choice(sorted(source.columns))
        value = source[i][kept]
        if TOKENIZERS[kept].reads_files:
            value = f"{source.folder}/{value}"
        items.append(chopper({kept: value, "label": str(number % CLASSES)}))
    return items


def make_padded(task, items):
    """The items as a batch in which every sample has all of each field's places, those that are not its own hidden."""
    fields = task.model.tokenizers
    longest = {name: max(len(sample.get(name, ())) for sample, _ in items) for name in fields}
    longest = {name: n for name, n in longest.items() if n}
    real = {
        name: torch.cat([torch.arange(n) < len(sample.get(name, ())) for sample, _ in items])
        for name, n in longest.items()
    }
    full = []
    for sample, label in items:
        padded = {}
        for name, n in longest.items():
            tokens = sample.get(name, fields[name].empty())
            missing = n - len(tokens)
            content = torch.cat([tokens.content, tokens.content.new_zeros(missing, *tokens.content.shape[1:])])
            position = torch.cat([tokens.position, tokens.position.new_zeros(missing, tokens.position.shape[1])])
            padded[name] = TokenSet(content, position)
        full.append((padded, label))
    batch = task.chopper(training=True).collate(full)
    segment = batch.tokens.layout.segment.clone()
    for name, own in real.items():
        # Positions of 0 have moved tokens within their row, and the index knows where.
        segment.view(-1)[batch.tokens.fields[name].index[~own]] = 0
    layout = batch.tokens.layout._replace(segment=segment)
    return replace(batch, tokens=replace(batch.tokens, layout=layout, kind="dense", padded=True))


def make_packed(task, items):
    lengths = [sum(map(len, sample.values())) for sample, _ in items]
    return task.chopper(training=True).collate(items, pack(lengths, max(lengths)))


def share_of_tokens(batches):
    """The mean share of the places that hold a token."""
    return statistics.mean((batch.tokens.layout.segment > 0).float().mean().item() for batch in batches)


def compare(name, names, options):
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    task = make_task(options.tiny, options.device)
    every = [read_items(task, names, options.batch, random) for _ in range(options.batches)]
    sides = {"padded": [make_padded(task, items) for items in every]}
    sides["packed"] = [make_packed(task, items) for items in every]
    fills = {side: share_of_tokens(batches) for side, batches in sides.items()}
    sides = {side: [batch.to(options.device) for batch in batches] for side, batches in sides.items()}
    with torch.no_grad():
        for padded, packed in zip(*sides.values(), strict=True):
            expected, found = (task.loss(batch)[0].item() for batch in (padded, packed))
            assert abs(found / expected - 1) < 1e-4, f"not the same loss: {expected} and {found}"
    step = make_step(task)
    rates = {side: [] for side in sides}
    for turn in range(options.rounds + 1):
        for side, batches in sides.items():
            start = time.perf_counter()
            for batch in batches:
                step(batch)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                rates[side].append(options.batch * len(batches) / (time.perf_counter() - start))
    padded, packed = (statistics.median(rates[side]) for side in ("padded", "packed"))
    f = fills["padded"]
    print(
        f"{name:<8}  fill f {f:.3f}, packed {fills['packed']:.3f}  padded {padded:7.1f} samples/s, packed {packed:7.1f}"
        f"  x {packed / padded:.2f}, {packed / padded * f:.2f} / f",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tiny", action="store_true", help="a model of a moment, to try this file")
    parser.add_argument("--only", nargs="+", choices=(*SOURCES, "both"), default=(*SOURCES, "both"))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name in options.only:
        compare(name, list(SOURCES) if name == "both" else [name], options)


if __name__ == "__main__":
    main()
