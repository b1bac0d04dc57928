"""`anyformer baseline`: simple models on the same records as a config's run."""

from __future__ import annotations

import json
from pathlib import Path

from anyformer.baselines.baseline import baseline
from anyformer.baselines.examples import MOST_RECORDS
from anyformer.cli.arguments import Options, require_first
from anyformer.errors import InputError
from anyformer.runs.experiment import config_of, parse


def baseline_command(args: list[str]) -> None:
    parser = Options(
        "baseline",
        "Simple models of scikit-learn on the records, columns, splits and folds of a config: the most frequent class "
        "or the mean, a linear model and a random forest, on each field alone and on all. Nothing is chosen on the "
        "records that are reported. Any value of the config can be overridden: --data.train=other.csv",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config; or a run's folder")
    parser.add_argument("--folds", type=int, metavar="N", help="each of N folds, as fit --folds deals them")
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=1, help="each of N seeds, of the forest; 1 by default"
    )
    parser.add_argument(
        "--records",
        type=int,
        metavar="N",
        default=MOST_RECORDS,
        help=f"of each part at most, a sample of those that are more; {MOST_RECORDS:,} by default",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    require_first("config", "baseline CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    if own.folds is not None and own.folds < 2:
        raise InputError(f"--folds must be at least 2, got {own.folds}")
    for name, least in (("seeds", 1), ("records", 10)):
        if getattr(own, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(own, name)}")
    config = config_of(own.config) if Path(own.config).is_dir() else own.config
    experiment = parse("baseline", [config], overrides, own.unsafe_imports)
    report = baseline(
        experiment.model,
        experiment.datamodule,
        n_folds=own.folds,
        n_seeds=own.seeds,
        limit=own.records,
        first_seed=experiment.config["seed_everything"],
    )
    print(json.dumps(report.plain(), indent=2) if own.json else report)
