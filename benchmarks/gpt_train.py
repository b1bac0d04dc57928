"""A training step of our GPT against one in plain PyTorch and transformers' GPT-2, of the same size, in turn.

    uv run python benchmarks/gpt_train.py [--device cuda] [--rounds 7] [--steps 2] [--sizes small large wide]

Sizes are (layers, width, context, batch, vocabulary). Ours and the plain one have the block of nanoGPT, without biases,
transformers' that of GPT-2; all have learned positions and a tied head, float32, fused AdamW and no dropout. Ours
divides the gradients by the number of targets and looks whether they are finite, as `Task` does. All step on the same
ids. Rounds go A B C A B C; the figures are medians over the rounds. Peak memory is what a step takes above the
size of the process before the model is built, each in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import time
from pathlib import Path

import torch
from plain_gpt import PlainGPT

SIZES = {
    "small": (4, 128, 64, 12, 1_000),
    "large": (6, 384, 256, 8, 1_000),
    "wide": (6, 384, 256, 4, 50_304),
}


def draw(size, device):
    _, _, context, batch, vocab_size = size
    ids = torch.randint(0, vocab_size, (batch, context + 1), generator=torch.Generator().manual_seed(0))
    return ids.to(device)


def make_plain(size, device):
    depth, width, context, _, vocab_size = size
    model = PlainGPT(vocab_size, context, depth, width // 64 or 1, width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(ids):
        model(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_transformers(size, device):
    from transformers import GPT2Config, GPT2LMHeadModel

    depth, width, context, _, vocab_size = size
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=context,
        n_embd=width,
        n_layer=depth,
        n_head=width // 64 or 1,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(ids):
        # It shifts the labels itself, so that the last id is read for nothing: it is left out.
        model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_ours(size, device):
    from anyformer.model.config import TransformerConfig
    from anyformer.model.embeddings import EmbeddingConfig
    from anyformer.optim.optimizer import make_optimizer
    from anyformer.packing import collate
    from anyformer.tasks.base.training import divide_gradients
    from anyformer.tasks.language.batch import TextExamples
    from anyformer.tasks.language.language import LanguageModel
    from anyformer.tokenizers.text.text import Text
    from anyformer.tokens import TokenSet

    depth, width, context, _, vocab_size = size
    biases = dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias", "mlp_bias"), False)
    # Characters, because they have as many ids as are asked for, and no training.
    characters = "".join(chr(0x4E00 + i) if i < 20_000 else chr(0x20000 + i) for i in range(vocab_size - 3))
    task = LanguageModel(
        {"text": Text("characters", vocabulary=characters)},
        TransformerConfig(d_model=width, depth=depth, n_heads=width // 64 or 1, **biases),
        EmbeddingConfig(types=False),
        context=context,
    )
    task.build()
    task.to(device)
    assert task.text.n_ids == vocab_size
    optimizer = make_optimizer(task, [task.model.transformer], task.optimizer)
    place = torch.arange(context)

    def lay(ids):
        samples = [{"text": TokenSet(row[:-1].cpu(), place[:, None], place)} for row in ids]
        tokens = collate(samples, task.tokenizers)
        return TextExamples(tokens, ids[:, 1:].flatten().cpu(), read=tokens.fields["text"].index).to(device)

    def step(batch):
        loss, n_targets = task.loss(batch)
        loss.backward()
        assert divide_gradients(optimizer, n_targets).isfinite()
        optimizer.step()
        optimizer.zero_grad()

    return step, lay


def contestants(size, device):
    ids = draw(size, device)
    ours, lay = make_ours(size, device)
    return {
        "plain": (make_plain(size, device), ids),
        "transformers": (make_transformers(size, device), ids),
        "anyformer": (ours, lay(ids)),
    }


def memory(size, device, name, answer):
    """Put the bytes that training steps take, at the most, above what the process held before the model was built."""
    # What importing takes is not a step's.
    import transformers  # noqa: F401

    import anyformer.tasks.language.language  # noqa: F401

    ids = draw(size, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = resident("VmRSS")
    if name == "anyformer":
        step, lay = make_ours(size, device)
        ids = lay(ids)
    else:
        step = {"plain": make_plain, "transformers": make_transformers}[name](size, device)
    for _ in range(3):
        step(ids)
    answer.put((torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")) - before)


def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for name in options.sizes:
        size = SIZES[name]
        peaks = {}
        for side in ("plain", "transformers", "anyformer"):
            answer = context.Queue()
            process = context.Process(target=memory, args=(size, options.device, side, answer))
            process.start()
            peaks[side] = answer.get()
            process.join()
        torch.manual_seed(0)
        sides = contestants(size, options.device)
        rates = {side: [] for side in sides}
        for turn in range(options.rounds + 1):
            for side, (step, batch) in sides.items():
                start = time.perf_counter()
                for _ in range(options.steps):
                    step(batch)
                if options.device == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first round warms up
                    rates[side].append(size[2] * size[3] * options.steps / (time.perf_counter() - start))
        print("{} layers, {} wide, context {}, batch {}, vocabulary {:,}".format(*size))
        ours = statistics.median(rates["anyformer"])
        for side, rate in ((side, statistics.median(rates[side])) for side in sides):
            print(
                f"  {side:<12} {rate:9.0f} tokens/s  anyformer x {ours / rate:.2f}"
                f"  peak memory {peaks[side] / 2**20:6.0f} MiB  anyformer x {peaks['anyformer'] / peaks[side]:.2f}"
            )


if __name__ == "__main__":
    main()
