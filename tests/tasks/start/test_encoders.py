"""`Pretrained` fields: whole encoders of runs and of other libraries in one trunk, trained, saved and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.lora import LoraConfig, adapters, is_adapter
from anyformer.optim.optimizer import OptimizerConfig, Unfreezing, rate_factors
from anyformer.packing import collate
from anyformer.planning.dry_run import plan
from anyformer.planning.parameters import measure, token_counts
from anyformer.runs.averaging.merge import merge
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.starting.warm_start import freeze, take_encoders
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.start.encoders import open_encoders
from anyformer.tasks.start.opening import open_model
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.masked import Masked
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.pretrained import Pretrained
from anyformer.tokenizers.text.text import Text
from tests.helpers.in_processes import train_on
from tests.helpers.small_cli import refused
from tests.helpers.small_run import in_a_fork, small_fit
from tests.helpers.stopped_runs import Signal, assert_same_run
from tests.helpers.witnesses import redraw
from tests.tasks.base.test_training import batches

pytest.importorskip("transformers")
from transformers import AutoTokenizer, BertModel

from tests.helpers.transformers_folders import bert, gpt2, padded, t5

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))
MINILM = next(DATA.absolute().parent.glob("*/minilm_l6"), None)
TEXTS = ["to be or not to be", "whether", "tis nobler in the mind, or not"]
SIZES = TransformerConfig(d_model=16, depth=1, n_heads=2, dropout=0.1)
CLASSES = [*"0123456789"]
LIFT = "model.embeddings.lifts"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Without pictures, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.runs.checkpointing.draw_first_samples", lambda *args, **options: None)
        patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
        yield


def drawn(task: Any) -> Any:
    task.build()
    redraw(task)
    return task.eval()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bert`, a folder of transformers 12 wide, and runs of ours: `digits` of pictures, 24 wide, and `both` of two
    fields with positions of their own."""
    folder = tmp_path_factory.mktemp("sources")
    bert(folder / "bert")
    image, text = ImagePatches(size=(8, 8), patch=4, channels=1), Text("bytes", max_len=40)
    digits = Classify({"image": image}, replace(SIZES, d_model=24, n_heads=3), classes=["a", "b"], place_class=True)
    save(drawn(digits), folder / "digits" / "model")
    fields = FieldsConfig(sees={"text": ["text"]})
    both = Predict({"image": image, "text": text}, {"label": Category(["a", "b"])}, SIZES, read="mean", fields=fields)
    save(drawn(both), folder / "both" / "model")
    links = [{"column": "e", "from": "text", "to": "image"}]
    both = Predict(both.tokenizers, both.targets, SIZES, read="mean", fields=FieldsConfig(links=links))
    save(drawn(both), folder / "linked" / "model")
    return folder


def joined(sources: Path, kind: type[Classify] = Classify, **options: Any) -> Classify:
    tokenizers = {"image": Pretrained(str(sources / "digits")), "text": Pretrained(str(sources / "bert"))}
    return kind(**({"tokenizers": tokenizers, "transformer": SIZES} | options))


def made(task: Classify) -> Classify:
    """Opened, and with all weights."""
    open_encoders(task)
    task.classes = CLASSES
    task.configure_model()
    take_encoders(task, ())
    return task.eval()


class Named(Digits):
    """Some digits, every second with a text."""

    def __len__(self) -> int:
        return 160

    def __getitem__(self, i: int) -> dict[str, Any]:
        return super().__getitem__(i) | ({"text": TEXTS[i % 3]} if i % 2 else {})


def data() -> Records:
    return Records(Named(), 0.1, batch_size=36)


SHORT = {"max_epochs": 1}


def encoded(task: Classify, field: str, values: list[Any]) -> list[Tensor]:
    """The vectors of records in one batch before the linear map, of each record its own."""
    sets = [task.tokenizers[field].encode(value) for value in values]
    batch = collate([{field: tokens} for tokens in sets], task.model.tokenizers)
    with torch.no_grad():
        return list(task.model.embeddings.lifts[field].encoded(batch.fields[field].inside).split(list(map(len, sets))))


# What is read


def test_the_vectors_are_those_of_transformers_padded_or_not(tmp_path: Path) -> None:
    theirs = bert(tmp_path / "bert").bert
    task = made(Classify({"text": Pretrained(str(tmp_path / "bert"))}, SIZES))
    ids = [task.tokenizers["text"].encode(text).inside["text"].content.tolist() for text in TEXTS]
    with torch.no_grad():
        expected = theirs(**padded(ids)).last_hidden_state
    for own, other, n in zip(encoded(task, "text", TEXTS), expected, map(len, ids), strict=True):
        torch.testing.assert_close(own, other[:n], rtol=0, atol=1e-5)


