from dataclasses import replace

import numpy as np
import pytest
from lightning import seed_everything

import anyformer
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.ensemble.ensemble import Ensemble, disagreement
from anyformer.tasks.predict.predict import Predict, PredictOptions
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import small_task
from tests.tasks.predict.test_predict import IMAGE, SMALL, Rows, inputs, records, turned, with_means

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def member(seed=0, given=None, tokenizers=None, train=None, transformer=SMALL, **options):
    seed_everything(seed, verbose=False)
    made = Predict(tokenizers or inputs(), given or with_means(), transformer, **options)
    made.fit_tokenizers(Rows(tuple(train or records(30, seed))))
    made.build()
    return made.eval()


def of_characters(max_len=16):
    return {**inputs(), "note": Text("characters", max_len=max_len)}


def unlike():
    """Three models of one task which share neither sizes nor vocabularies nor the means of what is predicted."""
    wide = [{**record, "note": "abc" + record["note"], "width": 3.0 + i % 7} for i, record in enumerate(records(30))]
    return [
        member(0, tokenizers=of_characters(), train=[{**r, "note": "xx"} for r in records(30)]),
        member(1, tokenizers=of_characters(), train=wide, transformer=TransformerConfig(d_model=8, depth=1, n_heads=2)),
        member(2, {**with_means(), "width": Regression(scaling="none")}, of_characters(), train=wide),
    ]


def test_predictions_are_the_means_of_models_that_have_little_in_common():
    runs = unlike()
    ids = [run.tokenizers["note"].encode("x").content[0].item() for run in runs]
    assert ids[0] < ids[1] and runs[0].targets["width"].mean != runs[1].targets["width"].mean
    given = [{"image": record["image"], "note": "x"} for record in records(7, 5)]
    each = [run.predict(given) for run in runs]
    made = Ensemble(runs)
    for i, result in enumerate(made.predict(given, batch_size=3)):
        for name in ("kind", "tags"):
            for label, p in result[name]["probabilities"].items():
                assert p == pytest.approx(np.mean([own[i][name]["probabilities"][label] for own in each]), rel=1e-5)
        assert result["width"] == pytest.approx(np.mean([own[i]["width"] for own in each]), rel=1e-5)
    assert result["kind"]["label"] == max(result["kind"]["probabilities"], key=result["kind"]["probabilities"].get)
    assert made.render(result).splitlines()[0].startswith("kind")
    assert made.row(result).keys() == runs[0].row(each[0][0]).keys()


