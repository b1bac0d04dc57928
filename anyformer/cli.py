"""The command line, on LightningCLI: fit, plan, validate, test, run, collect, params, import, export.

Its front is `__main__`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from anyformer.errors import InputError, program, say, suggest
from anyformer.options import Options, add_options, read_options
from anyformer.parsing.classes import allowed_imports
from anyformer.parsing.instantiate import instantiate
from anyformer.planning.dry_run import plan
from anyformer.planning.parameters import measure, token_counts
from anyformer.predictions import (
    KINDS,
    STANDARD_INPUT,
    Outcome,
    find_records,
    predict_each,
    say_failed,
    watched,
    write_files,
    write_outcomes,
)
from anyformer.runs.cross_validation import fit_trials
from anyformer.runs.experiment import Unmade, config_of, parse
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.metrics_file import write_figures
from anyformer.saving.atomic import write_whole
from anyformer.saving.model_folder import load, make, save
from anyformer.saving.run_folder import run_folder, split_run


def main(argv: Sequence[str]) -> int:
    """Run one command. Returns the exit code: 2 for anything the user gave that cannot be used, said in one line."""
    commands = {"fit": _fit, "validate": _validate, "test": _test, "run": _run, "params": _params}
    commands |= {"plan": _plan, "collect": _collect, "import": _import, "export": _export}
    try:
        commands[argv[0]](list(argv[1:]))
    except BrokenPipeError:
        # Who reads has seen enough, as in `| head`; else Python complains once more as it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, MisconfigurationException) as error:
        say(f"anyformer: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    return 0


def _first(what: str, command: str, args: Sequence[str]) -> None:
    """Raise InputError where an option stands in the place of what must stand first."""
    if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
        raise InputError(f"the {what} stands first, got {args[0]}: anyformer {command} {args[0]} ...")


def _fit(args: list[str]) -> None:
    parser = Options("fit", add_help=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--run_dir")
    parser.add_argument("--resume")
    parser.add_argument("--folds", type=int)
    parser.add_argument("--seeds", type=int)
    own, overrides = parser.parse_known_args(args)
    if own.resume and (own.config or own.run_dir):
        raise InputError("--resume takes the config and the folder of the run; give it without --config and --run_dir")
    several = own.folds is not None or own.seeds is not None
    if own.resume and several:
        raise InputError("--resume goes on with one run; folds and seeds go on where the same command is given again")
    configs = [config_of(own.resume)] if own.resume else own.config
    asks = {"-h", "--help", "--print_config"} & {name.partition("=")[0] for name in overrides}
    if not configs and not asks and not any(name.startswith("--model.help") for name in overrides):
        raise InputError(f"fit needs a config: {program()} fit --config FILE, or --resume FOLDER to go on with a run")
    run = run_folder(own.resume or own.run_dir or Path("runs") / Path(configs[0] if configs else "").stem)
    if several and not asks:
        fit_trials(own, overrides, run)
        return
    experiment = parse("fit", configs, overrides, own.unsafe_imports, run)
    figures = fit(
        experiment.model,
        experiment.datamodule,
        run,
        resume=bool(own.resume),
        config=experiment.resolved,
        saving=experiment.config_init["checkpoints"],
        **experiment.options,
    )
    if rank_zero_only.rank != 0:
        return
    _show({name: value for name, value in figures.items() if name.startswith(("test/", "best/"))} or figures)
    again = "test" if any(name.startswith("test/") for name in figures) else "validate"
    if not any(name.startswith("val/") for name in figures) and "validation" in getattr(
        experiment.datamodule, "sources", {}
    ):
        print(
            "\nThe run ended before its first validation, so the model that is kept is the last: train for longer, or "
            "lower trainer.check_val_every_n_epoch or val_check_interval"
        )
    if closing := experiment.model.closing():
        print(f"\n{closing}")
    print(f"\nThe run is in {run}. Next:")
    for name, task in (experiment.model.members or {"": experiment.model}).items():
        fields = " ".join(f"{field}=..." for field in task.inputs) or "--episodes 100"
        print(f"  {program()} run {run}{name and f':{name}'} {fields}")
    print(f"  {program()} {again} {run}")


def _validate(args: list[str]) -> None:
    _evaluate("validate", args)


def _test(args: list[str]) -> None:
    _evaluate("test", args)


def _evaluate(stage: str, args: list[str]) -> None:
    part = "validation" if stage == "validate" else "test"
    parser = Options(stage, f"{stage} the best model of a run; --data.{part} OTHER and the like override its config")
    parser.add_argument("run", metavar="RUN", help="the run's folder, or RUN:TASK of a mixture; it stands first")
    _first("run's folder", f"{stage} RUN", args)
    own, overrides = parser.parse_known_args(args)
    run, member = split_run(own.run)
    task = load(own.run, unsafe_imports=own.unsafe_imports)
    allowed = tuple(f"--model.{name}" for name in task.in_use)
    for option in overrides:
        if option.startswith("--model") and not option.startswith(allowed):
            raise InputError(f"{option.partition('=')[0]}: the model of a run is what it is; leave it out")
    # Figures of other data, or of a part of it, are shown, and the run keeps its own.
    kept = stage == "test" and not overrides
    if member:
        overrides = [re.sub("^--data[.]", f"--data.parts.{member}.", option) for option in overrides]
        overrides = [re.sub("^--model[.]", f"--model.tasks.{member}.init_args.", option) for option in overrides]
    experiment = parse(stage, [config_of(run)], overrides, own.unsafe_imports)
    model, data, folder = experiment.model, experiment.datamodule, run
    if member:
        model, data, folder = model.members[member], data.parts[member], run / member
        folder.mkdir(exist_ok=True)
    task.use_as(model)
    figures = evaluate(task, data, stage, folder if kept else None, **experiment.options)
    if kept:
        named = {name.replace("/", f"/{member}/", 1): value for name, value in figures.items()} if member else figures
        write_figures(run, named)
    _show(figures)


def _run(args: list[str]) -> None:
    parser = Options("run", "Say what the best model of a run makes of a record, or of many files.")
    parser.add_argument("run", metavar="RUN", help="the run's folder; RUN:TASK is one task of a mixture")
    fields = {
        "metavar": "FIELD=VALUE",
        "help": "the record; a picture or a sound is the path of its file. A folder, a zip or a pattern "
        "('pets/**/*.jpg', quoted) is every file in it: one field may be many, the others are the same for all. - is "
        "standard input: a file, or a text for each line. A policy has none: it plays",
    }
    parser.add_argument(
        "--json", action="store_true", help="print all of the result as JSON; of many, an object a line"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a table instead: FILE.csv, FILE.jsonl or FILE.json; of what has a form of its own, as subtitles, "
        "FILE.srt and the like, or for many a folder",
    )
    _first("run's folder", "run RUN", args)
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files, and texts from the command line, may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not args or args[0].startswith("-"):
        parser.add_argument("fields", nargs="+", **fields)
        parser.parse_args(args)  # Shows the help, or says what is missing.
    # The task may have options of its own, so it is asked before the rest is read.
    unsafe, _ = Options("run", add_help=False).parse_known_args(args[1:])
    task = load(args[0], unsafe_imports=unsafe.unsafe_imports)
    if task.members:
        names = " or ".join(f"{args[0]}:{name}" for name in task.members)
        raise InputError(f"{args[0]} is a mixture; name one of its tasks: {names}")
    if task.inputs:
        fields["help"] = f"{', '.join(task.inputs)}: {fields['help']}"
    parser.add_argument("fields", nargs="+" if task.inputs else "*", **fields)
    add_options(parser, task.options)
    own = parser.parse_args(args)
    options = [] if task.options is None else [read_options(own, task.options)]
    if not task.inputs:
        _perform(task, own, options)
        return
    given: dict[str, str] = {}
    for field in own.fields:
        name, equals, value = field.partition("=")
        if not equals:
            raise InputError(f"a field is given as FIELD=VALUE, got {field!r}")
        if name in given:
            raise InputError(f"the field {name!r} is given twice; for many files give a folder or a quoted pattern")
        given[name] = value
    for name in given.keys() - set(task.inputs):
        raise InputError(f"the model of {own.run} has no field {name!r}{suggest(name, task.inputs)}")
    output = None if own.output is None else Path(own.output)
    ending = task.ending(*options)
    if output is not None:
        if ending and (output.suffix == ending or output.suffix.lower() not in KINDS):
            if own.json:
                raise InputError("--json prints, and --output writes a file; give one of the two")
            write_files(task, find_records(given, task.tokenizers), options, output, ending)
            return
        _check_table(output, own.json)
    records, field = find_records(given, task.tokenizers)
    if field is None and output is None:
        if own.json:
            print(json.dumps(task.predict(records, *options)[0]))
            return
        for piece in task.stream(records[0], *options):
            print(piece, end="", flush=True)
        print()
        return
    if ending and output is None:
        raise InputError(f"of many records the {ending} files go into a folder: give --output FOLDER")
    failed: list[str] = []
    # Where the table goes to the terminal, a bar would stand in its middle.
    no_bar = True if output is None and sys.stdout.isatty() else None
    bar = tqdm(
        predict_each(lambda some: task.predict(some, *options), records),
        total=len(records),
        file=sys.stderr,
        disable=no_bar,
    )
    outcomes = watched(bar, field or next(iter(given)), failed)
    if output is None and not own.json and given[field] == STANDARD_INPUT:
        for outcome in outcomes:
            print("" if outcome.result is None else task.render(outcome.result), flush=True)
    elif output is None:
        write_outcomes(outcomes, sys.stdout, "jsonl" if own.json else "csv", task.row)
        sys.stdout.flush()
    else:
        _write_table(output, outcomes, task.row)
    say_failed(failed, records)


def _check_table(output: Path, as_json: bool) -> None:
    """Raise InputError where a table cannot be written as it was asked for."""
    if output.suffix.lower() not in KINDS:
        raise InputError(f"--output must end in {', '.join(KINDS)}, got {output}")
    if as_json:
        raise InputError("--json prints, and --output writes a file: FILE.jsonl for JSON; give one of the two")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")


def _write_table(output: Path, outcomes: Iterable[Outcome], row: Callable[[Any], Mapping[str, Any]]) -> None:
    def write(part: Path) -> None:
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write_outcomes(iter(outcomes), file, KINDS[output.suffix.lower()], row)

    write_whole(output, write)


def _perform(task: Any, own: argparse.Namespace, options: Sequence[Any]) -> None:
    """What a model does that is given no record: its results one by one, and what they come to."""
    if own.fields:
        raise InputError(f"the model of {own.run} is given no fields, got {own.fields[0]!r}")
    output = None if own.output is None else Path(own.output)
    if output is not None:
        _check_table(output, own.json)
    results = []
    for result in tqdm(task.perform(*options, folder=Path(own.run)), file=sys.stderr):
        results.append(result)
        if own.json:
            print(json.dumps(result))
    if output is not None:
        _write_table(output, [Outcome({}, result) for result in results], task.row)
    if not own.json:
        print(task.conclude(results))


def _collect(args: list[str]) -> None:
    parser = Options("collect", "Play episodes of an environment and write them as a Minari data set, to learn from.")
    parser.add_argument("--env", metavar="ID", required=True, help="the environment, with its version: CartPole-v1")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        help="who plays: random (the default); scripted, for classic control, or scripted:0.3 with that share of its "
        "actions random; a run's folder, or RUN:return=200. Given several times they share the episodes evenly",
    )
    parser.add_argument("--episodes", metavar="N", type=int, default=200, help="how many, 200 by default")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="decides the episodes, 0 by default")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to make")
    own = parser.parse_args(args)
    collecting = importlib.import_module("anyformer.tasks.collecting")
    # Where nothing is opened nothing needs to be imported: a run that plays imports what it needs.
    with allowed_imports(own.unsafe_imports) if own.unsafe_imports else nullcontext():
        print(collecting.collect(own.env, own.policy or ["random"], own.episodes, own.seed, own.out))
    print(f"The episodes are in {own.out}: `class_path: Episodes` with `path: {own.out}` in a config learns from them.")


def _import(args: list[str]) -> None:
    parser = Options("import", "Make a run of weights from elsewhere, for `run`, `export` and init_from.")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="of GPT-2, BERT, Whisper, Marian, T5 or a Decision Transformer, as save_pretrained of transformers writes "
        "it; or OpenAI's file of a Whisper, FILE.pt, with a tokenizer.json beside it",
    )
    parser.add_argument("run", metavar="RUN", help="the folder to make")
    parser.add_argument("--language", metavar="CODE", help="of Whisper: the one that is spoken; heard when left out")
    parser.add_argument("--pad", action="store_true", help="of Whisper: put silence behind a recording, to 30 seconds")
    parser.add_argument("--env", metavar="ID", help="of a Decision Transformer: where it acts, such as Hopper-v5")
    own = parser.parse_args(args)
    run = run_folder(own.run)
    if run.exists():
        raise InputError(f"{run} is there already; choose another folder")
    task, report = importlib.import_module("anyformer.tasks.exchange").take_in(
        own.folder, own.language, own.pad, own.env
    )
    save(task, run / "model")
    fields = " ".join(f"{name}=..." for name in task.inputs) or "--episodes 10"
    print(f"{report}\nThe model is in {run}. Next:\n  {program()} run {run} {fields}")


def _export(args: list[str]) -> None:
    parser = Options("export", "Write the best model of a run for another library.")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="the folder to make for transformers; of a model of pictures FILE.safetensors, and FILE.pt for a Whisper "
        "as OpenAI has it",
    )
    own = parser.parse_args(args)
    importlib.import_module("anyformer.tasks.exchange").export(
        load(own.run, unsafe_imports=own.unsafe_imports), own.target
    )
    print(f"The model is in {own.target}.")


def _params(args: list[str]) -> None:
    parser = Options("params", "Count the parameters and the forward FLOPs of a model; its weights are not made.")
    parser.add_argument("config", metavar="CONFIG", help="a config, whose values can be overridden; or a run's folder")
    parser.add_argument(
        "--tokens",
        metavar="N",
        action="append",
        default=[],
        help="tokens of the sample that the FLOPs are of; FIELD=N where there are several fields. By default what the "
        "positions hold",
    )
    parser.add_argument("--classes", metavar="N", type=int, help="how many, where neither config nor run says")
    _first("config", "params CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    task = _without_weights(Path(own.config), overrides, own.unsafe_imports, own.classes)
    print(measure(task, token_counts(task, _tokens(own.tokens)), task.conditions))


def _plan(args: list[str]) -> None:
    parser = Options(
        "plan",
        "Look at real batches and take a few steps, before anything is trained: sizes, tokens, parameters, time and "
        "memory, a picture of what the model sees, and what to beware of. Nothing is written but the picture.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config, whose values can be overridden; or a run's folder")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    parser.add_argument("--out", metavar="FILE", help="the picture, FILE.png: plan.png in the run's folder by default")
    _first("config", "plan CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    if own.out is not None and Path(own.out).suffix.lower() != ".png":
        raise InputError(f"--out is a picture, FILE.png, got {own.out}")
    is_run = Path(own.config).is_dir()
    run = run_folder(own.config) if is_run else Path("runs") / Path(own.config).stem
    experiment = parse("plan", [config_of(run) if is_run else own.config], overrides, own.unsafe_imports)
    picture = own.out or run / "plan.png"
    planned = plan(experiment.model, experiment.datamodule, picture, **experiment.options)
    print(json.dumps(planned.plain(), indent=2) if own.json else planned)


def _without_weights(config: Path, overrides: Sequence[str], unsafe: Sequence[str], n_classes: int | None) -> Any:
    """The task of a config or a run, built. Its data is read only where nothing else says what must be known of it."""

    def build(task: Any) -> Any:
        with torch.device("meta"):
            task.build()
        return task

    if split_run(config)[0].is_dir():
        if overrides:
            raise InputError(f"the model of a run is what it is; give {overrides[0]} with a config")
        return build(make(config, unsafe_imports=unsafe))
    parsed = parse("params", [str(config)], overrides, unsafe, kind=Unmade)
    task = instantiate(yaml.safe_load(parsed.resolved)["model"], unsafe)
    if n_classes is not None:
        if not hasattr(task, "classes"):
            raise InputError(f"--classes: {type(task).__name__} tells no classes apart")
        task.classes = [str(i) for i in range(n_classes)]
    try:
        return build(task)
    except InputError as error:
        unknown = error
    try:
        experiment = parse("params", [str(config)], overrides, unsafe)
        experiment.datamodule.attach(experiment.model)
        experiment.datamodule.setup("fit")
        experiment.model.learn(experiment.datamodule.sources["train"])
    except InputError as error:
        raise InputError(f"{unknown}; and the training data cannot be asked: {error}") from error
    return build(experiment.model)


def _tokens(given: Sequence[str]) -> dict[str, int] | int | None:
    """What --tokens says: one number, or one for each field named."""
    by_field = {}
    for value in given:
        name, equals, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (len(given) > 1 and not equals):
            raise InputError(f"--tokens must be a number from 1, or FIELD=N, got {value!r}")
        by_field[name] = int(number)
    return by_field.get("", by_field or None)


def _show(figures: Mapping[str, float]) -> None:
    width = max(map(len, figures), default=0)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
