"""What a pattern of attention costs as texts grow: everything, windows, windows with global and random links, and
fewer keys than places.

    uv run python benchmarks/long.py [--lengths 1024 2048 4096 8192 16384] [--rounds 3] [--packed] [--generate 20000]

A causal model of 4 layers, 128 wide, 4 heads, rotary, float32, one row. Patterns take turns within a round, and the
figures are medians over the rounds: pairs that are seen; seconds of attention alone in all layers (forward and backward
through the kernel), and of the whole step (forward, loss, backward); and the most memory that tensors took in the step,
measured in a process of its own. --packed: rows of 4,096 packed from samples of 128, in blocks against one mask.
--generate: tokens written with windows, and the keys that the cache and the memory that the process then hold, at a
quarter, a half and the end. Linformer, which cannot be causal, runs on the same text seen at once, with a projection of
its length. The last lines are `slope NAME VALUE`: by which power of the length the time of attention grows from the
second length to the last; of two lengths from the first.
"""

import argparse
import math
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from anyformer.generation.config import GenerationConfig
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import visibility
from anyformer.model.attention.compression.linformer import Projected
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import self_sights, visible
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tokenizers.text.text import Text

WINDOW = {"window": {"word": 256}}
PATTERNS = {
    "everything": (),
    "window": (WINDOW,),
    "window+global+random": ({"window": {"word": 4}, "global": {"text": 16}, "random": 2, "block": 64},),
    "compressed": ({"compress": 4},),
    "window+compressed": (WINDOW, {"compress": 4}),
    "linformer": ({"linformer": 256},),
}
AT_ONCE = ("linformer",)
"""What reads a text at once."""
VOCABULARY, PIECE = 256, 1024


def make_model(patterns, n=0):
    """n: the longest text, where a pattern asks for it."""
    torch.manual_seed(0)
    patterns = [each | {"length": n} if "linformer" in each else each for each in patterns]
    config = TransformerConfig(d_model=128, depth=4, n_heads=4, rotary=RotaryConfig(("word",)), patterns=patterns)
    return Anyformer({"text": Text("bytes")}, config), torch.nn.Linear(128, VOCABULARY)


def make_batch(model, lengths, rows=None, is_causal=True):
    tokenizer = model.tokenizers["text"]
    texts = [tokenizer.encode("a" * n) for n in lengths]
    samples = [{"text": text.at(torch.arange(len(text)) if is_causal else 0)} for text in texts]
    return collate(samples, model.tokenizers, rows)


def sights_of(model, batch):
    stack = model.transformer
    places = places_of(batch, model.embeddings.axes, stack.wanted)
    sights = self_sights(stack.patterns, batch, places, 1)
    return [sights[block.pattern] for block in stack.blocks], places


def count_seen(model, batch):
    """Pairs of a place and a key that are seen in all layers, a stretch of queries at a time."""
    stack, places = model.transformer, sights_of(model, batch)[1]
    n, total = batch.shape[1], 0
    for block in stack.blocks:
        pattern = stack.patterns[block.pattern]
        if isinstance(pattern[-1], Projected):
            total += n * pattern[-1].n
            continue
        for start in range(0, n, PIECE):
            some = places.map(lambda part, start=start: part[:, start : start + PIECE])
            total += int(visible(some, places, pattern=pattern).sum())
    return total


def time_attention(model, batch):
    """Working out who sees whom, fewer keys where a layer makes them, and the kernels of all layers, there and back."""
    shape = (batch.shape[0], 4, batch.shape[1], 32)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    started = time.perf_counter()
    for block, sight in zip(model.transformer.blocks, sights_of(model, batch)[0], strict=True):
        compress = block.attention.compression
        keys, values = (k, v) if compress is None else compress(k, v, sight, None, None, 0)
        sight.attend(q, keys, values).sum().backward()
    took = time.perf_counter() - started
    model.zero_grad()
    return took


def time_step(model, head, batch):
    started = time.perf_counter()
    logits = head(model(batch)).flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()
    took = time.perf_counter() - started
    for part in (model, head):
        part.zero_grad()
    return took


