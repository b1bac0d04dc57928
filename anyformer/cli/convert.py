"""`anyformer import`, `export`, `average` and `merge`: models made of others, and for other libraries."""

from __future__ import annotations

from anyformer.errors import InputError, program
from anyformer.front.parsers import average_parser, export_parser, import_parser, merge_parser
from anyformer.runs.averaging.average import average
from anyformer.runs.averaging.merge import merge
from anyformer.saving.atomic import write_whole
from anyformer.saving.model_folder import load, save
from anyformer.saving.run_folder import run_folder
from anyformer.tasks.convert.huggingface import export
from anyformer.tasks.convert.peft import from_peft, is_peft, to_peft
from anyformer.tasks.embed.embed import Embed
from anyformer.tasks.start.opening import bring_in
from anyformer.tasks.start.template import fine_tuning_config


def import_command(args: list[str]) -> None:
    parser = import_parser()
    own = parser.parse_args(args)
    run = run_folder(own.run)
    if run.exists():
        raise InputError(f"{run} is there already; choose another folder")
    if is_peft(own.folder):
        task, report = from_peft(own.folder, own.base)
    elif own.base is not None:
        raise InputError(f"{own.folder} is no adapter of peft, which --base is for; leave it out")
    else:
        task, report = bring_in(own.folder, own.language, own.pad, own.env)
    save(task, run / "model")
    config = run / "config.yaml"
    write_whole(config, fine_tuning_config(task, str(run)))
    fields = " ".join(f"{name}=..." for name in task.inputs) or "--episodes 10"
    command = "embed" if isinstance(task, Embed) else "predict"
    print(
        f"{report}\nThe model is in {run}. Next:\n  {program()} {command} {run} {fields}\n"
        f"  {program()} fit --config {config} --run_dir runs/mine    # fine-tunes it, once {config} names your data"
    )


def export_command(args: list[str]) -> None:
    parser = export_parser()
    own = parser.parse_args(args)
    task = load(own.run, unsafe_imports=own.unsafe_imports, base=own.base)
    if own.peft:
        to_peft(task, own.target)
    else:
        if task.base is not None:
            task.merge()
        export(task, own.target)
    print(f"The model is in {own.target}.")


def average_command(args: list[str]) -> None:
    parser = average_parser()
    own = parser.parse_args(args)
    print(average(own.runs, own.output, weights=own.weights, unsafe_imports=own.unsafe_imports))
    task = load(own.output, unsafe_imports=own.unsafe_imports)
    if task.usage is not None:
        print(f"Next:\n  {program()} predict {own.output} {task.usage}")


def merge_command(args: list[str]) -> None:
    parser = merge_parser()
    own = parser.parse_args(args)
    merge(own.run, own.output, base=own.base, unsafe_imports=own.unsafe_imports)
    task = load(own.output, unsafe_imports=own.unsafe_imports)
    print(f"{own.output} is one model of {own.run} and its base.")
    if task.usage is not None:
        print(f"Next:\n  {program()} predict {own.output} {task.usage}")
