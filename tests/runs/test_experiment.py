"""Config files and options become a task, its data and a trainer's options, or an error that says where."""

from __future__ import annotations

import contextlib
import importlib.abc
import re
import sys
from pathlib import Path

import pytest
import yaml

from anyformer.errors import InputError
from anyformer.runs.experiment import Experiment, Unmade, config_of, locate, parse
from anyformer.tasks.classify.classify import Classify

CONFIG = """\
trainer: {max_epochs: 1, logger: {class_path: CSVLogger}}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return str(tmp_path / "config.yaml")


def test_what_is_parsed_is_made_with_its_overrides_and_written_whole(config: str, tmp_path: Path) -> None:
    options = ["--model.transformer.d_model=16", "--seed_everything=3"]
    made = parse("fit", [config], options, [], tmp_path / "run")
    assert type(made.model) is Classify and made.model.transformer.d_model == 16
    assert made.datamodule.seed == 3 and made.options["max_epochs"] == 1
    # A logger that needs a folder has the run's.
    resolved = yaml.safe_load(made.resolved)
    assert resolved["trainer"]["logger"]["init_args"]["save_dir"] == str(tmp_path / "run")
    assert resolved["model"]["init_args"]["transformer"]["depth"] == 1
    unmade = parse("fit", [config], options, [], tmp_path / "run", Unmade)
    assert isinstance(unmade, Experiment) and not hasattr(unmade, "datamodule")
    assert unmade.resolved == made.resolved


@pytest.mark.parametrize("logger", ["CSVLogger", "lightning.pytorch.loggers.TensorBoardLogger"])
def test_loggers_write_into_the_folder_of_each_run_wherever_the_config_was_run_before(
    logger: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = CONFIG.replace(
        "class_path: CSVLogger", f"class_path: {logger}, init_args: {{save_dir: runs/a, name: mine}}"
    )
    listed = re.sub(r"logger: ({.*})}", r"logger: [\1]}", fixed)
    for text, options in [
        (fixed, []),
        (listed, []),
        (CONFIG, [f"--trainer.logger={logger}", "--trainer.logger.save_dir=runs/a"]),
    ]:
        Path(config).write_text(text)
        for name in ("one", "two"):
            made = parse("fit", [config], options, [], tmp_path / name)
            (logger_made,) = made.options["logger"] if text is listed else [made.options["logger"]]
            assert Path(logger_made.save_dir) == tmp_path / name
            assert logger_made.name == ("lightning_logs" if text is CONFIG else "mine")
    said = set(capsys.readouterr().err.splitlines())
    assert said == {
        f"trainer.logger: {logger.rpartition('.')[2]} writes into {tmp_path / name}, as each run has a folder of its "
        "own, and not into save_dir: runs/a"
        for name in ("one", "two")
    }
    assert not list(tmp_path.glob("*/*"))


def test_an_error_says_which_line_gave_it_unless_an_option_did(config: str) -> None:
    wrong = Path(config).with_name("wrong.yaml")
    wrong.write_text(CONFIG.replace("depth: 1", "dpeth: 1"))
    with pytest.raises(InputError, match=r"wrong\.yaml line 6: .*dpeth.*did you mean"):
        parse("fit", [str(wrong)], [], [])
    with pytest.raises(InputError, match=r"^there is no option --xyz; see anyformer fit --help$"):
        parse("fit", [config], ["--xyz=1"], [])
    # Nor is an option taken for one that begins so, of a class within the model either.
    for short in ("trainer.max_epoch", "data.batch_siz", "model.transformer.dept"):
        with pytest.raises(InputError, match=rf"^there is no option --{short}; did you mean '{short}\w+'\?$"):
            parse("fit", [config], [f"--{short}=1"], [])
    given = {"model.init_args.transformer.depth": "a.yaml line 6"}
    assert locate("model.transformer.depth is odd", given, []) == "a.yaml line 6: model.transformer.depth is odd"
    option = "--model.transformer.depth"
    assert locate("model.transformer.depth is odd", given, [f"{option}=3"]).startswith(f"{option}: model")
    # Another key that the message names, then what holds the key.
    assert locate("model.transformer.width is no multiple of depth", given, []).startswith("a.yaml line 6: ")
    assert locate("model.transformer.depth.x is odd", given, []).startswith("a.yaml line 6: ")
    # The whole, given by an option, has no part of what the file gave.
    assert locate("model.transformer.depth is odd", given, ["--model.transformer", "{}"]).startswith("--model.trans")
    assert locate("model.optimizer is odd", given, []) == "model.optimizer is odd"


RUN = Path("run")
"""Of the logger; nothing is written."""
SECOND = """\
trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val/loss, mode: up}}]}
"""


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("patch: 4", "patch: 0", r"config.yaml line 5: model.tokenizers.image.patch must be at least 1, got 0"),
        (
            "d_model: 8",
            "d_model: 7",
            r"config.yaml line 6: model.transformer.n_heads must divide d_model .* d_model=7, n_heads=2",
        ),
        (
            "d_model: 8",
            "d_model: 8, rotary: {axes: []}",
            r"config.yaml line 6: model.transformer.rotary.axes must name at least one axis",
        ),
        (
            "train: Digits",
            "train: {class_path: DigitQuestions, init_args: {n: 0}}",
            r"config.yaml line 7: data.train.n must be at least 1, got 0",
        ),
        (
            "{train: Digits, validation: 0.1}",
            "\n  train:\n  - Digits\n  - class_path: DigitQuestions\n    init_args:\n      n: 0",
            r"config.yaml line 12: data.train.1.n must be at least 1, got 0",
        ),
        (
            "validation: 0.1",
            "validation: 0.1, batch_size: 0",
            r"config.yaml line 7: data.batch_size must be at least 1",
        ),
        (
            "{image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}",
            "{}",
            r"config.yaml line 5: model.tokenizers must name at least one field",
        ),
    ],
)
def test_what_a_constructor_refuses_is_said_with_its_file_line_and_key(
    before: str, now: str, message: str, config: str
) -> None:
    Path(config).write_text(CONFIG.replace(before, now))
    with pytest.raises(InputError, match=message) as caught:
        parse("fit", [config], [], [], RUN)
    assert "\n" not in str(caught.value)


def test_what_a_constructor_refuses_may_be_of_another_file_or_an_option(config: str) -> None:
    second = Path(config).with_name("second.yaml")
    second.write_text(SECOND)
    with pytest.raises(InputError, match=r"second.yaml line 1: trainer.callbacks.0.mode can be min, max, got up"):
        parse("fit", [config, str(second)], [], [], RUN)
    second.write_text("model:\n  init_args:\n    transformer:\n      n_heads: 3\n")
    with pytest.raises(InputError, match=r"second.yaml line 4: model.transformer.n_heads must divide d_model"):
        parse("fit", [config, str(second)], [], [], RUN)
    option = "--model.transformer.d_model"
    with pytest.raises(InputError, match=rf"^{option}: model.transformer.n_heads must divide .*, got d_model=7"):
        parse("fit", [config], [f"{option}=7"], [], RUN)
    with pytest.raises(InputError, match=r"^--model.optimizer.lr: model.optimizer.lr and .* must be above 0"):
        parse("fit", [config], ["--model.optimizer.lr", "-1"], [], RUN)
    with pytest.raises(InputError, match=r"^--data.batch_size: data.batch_size must be at least 1, got 0$"):
        parse("fit", [config], ["--data.batch_size=0"], [], RUN)


def test_a_config_of_a_run_names_our_classes_by_their_short_names(config: str) -> None:
    resolved = parse("fit", [config], [], [], RUN).resolved
    content = yaml.safe_load(resolved)
    assert content["model"]["class_path"] == "Classify"
    assert content["model"]["init_args"]["tokenizers"]["image"]["class_path"] == "ImagePatches"
    assert "class_path: anyformer." not in resolved
    # It is read back as it stands, and those of others keep their path.
    Path(config).write_text(resolved)
    assert parse("fit", [config], [], [], RUN).resolved == resolved
    assert content["trainer"]["logger"]["class_path"].startswith("lightning.")


def test_the_config_of_a_run_is_looked_for(config: str, tmp_path: Path) -> None:
    assert config_of(tmp_path) == config
    with pytest.raises(InputError, match="holds no run of the command line"):
        config_of(tmp_path / "else")


def test_a_file_of_data_in_the_current_folder_is_a_name_and_not_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.csv").write_text("image,label\na.png,x\n")
    Path("mixture.yaml").write_text(MIXTURE)
    parts = parse("fit", ["mixture.yaml"], [], [], kind=Unmade).config["data"]["init_args"]["parts"]
    assert parts["some"]["train"] == "words.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: 3", r"line 7: trainer must hold keys and values, got 3"),
        ("trainer: [1]", r"line 7: trainer must hold keys and values, got \[1\]"),
        ("checkpoints: often", r"line 7: checkpoints must hold keys and values, got 'often'"),
        ("seed_everything: -1", r"line 7: seed_everything must be at least 0, got -1"),
        ("seed_everything: 4294967296", r"line 7: seed_everything must be at most 4294967295"),
        ("trainer: {accumulate_grad_batches: 0}", r"line 7: trainer.accumulate_grad_batches must be at least 1, got 0"),
        ("trainer: {check_val_every_n_epoch: 0}", r"line 7: trainer.check_val_every_n_epoch must be at least 1, got 0"),
        ("trainer: {val_check_interval: 0}", r"line 7: trainer.val_check_interval must be above 0, got 0"),
        ("trainer: {gradient_clip_val: .inf}", r"line 7: trainer.gradient_clip_val must be a finite number, got inf"),
        ("data: 3", r"line 6: data must hold keys and values, got 3"),
        ("model: [a]", r"line 6: model must hold keys and values, got \['a'\]"),
    ],
)
def test_values_that_cannot_be_are_refused_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    """In the place of the key that is there, or behind all."""
    lines = [line for line in CONFIG.splitlines() if not line.startswith(text.partition(":")[0])]
    if text.startswith("model"):
        lines = lines[:1] + [line for line in lines[1:] if not line.startswith(" ")]
    (tmp_path / "odd.yaml").write_text("\n".join([*lines, text]) + "\n")
    with pytest.raises(InputError, match=re.sub(r"line \d", r"line \\d+", message)):
        parse("fit", [str(tmp_path / "odd.yaml")], [], [], tmp_path / "run", Unmade)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(value: str, config: str, tmp_path: Path) -> None:
    odd = CONFIG.replace("n_heads: 2}", f"n_heads: 2, dropout: {value}}}")
    (tmp_path / "odd.yaml").write_text(odd)
    with pytest.raises(InputError, match=r"odd.yaml line 6: model.*dropout must be a finite number, got -?(nan|inf)"):
        parse("fit", [str(tmp_path / "odd.yaml")], [], [], tmp_path / "run", Unmade)
    with pytest.raises(InputError, match=r"--trainer\.gradient_clip_val"):
        parse("fit", [config], [f"--trainer.gradient_clip_val={value}"], [], tmp_path / "run", Unmade)


MIXTURE = """
model:
  class_path: Mixture
  init_args:
    tasks:
      some: {class_path: Classify, init_args: {tokenizers: {image: {class_path: ImagePatches}}}}
