"""`anyformer import` and `anyformer export`: checkpoints of other libraries in and out."""

from __future__ import annotations

import argparse

from anyformer.cli.arguments import Options
from anyformer.errors import InputError, program
from anyformer.saving.model_folder import load, save
from anyformer.saving.run_folder import run_folder
from anyformer.tasks.convert.huggingface import export, take_in


def import_command(args: list[str]) -> None:
    parser = Options("import", "Make a run from the weights of another library, for `predict`, `export` and init_from.")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="of GPT-2, BERT, Whisper, Marian, T5 or a Decision Transformer, as save_pretrained of transformers writes "
        "it; or OpenAI's file of a Whisper, FILE.pt, with a tokenizer.json beside it",
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
    task, report = take_in(own.folder, own.language, own.pad, own.env)
    save(task, run / "model")
    fields = " ".join(f"{name}=..." for name in task.inputs) or "--episodes 10"
    print(f"{report}\nThe model is in {run}. Next:\n  {program()} predict {run} {fields}")


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
