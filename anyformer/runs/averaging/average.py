"""Making one model of several runs, as a folder that is loaded, tested and used like a run's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.parsing.scalars import dump_yaml
from anyformer.runs.averaging.config import join_configs, read_config
from anyformer.runs.averaging.weights import check_weights_alike, checkpoint_weights, mean_weights
from anyformer.runs.trials import read_trial
from anyformer.saving.atomic import write_whole
from anyformer.saving.model_folder import load, save
from anyformer.saving.run_folder import begun_trials, holds_trials, metrics_of, read_trials, run_folder, split_run
from anyformer.tasks.base.task import Task
from anyformer.tasks.ensemble.ensemble import Ensemble, disagreement
from anyformer.tasks.predict.predict import Predict


def average(
    runs: Sequence[str | Path], output: str | Path, *, weights: bool = False, unsafe_imports: Sequence[str] = ()
) -> str:
    """Make one model of several runs, in a folder of its own: of their predictions, or of their weights.

    runs: their folders, `runs/all:digits` for one task of a mixture; or a folder of several, as `fit --folds` and
        `--seeds` write, which stands for all in it; with `--over`, for those of the chosen settings.
    output: the folder to make: model/, and config.yaml with the records that none of the runs was trained on, where all
        of them have one.
    weights: the mean of the weights, which is a model like each of the runs, and no larger. They must have started from
        the same ones. Of a single run: of its last checkpoints, see `checkpoints.keep`.
    unsafe_imports: packages beside anyformer that the runs' configs may name classes of.
    Returns what is to be said of it. Raises InputError where the runs have no mean, with their names and what differs.
    """
    folder = run_folder(output)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    names = [name for run in runs for name in _each(run)]
    if len(set(names)) < len(names):
        raise InputError("a run is named twice, and would count twice; name each once")
    if len(names) == 1 and not weights:
        raise InputError(f"{names[0]} is one run; name several, or give --weights for the mean of its checkpoints")
    tasks: dict[str, Task] = {name: load(name, unsafe_imports=unsafe_imports) for name in names}  # type: ignore[misc]
    places = [split_run(name) for name in names]
    configs = {name: None if task else read_config(run) for name, (run, task) in zip(names, places, strict=True)}
    temperatures: list[float] = []
    if weights:
        made, what = _of_weights(tasks, configs), "the mean of the weights"
        temperatures = [each for task in tasks.values() for each in task.forget_calibration()]
    else:
        made, what = _of_predictions(tasks), "the mean of the predictions"
    save(made, folder / "model")
    said = [f"{folder} is {what} of {', '.join(names)}."]
    if temperatures:
        shown = " and ".join(f"{each:.3g}" for each in temperatures)
        said.append(
            f"Note: its temperature is 1, not {shown}, to which the weights that it is the mean of are calibrated."
        )
    known = [config for config in configs.values() if config is not None]
    if len(known) == len(names):
        own = [config["model"] for config in known]
        model = own[0] if weights else {"class_path": "Ensemble", "init_args": {"runs": own}}
        config, of_records = join_configs(known, model)
        text = f"# {said[0]} Made by: anyformer average\n{dump_yaml(config)}"
        with writing(folder):
            write_whole(folder / "config.yaml", text)
        said += [f"Note: {of_records}."] if of_records else []
    else:
        said.append("Note: not all of them have a config.yaml, so that it is tested from Python alone.")
    return "\n".join(said)


def _each(run: str | Path) -> list[str]:
    """The runs that a folder stands for. Raises InputError where one in a folder of several has not come to its end."""
    path, task = split_run(run)
    if not holds_trials(path):
        return [str(run)]
    done, chosen = list(read_trials(path)), metrics_of(path).get("chosen")
    if half := [name for name in begun_trials(path) if name not in done]:
        raise InputError(
            f"{path}: {', '.join(half)} has not come to its end; give the same fit again, or name the runs to average"
        )
    if chosen is not None:
        # Of the settings that were compared, the one that inner validation chose in each fold.
        done = [name for name in done if (trial := read_trial(name)).setting == chosen.get(f"fold_{trial.fold}")]
    return [f"{path / name}{task and f':{task}'}" for name in done]


def _of_predictions(tasks: dict[str, Task]) -> Ensemble:
    for name, task in tasks.items():
        if not isinstance(task, Predict):
            what = (
                f"is a mixture; name one of its tasks: {' or '.join(f'{name}:{each}' for each in task.members)}"
                if task.members
                else f"is of {type(task).__name__}, and predictions of Predict and Classify alone have a mean; "
                "--weights takes that of weights"
            )
            raise InputError(f"{name} {what}")
    (first, one), *others = tasks.items()
    for name, other in others:
        if found := disagreement(one, other):
            raise InputError(f"{first} and {name} cannot be averaged: {found}")
    return Ensemble(list(tasks.values()))


def _of_weights(tasks: dict[str, Task], configs: dict) -> Task:
    first, made = next(iter(tasks.items()))
    for name, task in tasks.items():
        if task.base is not None:
            raise InputError(
                f"{name} holds an adapter, and the means of A and of B are not those of B A; make a whole model of it "
                f"first: anyformer merge {name} --output FOLDER"
            )
    if len(tasks) == 1:
        several = checkpoint_weights(split_run(first)[0])
    else:
        check_weights_alike(tasks, configs)
        several = [task.best_weights() for task in tasks.values()]
    made.load_weights(mean_weights(several))
    return made
