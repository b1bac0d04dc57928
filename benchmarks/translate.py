"""A training step and beam search of an encoder-decoder, ours and transformers' Marian of the same size, in turn.

    uv run python benchmarks/translate.py [--device cuda] [--sizes small base] [--rounds 5] [--batches 10] [--tiny]

Needs Multi30k inside $ANYFORMER_DATA. Sentences are drawn from its training part, seed 0, 64 for each batch, cut by one
byte-level BPE of both languages; sizes are (layers of each stack, width). The same weights in both, float32, fused
AdamW, no dropout. Sides of the training, over the same sentences:

    transformers            batches as they were drawn, padded to the longest
    anyformer, packed       the same batches, several pairs in a row as long as the longest
    transformers, sorted    our own batches, of like length within a budget of tokens
    anyformer, sorted       the same

The fill f is the share of real tokens of both languages. Rounds go over all sides; the figures are medians over the
rounds. That both have the same loss on a batch is seen to first. Collation is not in a step, which data workers do.

Beam search, 4 wide, translates one batch as it was drawn, from ids to ids. Ends of sentences are as they come: the
small model is first trained for `--learn` steps, and its weights carried over, so that they come as in use. That both
find the same translations is seen to; of equals to the last bits either may be the best, so that a few may differ.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import GenerationConfig as TheirGeneration
from transformers import MarianConfig, MarianMTModel
from transformers.utils import logging

from anyformer.data.batch_plan import plan_batches
from anyformer.optim.optimizer import make_optimizer
from anyformer.packing import pack
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.sequence.batch import Pair
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.text.aligned import Aligned
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet
from anyformer.weights.huggingface import Settings
from anyformer.weights.marian import MARIAN

logging.set_verbosity_error()
BATCH, BEAMS, LONGEST = 64, 4, 64
SIZES = {"small": (4, 256), "base": (6, 512)}
TINY = (2, 32)
FILES = {"en": "multi30k/train.en.gz", "de": "multi30k/train.de.gz"}


def read_pairs(tiny):
    """The tokenizer of both languages, and the ids of all pairs of sentences."""
    source = Aligned(FILES)
    texts = [source.column(name)[: 2000 if tiny else None] for name in FILES]
    text = Text(vocab_size=500 if tiny else 8000).fit(line for column in texts for line in column)
    return text, list(zip(*(text.encode_batch(column) for column in texts), strict=True))


def make_models(text, size, device):
    depth, width = size
    stacks = {f"{stack}_{what}": value for stack in ("encoder", "decoder") for what, value in _stack(depth, width)}
    # No text holds a mask, so that it can stand for padding, whose vector is not trained there.
    named = {"pad_token_id": text.mask_id, "eos_token_id": text.eos_id, "decoder_start_token_id": text.eos_id}
    config = MarianConfig(
        vocab_size=text.n_ids,
        d_model=width,
        activation_function="relu",
        scale_embedding=True,
        dropout=0.0,
        forced_eos_token_id=None,
        **stacks,
        **named,
    )
    theirs = MarianMTModel(config)
    theirs.generation_config = TheirGeneration(**named)
    settings = Settings(config.to_dict(), "MarianConfig")
    design = MARIAN.design(settings, "MarianMTModel")
    ours = SequenceToSequence(
        {"text": text, "target": text},
        design.transformer,
        design.embedding,
        target="target",
        encoder=design.encoder,
        output=design.output,
        shared_vocabulary=True,
    )
    ours.build()
    MARIAN.load(ours, "target", theirs.state_dict(), settings, "MarianMTModel")
    return theirs.to(device), ours.to(device)


def _stack(depth, width):
    return {"layers": depth, "attention_heads": width // 64 or 2, "ffn_dim": 4 * width}.items()


# Batches


def lengths_of(pairs):
    """Tokens that each pair comes to in the two stacks; a target has one more, its start or its end."""
    return [(len(source), len(target) + 1) for source, target in pairs]


def fill_of(batches):
    """The share of real tokens where every batch is padded to its longest, of both languages."""
    real = padded = 0
    for batch in batches:
        lengths = np.array(lengths_of(batch))
        real += lengths.sum()
        padded += len(batch) * lengths.max(0).sum()
    return real / padded


def by_length(pairs, n_batches):
    """Our own batches of the pairs, as many as there are of those drawn."""
    lengths = lengths_of(pairs)
    budget = max(int(np.sum(lengths)) // n_batches, *map(sum, lengths))
    while len(plan := plan_batches(len(pairs), max_tokens=budget, lengths=lengths, shuffle=False)) > n_batches:
        budget += budget // 100 + 1
    return [[pairs[draw.index] for draw in batch] for batch in plan.epoch(0)]


def fill_up(rows, value):
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def for_theirs(text, pairs, device):
    ids = fill_up([source.tolist() for source, _ in pairs], text.mask_id)
    real = fill_up([[1] * len(source) for source, _ in pairs], 0)
    labels = fill_up([[*target.tolist(), text.eos_id] for _, target in pairs], -100)
    batch = {"input_ids": ids, "attention_mask": real, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def for_ours(task, pairs, device, packed=False):
    rows = None
    if packed:
        lengths = lengths_of(pairs)
        rows = pack(lengths, np.max(lengths, 0).tolist())
    items = [
        Pair({"text": TokenSet(torch.from_numpy(source), torch.arange(len(source))[:, None])}, target)
        for source, target in pairs
    ]
    return task.chopper(training=True).collate(items, rows).to(device)


# Sides


def make_steps(theirs, ours):
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, fused=True)
    our_optimizer = make_optimizer(ours, [ours.model.transformer, ours.model.encoder], ours.optimizer)

    def step_theirs(batch):
        theirs(**batch, use_cache=False).loss.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    def step_ours(batch):
        loss, n_targets = ours.loss(batch)
        loss.backward()
        assert divide_gradients(our_optimizer, n_targets).isfinite()
        our_optimizer.step()
        our_optimizer.zero_grad()

    return step_theirs, step_ours


def measure(sides, rounds, device):
    """The median time of a call of each side, in seconds."""
    times = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def compare_training(text, theirs, ours, drawn, options):
    device = options.device
    our_own = by_length([pair for batch in drawn for pair in batch], len(drawn))
    fill, own_fill = fill_of(drawn), fill_of(our_own)
    their_drawn, their_own = ([for_theirs(text, batch, device) for batch in each] for each in (drawn, our_own))
    packed = [for_ours(ours, batch, device, packed=True) for batch in drawn]
    sorted_ = [for_ours(ours, batch, device) for batch in our_own]
    with torch.no_grad():
        loss, n_targets = ours.loss(packed[0])
        expected = theirs(**their_drawn[0], use_cache=False).loss.item()
        assert abs(loss.item() / n_targets.item() / expected - 1) < 1e-4, "not the same loss"
    step_theirs, step_ours = make_steps(theirs, ours)

    def over(step, batches):
        return lambda: [step(batch) for batch in batches]

    times = measure(
        {
            "transformers": over(step_theirs, their_drawn),
            "anyformer, packed": over(step_ours, packed),
            "transformers, sorted": over(step_theirs, their_own),
            "anyformer, sorted": over(step_ours, sorted_),
        },
        options.rounds,
        device,
    )
    n_targets = sum(len(target) + 1 for batch in drawn for _, target in batch)
    rates = {name: n_targets / each for name, each in times.items()}
    rows = sum(batch.tokens.shape.numel() + batch.inputs.shape.numel() for batch in packed)
    real = sum(sum(map(sum, lengths_of(batch))) for batch in drawn)
    print(f"  fill f as drawn {fill:.3f}, packed {real / rows:.3f}, sorted {own_fill:.3f} in {len(our_own)} batches")
    for name, rate in rates.items():
        ratio = rate / rates["transformers"]
        beside = f", x {rate / rates['transformers, sorted']:.2f} sorted" if name == "anyformer, sorted" else ""
        print(f"  {name:<21} {rate:8.0f} target tokens/s  x {ratio:.2f}, {ratio * fill:.2f} / f{beside}")


def learn(text, theirs, ours, pairs, n_steps, device):
    """Train ours for some steps and give theirs the weights."""
    _, step = make_steps(theirs, ours)
    plan = plan_batches(len(pairs), max_tokens=2500, lengths=lengths_of(pairs))
    done = 0
    while done < n_steps:
        for batch in plan.epoch(done):
            step(for_ours(ours, [pairs[draw.index] for draw in batch], device))
            done += 1
            if done == n_steps:
                break
    theirs.load_state_dict(MARIAN.unload(ours, "target"), strict=False)


def compare_beams(text, theirs, ours, pairs, options):
    device = options.device
    their_batch = for_theirs(text, pairs, device)
    del their_batch["labels"]
    our_batch = for_ours(ours, pairs, device)
    # Neither the start of a text nor padding is written; ours has no padding.
    config = DecodeConfig(n_beams=BEAMS, max_new_tokens=LONGEST, suppressed=(text.mask_id,))

    def run_theirs():
        chosen = {"num_beams": BEAMS, "max_new_tokens": LONGEST, "do_sample": False}
        rows = theirs.generate(**their_batch, **chosen, bad_words_ids=[[text.mask_id]])[:, 1:].tolist()
        return [row[: row.index(text.eos_id)] if text.eos_id in row else row for row in rows]

    def run_ours():
        return ours.write(our_batch, config)

    with torch.inference_mode():
        expected, found = run_theirs(), run_ours()
        n_same = sum(one == other for one, other in zip(found, expected, strict=True))
        n_tokens = [len(row) for row in expected]
        assert n_same >= 0.9 * len(pairs), f"only {n_same} of {len(pairs)} translations are the same"
        times = measure({"transformers": run_theirs, "anyformer": run_ours}, options.rounds, device)
    print(
        f"  beam {BEAMS}: {n_same} of {len(pairs)} translations the same, "
        f"of {min(n_tokens)} to {max(n_tokens)} tokens, {statistics.mean(n_tokens):.1f} in the mean"
    )
    for name, each in times.items():
        print(f"  {name:<21} {len(pairs) / each:8.2f} sentences/s       x {times['transformers'] / each:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--learn", type=int, default=300, help="steps before beam search")
    parser.add_argument("--tiny", action="store_true", help="a model of a moment, to try this file")
    options = parser.parse_args()
    text, pairs = read_pairs(options.tiny)
    order = np.random.default_rng(0).permutation(len(pairs))[: BATCH * options.batches].reshape(-1, BATCH)
    drawn = [[pairs[i] for i in batch] for batch in order]
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name in ["tiny"] if options.tiny else options.sizes:
        size = TINY if options.tiny else SIZES[name]
        torch.manual_seed(0)
        theirs, ours = make_models(text, size, options.device)
        print(
            f"{name}: {size[0]} + {size[0]} layers, {size[1]} wide, {text.n_ids:,} ids, {len(drawn)} batches of {BATCH}"
        )
        compare_training(text, theirs, ours, drawn, options)
        if name != "base":
            learn(text, theirs, ours, pairs, options.learn, options.device)
            theirs.eval(), ours.eval()
            compare_beams(text, theirs, ours, drawn[0], options)


if __name__ == "__main__":
    main()
