"""`anyformer import`, `export` and `average`: models made of others, and for other libraries."""

from __future__ import annotations

import argparse

from anyformer.cli.arguments import Options
from anyformer.errors import InputError, program
from anyformer.runs.averaging.average import average
from anyformer.saving.atomic import write_whole
from anyformer.saving.model_folder import load, save
from anyformer.saving.run_folder import run_folder
from anyformer.tasks.convert.huggingface import export
from anyformer.tasks.start.opening import bring_in
from anyformer.tasks.start.template import fine_tuning_config


def import_command(args: list[str]) -> None:
    parser = Options("import", "Make a run from the weights of another library, for `predict`, `export` and init_from.")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="of GPT-2, BERT, Whisper, Marian, T5 or a Decision Transformer, as save_pretrained of transformers writes "
        "it; OpenAI's file of a Whisper, FILE.pt, with a tokenizer.json beside it; a Vision Transformer as timm writes "
        "it, with its config.json",
    )
    parser.add_argument("run", metavar="RUN", help="the folder to make")
    parser.add_argument("--language", metavar="CODE", help="of Whisper: the language spoken; detected when left out")
    parser.add_argument(
        "--pad",
        action=argparse.BooleanOptionalAction,
        help="of Whisper: pad recordings with silence to 30 seconds, as it was trained; so it is when left out",
    )
    parser.add_argument("--env", metavar="ID", help="of a Decision Transformer: where it acts, such as Hopper-v5")
    own = parser.parse_args(args)
    run = run_folder(own.run)
    if run.exists():
        raise InputError(f"{run} is there already; choose another folder")
    task, report = bring_in(own.folder, own.language, own.pad, own.env)
    save(task, run / "model")
    config = run / "config.yaml"
    write_whole(config, fine_tuning_config(task, str(run)))
    fields = " ".join(f"{name}=..." for name in task.inputs) or "--episodes 10"
    print(
        f"{report}\nThe model is in {run}. Next:\n  {program()} predict {run} {fields}\n"
        f"  {program()} fit --config {config} --run_dir runs/mine    # fine-tunes it, once {config} names your data"
    )


def export_command(args: list[str]) -> None:
    parser = Options("export", "Write the best model of a run for another library.")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="the folder to make for transformers; of a model of pictures FILE.safetensors, and FILE.pt for a Whisper "
        "as OpenAI has it",
    )
    own = parser.parse_args(args)
    export(load(own.run, unsafe_imports=own.unsafe_imports), own.target)
    print(f"The model is in {own.target}.")


def average_command(args: list[str]) -> None:
    parser = Options("average", "Make one model of several runs: the mean of their predictions, or of their weights.")
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the folders of runs of one task, with the same fields and classes; a folder of several, as fit --folds "
        "and --seeds write, stands for all in it",
    )
    parser.add_argument("--output", metavar="FOLDER", required=True, help="the folder to make")
    parser.add_argument(
        "--weights",
        action="store_true",
        help="the mean of the weights in place of the predictions: of runs that started from the same weights; of one "
        "run alone, of the checkpoints that it has kept (checkpoints.keep)",
    )
    own = parser.parse_args(args)
    print(average(own.runs, own.output, weights=own.weights, unsafe_imports=own.unsafe_imports))
    task = load(own.output, unsafe_imports=own.unsafe_imports)
    if task.usage is not None:
        print(f"Next:\n  {program()} predict {own.output} {task.usage}")