def test_the_metrics_are_those_of_the_means():
    made = Ensemble(unlike())
    given = tuple({**record, "note": "x", "width": record.get("width", 20.0) + 1} for record in records(40, 6))
    data = Records(Rows(given), test=Rows(given), batch_size=7, on_bad_sample="skip")
    metrics = anyformer.evaluate(made, data, **QUIET)
    results = made.predict([{"image": record["image"], "note": "x"} for record in given])
    pairs = [(result, record) for result, record in zip(results, given, strict=True)]
    p = [result["kind"]["probabilities"][record["kind"]] for result, record in pairs if "kind" in record]
    assert metrics["test/kind/loss"] == pytest.approx(-np.log(p).mean(), rel=1e-4)
    assert metrics["test/kind/accuracy"] == pytest.approx(np.mean(np.array(p) > 0.5))
    errors = [abs(result["width"] - record["width"]) for result, record in pairs]
    assert metrics["test/width/mae"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert metrics["test/tags/exact_match"] == pytest.approx(
        np.mean([set(result["tags"]["labels"]) == set(record["tags"]) for result, record in pairs if "tags" in record])
    )


def test_an_ensemble_is_saved_and_loaded_whole(tmp_path):
    made, given = Ensemble(unlike(), views=None), [{"image": r["image"], "note": "x"} for r in records(3, 5)]
    save(made, tmp_path / "mean")
    again = load(tmp_path / "mean")
    assert isinstance(again, Ensemble) and again.predict(given) == made.predict(given)
    assert again.config() == made.config() and again.runs[0].tokenizers["note"] != again.runs[1].tokenizers["note"]


def test_every_model_averages_over_views_as_it_is_told_or_as_it_says_itself():
    runs = [member(0, tokenizers=turned(), views=2), member(1, tokenizers=turned())]
    given = records(3, 5)
    own = [run.predict(given, PredictOptions(views=3)) for run in runs]
    widths = [result["width"] for result in Ensemble(runs, views=3).predict(given)]
    assert widths == pytest.approx([np.mean([run[i]["width"] for run in own]) for i in range(3)])
    made = Ensemble(runs)
    assert [result["width"] for result in made.predict(given, PredictOptions(views=3))] == pytest.approx(widths)
    assert [result["width"] for result in made.predict(given)] == pytest.approx(
        [np.mean([run.predict(given)[i]["width"] for run in runs]) for i in range(3)]
    )
    with pytest.raises(InputError, match="views: all 2 would be the same, as nothing augments image, note"):
        Ensemble([member(0), member(1)], views=2)


def test_what_is_masked_is_left_out_and_the_passes_without_a_field_are_kept():
    without = FieldsConfig(without=[["note"]], dropout={"note": 0.5})
    runs = [member(seed, {"kind": Category(), "image": Masked(0.5)}, fields=without) for seed in (0, 1)]
    made = Ensemble(runs)
    assert list(made.predict(records(2))[0]) == ["kind"] == list(made.targets)
    given = Rows(tuple(record for record in records(20, 3) if "kind" in record))
    metrics = anyformer.evaluate(made, Records(given, test=given), **QUIET)
    assert {"test/kind/accuracy", "test/without_note/kind/accuracy"} <= metrics.keys()
    assert not [name for name in metrics if "image" in name]
    bare = Rows(tuple({k: v for k, v in record.items() if k != "note"} for record in given.records))
    alone = anyformer.evaluate(Ensemble(runs), Records(bare, test=bare), **QUIET)
    assert metrics["test/without_note/kind/loss"] == pytest.approx(alone["test/kind/loss"], rel=1e-5)


def test_of_classify_an_ensemble_says_what_classify_says():
    seed_everything(0, verbose=False)
    runs = [small_task(), small_task()]
    for run in runs:
        run.classes = ["a", "b"]
        run.build()
    given = [{"image": np.full((8, 8), shade, dtype=np.uint8)} for shade in (0, 90)]
    (first, _), each = Ensemble(runs).predict(given), [run.predict(given) for run in runs]
    assert first["probabilities"]["a"] == pytest.approx(np.mean([own[0]["probabilities"]["a"] for own in each]))
    assert Ensemble(runs).row(first).keys() == {"label", "probability", "p(a)", "p(b)"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [member()], "runs must be at least two, got 1"),
        (
            lambda: [member(), member(given={"kind": Category(("even", "none", "odd"))})],
            r"their targets are kind \(Category\), tags \(Labels\), width \(Regression\) and kind \(Category\)",
        ),
        (
            lambda: [member(given={"kind": Category()}), member(given={"kind": Category(("odd", "even"))})],
            "runs.1 cannot be averaged with the first: the classes of 'kind' are even, odd and odd, even",
        ),
        (
            lambda: [member(given={"kind": Category()}), member(given={"kind": Labels(("even", "odd"))})],
            r"their targets are kind \(Category\) and kind \(Labels\)",
        ),
        (
            lambda: [member(), member(tokenizers=IMAGE)],
            r"their fields are image \(ImagePatches\), note \(Text\) and image \(ImagePatches\)",
        ),
        (
            lambda: [member(given={"name": TextTarget(Text("bytes"))})] * 2,
            "there is no mean of what is predicted of 'name', TextTarget",
        ),
        (lambda: [member(given={"image": Masked()})] * 2, "there is no mean of what is masked, and no other target"),
    ],
)
def test_models_without_a_mean_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        Ensemble(make())


def test_models_of_two_tasks_have_no_mean():
    assert disagreement(member(), small_task()) == "they are a Predict and a Classify"
    assert disagreement(member(), replace_targets(member())) is None


def replace_targets(made):
    """Another weight of a loss, and other smoothing, change no prediction's meaning."""
    made.targets = {**made.targets, "kind": replace(made.targets["kind"], weight=3.0, label_smoothing=0.2)}
    return made


def test_an_ensemble_is_not_trained(tmp_path):
    data = Records(Rows(tuple(records(8))), validation=Rows(tuple(records(8))))
    with pytest.raises(InputError, match="an ensemble is not trained: train its runs, and average them anew"):
        anyformer.fit(Ensemble([member(0), member(1)]), data, tmp_path / "run", max_epochs=1, **QUIET)
