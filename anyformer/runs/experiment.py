"""An experiment of the command line: config files and options, parsed into a task, its data and a trainer's options."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning import Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anyformer.errors import Caller, InputError, say_once, suggest
from anyformer.local_files import special_kind
from anyformer.parsing.bounds import bounded_yaml
from anyformer.parsing.check import check, check_numbers, read_yaml
from anyformer.parsing.classes import allowed_imports, dotted, find_class, subclasses
from anyformer.parsing.instantiate import make_objects
from anyformer.parsing.large import shared_lists
from anyformer.parsing.messages import one_line
from anyformer.parsing.misfits import explain, merged, swallowed
from anyformer.parsing.options import options_in
from anyformer.parsing.scalars import as_written, dump_yaml
from anyformer.runs.checkpointing import Saving
from anyformer.runs.trainer import quiet
from anyformer.saving.run_folder import first_trial, holds_trials, run_folder
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.mixture.data import Mixed
from anyformer.tasks.mixture.shared_fields import OF_ALL
from anyformer.tasks.start.encoders import open_encoders
from anyformer.tasks.start.start import Start, find_start

FOLDERS = ("save_dir", "root_dir")
"""What the loggers of Lightning call the folder that they write into."""


class Parser(LightningArgumentParser):
    """Takes options by their whole names; so do the parsers of its kind that jsonargparse makes for each class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class Unfit(InputError):
    """A value does not fit the type of its key."""


class Experiment(LightningCLI):
    """A config parsed, with its task and data made; the Trainer is made by `runs.trainer`."""

    def __init__(
        self,
        args: Sequence[str],
        command: str,
        unsafe: Sequence[str],
        is_mixed: bool = False,
        run: Path | None = None,
        start: Start | None = None,
        opens: bool = True,
    ) -> None:
        """unsafe: the packages that the user opened.
        is_mixed: whether the config names the class of its data, as that of a mixture does.
        run: the folder that loggers write into.
        start: the model that the config starts from.
        opens: whether the sources of `Pretrained` fields are opened.
        """
        self.unsafe, self.is_mixed, self.run, self.start, self.opens = unsafe, is_mixed, run, start, opens
        super().__init__(
            Task,
            Mixed if is_mixed else Records,
            subclass_mode_model=True,
            subclass_mode_data=is_mixed,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"exit_on_error": False, "prog": f"anyformer {command}"},
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Decides everything that is random.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Saving, "checkpoints")
        parser.link_arguments("seed_everything", "data.init_args.seed" if self.is_mixed else "data.seed")
        for action in parser._actions:
            # These may name a file of data, which would be read as the value itself.
            if action.dest in ("data.train", "data.validation", "data.test", "data.unlabelled"):
                action._enable_path = False
            if action.dest == "data" and self.is_mixed:
                action.sub_add_kwargs = {**action.sub_add_kwargs, "sub_configs": False}

    def parse_arguments(self, parser: LightningArgumentParser, args: Sequence[str]) -> None:
        try:
            with one_line():
                self.config = _spelt_out(parser.parse_args(args))
                if self.run is not None:
                    place_loggers(self.config["trainer"]["logger"], self.run)
        except InputError as error:
            if unknown := re.search(r"unrecognized arguments: -*([\w.]+)", str(error)):
                name = unknown[1] if str(error).startswith("unrecognized") else f"model.{unknown[1]}"
                # There are hundreds.
                others = [each for each in self._options() if each != name]
                advice = suggest(name, others, f"see {parser.prog} --help")
                raise InputError(f"there is no option --{name}{advice}") from None
            raise Unfit(str(error)) from error
        check_numbers(self.config.as_dict())

    def _options(self) -> list[str]:
        """The names of all options, those of the tasks included."""
        inner = [f"model.{name}" for sub in subclasses(Task) for name in dotted(sub)]
        return [option.lstrip("-") for option in self.parser._option_string_actions] + inner

    def _set_seed(self) -> None:
        seed_everything(self.config["seed_everything"], workers=True, verbose=False)

    def instantiate_classes(self) -> None:
        """Make the task and the data; the Trainer's options are handed to `runs.fit`."""
        with one_line():
            self.config_init = make_objects(self.parser, self.config, (MisconfigurationException,))
        self.model, self.datamodule = self.config_init["model"], self.config_init["data"]
        if self.start is not None:
            self.start.prepare(self.model)
        if self.opens:
            open_encoders(self.model, self.unsafe)
        self.options = dict(self.config_init["trainer"])

    @property
    def resolved(self) -> str:
        """The text of config.yaml."""
        # A text where a class may stand is tried as the path of one once more, as it is written.
        with allowed_imports(self.unsafe), as_written(), shared_lists():
            text = self.parser.dump(self.config, skip_unset=False)
        # By the names that `config_name` gives.
        text = re.sub(r"(\bclass_path: )anyformer\.[\w.]*\b(\w+)$", r"\1\2", text, flags=re.MULTILINE)
        if not self.is_mixed:
            return text
        # What a mixture has for all of its tasks stands there alone, and not as defaults of each.
        content = yaml.safe_load(text)
        for task in content["model"]["init_args"].get("tasks", {}).values():
            for name in OF_ALL:
                task.get("init_args", {}).pop(name, None)
        return dump_yaml(content)


