"""New tokens from the same GPT-2 by our generator and by transformers' `generate`, in turn.

    uv run python benchmarks/generate.py [--device cuda] [--rounds 7] [--tokens 64] [--tiny]

GPT-2-small's size, random weights, float32; greedily from one prompt, greedily from 8 prompts of 16 to 128 tokens
(theirs padded on the left), and by beam search, 4 wide, from one prompt. Nothing ends before its last token. Prefill
and all else of a call are in its time, but for what our generator does once for its weights: rearranging them, which is
printed. Rounds go A B A B; the figures are medians over the rounds. That both give the same tokens is seen to first.

The share of reading: a new token at batch 1 reads every weight once, which takes at least their bytes over the speed at
which a large tensor is summed.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from anyformer.generation.config import GenerationConfig
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.lifts import Lookup
from anyformer.model.positions import PositionConfig
from anyformer.tokens import Tokenizer, TokenSet


class Ids(Tokenizer):
    """A record is a list of ids."""

    axes = ("word",)

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def encode(self, record, random=None):
        place = torch.arange(len(record))
        return TokenSet(torch.tensor(record, dtype=torch.int64), place[:, None], place)

    def empty(self):
        return self.encode([])

    def lift(self, d_model):
        return Lookup(self.vocab_size, d_model)


def make_theirs(tiny, device):
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 1000} if tiny else {}
    return GPT2LMHeadModel(GPT2Config(**small, bos_token_id=None, eos_token_id=None)).to(device).eval()


def make_ours(theirs, device):
    """The same weights in our trunk; the head is the table of tokens, as theirs is."""
    sizes, trunk = theirs.config, theirs.transformer
    model = Anyformer(
        {"text": Ids(sizes.vocab_size)},
        TransformerConfig(sizes.n_embd, sizes.n_layer, sizes.n_head, activation="gelu_tanh"),
        EmbeddingConfig(types=False, positions=[PositionConfig(("word",), "learned", (sizes.n_positions,))]),
    ).to(device)
    with torch.no_grad():
        model.embeddings.lifts["text"].table.copy_(trunk.wte.weight)
        model.embeddings.positions[0].tables[0].copy_(trunk.wpe.weight)
        for ours, other in zip(model.transformer.blocks, trunk.h, strict=True):
            ours.attention_residual.norm.load_state_dict(other.ln_1.state_dict())
            ours.mlp_residual.norm.load_state_dict(other.ln_2.state_dict())
            attention, packed = ours.attention, other.attn.c_attn
            parts = zip(packed.weight.chunk(3, 1), packed.bias.chunk(3), strict=True)
            thirds = zip((attention.q, attention.k, attention.v), parts, strict=True)
            for linear, weight, bias in (
                *((linear, *part) for linear, part in thirds),
                (attention.o, other.attn.c_proj.weight, other.attn.c_proj.bias),
                (ours.mlp.up, other.mlp.c_fc.weight, other.mlp.c_fc.bias),
                (ours.mlp.down, other.mlp.c_proj.weight, other.mlp.c_proj.bias),
            ):
                linear.weight.copy_(weight.T)
                linear.bias.copy_(bias)
        model.transformer.final_norm.load_state_dict(trunk.ln_f.state_dict())
    table = model.embeddings.lifts["text"].table
    return Generator(model, lambda hidden: F.linear(hidden, table), "text")


def contestants(theirs, ours, rows, n_new, n_beams, device):
    """Name -> a call that returns the new ids of every prompt."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    tokenizer = ours.model.tokenizers["text"]

    def run_theirs(n_new=n_new):
        out = theirs.generate(
            ids, attention_mask=real, max_new_tokens=n_new, do_sample=False, num_beams=n_beams, pad_token_id=0
        )
        return out[:, width:].tolist()

    def run_ours(n_new=n_new):
        prompts = [{"text": tokenizer.encode(row)} for row in rows]
        return [best.ids for (best,) in ours.generate(prompts, GenerationConfig(n_new, n_beams=n_beams))]

    return {"transformers": run_theirs, "anyformer": run_ours}


def reading_seconds(model, device):
    """What reading the weights of one step takes at least."""
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    # The table of positions is looked up in; that of tokens is read whole by the head.
    n_bytes -= sum(p.numel() * p.element_size() for p in model.embeddings.positions.parameters())
    large, times = torch.ones(2**27, device=device), []
    for _ in range(7):
        start = time.perf_counter()
        large.sum().item()
        times.append(time.perf_counter() - start)
    speed = large.numel() * 4 / min(times)
    print(f"weights read in a step {n_bytes / 2**20:.0f} MiB, memory read at {speed / 2**30:.1f} GiB/s")
    return n_bytes / speed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--tiny", action="store_true", help="a model of a moment, to try this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    theirs = make_theirs(options.tiny, options.device)
    ours = make_ours(theirs, options.device)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    reading = reading_seconds(ours.model, options.device)
    prompts = [torch.randint(theirs.config.vocab_size, (n,)).tolist() for n in range(16, 129, 16)]
    for what, rows, n_beams in (
        ("batch 1", prompts[3:4], 1),
        ("batch 8, ragged", prompts, 1),
        ("beam 4", prompts[3:4], 4),
    ):
        sides = contestants(theirs, ours, rows, options.tokens, n_beams, options.device)
        expected, start = sides["transformers"](), time.perf_counter()
        found, first_call = sides["anyformer"](), time.perf_counter() - start
        assert found == expected, f"{what}: not the same tokens"
        times = {name: [] for name in sides}
        first = {name: [] for name in sides}  # calls for one token: the prefill
        for _ in range(options.rounds):
            for name, run in sides.items():
                for n_new, into in ((options.tokens, times), (1, first)):
                    start = time.perf_counter()
                    run(n_new)
                    into[name].append(time.perf_counter() - start)
        base = statistics.median(times["transformers"])
        print(f"{what}: our first call {first_call - statistics.median(times['anyformer']):+.2f} s")
        for name in sides:
            whole, begin = statistics.median(times[name]), statistics.median(first[name])
            step = (whole - begin) / (options.tokens - 1)
            rate = len(rows) * options.tokens / whole
            share = f"  reading the weights {reading / step:4.0%} of a step" if len(rows) == n_beams == 1 else ""
            print(
                f"{what:<16} {name:<13} {rate:8.1f} new tokens/s  {base / whole:.2f} x transformers  "
                f"prefill {1000 * begin:6.1f} ms  step {1000 * step:6.2f} ms{share}"
            )


if __name__ == "__main__":
    main()
