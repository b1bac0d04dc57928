import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from anyformer.drawing.evaluation import draw_confusion
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from tests.tasks.targets.test_target import column

SMALL = TransformerConfig(d_model=6, depth=1, n_heads=2, init_std=0.5)


def evaluated(target, values, vectors=None, name="kind"):
    """The head of a target after an evaluation of two batches, and the vectors it was of."""
    torch.manual_seed(0)
    head = target.head(name, None, SMALL).eval()
    aim = target.aim(name, [target.value(name, {name: value}) for value in values], None)
    vectors = torch.randn(len(aim.read), 6) if vectors is None else vectors
    for part in (slice(0, 2), slice(2, None), slice(0, 0)):
        head.evaluate(head(vectors[part]), aim.values[part])
    return head, vectors, aim.values


def test_a_category_learns_its_classes_and_weights():
    fitted = Category(class_weights="balanced").fit("kind", column("kind", ["10", "9", None, "10", "10"]))
    assert fitted.classes == ("9", "10") and fitted.class_weights == pytest.approx((4 / 2, 4 / 6))
    assert Category(classes=["b", 3]).fit("kind", column("kind", ["b"])).classes == ("b", "3")
    with pytest.raises(InputError, match=r"column 'kind' must hold at least two classes, got \['a'\]"):
        Category().fit("kind", column("kind", ["a", "a"]))


def test_a_category_that_training_did_not_see_is_named():
    target = Category(classes=("a", "b"))
    assert target.value("kind", {}) is None and target.value("kind", {"kind": math.nan}) is None
    assert target.value("kind", {"kind": "b"}) == 1
    with pytest.raises(InputError, match="field 'kind': the label 'c' was not seen in training; the classes are a, b"):
        target.value("kind", {"kind": "c"})


def test_the_loss_of_a_category_has_weights_always_and_smoothing_in_training():
    target = Category(classes=("a", "b", "c"), class_weights=(1.0, 2.0, 4.0), label_smoothing=0.1)
    head, vectors, values = evaluated(target, ["a", None, "c", "b"])
    logits = head.output(vectors)
    for is_training, smoothing in ((False, 0.0), (True, 0.1)):
        loss, n = head.train(is_training).loss(head(vectors), values)
        mean = F.cross_entropy(logits, values, head.loss_weights, label_smoothing=smoothing)
        torch.testing.assert_close(loss / n, mean)
        assert n == 7


def test_the_figures_of_a_category_are_those_of_all_batches():
    target = Category(classes=tuple("abcdef"))
    head, vectors, values = evaluated(target, list("abcdefabc"))
    logits = head.output(vectors)
    metrics = head.compute()
    assert metrics["loss"].item() == pytest.approx(F.cross_entropy(logits, values).item(), rel=1e-6)
    assert metrics["accuracy"].item() == pytest.approx((logits.argmax(1) == values).double().mean().item())
    top5 = (logits.topk(5).indices == values[:, None]).any(1)
    assert metrics["top5"].item() == pytest.approx(top5.double().mean().item())
    assert head.confusion.sum() == 9
    head.reset()
    assert head.compute()["accuracy"].isnan()


def test_the_fifth_likeliest_class_is_among_the_top_5_and_the_sixth_is_not():
    head, _, _ = evaluated(Category(classes=tuple("abcdef")), ["a"])
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(6))
    head.reset()
    # The likelier, the earlier in the alphabet.
    head.evaluate(head(torch.arange(6.0, 0.0, -1.0).expand(6, 6)), torch.arange(6))
    assert head.compute()["top5"].item() == pytest.approx(5 / 6)


def test_the_rows_of_the_confusion_matrix_are_the_true_classes(tmp_path):
    head, _, values = evaluated(Category(classes=("a", "b", "c")), ["a", "a", "b", "a"])
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(3, 6))
    head.reset()
    # Said: b, c, b, b.
    head.evaluate(head(torch.eye(6)[[1, 2, 1, 1]]), values)
    metrics = head.compute()
    assert head.confusion.tolist() == [[0, 2, 1], [0, 1, 0], [0, 0, 0]]
    head.draw(tmp_path, "_kind")
    draw_confusion(torch.tensor([[0.0, 2.0, 1.0], [0.0, 1.0, 0.0], [0.0] * 3]), ["a", "b", "c"], tmp_path / "same.png")
    assert (tmp_path / "confusion_kind.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert metrics["f1"].item() == pytest.approx(f1_score([0, 0, 1, 0], [1, 2, 1, 1], average="macro", zero_division=0))


def test_a_category_counts_its_classes_and_says_how_each_is_found():
    target = Category(classes=("a", "b", "c"))
    assert target.counts("kind", column("kind", ["b", None, "a", "b"])) == {"a": 1, "b": 2, "c": 0}
    head, _, values = evaluated(target, ["a", "a", "b", "a"])
    assert head.by_class() == []
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(3, 6))
    head.reset()
    head.evaluate(head(torch.eye(6)[[0, 2, 1, 1]]), values)
    head.compute()
    first, second, third = head.by_class()
    assert first == {"class": "a", "precision": 1.0, "recall": 1 / 3, "f1": 0.5, "support": 3}
    assert (second["precision"], third["precision"], third["support"]) == (0.5, 0.0, 0)


def test_a_category_of_two_has_an_area_under_the_curve(tmp_path):
    head, _, values = evaluated(Category(classes=("no", "yes")), ["no", "yes", "yes", "no"])
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.weight[1, 0] = 1
    head.reset()
    head.evaluate(head(torch.tensor([[0.1], [0.9], [0.4], [0.6]]) * torch.eye(6)[0]), values)
    assert head.compute()["auroc"] == 0.75
    head.draw(tmp_path, "_kind")
    assert (tmp_path / "confusion_kind.png").exists()
    (first, *_) = head.results(head(torch.eye(6)[:1]))
    assert first["label"] == "yes" and list(first["probabilities"]) == ["yes", "no"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Category(label_smoothing=1.0), "label_smoothing must be at least 0 and below 1"),
        (lambda: Category(weight=0.0), "weight must be above 0, got 0.0"),
        (lambda: Category().head("kind", None, SMALL), "target 'kind': the classes are not known yet"),
        (
            lambda: Category(classes=("a", "b"), class_weights=(1.0,)).head("kind", None, SMALL),
            "target 'kind': class_weights must have a number for each of the 2 classes, got 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_heads_agree_where_their_outputs_mean_the_same():
    assert Category(("a", "b")).agrees(Category(("a", "b"), label_smoothing=0.1, weight=2.0))
    assert not Category(("a", "b")).agrees(Category(("b", "a")))
    assert not Category(("a", "b")).agrees(Labels(("a", "b")))


def test_the_mean_of_categories_is_that_of_their_probabilities():
    head, vectors, _ = evaluated(Category(classes=("a", "b", "c")), ["a", "b"])
    outputs = head(vectors)
    torch.testing.assert_close(head.from_mean(head.to_mean(outputs)).softmax(1), outputs.softmax(1))
    # What one of them excludes is still possible.
    mean = (head.to_mean(torch.tensor([[1e4, 0.0, 0.0]])) + head.to_mean(torch.tensor([[0.0, 1e4, 0.0]]))) / 2
    result, *_ = head.results(head.from_mean(mean))
    assert result["probabilities"] == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.0})
    assert head.loss(head.from_mean(mean), torch.tensor([0]))[0].item() == pytest.approx(math.log(2))
