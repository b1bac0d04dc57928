"""A training step of our Vision Transformer against timm's, of the same size, in turn.

    uv run python benchmarks/vit_train.py [--device cuda] [--rounds 7] [--steps 4]

32 x 32 pictures, patch 4, 192 wide, 9 layers, 3 heads, 10 classes, batch 64, float32, fused AdamW on both sides. Ours
is timed twice: from a collated batch, as timm is from a tensor of pictures; and with the cutting into patches and the
collation, which data workers do beside the training, in the step as well. Our step divides the gradients by the number
of targets and looks whether they are finite, as `Task` does. Rounds go A B C A B C; the figures are
medians over the rounds. Peak memory is what a step takes above the process's size before the model is built, each in a
process of its own.
"""

import argparse
import multiprocessing
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import make_optimizer
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches

BATCH, SIDE, PATCH, CLASSES = 64, 32, 4, 10


def make_timm(device):
    model = VisionTransformer(
        img_size=SIDE, patch_size=PATCH, num_classes=CLASSES, embed_dim=192, depth=9, num_heads=3
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def step(pictures, labels):
        loss = F.cross_entropy(model(pictures), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(p.numel() for p in model.parameters())


def make_ours(device, with_cutting):
    task = Classify(
        {"image": ImagePatches(size=(SIDE, SIDE), patch=PATCH, channels=3)},
        TransformerConfig(d_model=192, depth=9, n_heads=3, norm_eps=1e-6),
        classes=[str(i) for i in range(CLASSES)],
    )
    task.build()
    task.to(device)
    optimizer = make_optimizer(task, [task.model.transformer], task.optimizer)
    chopper = task.chopper(training=True)

    def cut(pictures, labels):
        items = [chopper({"image": image, "label": label}) for image, label in zip(pictures, labels, strict=True)]
        return chopper.collate(items).to(device)

    def step(pictures, labels):
        batch = cut(pictures, labels) if with_cutting else pictures
        loss, n_targets = task.loss(batch)
        loss.backward()
        assert divide_gradients(optimizer, n_targets).isfinite()
        optimizer.step()
        optimizer.zero_grad()

    return step, cut, sum(p.numel() for p in task.parameters())


def data(device):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    raw = ([p.permute(1, 2, 0).numpy() for p in pictures], labels.tolist())
    return ((pictures.float() / 127.5 - 1).to(device), labels.to(device)), raw


def contestants(device):
    """Name -> (step, its arguments, parameters)."""
    tensors, raw = data(device)
    theirs, n_theirs = make_timm(device)
    ours, cut, n_ours = make_ours(device, with_cutting=False)
    whole, _, _ = make_ours(device, with_cutting=True)
    return {
        "timm": (theirs, tensors, n_theirs),
        "anyformer": (ours, (cut(*raw), None), n_ours),
        "anyformer, cutting included": (whole, raw, n_ours),
    }


def memory(device, name, answer):
    """Put the bytes that training steps take, at the most, above what the process held before the model was built."""
    torch.manual_seed(0)
    if device == "cuda":
        torch.zeros(1, device=device)
        before = torch.cuda.memory_allocated()
    tensors, raw = data(device)
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = resident("VmRSS")
    if name == "timm":
        step, arguments = make_timm(device)[0], tensors
    else:
        step, cut, _ = make_ours(device, with_cutting=False)
        arguments = (cut(*raw), None)
    for _ in range(3):
        step(*arguments)
    answer.put((torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")) - before)


def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in ("timm", "anyformer"):
        answer = context.Queue()
        process = context.Process(target=memory, args=(options.device, name, answer))
        process.start()
        peaks[name] = answer.get()
        process.join()

    torch.manual_seed(0)
    sides = contestants(options.device)
    rates = {name: [] for name in sides}
    for turn in range(options.rounds + 1):
        for name, (step, arguments, _) in sides.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                step(*arguments)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                rates[name].append(BATCH * options.steps / (time.perf_counter() - start))
    base = statistics.median(rates["timm"])
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name, (_, _, n_parameters) in sides.items():
        rate = statistics.median(rates[name])
        peak = f"  peak memory {peaks[name] / 2**20:6.0f} MiB" if name in peaks else ""
        print(f"{name:<28} {n_parameters:>9,} parameters  {rate:7.1f} images/s  {rate / base:.2f} x timm{peak}")


if __name__ == "__main__":
    main()
