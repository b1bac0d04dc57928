"""What to beware of in a config and its data, as `anyformer plan` says it before anything is trained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from anyformer.data.samples import Samples
from anyformer.data.source import Source, names_in
from anyformer.errors import InputError
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.planning.token_budget import Budget, FieldBudget
from anyformer.tasks.base.task import Task
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.language.windows import Pieces
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

FEW_TOKENS = 4
"""Of a field that is cut into patches or slices: nothing is left for attention to do."""
IMBALANCE = 10
"""Times that the most frequent class comes as often as the rarest."""
RARE = 0.1
"""Share of the samples that have a field."""
TIMES = 20
"""That an id of a vocabulary should come in the training texts, on average."""
SPARE = 4
"""Times that a table of positions is longer than the samples."""
CUT = 0.05
"""Share of the texts that are longer than what the model sees of them."""


def cautions(
    task: Task, source: Source, samples: Samples, budget: Budget | None, bad: Sequence[str], n_looked: int
) -> Iterator[str]:
    """A line for each thing that a user would want to know, and what to do about it.

    task: built. source: of the training records. samples: of training. budget: of the batches that were looked at.
    bad: what was said of the samples among them that cannot be used; n_looked: how many these were taken from.
    """
    if bad:
        more = f", and {len(bad) - 2} more" if len(bad) > 2 else ""
        yield (
            f"{len(bad)} of {n_looked} samples cannot be used: {'; '.join(bad[:2])}{more}; mend them, or leave "
            "them out by data.on_bad_sample: skip"
        )
    yield from _balance(task, source)
    if budget is None:
        return
    fields = {field.name: field for field in budget.fields}
    yield from _fields(task, fields, samples)
    yield from _texts(task, fields, samples)
    yield from _positions(task, fields)
    if budget.fill < 0.5:
        how = (
            "raise data.max_tokens, so that a batch has rows enough to fill"
            if budget.packed
            else "data.max_tokens puts samples of like length together"
            + (", and data.pack several into a row" if samples.chopper.packs else "")
        )
        yield f"rows are {budget.fill:.0%} full, and the rest of the work is on padding; {how}"


def _balance(task: Task, source: Source) -> Iterator[str]:
    """Of classes that nothing weighs."""
    for name in [name for name, target in task.targets.items() if not target.is_balanced]:
        try:
            counts = Counter(label for label in names_in(source, name) if label).most_common()
        except InputError:
            continue
        if not counts:
            continue
        (often, most), (rare, fewest) = counts[0], counts[-1]
        if most >= IMBALANCE * fewest:
            yield (
                f"column {name!r}: {often!r} comes {most:,} times and {rare!r} {fewest:,} times; weigh them by "
                f"class_weights: balanced{_chosen_by_f1(task, name)}"
            )


def _chosen_by_f1(task: Task, name: str) -> str:
    """Where the task can choose its best model by the f1 of a target and does not."""
    f1 = f"{name}/f1" if len(task.targets) > 1 else "f1"
    return "" if task.choose == f1 else f", and choose the best model by f1 rather than accuracy, with choose: {f1}"


def _fields(task: Task, fields: Mapping[str, FieldBudget], samples: Samples) -> Iterator[str]:
    dropout = samples.chopper.dropout
    for name, tokenizer in task.model.tokenizers.items():
        if isinstance(tokenizer, LearnedTokens):
            continue
        field = fields.get(name)
        left_out = dropout.get(name, dropout.get(name.partition(".")[0], 0.0))
        present = 0.0 if field is None else field.present / (1 - left_out)
        if present < RARE:
            yield (
                f"field {name!r} is absent in {1 - present:.0%} of the samples; little can be learnt of it: look at "
                "its column, or leave it out"
            )
        if field is not None and field.most <= FEW_TOKENS and _is_cut(tokenizer):
            yield (
                f"field {name!r} has {field.most} tokens a sample at most; cut it finer (a smaller patch, width or "
                "stride), or attention has nothing to compare"
            )


def _is_cut(tokenizer: Tokenizer) -> bool:
    """Whether its tokens are pieces of something larger, the number of which a setting decides."""
    return tokenizer.empty().content.is_floating_point() and bool(tokenizer.axes) and tokenizer.axes[0] != "step"


def _texts(task: Task, fields: Mapping[str, FieldBudget], samples: Samples) -> Iterator[str]:
    texts = {name: text for name, text in task.model.tokenizers.items() if isinstance(text, Text) and name in fields}
    for name, text in texts.items():
        field = fields[name]
        if text.truncate and field.most >= text.max_len and field.longest > CUT:
            yield (
                f"field {name!r}: {field.longest:.0%} of the texts are cut off at max_len={text.max_len}; raise it, or "
                "their ends are never seen"
            )
    if isinstance(task, LanguageModel) and isinstance(samples.source, Pieces):
        lengths = np.diff(np.asarray(samples.source.stream.ends), prepend=0)
        cut = float((lengths > samples.source.length).mean())
        if cut > CUT:
            yield (
                f"context={task.context} is shorter than {cut:.0%} of the documents, which are cut into pieces that do "
                f"not see each other; the longest has {int(lengths.max()):,} tokens"
            )
    # Fields of one vocabulary fill it together.
    tokens: dict[str | None, float] = defaultdict(float)
    named: dict[str | None, list[str]] = defaultdict(list)
    for name, text in texts.items():
        if text.kind == "bpe" and text.file is None:
            tokens[text.vocabulary] += fields[name].median * fields[name].present * len(samples)
            named[text.vocabulary].append(name)
    for vocabulary, names in named.items():
        text, what = texts[names[0]], f"field{'s' if len(names) > 1 else ''} {' and '.join(map(repr, names))}"
        if text.n_ids < text.vocab_size:
            yield (
                f"{what}: the training texts gave {text.n_ids:,} ids, fewer than vocab_size={text.vocab_size:,}; lower "
                "it, as words that come once are learnt by heart"
            )
        elif tokens[vocabulary] < TIMES * text.n_ids:
            yield (
                f"{what}: vocab_size={text.vocab_size:,} is large for some {tokens[vocabulary]:,.0f} tokens of "
                f"training text, {tokens[vocabulary] / text.n_ids:.1f} for each id; lower it"
            )


def _positions(task: Task, fields: Mapping[str, FieldBudget]) -> Iterator[str]:
    """Of tables of which most rows are never trained."""
    embeddings = task.model.embeddings
    for config, positions in zip(embeddings.placed, embeddings.positions, strict=True):
        for axis, size in zip(config.axes, positions.sizes, strict=False):
            reach = [
                field.reach[embeddings.axes[name].index(axis)] + 1
                for name, field in fields.items()
                if axis in embeddings.axes.get(name, ()) and field.reach
            ]
            if reach and size > SPARE * max(reach):
                yield (
                    f"the learned positions on {axis!r} hold {size:,} places, and the samples seen come to "
                    f"{max(reach):,.0f}; most rows are never trained: lower max_len or the sizes under "
                    "embedding.positions, or use rotary positions (transformer.rotary)"
                )