def _spelt_out(config: Any) -> Any:
    """A parsed config with texts for the members of an enum that are texts: defaults of Lightning's which no YAML can
    hold."""
    if isinstance(config, Namespace):
        return Namespace(**{name: _spelt_out(value) for name, value in vars(config).items()})
    if isinstance(config, dict):
        return {name: _spelt_out(value) for name, value in config.items()}
    if isinstance(config, list):
        return [_spelt_out(value) for value in config]
    return config.value if isinstance(config, str) and isinstance(config, Enum) else config


class Unmade(Experiment):
    """A config parsed, of which nothing is made."""

    def instantiate_classes(self) -> None:
        pass


@Caller.on_command_line()
def parse(
    command: str,
    configs: Sequence[str],
    overrides: Sequence[str],
    unsafe: Sequence[str],
    run: Path | None = None,
    kind: type[Experiment] = Experiment,
    starts: bool = True,
) -> Experiment:
    """The experiment of config files and options that override them. Raises InputError of one line.

    run: the folder that loggers write into, whatever folder the config gives them: it may be run under several names.
    kind: Unmade where nothing of it is to be made.
    starts: whether the models that it starts from are looked at: `init_from`, which completes the model of the config,
        and the sources of `Pretrained` fields; else it is as it stands.
    """
    for option in overrides:
        if kind_of := special_kind(option.partition("=")[2] or option):
            raise InputError(f"{option}: that is {kind_of} and no file")
    with quiet(), allowed_imports(unsafe), as_written(), bounded_yaml(), shared_lists():
        # Sub-configs are local files: nothing is fetched.
        set_parsing_settings(config_read_mode_fsspec_enabled=False, docstring_parse_attribute_docstrings=True)
        is_mixed, hints = False, {"trainer": Trainer, "model": Task, "seed_everything": int, "checkpoints": Saving}
        given, args, contents, read = {}, [], [], [read_yaml(config) for config in configs]
        start = find_start([content for content, _ in read], overrides, unsafe) if starts else None
        for config, (content, lines) in zip(configs, read, strict=True):
            for section in content.keys() & {"trainer", "checkpoints", "model", "data"}:
                kinds = dict | None if section in ("trainer", "checkpoints") else dict | str | None
                if not isinstance(got := content[section], kinds):
                    raise InputError(
                        f"{config} line {lines[section]}: {section} must hold keys and values, got {got!r}"
                    )
            data = content["data"] if isinstance(content.get("data"), dict) else {}
            names_data = "class_path" in data
            if "parts" in data and not names_data:
                raise InputError(
                    f"{config} line {lines['data.parts']}: data that has parts is a mixture's; give class_path: Mixed "
                    "and put them under init_args"
                )
            own = content if start is None else {**content, "model": start.model}
            check(own, {**hints, "data": Mixed if names_data else Records}, config, lines)
            is_mixed |= names_data
            for path in lines.keys() & {"data.seed", "data.init_args.seed"}:
                raise InputError(f"{config} line {lines[path]}: {path} is what seed_everything says; give that")
            given |= {path: f"{config} line {line}" for path, line in lines.items()}
            if start is None:
                args += ["--config", config]
            elif rest := {key: value for key, value in content.items() if key != "model"}:
                args.append(f"--config={dump_yaml(rest)}")
            placed = []
            if run and (loggers := _filled((content.get("trainer") or {}).get("logger"), run)):
                placed.append(f"--trainer.logger={json.dumps(loggers)}")
            args += placed
            contents.append(merged([content], options_in(placed)))
        if start is not None:
            args.append(f"--config={dump_yaml({'model': start.model})}")
            contents.append({"model": start.model})
        # What classes of other packages take is not known.
        whole = {} if unsafe else merged(contents, options_in(overrides))
        try:
            if reason := swallowed(whole, options_in(overrides)):
                raise InputError(reason)
            return kind([*args, *overrides], command, unsafe, is_mixed, run, start, starts)
        except InputError as error:
            reason = explain(whole) if isinstance(error, Unfit) else None
            raise InputError(locate(reason or str(error), given, overrides)) from error


