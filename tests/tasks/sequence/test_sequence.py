"""Sequence to sequence as a task: runs that validate by decoding, their metrics, what is kept, and the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from lightning import seed_everything

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.metrics.text import count_errors, error_rates
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.planning.parameters import measure, token_counts
from anyformer.runs.fit import evaluate, fit
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.sequence.transcripts import TranscriptConfig
from anyformer.tokenizers.text.text import Text
from tests.helpers.turned import RATE, SMALL, Turned, audio, recogniser, sound, translator
from tests.helpers.witnesses import redraw

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
MAKES = {
    "translator": lambda: translator(shared_vocabulary=True, label_smoothing=0.1),
    "translator by a decoder alone": lambda: translator("decoder"),
    "recogniser": lambda: recogniser(ctc=CTCConfig(weight=0.4), decoding=DecodeConfig("joint", n_beams=2)),
    "recogniser by a decoder alone": lambda: recogniser("decoder", ctc=CTCConfig("audio")),
    "recogniser by an encoder alone": lambda: recogniser("encoder"),
}


def built(task: SequenceToSequence) -> SequenceToSequence:
    task.fit_tokenizers(Turned())
    task.build()
    redraw(task)
    return task.eval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict, SequenceToSequence]]:
    """A run of two steps of each kind: folder, metrics, and the task that was trained."""
    home, found = tmp_path_factory.mktemp("runs"), {}
    for name, make in MAKES.items():
        seed_everything(0, verbose=False)
        task, folder = make(), home / name.replace(" ", "_")
        data = Records(Turned(24), Turned(9, 1), max_tokens=150, pack="decoder" not in name)
        found[name] = folder, fit(task, data, folder, max_epochs=1, limit_train_batches=2, **QUIET), task
    return found


@pytest.mark.parametrize("name", MAKES)
def test_a_run_of_two_steps_is_validated_by_decoding_and_comes_back(runs: dict, name: str) -> None:
    folder, metrics, task = runs[name]
    heard = {"wer", "cer", "exact_match"} if "recogniser" in name else {"bleu", "bleu_moses", "exact_match"}
    assert {key.removeprefix("val/") for key in metrics if key.startswith("val/")} == {"loss", *heard}
    chosen = "wer" if "recogniser" in name else "bleu"
    assert task.metric == (f"val/{chosen}", "min" if chosen == "wer" else "max")
    page = (folder / "worst.html").read_text()
    assert "reference" in page and "<h1>Worst cases of validation</h1>" in page
    again = load(folder)
    assert again.text.vocabulary == task.text.vocabulary == "abcd"
    records = [Turned(5, 3)[i] for i in range(5)]
    results = again.predict(records)
    assert results == task.predict(records)
    assert results == [again.predict([record])[0] for record in records]
    assert [list(result) for result in results] == [[task.target, "ended"]] * 5
    assert again.render(results[0]) == "".join(again.stream(records[0])) == again.row(results[0])[task.target]
    if "encoder" not in name:
        assert again.decoding.max_new_tokens == 2 * 6 + 2, "twice the longest of the training records, and their ends"


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder", "encoder"])
def test_figures_are_those_of_what_predict_says(architecture: str) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig(weight=0.3)))
    source = Turned(11, 4)
    metrics = evaluate(task, Records(Turned(), source, max_tokens=200), "validate", **QUIET)
    records = [source[i] for i in range(11)]
    texts = [result["text"] for result in task.predict(records)]
    rates = error_rates(count_errors([record["text"] for record in records], texts))
    for name in ("wer", "cer", "exact_match"):
        assert metrics[f"val/{name}"] == pytest.approx(rates[name], rel=1e-5)
    chopper = task.chopper(False)
    with torch.no_grad():
        losses, counts = zip(*(task.loss(chopper.collate([chopper(record)])) for record in records), strict=True)
    assert metrics["val/loss"] == pytest.approx((sum(losses) / sum(counts)).item(), rel=1e-4)


def test_the_loss_is_a_mixture_of_attention_and_ctc() -> None:
    task = built(recogniser(ctc=CTCConfig(weight=0.25), label_smoothing=0.1))
    chopper = task.chopper(True)
    batch = chopper.collate([chopper(Turned()[i]) for i in range(3)])
    reading = task.read(batch)
    hidden = task.model(batch.tokens, batch.inputs).flatten(0, 1)[batch.read]
    attention = torch.nn.functional.cross_entropy(task.head(hidden), batch.target, reduction="sum", label_smoothing=0.1)
    heard = task.ctc_head.loss(reading.frames, batch.n_frames, batch.ids, batch.n_ids)
    loss, n_targets = task.loss(batch)
    torch.testing.assert_close(loss, 0.75 * attention + 0.25 * heard)
    n = sum(len(Turned()[i]["text"]) for i in range(3))
    assert n_targets.item() == pytest.approx(0.75 * (n + 3) + 0.25 * n)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_a_decoder_alone_has_no_use_for_the_sizes_of_an_encoder() -> None:
    """So that one word of the YAML makes it another architecture."""
    assert built(translator("decoder", encoder=SMALL)).model.encoder is None


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_a_step_in_parts_of_which_one_lacks_a_field_is_one_step(architecture: str) -> None:
    fields = {"audio": audio(), "text": Text("characters"), "turned": Text("characters")}
    transformer = replace(SMALL, rotary=RotaryConfig(("time", "word")))
    task = SequenceToSequence(fields, transformer, target="turned", architecture=architecture, ctc=CTCConfig("audio"))
    task = built(task)
    heard, read = ([{**Turned()[i], lacking: None} for i in range(3)] for lacking in ("text", "audio"))
    chopper = task.chopper(True)

    def gradients(records: list[dict[str, Any]]) -> tuple[list[torch.Tensor], torch.Tensor]:
        task.zero_grad()
        loss, n_targets = task.loss(chopper.collate([chopper(record) for record in records]))
        loss.backward()
        assert all(p.grad is not None for p in task.parameters())
        return [p.grad.clone() for p in task.parameters()], n_targets

    (one, n_one), (other, n_other), (whole, n) = (gradients(part) for part in (heard, read, heard + read))
    torch.testing.assert_close([a + b for a, b in zip(one, other, strict=True)], whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(n_one + n_other, n)


@dataclass(frozen=True)
class Odd(Turned):
    """The second record has no text, the third more than its sound has frames for."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = super().__getitem__(i)
        return record | {"text": {1: None, 2: "abcd" * 20}.get(i, record["text"])}


