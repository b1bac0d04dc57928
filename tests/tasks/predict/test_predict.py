import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything

import anyformer
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import HeadConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import fit
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.starting.warm_start import inherit_tokenizers
from anyformer.tasks.predict.predict import Predict, PredictOptions
from anyformer.tasks.targets.action import ActionTarget
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.episode.discrete import Categories
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.points import Points
from anyformer.tokenizers.text.text import Text

SMALL = TransformerConfig(d_model=12, depth=2, n_heads=3, init_std=0.3)
WORDS = ("zero", "one", "two", "three", "four")


@dataclass(frozen=True)
class Rows(Source):
    """Records given as they are."""

    records: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.records[i]

    def name(self, i: int) -> str:
        return f"row {i}"


def records(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pictures with a bright part whose size every target tells; a third of each target is missing."""
    random, made = np.random.default_rng(seed), []
    for i in range(n):
        size = int(random.integers(5))
        image = random.integers(0, 60, (4, 6), dtype=np.uint8)
        image[:, :size] += 190
        targets = {
            "kind": "even" if size % 2 == 0 else "odd",
            "tags": [word for word, has in (("wide", size > 2), ("some", size > 0)) if has],
            "width": size * 10.0,
            "name": WORDS[size],
            "action": size,
        }
        missing = [name for k, name in enumerate(targets) if (i + k) % 3 == 0]
        made.append(
            {"image": image, "note": "x" * size, "side": "ab"[i % 2]}
            | {n: v for n, v in targets.items() if n not in missing}
        )
    return made


def targets() -> dict[str, Any]:
    return {
        "kind": Category(),
        "tags": Labels(),
        "width": Regression(weight=0.5),
        "name": TextTarget(Text("characters")),
        "action": ActionTarget(Categories()),
        "image": Masked(0.5),
    }


def inputs() -> dict[str, Any]:
    return {"image": ImagePatches(size=(4, 6), patch=2, channels=1), "note": Text("bytes", max_len=8)}


def task(given=None, tokenizers=None, n=30, **options):
    seed_everything(0, verbose=False)
    made = Predict(tokenizers or inputs(), given or targets(), SMALL, **options)
    made.fit_tokenizers(Rows(tuple(records(n))))
    made.build()
    return made.eval()


def batch(made, given, training=False, rows=None):
    chopper = made.chopper(training)
    return chopper.collate([chopper(record) for record in given], rows)


def test_all_targets_are_predicted_at_once():
    made = task()
    given = records(7, 1)
    results = made.predict([{name: record[name] for name in ("image", "note")} for record in given])
    assert [list(result) for result in results] == [list(targets())] * 7
    first = results[0]
    assert sum(first["kind"]["probabilities"].values()) == pytest.approx(1)
    assert isinstance(first["width"], float) and isinstance(first["name"], str) and first["action"] in range(5)
    assert first["image"]["loss"] > 0
    assert json.loads(json.dumps(first)) == first
    assert len(made.render(first).splitlines()) == 6
    rows = [made.row(result) for result in results]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert rows[0]["kind"] in ("even", "odd") and {"kind(even)", "tags(wide)", "image_loss"} <= rows[0].keys()


def test_no_target_sees_a_text_that_is_written():
    two = {"kind": Category(), "name": TextTarget(Text("characters")), "tags": TextTarget(Text("characters"))}
    words = [{"image": record["image"], "kind": "odd", "name": "one", "tags": "two"} for record in records(2)]
    seed_everything(0, verbose=False)
    made = Predict(inputs(), two, SMALL)
    made.fit_tokenizers(Rows((*words, {**words[0], "kind": "even", "name": "eno", "tags": "tow", "note": "a"})))
    made.build()
    made.eval()
    vectors = made._vectors(batch(made, words), list(two))
    others = made._vectors(batch(made, [{**word, "name": "eno"} for word in words]), list(two))
    for name in ("kind", "tags"):
        torch.testing.assert_close(others[name], vectors[name], atol=1e-6, rtol=0)
    assert (others["name"] - vectors["name"]).abs().max() > 1e-3


def test_a_run_trains_is_drawn_and_is_used_from_its_folder(tmp_path, capsys):
    seed_everything(0, verbose=False)
    made = Predict(
        inputs(),
        targets(),
        SMALL,
        optimizer=OptimizerConfig("adamw", lr=0.01),
        head_dropout=0.1,
        choose="kind/accuracy",
        fields=FieldsConfig(dropout={"note": 0.5}, without=[["image"]], by="side"),
    )
    data = Records(Rows(tuple(records(40))), Rows(tuple(records(10, 1))), max_tokens=300, pack=True)
    metrics = fit(made, data, tmp_path / "run", max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    for name in (
        "val/loss",
        "val/kind/auroc",
        "val/tags/map",
        "val/width/r2",
        "val/name/cer",
        "val/action/accuracy",
        "val/image/loss",
        "val/without_image/width/rmse",
        "val/without_image/name/cer",
        "val/side_b/width/mae",
        "best/val/kind/accuracy",
    ):
        assert metrics[name] is not None, name
    assert not any(name.startswith("val/without_image/image/") for name in metrics), "nothing of it was seen"
    drawn = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert drawn >= {"confusion_kind.png", "scatter_width.png", "reconstructions_image.png", "samples.png", "sees.png"}
    assert "Worst cases of validation" in (tmp_path / "run" / "worst_name.html").read_text()
    again = anyformer.load(tmp_path / "run")
    given = [{"image": record["image"]} for record in records(3, 2)]
    results = again.predict(given)
    assert results == load(tmp_path / "run" / "model").predict(given)
    assert results[0]["kind"]["label"] in ("even", "odd")
    from anyformer.cli.main import main

    main(["predict", str(tmp_path / "run"), "note=xxx", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["image"] == {"loss": None} and shown["kind"]["label"] in ("even", "odd")


def test_what_was_saved_predicts_the_same(tmp_path):
    made = task(read="attention", n_registers=1)
    save(made, tmp_path / "model")
    given = [{name: record[name] for name in ("image", "note")} for record in records(4, 6)]
    assert load(tmp_path).predict(given) == made.predict(given)


def test_heads_of_other_meaning_are_not_taken_from_another_run(tmp_path):
    made = task({"kind": Category(), "width": Regression()})
    save(made, tmp_path / "model")
    other = task({"kind": Category(classes=("odd", "even")), "width": Regression()})
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.start_from(tmp_path)
    theirs, ours = made.state_dict(), other.state_dict()
    taken = {name: torch.equal(value, ours[name]) for name, value in theirs.items()}
    assert taken["heads.width_head.output.weight"] and not taken["heads.kind_head.output.weight"]
    assert all(same for name, same in taken.items() if name.startswith("model."))


def test_a_text_goes_on_with_the_vocabulary_of_the_weights_that_it_starts_from(tmp_path):
    made = task({"name": TextTarget(Text("characters", max_len=20))})
    save(made, tmp_path / "model")
    other = Predict(inputs(), {"name": TextTarget(Text("characters", max_len=20))}, SMALL, init_from=str(tmp_path))
    inherit_tokenizers(other, other.init_from)
    other.fit_tokenizers(Rows(({"image": records(1)[0]["image"], "note": "x", "name": "one"},)))
    assert other.targets["name"].text == made.targets["name"].text
    other.build()
    other.start_from(tmp_path)
    strange = task({"name": TextTarget(Text("characters", vocabulary="no", max_len=20), output=HeadConfig(bias=True))})
    report = strange.start_from(tmp_path)
    ours, theirs = strange.targets["name"].text, made.targets["name"].text
    table = "model.embeddings.lifts.name.table"
    for i, spelling in enumerate(ours.spellings):
        if spelling in theirs.spellings:
            row = made.state_dict()[table][theirs.spellings.index(spelling)]
            assert torch.equal(strange.state_dict()[table][i], row), spelling
    assert "another vocabulary of name: 5 tokens of the same spelling taken, 0 new" in str(report)
    assert report.fresh == ("heads.name_head.output.bias",)


def test_a_run_is_not_resumed_with_other_targets():
    made = task({"kind": Category()})
    checkpoint = {"config": json.loads(json.dumps(made.config()))}
    made.on_load_checkpoint(checkpoint)
    for targets, wrong in (
        ({"kind": Category(classes=("odd", "even"))}, "targets.kind.classes.0 was 'even' and is now 'odd'"),
        ({"kind": Category(classes=made.targets["kind"].classes, weight=2.0)}, "targets.kind.weight was 1.0 and is"),
        ({"width": Regression()}, "targets.kind is gone"),
    ):
        with pytest.raises(InputError, match=f"^the checkpoint is of another task: {re.escape(wrong)}"):
            task(targets).on_load_checkpoint(checkpoint)


IMAGE = {"image": ImagePatches(size=(4, 6), patch=2, channels=1)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": {}}, "targets must name at least one"),
        ({"targets": {"image": Category()}}, "target 'image': the column 'image' is also an input"),
        (
            {"targets": {"size": Regression(columns=("image", "wide"))}},
            "target 'size': the column 'image' is also an input",
        ),
        (
            {"targets": {"imag": Masked()}},
            r"targets.imag: there is no input 'imag' to be masked; did you mean 'image'\?",
        ),
        (
            {"targets": {"image": Masked()}, "tokenizers": {"image": Points()}},
            "targets.image: the tokens of Points have no positions, so nothing tells one that is hidden from another",
        ),
        (
            {"targets": {"a.b": TextTarget(Text("bytes"))}},
            "targets.a.b: the name of what is generated has no dot",
        ),
        ({"targets": {"kind": Category()}, "choose": "rmse"}, r"choose must be one of accuracy, .*, got 'rmse'"),
        ({"targets": {"class": TextTarget(Text("bytes"))}}, "the name 'class' is taken by the task's own tokens"),
        (
            {"targets": {"kind": Category()}, "fields": FieldsConfig(sees={"imago": ["image"]})},
            "fields.sees: there is no field 'imago'",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Predict(**({"tokenizers": IMAGE} | arguments))


def test_all_targets_are_learnt_together():
    seed_everything(0, verbose=False)
    made = Predict(inputs(), targets(), TransformerConfig(d_model=24, depth=2, n_heads=4))
    given = records(200)
    made.fit_tokenizers(Rows(tuple(given)))
    made.build()
    optimizer, chopper = torch.optim.Adam(made.parameters(), lr=0.01), made.chopper(training=True)
    for step in range(80):
        random = np.random.default_rng(step)
        loss, n = made.loss(chopper.collate([chopper(given[i], random) for i in random.integers(200, size=32)]))
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    made.eval()
    made.begin_evaluation()
    made.evaluate(batch(made, records(60, 7)))
    metrics = made.report("val")
    for name in ("kind/accuracy", "tags/map", "width/r2", "name/exact_match", "action/accuracy"):
        assert metrics[name] > 0.9, name
    # Of pictures that are normed within each patch the mean is off by 1.
    assert metrics["image/loss"] < 0.95


# Views


def turned() -> dict[str, Any]:
    augment = Augmentation(flip=True, shift=1.5, rotation=30.0)
    return {**inputs(), "image": ImagePatches(size=(4, 6), patch=2, channels=1, augment=augment)}


def with_means() -> dict[str, Any]:
    return {"kind": Category(), "tags": Labels(), "width": Regression()}


def test_views_hang_on_the_record_alone_and_no_input_is_dropped_from_them():
    made = task(with_means(), turned(), views=3, fields=FieldsConfig(dropout={"image": 0.9, "note": 0.9}))
    given = records(6, 1)
    forth, back = made.predict(given, batch_size=4), made.predict(given[::-1], batch_size=1)[::-1]
    for one, other in zip(forth, back, strict=True):
        assert one["width"] == pytest.approx(other["width"], rel=1e-5)
    chopper = made.chopper(training=False)
    assert all(view.keys() == {"image", "note", "class"} for r in given if r["note"] for view in chopper(r).views)
    assert not made.chopper(training=True)(given[0], np.random.default_rng(0)).views


def test_views_are_asked_for_in_use_too():
    plain, given = task(with_means(), turned()), records(4, 1)
    made = task(with_means(), turned(), views=3)
    assert plain.predict(given, PredictOptions(views=3)) == made.predict(given) != plain.predict(given)
    assert made.predict(given, PredictOptions(views=1)) == plain.predict(given)


def test_what_is_masked_is_read_of_one_view_alone():
    made = task({"kind": Category(), "image": Masked(0.5)}, turned(), views=3)
    plain, given = task({"kind": Category(), "image": Masked(0.5)}, turned()), records(4, 1)
    averaged, single = made.predict(given), plain.predict(given)
    assert [each["image"] for each in averaged] == [each["image"] for each in single]
    assert [each["kind"] for each in averaged] != [each["kind"] for each in single]
    assert plain.chopper(training=False).collate([made.chopper(training=False)(given[0])]).views == {}
    assert all(
        view.fields["image"].masked is None for view in batch(made, [r for r in given if "kind" in r]).views.values()
    )


@pytest.mark.parametrize(
    ("given", "tokenizers", "views", "message"),
    [
        ({"kind": Category()}, turned(), 0, "views must be at least 1, got 0"),
        ({"kind": Category(), "name": TextTarget(Text("bytes"))}, turned(), 2, "there is no mean of what .* of 'name'"),
        ({"image": Masked()}, turned(), 2, "what is masked is predicted of one view alone"),
        ({"kind": Category()}, inputs(), 8, "views: all 8 would be the same, as nothing augments image, note in train"),
    ],
)
def test_views_that_nothing_comes_of_are_refused(given, tokenizers, views, message):
    with pytest.raises(InputError, match=message):
        Predict(tokenizers, given, SMALL, views=views)
    if views:
        with pytest.raises(InputError, match=message):
            Predict(tokenizers, given, SMALL).predict([], PredictOptions(views=views))


def test_texts_among_the_targets_keep_to_a_form_while_they_are_asked_to() -> None:
    made = task({"kind": Category(), "name": TextTarget(Text("characters"))})
    given = [{name: each[name] for name in ("image", "note")} for each in records(3)]
    plain = made.predict(given)
    letter = made.targets["name"].text.vocabulary[0]
    held = made.predict(given, regex=f"{letter}{{2,3}}")
    assert all(re.fullmatch(f"{letter}{{2,3}}", each["name"]) for each in held)
    assert [each["kind"] for each in held] == [each["kind"] for each in plain]
    assert made.predict(given) == plain
    with pytest.raises(InputError, match="regex"):
        task({"kind": Category()}).predict(given, regex="a")
