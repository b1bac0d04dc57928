"""The light front of the command line: what can be answered without torch is answered without it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

USAGE = """\
usage: anyformer COMMAND ...

Trains one transformer on any kind of data, as a YAML file says.

  fit --config FILE          train, then test the best model
  fit --resume RUN           go on with a run exactly where it stopped
  fit --config FILE --folds 5 --seeds 3
                             cross-validate: a run for every fold and seed, their mean and standard error; with
                             --nested by folds that nothing is chosen by
  validate RUN               metrics of the best model on the validation records
  test RUN                   metrics of the best model on the test records
  predict RUN FIELD=VALUE ...
                             predict with the best model of a run, for a record or a folder of files; also called run
  predict RUN --data FILE --output FILE
                             predict all records of a table, a folder, a text, ..., as the run reads its own
  embed RUN FIELD=VALUE ... --output vectors.parquet
                             the hidden vectors of records, pooled or of every token, as Parquet or NPZ
  explain RUN FIELD=VALUE ... [--answer A] [--rather_than B]
                             why: which field mattered, where it looked, and how far that may be believed, as a page
  average RUN RUN ... --output FOLDER
                             one model of several runs: the mean of their predictions; with --weights of their weights
  merge RUN --output FOLDER  one model of a run with adapters (lora) and the model that it was trained on
  collect --env ID --output DIR
                             play episodes of an environment and save them as a data set for training
  plan CONFIG                sizes, tokens, time, memory and warnings of a run, before anything is trained
  baseline CONFIG            what simple models reach on the same records, in seconds to a minute; --folds, --seeds
  params CONFIG              parameters and FLOPs by component, before anything is trained
  import FOLDER RUN          make a run of GPT-2, BERT, Whisper, Marian, T5 or a Decision Transformer of transformers,
                             or of a model without a head: a sentence encoder, a ViT
  export RUN TARGET          write the best model as a folder for transformers, or a safetensors file for timm
  help NAME                  what a class, a key of a config or a command means and takes: help ImagePatches
  list KIND                  what there is: tokenizers, tasks, targets, sources, configs, callbacks, loggers
  schema                     the JSON Schema of configs, for editors

Any value of the config can be given as an option: --trainer.max_epochs=3. More: anyformer COMMAND --help, and
anyformer predict RUN --help for the options of that model.
"""
COMMANDS = (
    "fit",
    "validate",
    "test",
    "predict",
    "embed",
    "explain",
    "collect",
    "plan",
    "params",
    "baseline",
    "import",
    "export",
    "average",
    "merge",
    "help",
    "list",
    "schema",
)
ALIASES = {"run": "predict"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if sys.platform == "win32":
        print("anyformer: Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        return 2
    args = list(sys.argv[1:] if argv is None else argv)
    args[:1] = [ALIASES.get(name, name) for name in args[:1]]
    if not args or args[0] in ("-h", "--help") or args == ["help"]:
        print(USAGE, end="")
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from anyformer import __version__

        print(f"anyformer {__version__}")
        return 0
    if args[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(args[0], COMMANDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"anyformer: there is no command {args[0]!r}; {hint}", file=sys.stderr)
        return 2
    from anyformer.errors import Caller
    from anyformer.front.answers import say_answer

    with Caller.on_command_line():
        code = say_answer(args[0], args[1:], COMMANDS)
        if code is None:
            from anyformer.cli import main as cli

            code = cli.main(args)
    return code


def leave_the_current_folder() -> None:
    """Take the current folder, which `python -m` puts first, off the import path: a train.py or datasets.py in it is
    the user's, and would be run in place of a package."""
    here = os.getcwd()
    if (
        not sys.flags.safe_path
        and sys.path[:1] == [here]
        and not __file__.startswith(os.path.join(here, "anyformer", ""))
    ):
        del sys.path[0]


if __name__ == "__main__":
    leave_the_current_folder()
    sys.exit(main())