@pytest.mark.parametrize("max_tokens", [None, 300])
def test_what_cannot_be_learned_from_stops_a_run_or_is_left_out_and_counted(
    max_tokens: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(folder: str, **options: Any) -> None:
        data = Records(Odd(8), max_tokens=max_tokens, **options)
        fit(recogniser("encoder"), data, tmp_path / folder, max_epochs=1, **QUIET)

    with pytest.raises(
        InputError, match=r"^turned row 1: field 'text' must hold the text to be learnt, but it is missing"
    ):
        run("fails")
    run("skips", on_bad_sample="skip")
    assert "epoch 0 of training left out 2 samples: turned row " in caplog.text
    assert "turned row 2: field 'text': the text needs 80 frames, and field 'audio' has" in caplog.text


def test_one_vocabulary_is_one_table(runs: dict, tmp_path: Path) -> None:
    task = runs["translator"][2]
    lifts = task.model.embeddings.lifts
    assert lifts["turned"].table is lifts["text"].table is task.head.weight
    tables = [name for name, value in task.state_dict().items() if value.shape == lifts["text"].table.shape]
    assert tables == ["model.embeddings.lifts.text.table"]
    with pytest.raises(InputError, match="shared_vocabulary: text, turned must have the same kind, size and file"):
        SequenceToSequence({"text": Text("bytes"), "turned": Text()}, target="turned", shared_vocabulary=True)


@pytest.mark.parametrize("name", ["recogniser", "translator by a decoder alone"])
def test_a_run_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    def run(folder: str, epochs: int, resume: bool = False) -> dict[str, torch.Tensor]:
        seed_everything(0, verbose=False)
        task = MAKES[name]()
        task.transformer = replace(task.transformer, dropout=0.1)
        task.optimizer = OptimizerConfig(lr=5e-3, schedule="constant", warmup=0, ema=0.5)
        data = Records(Turned(16), Turned(3, 1), max_tokens=200)
        fit(task, data, tmp_path / folder, resume=resume, max_epochs=epochs, **QUIET)
        return torch.load(sorted((tmp_path / folder / "checkpoints").glob("*.ckpt"))[-1])["state_dict"]

    straight = run("straight", 2)
    run("stopped", 1)
    resumed = run("stopped", 2, resume=True)
    assert all(torch.equal(value, resumed[key]) for key, value in straight.items())


def test_training_starts_from_a_run_with_a_part_of_it_frozen(runs: dict, tmp_path: Path) -> None:
    folder, _, before = runs["recogniser"]
    task = recogniser(ctc=CTCConfig(weight=0.4), init_from=str(folder), freeze=["model.encoder.*"])
    fit(task, Records(Turned(24), max_tokens=150), tmp_path / "run", max_steps=1, **QUIET)
    old, new = before.state_dict(), task.state_dict()
    frozen = [name for name in old if name.startswith("model.encoder.")]
    assert frozen and all(torch.equal(old[name], new[name]) for name in frozen)
    assert not torch.equal(old["ctc_head.output.weight"], new["ctc_head.output.weight"])
    # One step from there, and not from the beginning.
    assert (new["ctc_head.output.weight"] - old["ctc_head.output.weight"]).abs().max() < 0.011


def test_the_encoder_is_counted_on_the_inputs() -> None:
    task = translator()
    task.fit_tokenizers(Turned())
    with torch.device("meta"):
        task.build()
    few, many = (measure(task, token_counts(task, {"text": n, "turned": 4}), task.conditions) for n in (5, 10))
    flops = [{c.name: c.flops for c in sizes.components if c.part == "encoder"} for sizes in (few, many)]
    assert flops[1]["query"] == 2 * flops[0]["query"] == 2 * 2 * 5 * 16 * 16
    assert few.total == sum(parameter.numel() for parameter in task.parameters())
    task = recogniser(ctc=CTCConfig())
    task.fit_tokenizers(Turned())
    task.build()
    sizes = measure(task, token_counts(task, {"audio": 9, "text": 4}), task.conditions)
    (heard,) = [c.flops for c in sizes.components if (c.part, c.name) == ("ctc_head", "matrices")]
    assert heard == 2 * 9 * task.ctc_head.output.weight.numel(), "it reads every token of the sound"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "other"}, "target: 'other' must be a field of tokenizers that is a Text"),
        ({"tokenizers": {"turned": Text()}}, "tokenizers must name an input beside the target 'turned'"),
        ({"decoding": DecodeConfig("joint")}, "decoding.method: joint needs a model with ctc"),
        (
            {"architecture": "encoder", "decoding": DecodeConfig("attention")},
            "decoding.method: architecture encoder writes by ctc, got attention",
        ),
        ({"architecture": "encoder", "label_smoothing": 0.1}, "label_smoothing: architecture encoder has no decoder"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        ({"choose": "accuracy"}, "choose must be one of loss, wer, cer, exact_match, bleu, bleu_moses, got 'accuracy'"),
        ({"ctc": CTCConfig("sound")}, "ctc.field: 'sound' is no input; there are text"),
        (
            {"tokenizers": {"a": Text(), "b": Text(), "turned": Text()}, "architecture": "encoder"},
            "ctc.field must say which of a, b it reads",
        ),
    ],
)
def test_arguments_that_cannot_be_say_why(options: dict[str, Any], message: str) -> None:
    given = {"tokenizers": {"text": Text(), "turned": Text()}, "target": "turned"} | options
    with pytest.raises(InputError, match=message):
        SequenceToSequence(**given)
    with pytest.raises(InputError, match=r"ctc.weight must be above 0 and below 1, got 1.0; architecture: encoder"):
        CTCConfig(weight=1.0)


