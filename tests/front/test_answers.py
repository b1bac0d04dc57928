"""What the command line answers without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.front.answers import answer
from anyformer.front.parsers import PARSERS
from anyformer.saving.usage import USAGE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which there is only what its model takes."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    options = {"name": "DecodeConfig", "values": {"n_beams": 4}}
    usage = {"inputs": {"audio": {"endings": [".wav"]}}, "options": options}
    (tmp_path / "run" / "model" / USAGE).write_text(json.dumps(usage))
    return tmp_path / "run"


def test_help_is_of_a_class_a_block_a_key_or_a_command() -> None:
    assert "patch: int, default 4" in answer("help", ["ImagePatches"])
    assert answer("help", ["optimizer"]).startswith("OptimizerConfig")
    assert "In Category, Tags:" in answer("help", ["label_smoothing"])
    assert answer("help", ["fit"]) == answer("fit", ["--help"])
    assert answer("help", ["export"]) == answer("export", ["-h"])
    with pytest.raises(InputError, match=r"^there is no 'ImagePatchs'; did you mean 'ImagePatches'\?$"):
        answer("help", ["ImagePatchs"])


def test_help_of_a_class_stands_behind_the_key_that_chooses_it_too() -> None:
    page = answer("help", ["ImagePatches"])
    assert answer("fit", ["--model.help", "ImagePatches"]) == page
    assert answer("fit", ["--model.tokenizers.image.help=ImagePatches"]) == page
    assert answer("fit", ["--data.train.help", "Table"]).startswith("Table, a source")
    assert "Classify" in answer("fit", ["--model.help"])


def test_lists_name_what_there_is() -> None:
    assert "ImagePatches  Cuts a picture" in answer("list", ["tokenizers"])
    assert "digits.yaml" in answer("list", ["configs"])
    # Those that cannot work are not offered.
    callbacks = answer("list", ["callbacks"])
    assert "EarlyStopping" in callbacks
    assert "LearningRateFinder" not in callbacks
    with pytest.raises(InputError, match=r"^'tokenisers' cannot be listed; did you mean 'tokenizers'\?$"):
        answer("list", ["tokenisers"])


def test_the_schema_is_json() -> None:
    assert set(json.loads(answer("schema", []))["properties"]) >= {"model", "data", "trainer"}


def test_help_of_predict_has_what_the_model_of_a_run_takes(run: Path) -> None:
    shown = answer("predict", [str(run), "--help"])
    assert "audio: the record" in shown
    assert "--n_beams N_BEAMS" in shown and "--method {attention,ctc,joint}" in shown
    assert "audio" not in answer("predict", ["--help"])


def test_what_predict_is_given_is_held_against_what_the_model_takes(run: Path) -> None:
    (run / "a.wav").touch()
    assert answer("predict", [str(run), f"audio={run / 'a.wav'}", "--n_beams", "2"]) is None
    with pytest.raises(InputError, match=r"^there is no option --n_beam; did you mean 'n_beams'\?$"):
        answer("predict", [str(run), f"audio={run / 'a.wav'}", "--n_beam", "2"])
    with pytest.raises(InputError, match=r"has no field 'sound'; there are audio$"):
        answer("predict", [str(run), "sound=a.wav"])
    with pytest.raises(InputError, match=r"^field 'audio': .*b.wav: no such file; .*did you mean '.*/a.wav'\?$"):
        answer("predict", [str(run), f"audio={run / 'b.wav'}"])
    with pytest.raises(InputError, match=r"invalid int value: 'many'"):
        answer("predict", [str(run), f"audio={run / 'a.wav'}", "--n_beams", "many"])


MISTAKES = {
    "fti": "there is no command 'fti'; did you mean 'fit'?",
    "fit --config configs/digts.yaml": "there is no config configs/digts.yaml; did you mean 'configs/digits.yaml'?",
    "fit --config configs/digits.yaml --trainer.max_epocs 3": "there is no option --trainer.max_epocs; "
    "did you mean 'trainer.max_epochs'?",
    "fit --config configs/digits.yaml --model.tokenizers.image.init_args.pach=2": "there is no option "
    "--model.tokenizers.image.init_args.pach; did you mean 'model.tokenizers.image.init_args.patch'?",
    "fit --config configs/digits.yaml --trainer.callbacks LearningRateFinder": "trainer.callbacks: LearningRateFinder "
    "takes steps of its own before the run; give model.optimizer.lr",
    "fit configs/digits.yaml": "'configs/digits.yaml' stands alone: a config is given by --config FILE, and a value by "
    "--KEY=VALUE",
    "plan configs/digts.yaml": "there is no config configs/digts.yaml; did you mean 'configs/digits.yaml'?",
    "test configz": "there is no run folder configz; a run is a local folder that fit has written; did you mean "
    "'configs'?",
    "export none out": "there is no run folder none; a run is a local folder that fit has written",
    "average none other --output out": "there is no run folder none; a run is a local folder that fit has written",
    "help Imagepatchs": "there is no 'Imagepatchs'; did you mean 'ImagePatches'?",
    "list task": "'task' cannot be listed; did you mean 'tasks'?",
    "import onlyone": "the following arguments are required: RUN; see anyformer import --help",
}
ASKED = (
    "help ImagePatches",
    "help optimizer",
    "list sources",
    "list configs",
    "schema",
    "fit --help",
    "predict RUN --help",
)
LIGHT = """\
import sys
from anyformer.__main__ import main
for line in sys.stdin.read().splitlines():
    print("$", line, main(line.split()), flush=True)
    print("$", line, file=sys.stderr, flush=True)
heavy = {"torch", "lightning", "numpy", "jsonargparse"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_help_and_mistakes_import_nothing_heavy(run: Path) -> None:
    asked = [line.replace("RUN", str(run)) for line in ASKED]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], input="\n".join([*asked, *MISTAKES]), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    codes = [line.rsplit(" ", 1) for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert codes == [[f"$ {line}", "0"] for line in asked] + [[f"$ {line}", "2"] for line in MISTAKES]
    told = [line for line in done.stderr.splitlines() if not line.startswith("$ ")]
    assert told == [f"anyformer: {message}" for message in MISTAKES.values()]


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (*PARSERS, "list", "schema"):
        assert main([command, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: anyformer {command}")
    assert main(["help"]) == 0
    assert capsys.readouterr().out.startswith("usage: anyformer COMMAND")