data:
  class_path: Mixed
  init_args:
    parts:
      some: {train: words.csv, validation: 0.1, batch_size: 2}
"""


def test_names_are_as_they_are_written_in_files_and_options_and_stay_so(config: str, tmp_path: Path) -> None:
    source = "{class_path: Pick, init_args: {source: {class_path: Digits}, values: [01, 2, NO], by: on}}"
    names = "classes: [01, 1_0, NO, '1e3', 2020-01-01]\n    target: off"
    plain = CONFIG.replace(", logger: {class_path: CSVLogger}", "")
    Path(config).write_text(plain.replace("Digits", source).replace("transformer:", f"{names}\n    transformer:"))
    made = parse("fit", [config], ["--trainer.max_steps=1_000"], [])
    classes = ["01", "1_0", "NO", "1e3", "2020-01-01"]
    assert made.model.classes == classes and made.model.target == "off" and made.options["max_steps"] == 1000
    train = made.datamodule.given["train"]
    assert train.values == ("01", "2", "NO") and train.by == "on"
    (tmp_path / "again.yaml").write_text(made.resolved)
    again = parse("fit", [str(tmp_path / "again.yaml")], [], [])
    assert again.model.classes == classes and again.datamodule.given["train"] == train
    options = ["--model.classes=[007,off]", "--data.stratify=01"]
    given = parse("fit", [config], options, [])
    assert given.model.classes == ["007", "off"] and given.datamodule.stratify == "01"


@pytest.mark.parametrize("name", ["true", "1.5", "1e3", "null"])
def test_what_is_no_text_must_be_quoted(config: str, name: str) -> None:
    message = r"model\.classes\.1 must be str or int, got \S+; write in quotes what is a text"
    with pytest.raises(InputError, match=rf"^--model\.classes: {message}"):
        parse("fit", [config], [f"--model.classes=[a,{name}]"], [], kind=Unmade)
    Path(config).write_text(CONFIG.replace("transformer:", f"classes: [a, {name}]\n    transformer:"))
    with pytest.raises(InputError, match=rf"config\.yaml line 6: {message}"):
        parse("fit", [config], [], [], kind=Unmade)


CANARY = "canary_in_a_config"


class Watch(importlib.abc.MetaPathFinder):
    """Sees every module that is looked for, and finds none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, *_: object) -> None:
        self.asked += [name] if CANARY in name else []