def _filled(loggers: Any, run: Path) -> Any:
    """The loggers of a config, those that need a folder and have none with the run's; None where there is none such."""
    if isinstance(loggers, list):
        filled = [_filled(logger, run) for logger in loggers]
        return [new or old for new, old in zip(filled, loggers, strict=True)] if any(filled) else None
    if not isinstance(loggers, dict) or "class_path" not in loggers:
        return None
    init_args, folders = loggers.get("init_args") or {}, _folders(loggers["class_path"])
    lacking = {name: str(run) for name, default in folders.items() if default is None and name not in init_args}
    return {**loggers, "init_args": {**init_args, **lacking}} if lacking else None


def place_loggers(loggers: Any, run: Path) -> None:
    """Let the loggers of a parsed config write into a run's folder, and say so of those that were given another."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not isinstance(logger, Namespace) or "class_path" not in logger:
            continue
        for name, default in _folders(logger["class_path"]).items():
            given, logger[f"init_args.{name}"] = logger.get(f"init_args.{name}"), str(run)
            if given not in (None, default, str(run)):
                say_once(
                    f"trainer.logger: {logger['class_path'].rpartition('.')[2]} writes into {run}, as each run has a "
                    f"folder of its own, and not into {name}: {given}"
                )


def _folders(class_path: str) -> dict[str, str | None]:
    """The arguments of a logger that say its folder, with their defaults; None where it needs one."""
    cls = find_class(class_path, [Logger])
    parameters = inspect.signature(cls).parameters if inspect.isclass(cls) else {}
    defaults = {name: parameters[name].default for name in FOLDERS if name in parameters}
    return {name: None if default is inspect.Parameter.empty else default for name, default in defaults.items()}


def locate(message: str, given: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The message with the option, or the file and line, that gave the key it begins with.

    Where none gave it: one that gave a key which the message names beside it, or else what holds it.
    """
    key = re.match(r"\w+(\.\w+)*", message)
    if key is None:
        return message
    options = {_parts(name[1]): f"--{name[1]}" for each in overrides if (name := re.match(r"--([\w.]+)", each))}
    places = {_parts(path): place for path, place in given.items()} | options
    wanted = _parts(key[0])
    beside = re.findall(r"\w+", message[key.end() :])
    candidates = [
        *((*wanted, name) for name in beside),
        wanted,
        # jsonargparse leaves out the keys of dicts and the numbers of lists.
        *(parts for parts in places if _skips(parts, wanted)),
        *((*wanted[:-1], name) for name in beside if wanted[1:]),
        *(wanted[:i] for i in range(len(wanted) - 1, 0, -1)),
    ]
    # An option has the say over a file; but one that names the class of the model leaves it what the file gave.
    chosen = next((parts for parts in candidates if parts in options and (parts[1:] or parts == wanted)), None)
    place = places.get(chosen or next((parts for parts in candidates if parts in places), ()))
    return f"{place}: {message}" if place else message


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part for part in key.split(".") if part != "init_args")


def _skips(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    left = iter(parts)
    return parts[0] == wanted[0] and parts[-1] == wanted[-1] and all(part in left for part in wanted)


def config_of(run_dir: str | Path) -> str:
    path = run_folder(run_dir) / "config.yaml"
    if not path.exists():
        if holds_trials(path.parent):
            raise InputError(
                f"{run_dir} holds the runs of several folds or seeds; name one of them, {first_trial(path.parent)}"
            )
        raise InputError(
            f"{path} does not exist: {run_dir} holds no run of the command line; "
            "one that was trained from Python is resumed and tested from there"
        )
    return str(path)
