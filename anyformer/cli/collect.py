"""`anyformer collect`: episodes of an environment as a data set."""

from __future__ import annotations

from contextlib import nullcontext

from anyformer.cli.arguments import Options
from anyformer.parsing.classes import allowed_imports
from anyformer.tasks.decide.collect import collect


def collect_command(args: list[str]) -> None:
    parser = Options("collect", "Play episodes of an environment and save them as a Minari data set for training.")
    parser.add_argument("--env", metavar="ID", required=True, help="the environment, with its version: CartPole-v1")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        help="who plays: random (the default); scripted, for classic control, or scripted:0.3 with that share of its "
        "actions random; a run's folder, or RUN:target_return=200. Given several times they share the episodes evenly",
    )
    parser.add_argument("--episodes", metavar="N", type=int, default=200, help="how many, 200 by default")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="random seed of the episodes, 0 by default")
    parser.add_argument("--output", metavar="DIR", required=True, help="the folder to make")
    own = parser.parse_args(args)
    # Where nothing is opened nothing needs to be imported: a run that plays imports what it needs.
    with allowed_imports(own.unsafe_imports) if own.unsafe_imports else nullcontext():
        print(collect(own.env, own.policy or ["random"], own.episodes, own.seed, own.output))
    print(f"The episodes are in {own.output}. To train on them: `class_path: Episodes` with `path: {own.output}`")
