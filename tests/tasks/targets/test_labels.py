import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from anyformer.errors import InputError
from anyformer.tasks.targets.labels import Labels
from tests.tasks.targets.test_category import SMALL, evaluated
from tests.tasks.targets.test_target import column


def test_labels_are_a_list_or_a_text():
    target = Labels().fit("tags", column("tags", ["b, a", None, ["c"], "", []]))
    assert target.classes == ("a", "b", "c")
    assert target.value("tags", {"tags": "c,a"}).tolist() == [1, 0, 1]
    assert target.value("tags", {"tags": []}).tolist() == [0, 0, 0]
    assert target.value("tags", {}) is target.value("tags", {"tags": " "}) is None
    assert target.value("tags", {"tags": '["c", "a"]'}).tolist() == [1, 0, 1]
    assert target.value("tags", {"tags": "[]"}).tolist() == [0, 0, 0]
    assert target.value("tags", {"tags": [" c", None]}).tolist() == [0, 0, 1]
    assert Labels(separator=" ", classes=("a b", "a")).value("tags", {"tags": "a"}).tolist() == [0, 1]
    with pytest.raises(InputError, match="field 'tags': the label 'd' was not seen in training"):
        target.value("tags", {"tags": "a,d"})
    with pytest.raises(InputError, match="field 'tags' must hold a list of labels, or a text, got dict"):
        target.value("tags", {"tags": {"a": 1}})
    with pytest.raises(InputError, match="column 'tags' must hold labels, and no training record has one"):
        Labels().fit("tags", column("tags", [[], ""]))
    with pytest.raises(InputError, match=r"no column 'tgas'.*did you mean 'tags'"):
        Labels(classes=("a",)).fit("tgas", column("tags", ["a"]))


def test_the_figures_of_labels():
    target = Labels(classes=("a", "b", "never"))
    given = [["a"], ["b"], [], ["a", "b"]]
    head, vectors, values = evaluated(target, given, name="tags")
    logits = head.output(vectors)
    metrics = head.compute()
    mean = F.binary_cross_entropy_with_logits(logits, values)
    assert metrics["loss"].item() == pytest.approx(mean.item(), rel=1e-6)
    said = logits > 0
    assert metrics["exact_match"].item() == pytest.approx((said == values.bool()).all(1).double().mean().item())
    assert 0 < metrics["map"] <= 1
    with torch.no_grad():
        # What is true is said, and what is not is not: a vector of ones and minus ones for each label.
        head.output.weight.copy_(torch.eye(3, 6))
    head.reset()
    head.evaluate(head(F.pad(2 * values - 1, (0, 3))), values)
    perfect = head.compute()
    assert [round(perfect[name].item(), 6) for name in ("map", "f1", "exact_match")] == [1, 1, 1]
    (result, *_) = head.results(head(torch.tensor([[3.0, 1.0, -1.0, 0, 0, 0]])))
    assert result["labels"] == ["a", "b"] and target.row("tags", result)["tags"] == "a,b"
    assert Labels(classes=target.classes, separator="; ").row("tags", result)["tags"] == "a; b"


def test_f1_is_that_of_all_decisions_and_map_the_mean_over_the_labels():
    target = Labels(classes=("a", "b", "c"))
    # Rare labels, of which too many are said: precision, recall and their means differ.
    given = [["a"], ["a", "b"], [], ["c"], ["a", "c"], [], ["b"]]
    head, vectors, values = evaluated(target, given, name="tags")
    scores, truth = head.output(vectors).detach().sigmoid().numpy(), values.numpy()
    metrics = head.compute()
    assert metrics["f1"].item() == pytest.approx(f1_score(truth, scores > 0.5, average="micro"))
    assert metrics["map"].item() == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert len({round(f1_score(truth, scores > 0.5, average=each), 4) for each in ("micro", "macro", "samples")}) == 3
    assert [result["labels"] for result in head.results(head(vectors))] == [
        [each for p, each in sorted(zip(row, target.classes, strict=True), reverse=True) if p > 0.5] for row in scores
    ]


def test_each_label_has_its_precision_and_recall():
    target = Labels(classes=("a", "b", "c"))
    assert target.counts("tags", column("tags", [["a"], ["b", "a"], None, []])) == {"a": 2, "b": 1, "c": 0}
    head, vectors, values = evaluated(target, [["a"], ["a", "b"], [], ["c"], ["a", "c"], [], ["b"]], name="tags")
    head.compute()
    said = head.output(vectors).detach() > 0
    expected = precision_recall_fscore_support(values.numpy(), said.numpy(), zero_division=np.nan)
    found = [[row[name] for name in ("precision", "recall", "f1", "support")] for row in head.by_class()]
    np.testing.assert_allclose(np.nan_to_num(found), np.nan_to_num(np.stack(expected, 1).astype(float)))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="separator must be at least one character"):
        Labels(separator="")
    with pytest.raises(InputError, match=r"targets\.tags: the labels are not known yet"):
        Labels().head("tags", None, SMALL)


def test_labels_are_names_however_they_come(capsys):
    values = [b"b, cafe", '["cafe\u0301", true]', ["b ", 1.0], 2, "cafe\u0301,True"]
    target = Labels().fit("tags", column("tags", values))
    assert target.classes == ("1", "2", "b", "cafe", "caf\u00e9", "true")
    # Spaces around the labels of a text are no part of them.
    said = "column 'tags': 4 values are written otherwise than their names: 'cafe\\u0301' is 'caf\u00e9', 'b ' is 'b'"
    assert said in capsys.readouterr().err
    assert target.value("tags", {"tags": [np.int64(1), b"cafe"]}).tolist() == [1, 0, 0, 1, 0, 0]
    with pytest.raises(InputError, match="a label of field 'tags' must be one text or number, got a list"):
        target.value("tags", {"tags": [["b"]]})
    with pytest.raises(InputError, match="classes: 'b', 'b ' are 'b' more than once"):
        Labels(classes=("b", "b "))


def test_the_mean_of_labels_is_that_of_their_probabilities():
    head, vectors, _ = evaluated(Labels(classes=("a", "b")), [["a"], []], name="tags")
    outputs = head(vectors)
    torch.testing.assert_close(head.from_mean(head.to_mean(outputs)), outputs)
    mean = (head.to_mean(torch.tensor([[1e4, -1e4]])) + head.to_mean(torch.tensor([[-1e4, -1e4]]))) / 2
    assert head.from_mean(mean)[0, 0] == 0 and head.from_mean(mean)[0, 1] < -30
    assert head.from_mean(mean).isfinite().all()
