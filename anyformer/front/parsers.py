"""The options of every command: what `--help` shows and what a command is given, without anything heavy.

Knows argparse; knows no trainer and no task.
"""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyformer.errors import Caller, InputError, suggest
from anyformer.reference.source import Class
from anyformer.reference.types import Type, constant, literal_of, type_of

SCALARS = {"int": int, "float": float}


class Options(argparse.ArgumentParser):
    """The few options that are ours and not of the experiment."""

    def __init__(self, prog: str, description: str = "", add_help: bool = True) -> None:
        super().__init__(f"anyformer {prog}", description=description, add_help=add_help, allow_abbrev=False)
        self.add_argument(
            "--unsafe_imports",
            metavar="PACKAGE",
            action="append",
            default=[],
            help="let the config name classes of this package, which runs its code",
        )

    @Caller.on_command_line()
    def error(self, message: str) -> typing.NoReturn:
        if unknown := re.match(r"unrecognized arguments: -+([\w.]+)", message):
            names = [option.lstrip("-") for option in self._option_string_actions]
            raise InputError(f"there is no option --{unknown[1]}{suggest(unknown[1], names)}")
        raise InputError(f"{message}; see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser, of: Class, values: Mapping[str, Any]) -> None:
    """Give a parser an option for each field of a dataclass, `tuple[...]` taking several values.

    values: those that are the defaults here, by field; where there is none the dataclass's own is.
    """
    group = parser.add_argument_group("options of this model")
    for each in of.arguments:
        options, default = _option(type_of(each), each.name), values.get(each.name, literal_of(each))
        text = each.text.replace("%", "%%")
        # A word that Python keeps for itself stands with a _ behind it.
        group.add_argument(f"--{each.name.rstrip('_')}", dest=each.name, default=default, help=text, **options)


def _option(kind: Type, name: str) -> dict[str, Any]:
    kind, *others = (member for member in kind.members if member.kind != "null")
    if kind.name == "bool":
        if any(each.name == "str" for each in others):
            return {"nargs": "?", "const": True, "metavar": name.upper()}
        return {"action": argparse.BooleanOptionalAction}
    if kind.kind == "choice":
        return {"choices": kind.values}
    several = kind.kind in ("list", "items")
    inner = kind.parts[0] if several else kind
    options = {"type": SCALARS.get(inner.name, str), "metavar": name.rstrip("_").upper()}
    return options | ({"nargs": "+"} if several else {})


def add_base(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option of all commands that load a model which may be an adapter."""
    parser.add_argument(
        "--base",
        metavar="FOLDER",
        help="of a run with adapters (lora): where the model that it was trained on is now, if it has moved",
    )


@Caller.on_command_line()
def require_first(what: str, command: str, args: Sequence[str]) -> None:
    """Raise InputError where an option stands in the place of what must stand first."""
    if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
        raise InputError(f"the {what} stands first, got {args[0]}: anyformer {command} {args[0]} ...")


def fit_parser() -> Options:
    parser = Options("fit", "Train, then test the best model.", add_help=False)
    parser.add_argument(
        "-c", "--config", metavar="FILE", action="append", default=[],
        help="the experiment, in YAML; --print_config shows it with all defaults",
    )  # fmt: skip
    parser.add_argument(
        "--run_dir", metavar="FOLDER", help="where the run is written: runs/<name of the config file> by default"
    )
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="go on with a run exactly where it stopped; options override its config",
    )
    parser.add_argument(
        "--folds", metavar="N", type=int,
        help="cross-validation: a run for each of N folds of the records of train and validation, each the validation "
        "of its run; their mean and standard error. Given again, it goes on",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", metavar="N", type=int, help="a run for each of N seeds, of every fold where there are folds"
    )
    parser.add_argument(
        "--nested", action="store_true",
        help="with --folds K: K outer folds that nothing is chosen by, each the test part of its run; the others are "
        "dealt into inner folds, of which one validates (best step, early stopping)",
    )  # fmt: skip
    parser.add_argument(
        "--inner", metavar="M", type=int,
        help="with --nested: into how many; 5 when left out. Of few records more leave more to learn from",
    )  # fmt: skip
    parser.add_argument(
        "--inner_runs", metavar="N", type=int,
        help="with --nested: a run for each of N inner folds as validation; 1 when left out",
    )  # fmt: skip
    parser.add_argument(
        "--over", metavar="KEY=A,B,...", action="append", default=[],
        help="with --nested: values of an option of which each outer fold takes the best by inner validation; of "
        "several such options every combination is trained",
    )  # fmt: skip
    return parser


def evaluate_parser(stage: str) -> Options:
    part = "validation" if stage == "validate" else "test"
    parser = Options(stage, f"Metrics of the best model on {part} records: those of its config, or --data.{part} OTHER")
    parser.add_argument("run", metavar="RUN", help="the run's folder, or RUN:TASK of a mixture; it stands first")
    parser.add_argument("--views", metavar="N", help="views of each record that predictions are averaged over")
    parser.add_argument(
        "--no-predictions",
        dest="predictions",
        action="store_false",
        help="give the metrics alone: what is searched for, as a transcript, is then searched for once",
    )
    add_base(parser)
    return parser


def predict_parser() -> Options:
    """Without the fields, which `add_fields` adds: they depend on the model."""
    parser = Options("predict", "Predict with the best model of a run: for a record, many files, or all of --data.")
    parser.add_argument("run", metavar="RUN", help="the run's folder; RUN:TASK is one task of a mixture")
    add_base(parser)
    parser.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="instead of fields the records of a table (csv, tsv, json, jsonl, parquet), a folder of files, texts, "
        "episodes, ..., read as the run reads its own: the same columns, the same root. True values may be missing; "
        "where they are there they stand beside the predictions. Of aligned files: FIELD=FILE for each",
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help="with --data: what tells the records apart; their number or file when left out"
    )
    parser.add_argument(
        "--on_bad_sample",
        choices=("fail", "skip"),
        default="fail",
        help="with --data: whether a record that cannot be used ends it, and what is done stays; or is left out, with "
        "its error in a column of its own. fail by default",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the whole result as JSON; for many records, one object a line"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a table to FILE.csv, FILE.jsonl, FILE.json or FILE.parquet; with --data a command that is killed "
        "goes on where it was when it is given again. Subtitles to FILE.srt and the like, or for many records to a "
        "folder",
    )
    return parser


def add_fields(parser: Options, inputs: Sequence[str] | None = None) -> None:
    """inputs: of the model; None where it is not known which."""
    named = f"{', '.join(inputs)}: " if inputs else ""
    parser.add_argument(
        "fields",
        nargs="*",
        metavar="FIELD=VALUE",
        help=f"{named}the record; a picture or a sound is given by the path of its file. A folder, a zip or a pattern "
        "('pets/**/*.jpg', quoted) stands for every file in it: one field may be many, the others are the same for "
        "all. A text that is the name of a file stands for the lines of it, each a record. - is standard input: a "
        "file, or one text a line. FIELD,FIELD=VALUE gives several fields one value. A policy takes no fields: it "
        "plays episodes",
    )


def embed_parser() -> Options:
    parser = Options("embed", "Write the hidden vectors of records, of the best model of a run.")
    parser.add_argument("run", metavar="RUN", help="the run's folder; RUN:TASK is one task of a mixture")
    parser.add_argument(
        "fields",
        metavar="FIELD=VALUE",
        nargs="*",
        help="the record, with some or all of the model's fields, as for predict: the path of a file, a folder, a zip "
        "or a quoted pattern for many; - is standard input: a file, or one text a line",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="instead of fields the records of a table, a folder of files, texts, episodes, ..., read as the run reads "
        "its own: the same columns, the same root; see --data of predict",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="FILE.parquet or FILE.npz; one JSON object a record without it"
    )
    parser.add_argument(
        "--pool",
        choices=("mean", "class", "last", "tokens"),
        help="one vector a record: the mean of its tokens, its class token or its last token; or those of all tokens. "
        "As the model's folder or head says when left out, else mean",
    )
    parser.add_argument(
        "--layer",
        metavar="N",
        type=int,
        default=-1,
        help="0 is what the first block reads, -1 the last layer (default)",
    )
    parser.add_argument("--field", metavar="FIELD", help="read the tokens of this field alone")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="divide each vector by its length; as the model's folder says when left out, else not",
    )
    add_base(parser)
    return parser


def explain_parser() -> Options:
    parser = Options(
        "explain",
        "Why the best model of a run answers as it does: which field mattered, where it looked, who attended to whom, "
        "and how far that may be believed, as a page with pictures and numbers. With --data what each field is worth "
        "over many records.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder; RUN:TASK is one task of a mixture")
    parser.add_argument(
        "fields", metavar="FIELD=VALUE", nargs="*", help="the one record, with some or all of the model's fields"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the folder of the page, its pictures and its numbers; RUN/explain when left out",
    )
    parser.add_argument("--target", metavar="NAME", help="which is explained where the model has several")
    parser.add_argument(
        "--answer",
        metavar="A",
        help="what is explained: a class, a label, a column, a text; what the model answers when left out",
    )
    parser.add_argument("--rather_than", metavar="B", help="another answer: why the one, and not this")
    parser.add_argument(
        "--layer",
        metavar="N",
        type=int,
        default=-1,
        help="whose attention is drawn token by token, -1 the last (default)",
    )
    parser.add_argument("--head", metavar="N", type=int, help="which head of it, from 1; all when left out")
    parser.add_argument(
        "--cross", action="store_true", help="draw the attention to the encoder token by token, not that within a stack"
    )
    parser.add_argument(
        "--data",
        metavar="PART",
        nargs="+",
        help="instead of fields: validation, test or train of the run, or records at a path, as for predict, with "
        "their true values",
    )
    parser.add_argument(
        "--records", metavar="N", type=int, default=200, help="with --data: of the records at most, 200 by default"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn at random, 0 by default")
    add_base(parser)
    return parser


def plan_parser() -> Options:
    parser = Options(
        "plan",
        "Read real batches and take a few steps, before anything is trained: sizes, tokens, parameters, time and "
        "memory, a picture of what the model sees, and warnings. Only the picture is written.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config, whose values can be overridden; or a run's folder")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    parser.add_argument(
        "--output", metavar="FILE", help="the picture, FILE.png: plan.png in the run's folder by default"
    )
    return parser


def params_parser() -> Options:
    parser = Options("params", "Count the parameters and the forward FLOPs of a model; its weights are not made.")
    parser.add_argument("config", metavar="CONFIG", help="a config, whose values can be overridden; or a run's folder")
    parser.add_argument(
        "--tokens",
        metavar="N",
        action="append",
        default=[],
        help="tokens of the sample whose FLOPs are counted; FIELD=N where there are several fields. By default as many "
        "as the positions allow",
    )
    parser.add_argument(
        "--classes", metavar="N", type=int, help="how many classes, where neither config nor run has them"
    )
    add_base(parser)
    return parser


def baseline_parser() -> Options:
    most = constant("anyformer.baselines.examples", "MOST_RECORDS")
    parser = Options(
        "baseline",
        "Simple models of scikit-learn on the records, columns, splits and folds of a config: the most frequent class "
        "or the mean, a linear model and a random forest, on each field alone and on all. Nothing is chosen on the "
        "records that are reported. Any value of the config can be overridden: --data.train=other.csv. Beside a folder "
        "of runs, as fit --folds writes, the difference is shown, fold by fold",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config; or the folder of a run, or of several runs")
    parser.add_argument("--folds", type=int, metavar="N", help="each of N folds, as fit --folds deals them")
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=1, help="each of N seeds, of the forest; 1 by default"
    )
    parser.add_argument(
        "--records",
        type=int,
        metavar="N",
        default=most,
        help=f"of each part at most, a sample of those that are more; {most:,} by default",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    return parser


def collect_parser() -> Options:
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
    return parser


def import_parser() -> Options:
    parser = Options(
        "import", "Make a run from the weights of another library, for `predict`, `embed`, `export` and init_from."
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="of GPT-2, BERT, Whisper, Marian, T5 or a Decision Transformer, or of BERT, RoBERTa, GPT-2, T5's encoder "
        "or ViT without a head, as save_pretrained of transformers or sentence-transformers writes it; OpenAI's file "
        "of a Whisper, FILE.pt, with a tokenizer.json beside it; a Vision Transformer as timm writes it, with its "
        "config.json; or an adapter (LoRA) of peft",
    )
    parser.add_argument("run", metavar="RUN", help="the folder to make")
    parser.add_argument("--language", metavar="CODE", help="of Whisper: the language spoken; detected when left out")
    parser.add_argument(
        "--pad",
        choices=("full", "auto", "none"),
        help="of Whisper: silence behind recordings: full, to 30 seconds, as it was trained (when left out); auto, 5 "
        "seconds, which is as good and faster; none, for what is to be fine-tuned so",
    )
    parser.add_argument("--no-pad", dest="pad", action="store_const", const="none", help="the same as --pad none")
    parser.add_argument("--env", metavar="ID", help="of a Decision Transformer: where it acts, such as Hopper-v5")
    parser.add_argument("--base", metavar="RUN", help="of an adapter of peft: the run, once imported, that it is for")
    return parser


def export_parser() -> Options:
    parser = Options("export", "Write the best model of a run for another library.")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="the folder to make for transformers; of a model of pictures FILE.safetensors, and FILE.pt for a Whisper "
        "as OpenAI has it",
    )
    parser.add_argument(
        "--peft",
        action="store_true",
        help="of a run with adapters (lora): these alone, as a folder for peft; else they and their base are merged",
    )
    add_base(parser)
    return parser


def merge_parser() -> Options:
    parser = Options("merge", "Make one model of a run with adapters (lora) and the model that it was trained on.")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="the folder to make")
    add_base(parser)
    return parser


def average_parser() -> Options:
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
    return parser


PARSERS: dict[str, Callable[[], Options]] = {
    "fit": fit_parser,
    "validate": lambda: evaluate_parser("validate"),
    "test": lambda: evaluate_parser("test"),
    "predict": predict_parser,
    "embed": embed_parser,
    "explain": explain_parser,
    "collect": collect_parser,
    "plan": plan_parser,
    "params": params_parser,
    "baseline": baseline_parser,
    "import": import_parser,
    "export": export_parser,
    "average": average_parser,
    "merge": merge_parser,
}
"""Of every command that needs more than the front."""
