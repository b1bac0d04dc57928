"""The heads of all targets together: their loss, the metrics of an evaluation, and the means over views."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from tests.tasks.predict.test_predict import batch, records, targets, task, turned, with_means


def test_a_missing_target_is_not_counted():
    made = task()
    given = records(9, 2)
    total, n = made.loss(batch(made, given))
    parts = [made.loss(batch(made, [record])) for record in given]
    assert total.item() == pytest.approx(sum(loss.item() for loss, _ in parts), rel=1e-5)
    assert n.item() == pytest.approx(sum(count.item() for _, count in parts))
    # Of a text its letters and its end, of a picture half of its 6 patches, of numbers half of what they count.
    letters = sum(len(record["name"]) + 1 for record in given if "name" in record)
    counts = {name: sum(name in record for record in given) for name in ("kind", "tags", "width", "action")}
    assert n == counts["kind"] + counts["tags"] + counts["width"] / 2 + counts["action"] + letters + 3 * len(given)


def test_packed_rows_have_the_loss_of_rows_apart():
    made = task(n_registers=1)
    given = records(6, 3)
    apart, packed = (made.loss(batch(made, given, rows=rows)) for rows in (None, [0, 1, 0, 2, 1, 0]))
    torch.testing.assert_close(apart[0], packed[0])
    assert apart[1] == packed[1]


def test_every_parameter_has_a_gradient_where_one_target_alone_is_there():
    made = task().train()
    loss, n = made.loss(batch(made, [{"note": "xx", "kind": "odd"}], training=True))
    loss.backward()
    assert n == 1
    assert [name for name, p in made.named_parameters() if p.grad is None] == []
    assert made.head("width").output.weight.grad.abs().max() == 0 < made.head("kind").output.weight.grad.abs().max()


def test_what_is_masked_is_so_for_its_own_target_alone():
    """In an evaluation: the others are asked about the whole."""
    given = records(5, 5)
    made, plain = task(), task({name: target for name, target in targets().items() if name != "image"})
    own = plain.state_dict()
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if name in own})
    for one in (made, plain):
        one.begin_evaluation()
        one.evaluate(batch(one, given))
    ours, theirs = made.report("val"), plain.report("val")
    for name, value in theirs.items():
        if name != "loss":
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6, nan_ok=True), name
    assert batch(made, given).whole.fields["image"].masked is None
    assert batch(made, given, training=True).whole is None


def test_figures_are_those_of_the_whole_set_and_not_means_of_batches():
    made = task({"width": Regression(), "kind": Category()})
    given = records(20, 4)
    made.begin_evaluation()
    for part in (given[:13], given[13:]):
        made.evaluate(batch(made, part))
    metrics = made.report("val")
    results = made.predict([{name: record[name] for name in ("image", "note")} for record in given])
    pairs = [(record["width"], result["width"]) for record, result in zip(given, results, strict=True)
             if "width" in record]  # fmt: skip
    true, said = np.array(pairs).T
    assert metrics["width/rmse"].item() == pytest.approx(np.sqrt(((true - said) ** 2).mean()), rel=1e-4)
    assert metrics["width/mae"].item() == pytest.approx(np.abs(true - said).mean(), rel=1e-4)
    r2 = 1 - ((true - said) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert metrics["width/r2"].item() == pytest.approx(r2, rel=1e-4)
    right = [record["kind"] == result["kind"]["label"] for record, result in zip(given, results, strict=True)
             if "kind" in record]  # fmt: skip
    assert metrics["kind/accuracy"].item() == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("given", "choose"),
    [
        ({"kind": Category()}, "top5"),
        ({"kind": Category(classes=("odd", "even", "both"))}, "auroc"),
        ({"image": Masked(0.5)}, "accuracy"),
    ],
)
def test_a_figure_that_there_will_not_be_chooses_nothing(given, choose):
    with pytest.raises(InputError, match=f"choose must be one of .*, got '{choose}'"):
        task(given, choose=choose)


def test_what_was_not_seen_is_not_reported_unless_it_chooses():
    for choose in (None, "kind/f1"):
        made = task({"width": Regression(), "kind": Category()}, choose=choose)
        made.begin_evaluation()
        made.evaluate(batch(made, [{"image": records(1)[0]["image"], "width": 3.0}]))
        metrics = made.report("val")
        assert {name for name in metrics if name.startswith("kind/")} == ({choose} if choose else set())
        assert metrics["loss"].isfinite() and metrics["width/rmse"].isfinite()


def test_the_figure_that_chooses_is_the_usual_one_of_a_target_and_the_loss_of_several():
    assert task({"width": Regression()}).metric == ("val/rmse", "min")
    assert task({"kind": Category()}).metric == ("val/accuracy", "max")
    assert task().metric == ("val/loss", "min")
    assert task(choose="width/r2").metric == ("val/width/r2", "max")


def test_predictions_are_the_means_over_views_of_probabilities_and_of_numbers():
    made, given = task(with_means(), turned(), views=4), [r for r in records(5, 1) if "kind" in r]
    items = [made.chopper(training=False)(record) for record in given]
    one = replace(made.chopper(training=False), views=1)
    every = [one.collate([item._replace(views=()) for item in items])]
    every += [one.collate([item._replace(sample=item.views[i], views=()) for item in items]) for i in range(3)]
    assert len({batch.tokens.fields["image"].content.sum().item() for batch in every}) == 4
    each = [made.results(made.outputs(whole, list(whole.aims)), whole) for whole in map(made.aim_at_all, every)]
    for i, result in enumerate(made.predict(given)):
        views = [found[i] for found in each]
        for name in ("kind", "tags"):
            for label, p in result[name]["probabilities"].items():
                assert p == pytest.approx(np.mean([view[name]["probabilities"][label] for view in views]), rel=1e-5)
        assert result["width"] == pytest.approx(np.mean([view["width"] for view in views]), rel=1e-5)
    assert made.predict(given)[0]["width"] != pytest.approx(each[0][0]["width"], rel=1e-4)


def test_the_metrics_are_those_of_the_means_over_views():
    made, given = task(with_means(), turned(), views=3), [r for r in records(12, 1) if {"kind", "width"} <= r.keys()]
    made.begin_evaluation()
    scores = made.evaluate(batch(made, given))
    metrics, results = made.report("val"), made.predict(given)
    p = [result["kind"]["probabilities"][record["kind"]] for result, record in zip(results, given, strict=True)]
    assert metrics["kind/loss"].item() == pytest.approx(-np.log(p).mean(), rel=1e-5)
    assert scores["kind/accuracy"].tolist() == [float(each > 0.5) for each in p]
    errors = [abs(result["width"] - record["width"]) for result, record in zip(results, given, strict=True)]
    assert metrics["width/mae"].item() == pytest.approx(np.mean(errors), rel=1e-5)
