"""`anyformer fit`: train, then test the best model."""

from __future__ import annotations

import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from anyformer.baselines.beside import ask, best_beside
from anyformer.cli.outputs import show_metrics
from anyformer.errors import InputError, program
from anyformer.front.parsers import fit_parser
from anyformer.runs.cross_validation import fit_trials
from anyformer.runs.experiment import Experiment, config_of, parse
from anyformer.runs.fit import fit, holds
from anyformer.runs.reports.ending import final_metrics, of_the_whole, tables_after
from anyformer.saving.run_folder import run_folder

LEAST_SECONDS = 30.0
"""Of training: behind a shorter one the few that simple models take would be felt."""


def fit_command(args: list[str]) -> None:
    parser = fit_parser()
    own, overrides = parser.parse_known_args(args)
    if own.resume and (own.config or own.run_dir):
        raise InputError("--resume takes the config and the folder of the run; give it without --config and --run_dir")
    numbers = (own.folds, own.seeds, own.inner, own.inner_runs)
    several = own.nested or bool(own.over) or any(number is not None for number in numbers)
    if own.resume and several:
        raise InputError("--resume goes on with one run; folds and seeds go on where the same command is given again")
    configs = [config_of(own.resume)] if own.resume else own.config
    asks = {"-h", "--help", "--print_config"} & {name.partition("=")[0] for name in overrides}
    if not configs and not asks and not any(name.startswith("--model.help") for name in overrides):
        raise InputError(f"fit needs a config: {program()} fit --config FILE, or --resume FOLDER to go on with a run")
    run = run_folder(own.resume or own.run_dir or Path("runs") / Path(configs[0] if configs else "").stem)
    if several and not asks:
        fit_trials(own, overrides, run)
        print(ask(f"{program()} baseline {run}"))
        return
    experiment = parse("fit", configs, overrides, own.unsafe_imports, run, starts=not own.resume)
    if experiment.start is not None and rank_zero_only.rank == 0:
        experiment.start.tell()
    begin = time.perf_counter()
    metrics = fit(
        experiment.model,
        experiment.datamodule,
        run,
        resume=bool(own.resume),
        config=experiment.resolved,
        saving=experiment.config_init["checkpoints"],
        **experiment.options,
    )
    took = time.perf_counter() - begin
    if rank_zero_only.rank != 0:
        return
    by, shown = experiment.model.grouped_by, final_metrics(run, metrics)
    show_metrics(of_the_whole(shown, by))
    for table in tables_after(run, shown, by):
        print(f"\n{table}")
    if experiment.options["fast_dev_run"]:
        print("\nThat was fast_dev_run: a few batches went through, and nothing is kept. Leave it out to train.")
        return
    if holds(experiment.datamodule, "validation") and not any(name.startswith("val/") for name in metrics):
        why = (
            "trainer.limit_val_batches left validation out, so the model that is kept is the last"
            if experiment.options["limit_val_batches"] == 0
            else "The run ended before its first validation, so the model that is kept is the last: train for longer, "
            "or lower trainer.check_val_every_n_epoch or val_check_interval"
        )
        print(f"\n{why}")
    if closing := experiment.model.closing():
        print(f"\n{closing}")
    print(f"\n{_beside(experiment, run, took)}")
    print(f"\nThe run is in {run}. Next:")
    for name, task in (experiment.model.members or {"": experiment.model}).items():
        if task.usage is not None:
            print(f"  {program()} predict {run}{name and f':{name}'} {task.usage}")
    for command, kind in (("test", "test"), ("validate", "validation")):
        if holds(experiment.datamodule, kind):
            print(f"  {program()} {command} {run}")
            break


def _beside(experiment: Experiment, run: Path, took: float) -> str:
    """What a simple model reaches, where that is a small part of the time that training took; else how to find out."""
    command = f"{program()} baseline {run}"
    if took < LEAST_SECONDS:
        return ask(command)
    return best_beside(experiment.model, experiment.datamodule, command)
