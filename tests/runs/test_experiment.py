"""Config files and options become a task, its data and a trainer's options, or an error that says where."""

from __future__ import annotations

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


def test_an_error_says_which_line_gave_it_unless_an_option_did(config: str) -> None:
    wrong = Path(config).with_name("wrong.yaml")
    wrong.write_text(CONFIG.replace("depth: 1", "dpeth: 1"))
    with pytest.raises(InputError, match=r"wrong\.yaml line 6: .*dpeth.*did you mean"):
        parse("fit", [str(wrong)], [], [])
    with pytest.raises(InputError, match=r"^there is no option --xyz; see anyformer fit --help$"):
        parse("fit", [config], ["--xyz=1"], [])
    given = {"model.init_args.transformer.depth": "a.yaml line 6"}
    assert locate("model.transformer.depth is odd", given, []) == "a.yaml line 6: model.transformer.depth is odd"
    assert locate("model.transformer.depth is odd", given, ["--model.transformer.depth=3"]).startswith("model")


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