@pytest.mark.skipif(MINILM is None, reason="needs minilm_l6 beside ANYFORMER_DATA")
def test_a_published_sentence_encoder_gives_the_vectors_of_transformers() -> None:
    task = made(Classify({"text": Pretrained(str(MINILM))}, SIZES))
    theirs = BertModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    batch = AutoTokenizer.from_pretrained(MINILM)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**batch).last_hidden_state
    for own, other in zip(encoded(task, "text", TEXTS), expected, strict=True):
        torch.testing.assert_close(own, other[: len(own)], rtol=0, atol=1e-5)
    assert list(map(len, encoded(task, "text", TEXTS))) == batch["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize(
    ("name", "field"), [("digits", None), ("both", "text"), ("both", "image"), ("t5", None), ("gpt2", None)]
)
def test_the_vectors_are_those_of_the_source(sources: Path, tmp_path: Path, name: str, field: str | None) -> None:
    if name in ("t5", "gpt2"):
        {"t5": t5, "gpt2": gpt2}[name](tmp_path / name)
    source = str((tmp_path if name in ("t5", "gpt2") else sources) / name)
    task, theirs = made(Classify({"x": Pretrained(source, field)}, SIZES)), open_model(source)
    field = field or theirs.inputs[0]
    values = [Digits()[i]["image"] for i in range(3)] if field == "image" else TEXTS
    expected = theirs.embed([{field: value} for value in values], pool="tokens")
    for own, other in zip(encoded(task, "x", values), expected, strict=True):
        torch.testing.assert_close(own, torch.from_numpy(other[field]), rtol=0, atol=1e-5)


