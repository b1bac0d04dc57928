"""Encoding a text through our corpus reader against the `tokenizers` package called directly in one batch, in turn.

    uv run python benchmarks/bpe.py [--megabytes 50] [--rounds 5] [--vocab_size 8192]

The text is made of paragraphs of the reference that comes with Python, drawn at random, 20 a document. The package gets
a list of the documents that is in memory already, in one call of `encode_batch_fast`, and nothing is done with what it
returns. Ours reads the file, finds the documents, checks the UTF-8, encodes, writes the array of ids to the disk and
syncs it: once as documents, once with the file as one document, which is cut into pieces. Rounds go A B C A B C; the
figures are medians over the rounds, of the time that passes and of the time that the processors work. Peak memory is
what a side takes above the process's size before it reads the text, each in a process of its own.
"""

import argparse
import multiprocessing
import os
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tokenizers

from anyformer.tokenizers.text.corpus import Corpus, PythonDocs
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import token_stream

DELIMITER = "\n\f\n"


def write_text(path, size):
    """Documents of random paragraphs, of so many bytes together."""
    paragraphs = [part for text in PythonDocs().texts() for part in re.split(r"\n\s*\n", text) if part.strip()]
    draw, written = random.Random(0), 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        while written < size:
            document = "\n\n".join(draw.choices(paragraphs, k=20)) + DELIMITER
            file.write(document)
            written += len(document.encode())


def read_documents(path):
    return [text for text in Path(path).read_bytes().decode().split(DELIMITER) if text]


def ours(path, text, split):
    """Encode a file into a cache that is empty; returns the ids."""

    def work():
        with tempfile.TemporaryDirectory(dir=Path(path).parent) as cache:
            options = {"key": text.key, "n_ids": text.n_ids, "eos_id": text.eos_id, "cache": cache}
            return token_stream(Corpus(path, split=split), text.encode_batch, **options).ids

    return work


def theirs(path, text):
    package = tokenizers.Tokenizer.from_str(text.vocabulary)
    documents = read_documents(path)
    return lambda: package.encode_batch_fast(documents, add_special_tokens=False)


def contestants(path, text):
    return {
        "tokenizers, one batch": lambda: theirs(path, text),
        "anyformer, documents": lambda: ours(path, text, DELIMITER),
        "anyformer, one document": lambda: ours(path, text, None),
    }


def memory(path, text, name, answer):
    """Put the bytes that a side takes, at the most, above what the process held before it read the text."""
    text.encode_batch(["a", "b"])
    tokenizers.Tokenizer.from_str(text.vocabulary)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    contestants(path, text)[name]()()
    answer.put(resident("VmHWM") - before)


def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab_size", type=int, default=8192)
    options = parser.parse_args()
    text = Text(vocab_size=options.vocab_size).fit(PythonDocs().texts())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.txt")
        write_text(path, options.megabytes * 1e6)
        context = multiprocessing.get_context("spawn")
        peaks = {}
        for name in contestants(path, text):
            answer = context.Queue()
            process = context.Process(target=memory, args=(path, text, name, answer))
            process.start()
            peaks[name] = answer.get()
            process.join()

        sides = {name: make() for name, make in contestants(path, text).items()}
        alone = [ids for encoding in sides["tokenizers, one batch"]() for ids in (*encoding.ids, text.eos_id)]
        assert (sides["anyformer, documents"]() == np.array(alone)).all()
        seconds, work_seconds = ({name: [] for name in sides} for _ in range(2))
        for _ in range(options.rounds):
            for name, work in sides.items():
                start, start_work = time.perf_counter(), time.process_time()
                work()
                seconds[name].append(time.perf_counter() - start)
                work_seconds[name].append(time.process_time() - start_work)
        size = os.path.getsize(path)
    base = statistics.median(seconds["tokenizers, one batch"])
    print(f"tokenizers {tokenizers.__version__}, {os.cpu_count()} cores, {size / 1e6:.1f} MB, {text.n_ids} ids")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:<24} {size / 1e6 / median:6.2f} MB/s  {base / median:.2f} x the package  "
            f"{statistics.median(work_seconds[name]):6.2f} s of work  peak memory {peaks[name] / 2**20:6.0f} MiB"
        )


if __name__ == "__main__":
    main()
