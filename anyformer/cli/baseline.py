"""`anyformer baseline`: simple models on the same records as a config's run."""

from __future__ import annotations

import json
from pathlib import Path

from anyformer.baselines.baseline import baseline
from anyformer.baselines.paired import pair_all, runs_in
from anyformer.errors import InputError
from anyformer.front.parsers import baseline_parser, require_first
from anyformer.runs.averaging.config import read_config
from anyformer.runs.experiment import config_of, parse
from anyformer.saving.model_folder import make
from anyformer.saving.run_folder import first_trial, holds_trials
from anyformer.tasks.start.encoders import has_unopened


def baseline_command(args: list[str]) -> None:
    parser = baseline_parser()
    require_first("config", "baseline CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    if own.folds is not None and own.folds < 2:
        raise InputError(f"--folds must be at least 2, got {own.folds}")
    for name, least in (("seeds", 1), ("records", 10)):
        if getattr(own, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(own, name)}")
    folder, runs, part = Path(own.config), None, ""
    config = own.config
    if folder.is_dir() and holds_trials(folder):
        runs, part = runs_in(folder)
        if not runs:
            raise InputError(f"{folder}: none of its runs has come to its end; give the same fit again")
        config = config_of(first_trial(folder))
        # A mixture has no folds.
        n_folds = read_config(Path(config).parent)["data"].get("folds")
        if own.folds not in (None, n_folds):
            raise InputError(f"--folds must be {n_folds}, as that of the runs in {folder}, got {own.folds}")
        own.folds, own.seeds = n_folds, own.seeds if n_folds else len(runs)
        overrides = [*(["--data.inner_folds=null", "--data.inner_fold=0"] if n_folds else []), *overrides]
    elif folder.is_dir():
        config = config_of(own.config)
    # The config of a run is complete, and may leave out what its source has.
    experiment = parse("baseline", [config], overrides, own.unsafe_imports, starts=not folder.is_dir())
    if folder.is_dir() and has_unopened(experiment.model):
        # Their sources need not be there any more.
        experiment.model.inherit_from(make(Path(config).parent, unsafe_imports=own.unsafe_imports))
    report = baseline(
        experiment.model,
        experiment.datamodule,
        n_folds=own.folds,
        n_seeds=own.seeds,
        limit=own.records,
        first_seed=experiment.config["seed_everything"],
    )
    pairs = pair_all(report, runs, part) if runs else {}
    if own.json:
        found = report.plain()
        for task, several in pairs.items():
            found[task]["runs"] = [each.plain() for each in several]
        print(json.dumps(found, indent=2))
        return
    print(report)
    for several in pairs.values():
        print(*several, sep="\n", end="\n" if several else "")