def test_each_stack_goes_by_the_axes_of_what_it_reads() -> None:
    # Neither stack names the other's axis, and no table of positions is asked for.
    task = built(recogniser())
    assert task.model.embeddings.placed == []
    with pytest.raises(InputError, match="learned positions on the axis 'time' need its size"):
        built(
            recogniser(
                encoder=TransformerConfig(16, depth=1, n_heads=2),
                audio=replace(task.tokenizers["audio"], max_seconds=None),
            )
        )


# The command line


CONFIG = """\
trainer: {max_steps: 2, accelerator: cpu, enable_progress_bar: false}
model:
  class_path: SequenceToSequence
  init_args:
    tokenizers:
      text: {class_path: Text, init_args: {kind: characters}}
      turned: {class_path: Text, init_args: {kind: characters}}
    target: turned
    transformer: {d_model: 16, depth: 1, n_heads: 2, rotary: {axes: [word]}}
    decoding: {n_beams: 2, max_new_tokens: 5}
data: {train: table.csv, validation: 0.2, max_tokens: 100}
"""


def test_a_config_trains_a_translator_that_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{Turned()[i]['text']},{Turned()[i]['turned']}" for i in range(30)]
    Path("table.csv").write_text("\n".join(["text,turned", *rows]))
    Path("small.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "small.yaml"]) == 0
    assert "anyformer predict runs/small text=..." in capsys.readouterr().out
    task = load("runs/small")
    assert task.decoding == DecodeConfig(n_beams=2, max_new_tokens=5)
    assert yaml.safe_load(Path("runs/small/config.yaml").read_text())["model"]["init_args"]["ctc"] is None
    (wanted,) = task.predict([{"text": "abc"}])
    assert main(["predict", "runs/small", "text=abc"]) == 0
    assert capsys.readouterr().out == wanted["turned"] + "\n"
    assert main(["predict", "runs/small", "text=abc", "--json", "--n_beams", "1", "--max_new_tokens", "3"]) == 0
    greedy = task.predict([{"text": "abc"}], DecodeConfig(max_new_tokens=3))
    assert json.loads(capsys.readouterr().out) == greedy[0]
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\n\nda\n"))
    assert main(["predict", "runs/small", "text=-"]) == 0
    lines = [result["turned"] for result in task.predict([{"text": text} for text in ("abc", "", "da")])]
    assert capsys.readouterr().out.splitlines() == lines and lines[1] == ""
    assert main(["predict", "runs/small", "turned=abc"]) == 2
    assert "has no field 'turned'; there are text" in capsys.readouterr().err
    assert main(["predict", "runs/small", "text=a", "--method", "ctc"]) == 2
    assert "method: ctc needs a model that was trained with ctc" in capsys.readouterr().err
    assert main(["params", "runs/small", "--tokens", "text=4", "--tokens", "turned=4"]) == 0
    assert main(["validate", "runs/small", "--model.decoding.n_beams", "1"]) == 0
    capsys.readouterr()
    assert main(["validate", "runs/small", "--model.label_smoothing=0.2"]) == 2
    assert "--model.label_smoothing: a trained model's options can't be changed" in capsys.readouterr().err
    task.use_as(replace_decoding(task, DecodeConfig(n_beams=3)))
    assert task.decoding == DecodeConfig(n_beams=3, max_new_tokens=5), "what was learnt stays where nothing is told"


def replace_decoding(task: SequenceToSequence, decoding: DecodeConfig) -> SequenceToSequence:
    return SequenceToSequence(dict(task.tokenizers), task.transformer, target=task.target, decoding=decoding)


def test_recordings_are_run_one_many_long_and_from_standard_input(
    runs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, task = runs["recogniser"]
    (tmp_path / "in").mkdir()
    for name, letters in (("one", "ab"), ("two", "dcba"), ("long", "abcdabcdabcdabcdabcdabcd")):
        soundfile.write(tmp_path / "in" / f"{name}.wav", sound(letters), RATE)
    one = str(tmp_path / "in" / "one.wav")
    (wanted,) = task.predict([{"audio": one}])
    assert main(["predict", str(folder), f"audio={one}"]) == 0
    assert capsys.readouterr().out == wanted["text"] + "\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(one).read_bytes())))
    assert main(["predict", str(folder), "audio=-"]) == 0
    assert capsys.readouterr().out == wanted["text"] + "\n"
    assert main(["predict", str(folder), f"audio={tmp_path / 'in'}", "--format", "srt"]) == 2
    assert "give --output FOLDER" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["predict", str(folder), f"audio={tmp_path / 'in'}", "--format", "vtt", "--output", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["long.vtt", "one.vtt", "two.vtt"]
    assert all(path.read_text().startswith("WEBVTT") for path in out.iterdir())
    command = ["predict", str(folder), f"audio={tmp_path / 'in'}", "--format", "srt", "--output"]
    (tmp_path / "in" / "later").mkdir()
    soundfile.write(tmp_path / "in" / "later" / "one.wav", sound("dc"), RATE)
    assert main([*command, str(tmp_path / "each")]) == 0
    assert (tmp_path / "each" / "one.srt").exists() and (tmp_path / "each" / "later" / "one.srt").exists()
    soundfile.write(tmp_path / "in" / "one.flac", sound("dc"), RATE)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "none")]) == 2
    assert re.search(r"one.flac and .*one.wav would both be written to .*one.srt", capsys.readouterr().err)
    (tmp_path / "in" / "one.flac").unlink()
    (tmp_path / "there.srt").write_text("")
    assert main([*command, str(tmp_path / "there.srt")]) == 2
    assert "of many records it is a folder, and there is a file of that name" in capsys.readouterr().err
    absent = str(tmp_path / "no" / "x.srt")
    assert main(["predict", str(folder), f"audio={one}", "--format", "srt", "--output", absent]) == 2
    assert "there is no folder" in capsys.readouterr().err
    table = str(tmp_path / "t.csv")
    assert main(["predict", str(folder), f"audio={tmp_path / 'in'}", "--timestamps", "--output", table]) == 0
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and all({"text", "start", "end"} <= word.keys() for word in json.loads(rows[0]["words"]))
    # 3.6 seconds for a tokenizer that takes 3.
    long = {"audio": str(tmp_path / "in" / "long.wav")}
    (told,) = task.predict([long], TranscriptConfig(timestamps=True, method="ctc"))
    words = told["words"]
    assert "".join(word["text"] for word in words) == told["text"].replace(" ", "")
    assert all(0 <= word["start"] < word["end"] <= 3.7 for word in words)
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    assert "".join(task.stream(long, TranscriptConfig(method="ctc"))) == told["text"]
    shown = "".join(task.stream(long, TranscriptConfig(timestamps=True, method="ctc")))
    assert shown == task.render(told) and len(shown.splitlines()) == len(words)
    with pytest.raises(InputError, match="timestamps: this model was trained without ctc and is no Whisper"):
        built(recogniser()).predict([long], TranscriptConfig(timestamps=True))
