"""What the flow between fields and the relevance of tokens cost, in forward passes of one sample in a warm process.

    python benchmarks/explain.py

Models with random weights, of one class token and a text; each figure is the median of several rounds, in which the
two stand beside each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from anyformer.explaining.flow import field_flows
from anyformer.explaining.relevance import explain_parts
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.text.text import Text

ROUNDS = 15
MODELS = {
    "digits_question's size, 20 tokens": (TransformerConfig(96, 3, 4, rotary=RotaryConfig(("word",))), 20),
    "256 wide, 6 layers, 128 tokens": (TransformerConfig(256, 6, 8, rotary=RotaryConfig(("word",))), 128),
    "256 wide, 6 layers, 512 tokens": (TransformerConfig(256, 6, 8, rotary=RotaryConfig(("word",))), 512),
}
TARGET = 12
"""Forward passes."""


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{'model':<36}  forward (ms)  flow and relevance (ms)  forward passes (target {TARGET})")
    for name, (sizes, n) in MODELS.items():
        task = Classify({"text": Text("bytes")}, sizes, classes=["a", "b"])
        task.build()
        question = task.eval().ask({"text": "x" * n})
        asked, sample = question.asked, question.sample
        batch, _ = asked.lay([sample])

        def forward(asked=asked, batch=batch) -> None:
            with torch.inference_mode():
                asked.score(asked.model(batch), batch)

        def explain(asked=asked, sample=sample) -> None:
            _, maps, *batches = explain_parts(asked, sample)
            field_flows(maps, list(asked.model.tokenizers), *batches)

        rounds = [(seconds(forward), seconds(explain)) for _ in range(ROUNDS + 2)][2:]
        plain, whole = (1000 * median(times) for times in zip(*rounds, strict=True))
        ratio = median(whole / plain for plain, whole in rounds)
        print(f"{name:<36}  {plain:>12.2f}  {whole:>23.2f}  {ratio:>14.1f}")


if __name__ == "__main__":
    main()
