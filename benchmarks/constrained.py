"""Texts that a language model writes under a regular expression, a grammar and a JSON Schema: whether they keep to it,
and at what rate beside texts without one.

    uv run anyformer fit --config configs/gpt_docs.yaml
    uv run python benchmarks/constrained.py [--run runs/gpt_docs] [--n 1000] [--rounds 5]

For each constraint n continuations are drawn at temperature 1, of at most 40 tokens. Those that ended must be valid,
and what was cut off must begin something valid: the `regex` package (its partial matches) and json judge that, not what
constrains them. The rate is that of 100 continuations of at most 40 tokens by a constraint that need not end, with it
and without, in turn, in tokens a second of processor time; printed is the median of the ratios. What ended and is not
valid, or was cut off and begins nothing valid, makes the exit code 1.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import regex

import anyformer

WHITE = r"(?: |\n {0,40})?"
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["name", "call"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "n"],
    "additionalProperties": False,
}
AS_REGEX = rf'\{{{WHITE}"kind"{WHITE}:{WHITE}"(name|call)"{WHITE},{WHITE}"n"{WHITE}:{WHITE}[0-9]{{1,2}}{WHITE}\}}'
GRAMMAR = 'start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]?/\n'
NESTED = r"(?P<sum>(?P<term>[1-9][0-9]?|\((?&sum)\))(?:\+(?&term))*)"
CONSTRAINTS = {
    "words": ({"regex": r" [a-z]+( [a-z]+){2,5}\."}, r" [a-z]+( [a-z]+){2,5}\."),
    "date": ({"regex": r"[12][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]"}, r"[12][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]"),
    "choice": ({"regex": "yes|no|not yet|none"}, "yes|no|not yet|none"),
    "grammar": ({"grammar": GRAMMAR}, NESTED),
    "schema": ({"json_schema": SCHEMA}, AS_REGEX),
}
ENDLESS = {
    "words": {"regex": r"( [a-z]+)*"},
    "grammar": {"grammar": GRAMMAR.replace("start: term", 'start: "1" ("+" term)* "+" start | term', 1)},
    "schema": {"json_schema": {"type": "array", "items": SCHEMA}},
}
PROMPT = "The statement"


def in_a_file(options, folder):
    """The same options, a grammar as a file."""
    if "grammar" not in options:
        return options
    (folder / "sums.lark").write_text(options["grammar"])
    return {"grammar": str(folder / "sums.lark")}


def check(pattern, texts):
    """How many have ended and are valid, ended and not, been cut off within something valid, and otherwise."""
    counts = [0, 0, 0, 0]
    for text, ended in texts:
        is_right = regex.fullmatch(pattern, text, partial=not ended) is not None
        counts[2 * (not ended) + (not is_right)] += 1
        if ended and text.startswith("{"):
            json.loads(text)
    return counts


def draw(model, n, seed, **options):
    """Continuations with whether each has ended, and tokens a second of processor time."""
    end = (model.text.eos_id,)
    config = anyformer.GenerationConfig(40, n_samples=n, temperature=1.0, seed=seed, stop_ids=end, **options)
    (prompt,) = model.samples_of({model.field: PROMPT})
    began = time.process_time()
    (found,) = model.generator.generate([prompt], config)
    seconds = time.process_time() - began
    return [(each.text, each.ended == "stop") for each in found], sum(len(each.ids) for each in found) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/gpt_docs"))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    own = parser.parse_args()
    model = anyformer.load(own.run).eval()
    has_failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, (options, pattern) in CONSTRAINTS.items():
            texts, options = [], in_a_file(options, Path(folder))
            for seed in range(-(-own.n // 100)):
                texts += draw(model, min(100, own.n - 100 * seed), seed, **options)[0]
            valid, wrong, cut, astray = check(pattern, texts)
            print(
                f"{name:<8} {valid:5} ended, valid; {wrong} ended, not valid; {cut:5} cut off, begin something valid; "
                f"{astray} cut off, begin nothing valid, as {texts[0][0]!r}",
                flush=True,
            )
            has_failed = has_failed or wrong > 0 or astray > 0
        for name, options in ENDLESS.items():
            options, ratios = in_a_file(options, Path(folder)), []
            for seed in range(own.rounds):
                with_it = draw(model, 100, seed, **options)[1]
                ratios.append(with_it / draw(model, 100, seed)[1])
            print(f"rate {name:<8} {statistics.median(ratios):.2f} of that without", flush=True)
    raise SystemExit(int(has_failed))


if __name__ == "__main__":
    main()
