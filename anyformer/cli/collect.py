"""`anyformer collect`: episodes of an environment as a data set."""

from __future__ import annotations

from contextlib import nullcontext

from anyformer.front.parsers import collect_parser
from anyformer.parsing.classes import allowed_imports
from anyformer.tasks.decide.collect import collect


def collect_command(args: list[str]) -> None:
    parser = collect_parser()
    own = parser.parse_args(args)
    # Where nothing is opened nothing needs to be imported: a run that plays imports what it needs.
    with allowed_imports(own.unsafe_imports) if own.unsafe_imports else nullcontext():
        print(collect(own.env, own.policy or ["random"], own.episodes, own.seed, own.output))
    print(f"The episodes are in {own.output}. To train on them: `class_path: Episodes` with `path: {own.output}`")