def peak(name, n):
    """MiB that a step adds to what the process held before, in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, "--peak", name, str(n)], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def print_peak(name, n):
    model, head = make_model(PATTERNS[name], n)
    time_step(model, head, make_batch(model, [64], is_causal=name not in AT_ONCE))
    before = most_memory()
    time_step(model, head, make_batch(model, [n], is_causal=name not in AT_ONCE))
    print(most_memory() - before)


def most_memory():
    """MiB that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage counts what the parent held before this process was its own.
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def measure_lengths(lengths, rounds, names):
    times = {}
    print(f"{'pattern':<22}{'tokens':>8}{'pairs':>14}{'attention s':>13}{'step s':>9}{'peak MiB':>10}")
    for n in lengths:
        models = {name: make_model(PATTERNS[name], n) for name in names}
        batches = {name: make_batch(model, [n], is_causal=name not in AT_ONCE) for name, (model, _) in models.items()}
        taken = {name: ([], []) for name in models}
        for _ in range(rounds):
            for name, (model, head) in models.items():
                taken[name][0].append(time_attention(model, batches[name]))
                taken[name][1].append(time_step(model, head, batches[name]))
        for name, (model, _) in models.items():
            times[name, n] = attention, step = [statistics.median(each) for each in taken[name]]
            pairs = count_seen(model, batches[name])
            print(f"{name:<22}{n:>8,}{pairs:>14,}{attention:>13.3f}{step:>9.3f}{peak(name, n):>10.0f}", flush=True)
        for name in names if "everything" in names else ():
            if name == "everything":
                continue
            ratios = (one / other for one, other in zip(times["everything", n], times[name, n], strict=True))
            print("  {} is {:.2f} times as fast as everything in attention, {:.2f} in the step".format(name, *ratios))
    return times


def measure_packed(rounds):
    model, head = make_model(())
    batch, taken, long = make_batch(model, [128] * 32, [0] * 32), {"blocks": [], "dense": []}, visibility.LONG
    for turn in range(rounds + 1):
        for engine, every in taken.items():
            visibility.LONG = long if engine == "blocks" else math.inf
            took = time_step(model, head, batch)
            if turn:
                every.append(took)
    visibility.LONG = long
    rates = {engine: 4096 / statistics.median(every) for engine, every in taken.items()}
    print("packed rows of 4,096 from samples of 128, tokens/s:", {name: round(rate) for name, rate in rates.items()})
    print(f"  blocks are {rates['blocks'] / rates['dense']:.2f} times as fast as one mask")


def measure_generation(n):
    model, head = make_model(PATTERNS["window"])
    held, run, marks = [], model.forget, (n // 4, n // 2, n - 1)

    def forget(batch, cache):
        run(batch, cache)
        held.append(len(cache))

    model.forget = forget
    generator = Generator(model, head, "text")
    started = time.perf_counter()
    steps = generator.stream([{"text": model.tokenizers["text"].encode("The ")}], GenerationConfig(max_new_tokens=n))
    memory = {}
    for i, _ in enumerate(steps):
        if i in marks:
            memory[i] = most_memory()
            print(f"  at {i + 1:>6,} tokens the cache holds {held[-1]:>5,} places, the process {memory[i]:,.1f} MiB")
    took = time.perf_counter() - started
    print(f"{n:,} tokens with windows in {took:.0f} s: the cache held {max(held):,} places at most")
    print(f"  the process grew by {memory[n - 1] - memory[n // 4]:.1f} MiB over the last three quarters")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", type=int, nargs="*", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--patterns", nargs="+", choices=list(PATTERNS), default=list(PATTERNS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak[0], int(options.peak[1]))
        return
    if options.packed:
        measure_packed(options.rounds)
    if options.generate:
        measure_generation(options.generate)
    if not options.lengths:
        return
    times = measure_lengths(options.lengths, options.rounds, options.patterns)
    first, last = options.lengths[int(len(options.lengths) > 2)], options.lengths[-1]
    for name in options.patterns if last > first else ():
        slope = math.log(times[name, last][0] / times[name, first][0]) / math.log(last / first)
        print(f"slope {name} {slope:.3f}")


if __name__ == "__main__":
    main()