@pytest.mark.parametrize("text", [f"{CANARY}.csv", f"{CANARY}.Evil"])
@pytest.mark.parametrize(
    "path",
    [
        "data.train",
        "data.validation",
        "data.test",
        "data.unlabelled",
        "data.stratify",
        "trainer.accelerator",
        "trainer.callbacks",
        "trainer.logger",
        "trainer.plugins",
        "trainer.profiler",
        "trainer.strategy",
        "model.init_args.tokenizers.image",
        "model.init_args.transformer",
    ],
)
def test_no_text_of_a_config_is_imported(
    path: str, text: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{CANARY}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    watch = Watch()
    monkeypatch.setattr(sys, "meta_path", [watch, *sys.meta_path])
    content = yaml.safe_load(CONFIG)
    *above, last = path.split(".")
    inner = content
    for key in above:
        inner = inner[key]
    inner[last] = text
    Path(config).write_text(yaml.safe_dump(content))
    with contextlib.suppress(InputError):
        assert yaml.safe_load(parse("fit", [config], [], [], tmp_path / "run", Unmade).resolved)[above[0]]
    assert watch.asked == []


def test_a_text_that_names_a_module_is_kept_as_it_is(config: str) -> None:
    # Nor is one of Python's own: each of these is a path of a table, though there is a module `this` with a value `s`.
    for text in ("this.s", "antigravity.csv", "os.path"):
        made = parse("fit", [config], [f"--data.train={text}"], [], RUN, Unmade)
        assert yaml.safe_load(made.resolved)["data"]["train"] == text
    assert not {"this", "antigravity"} & sys.modules.keys()


@pytest.mark.parametrize("value", ["!!float x", "!!timestamp foo", "!!bool maybe", "9" * 5000])
def test_a_value_that_is_not_what_its_tag_says_is_one_line(config: str, value: str) -> None:
    Path(config).write_text(CONFIG + f"seed_everything: {value}\n")
    with pytest.raises(
        InputError, match=r"config\.yaml is not YAML: a value is not what its tag or form says"
    ) as caught:
        parse("fit", [config], [], [], kind=Unmade)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["depth: 1", "n_heads: 2", "d_model: 8"])
def test_null_where_a_number_is_needed_is_named(config: str, name: str) -> None:
    key = name.partition(":")[0]
    Path(config).write_text(CONFIG.replace(name, f"{key}: null"))
    with pytest.raises(InputError, match=rf"config\.yaml line 6: model\..*transformer\.{key} must be int, got null"):
        parse("fit", [config], [], [], kind=Unmade)