def test_records_packed_padded_and_alone_are_told_apart_alike(sources: Path) -> None:
    task = made(joined(sources))
    records = [{"image": Digits()[i]["image"], "text": TEXTS[i]} for i in range(3)]
    records += [{"image": Digits()[3]["image"]}, {"text": TEXTS[0]}, {"text": ""}]
    alone = [task.predict([record])[0]["probabilities"] for record in records]
    together = [each["probabilities"] for each in task.predict(records)]
    chopper = task.chopper(training=False)
    samples = [chopper(record, labelled=False).sample for record in records]
    packed = collate(samples, task.model.tokenizers, rows=[0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        logits = task(packed).softmax(1)
    for one, other, row in zip(alone, together, logits.tolist(), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert one == pytest.approx(dict(zip(CLASSES, row, strict=True)), abs=1e-5)


# A run


def test_a_killed_run_goes_on_exactly_and_predicts_without_its_sources(
    sources: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moved, whole, run = tmp_path / "sources", tmp_path / "whole", tmp_path / "run"
    shutil.copytree(sources, moved)
    options = {"optimizer": OptimizerConfig(ema=0.9), "freeze": [f"{LIFT}.text.encoder.*"]}
    small_fit(whole, task=joined(moved, **options), data=data(), **SHORT)
    said = capfd.readouterr().err
    assert f"weights of image from {moved / 'digits'}: 25 tensors taken, " in said
    assert f"weights of text from {moved / 'bert'}: 37 tensors taken, " in said
    stop = Signal(signal.SIGKILL, 3)
    work = lambda: small_fit(run, task=joined(moved, **options), data=data(), **SHORT, callbacks=[stop])  # noqa: E731
    assert in_a_fork(work) == -signal.SIGKILL
    shutil.rmtree(moved)
    small_fit(run, task=joined(moved, **options), data=data(), **SHORT, resume=True)
    assert_same_run(run, whole)

    task, before = load(run), open_model(sources / "bert").state_dict()
    after = task.state_dict()
    frozen = {name: value for name, value in after.items() if name.startswith(f"{LIFT}.text.encoder.")}
    assert len(frozen) == 37
    for name, value in frozen.items():
        assert torch.equal(value, before[name.replace(f"{LIFT}.text.encoder.", "model.")]), name
    image = open_model(sources / "digits").state_dict()["model.embeddings.lifts.image.linear.weight"]
    assert not torch.equal(after[f"{LIFT}.image.encoder.embeddings.lifts.image.linear.weight"], image)
    record = {"image": Digits()[0]["image"], "text": TEXTS[0]}
    assert set(task.predict(record)["probabilities"]) == set(CLASSES)
    assert task.embed(record, field="text").shape == (16,)

    # It starts another, of which it is the source of all.
    capfd.readouterr()
    more = joined(moved, init_from=str(run))
    small_fit(tmp_path / "more", task=more, data=data(), max_epochs=1, limit_train_batches=1)
    assert "weights of" not in capfd.readouterr().err
    assert more.tokenizers == task.tokenizers


class Kept(Classify):
    """Writes the gradients of its step into a folder."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        gradients = {name: p.grad for name, p in self.named_parameters()}
        torch.save(gradients, self.folder / f"{self.trainer.world_size}_{self.trainer.global_rank}.pt")


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_processes_of_which_each_lacks_a_field_step_as_one(sources: Path, tmp_path: Path) -> None:
    given = [{"image": Digits()[i]["image"], "label": "0"} for i in range(2)] + [{"text": TEXTS[0], "label": "1"}] * 2
    task = made(joined(sources, kind=Kept))
    task.folder = tmp_path
    before = {name: value.clone() for name, value in task.state_dict().items()}
    # In evaluation mode, where nothing is dropped; two, and then one.
    train_on(task, batches(task, given[:2], [2]), batches(task, given[2:], [2]))
    task.load_state_dict(before)
    train_on(task, batches(task, given, [4]))
    whole, *each = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    assert whole[f"{LIFT}.text.encoder.embeddings.lifts.text.table"].any()
    for one in each:
        torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-6)


# Which of it learns


def test_weights_are_named_frozen_and_slowed_by_patterns(sources: Path) -> None:
    optimizer = OptimizerConfig(lr=0.01, lr_mults={f"{LIFT}.image.encoder.*": 0.1})
    task = made(joined(sources, optimizer=optimizer))
    freeze(task, [f"{LIFT}.text.encoder.transformer.blocks.[0-0].*"])
    frozen = {name for name, p in task.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(f"{LIFT}.text.encoder.transformer.blocks.0.") for name in frozen)
    factors = rate_factors(task, task.distances(), task.optimizer)
    slow = {name for name, p in task.named_parameters() if factors[p] == 0.1}
    assert slow == {name for name, _ in task.named_parameters() if name.startswith(f"{LIFT}.image.encoder.")}
    assert {factors[p] for p in task.parameters()} == {0.1, 1.0}


def test_layers_of_an_encoder_join_from_its_end_where_the_trunk_is_new(sources: Path) -> None:
    task = made(joined(sources, optimizer=OptimizerConfig(layer_decay=0.5, unfreeze=Unfreezing())))
    text = task.model.embeddings.lifts["text"]
    blocks, table = text.encoder.transformer.blocks, text.encoder.embeddings.lifts["text"].table
    of = [task.model.transformer.blocks[0].mlp.up.weight, text.linear.weight, blocks[1].mlp.up.weight]
    of += [blocks[0].mlp.up.weight, table]
    # All are old, as in a model that starts from a run of these fields: 1 block of the trunk, then 2.
    assert [task.distances()[each] for each in of] == [1, 2, 3, 4, 5]
    task.fresh = tuple(name for name, _ in task.named_parameters() if ".encoder." not in name)
    assert [task.distances()[each] for each in of] == [0, 0, 1, 2, 3]


def test_adapters_on_an_encoder_leave_its_weights_and_are_saved_with_them(
    sources: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lora = LoraConfig(rank=2, on=[f"{LIFT}.text.encoder.*.q", f"{LIFT}.text.encoder.*.v"])
    before = open_model(sources / "bert").state_dict()
    small_fit(tmp_path / "run", task=joined(sources, lora=lora), data=data(), **SHORT)
    assert "adapters of rank 2 on 4 linear maps: " in capfd.readouterr().err
    task = load(tmp_path / "run")
    assert task.base is None and len(adapters(task)) == 4
    assert all(layer.lora_b.any() for layer in adapters(task).values())
    for name, value in task.state_dict().items():
        if name.startswith(f"{LIFT}.text.encoder.") and not is_adapter(name):
            assert torch.equal(value, before[name.replace(f"{LIFT}.text.encoder.", "model.")]), name
    merge(tmp_path / "run", tmp_path / "merged")
    record = {"text": TEXTS[0]}
    one, other = (load(tmp_path / name).predict(record)["probabilities"] for name in ("run", "merged"))
    assert one == pytest.approx(other, abs=1e-5)
    with pytest.raises(InputError, match=r"lora\.on: model\.transformer\.blocks\.0\.attention\.q is new, and there is"):
        small_fit(tmp_path / "no", task=joined(sources, lora=LoraConfig(rank=2, on=["*.q"])), data=data(), **SHORT)


# What it comes to


def test_its_parts_are_counted_and_a_plan_says_what_it_is(sources: Path) -> None:
    task = joined(sources)
    open_encoders(task)
    task.classes = CLASSES
    with torch.device("meta"):
        task.build()
    sizes = measure(task, token_counts(task))
    assert sizes.total == sum(p.numel() for p in task.parameters())
    of_text = [each for each in sizes.components if each.part == "text, pretrained"]
    lift = task.model.embeddings.lifts["text"]
    assert sum(each.parameters for each in of_text) == sum(p.numel() for p in lift.encoder.parameters())
    assert next(each for each in of_text if each.name == "query").n_blocks == 2
    assert sum(each.flops for each in of_text) > 0
    # Two fields of one encoder, which is counted once.
    twice = dict.fromkeys(("image", "again"), task.tokenizers["image"])
    shared = Classify(twice, SIZES, classes=CLASSES, fields=FieldsConfig(share={"again": "image"}))
    shared.build()
    assert measure(shared, token_counts(shared)).total == sum(p.numel() for p in shared.parameters())
    planned = str(plan(joined(sources), data(), max_epochs=1))
    assert f"Pretrained, the ImagePatches of {sources / 'digits'}, 1 block, 24 wide, 3 heads, on row 2 x column 2" in (
        " ".join(planned.split())
    )


# What cannot be


def saved(task: Any, folder: Path) -> str:
    save(drawn(task), folder / "model")
    return str(folder)


def write_causal(folder: Path) -> str:
    return saved(LanguageModel({"text": Text("bytes")}, SIZES, context=8, samples="documents"), folder / "writes")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gone", {}, r"model\.tokenizers\.x\.source: .*gone"),
        ("both", {}, r"both reads the fields image, text; say by `field` which one it is"),
        ("both", {"field": "txt"}, r"both reads no field 'txt'; there are image, text; did you mean 'text'\?"),
        ("linked", {"field": "text"}, r"linked has links between tokens \(fields\.links\), which records of another"),
        ("both", {"field": "text", "pool": "class"}, r"has no class token; take mean, last or tokens"),
        (
            "digits",
            {"options": {"patch": 2}},
            r"options: with them embeddings\.lifts\.image\.linear\.weight is",
        ),
        ("digits", {"options": {"pach": 2}}, r"options: .*pach"),
        (write_causal, {}, r"is a causal language model of documents, which only goes on from the start"),
        ("https://x.y/z", {}, r"nothing is loaded from the network"),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_source_that_cannot_be_had_is_refused(
    sources: Path, tmp_path: Path, name: Any, options: dict[str, Any], said: str
) -> None:
    source = name(tmp_path) if callable(name) else name if "://" in name else str(sources / name)
    with pytest.raises(InputError, match=said) as refusal:
        open_encoders(Classify({"x": Pretrained(source, **options)}, SIZES))
    assert "\n" not in str(refusal.value)


def test_what_a_field_cannot_be_part_of_is_refused(sources: Path, tmp_path: Path) -> None:
    pretrained = Pretrained(str(sources / "digits"))
    with pytest.raises(InputError, match=r"tokenizers\.x: a Pretrained cannot be one of the cuts"):
        open_encoders(Classify({"x": Facets({"a": pretrained})}, SIZES))
    with pytest.raises(InputError, match=r"targets\.x: a Pretrained field is read by an encoder of its own"):
        Predict({"x": pretrained}, {"x": Masked(0.5)}, SIZES)
    task = made(Classify({"image": pretrained}, SIZES))
    with pytest.raises(InputError, match="field 'image'"):
        task.predict([{"image": 3}])
    # Made again from its values alone, it has no weights to begin with.
    again = Classify(task.tokenizers, SIZES, classes=CLASSES)
    again.build()
    with pytest.raises(InputError, match=r"tokenizers\.image: the weights of .* are not at hand"):
        take_encoders(again, ())


def test_options_change_how_records_are_cut(sources: Path) -> None:
    source = str(sources / "both")
    cut = made(Classify({"x": Pretrained(source, "text", options={"truncate": True})}, SIZES))
    assert cut.tokenizers["x"].count("a" * 60) == 40
    with pytest.raises(InputError, match="more than max_len=40"):
        made(Classify({"x": Pretrained(source, "text")}, SIZES)).tokenizers["x"].encode("a" * 60)


CONFIG = """\
model:
  class_path: Classify
  init_args:
    tokenizers:
      image: {class_path: Pretrained, init_args: {source: SOURCES/digits}}
      text:
        class_path: Pretrained
        init_args: {source: SOURCES/bert, pool: mean}
    transformer: {d_model: 16, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, batch_size: 500}
"""


def test_a_config_names_sources_and_an_error_says_its_line(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("joined.yaml").write_text(CONFIG.replace("SOURCES", str(sources)))
    assert main(["params", "joined.yaml", "--classes", "10"]) == 0
    shown = capsys.readouterr().out
    assert "image, pretrained" in shown and "text, pretrained, 2 blocks" in shown
    Path("wrong.yaml").write_text(CONFIG.replace("SOURCES/bert", "nowhere").replace("SOURCES", str(sources)))
    said = refused(capsys, "fit", "--config", "wrong.yaml", "--run_dir", "run")
    assert said.startswith("wrong.yaml line 8: model.tokenizers.text.source: ") and "nowhere" in said
    assert not Path("run").exists()
