"""How probable texts are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from anyformer.data.source import Joined
from anyformer.errors import InputError
from anyformer.runs.predictions.rows import RowsOfSource
from anyformer.tasks.language import scoring
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.scoring import TextConfig
from anyformer.tokenizers.text import corpus as corpora
from anyformer.tokenizers.text import token_stream as streams
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from tests.helpers.language_models import task


def test_a_loss_is_that_of_each_token_after_those_before_it(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(corpus, tmp_path)
    texts = ["to be", "o", "that is the question"]
    scored = made.predict(texts, score=True)
    for text, result in zip(texts, scored, strict=True):
        ids = made.text.encode_batch([text])[0].tolist()
        losses = []
        for i, token in enumerate(ids):
            # In windows of 8 that lie end to end.
            start = i - i % 8
            prompt = torch.tensor([*([made.text.eos_id] if not start else [ids[start - 1]]), *ids[start:i]])
            with torch.no_grad():
                logits = made.head(made.model(_batch(made, prompt))[0, -1:]).float()
            losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([token]))))
        assert result["text"] == text and result["tokens"] == len(ids)
        assert result["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    monkeypatch.setattr(scoring, "LOGITS", 1)
    one_by_one = made.predict(texts, score=True)
    assert [each["loss"] for each in one_by_one] == pytest.approx([each["loss"] for each in scored], abs=1e-5)
    assert made.render(scored[0]).startswith("tokens 5  loss ") and made.row(scored[0]) == scored[0]
    with pytest.raises(InputError, match="field 'text': the text is empty, and has no probability"):
        made.predict(["a", ""], score=True)


def test_answers_are_as_probable_as_the_model_finds_each_of_their_tokens(tmp_path: Path, corpus: Corpus) -> None:
    made = task(corpus, tmp_path)
    results = made.predict(["to ", ""], score="be|or not|t")
    for text, result in zip(("to ", ""), results, strict=True):
        for answer, log_prob in result["log_probs"].items():
            before = made.text.encode_batch([text])[0].tolist() or [made.text.eos_id]
            total = 0.0
            for token in made.text.encode_batch([answer])[0].tolist():
                with torch.no_grad():
                    logits = made.head(made.model(_batch(made, torch.tensor(before)))[0, -1]).float()
                total, before = total + float(logits.log_softmax(0)[token]), [*before, token]
            assert log_prob == pytest.approx(total, abs=1e-4)
        assert result["likeliest"] == max(result["log_probs"], key=result["log_probs"].get)
    row = made.row(results[0])
    assert list(row) == ["text", "likeliest", "log_prob(be)", "log_prob(or not)", "log_prob(t)"]
    assert results[0]["likeliest"] in made.render(results[0]).splitlines()[0]
    with pytest.raises(InputError, match=r"score must be different texts parted by \|, as yes\|no, got 'a\|\|b'"):
        made.predict(["to"], score="a||b")
    with pytest.raises(InputError, match="'xyz' holds what is not in the vocabulary of the model"):
        made.predict(["to"], score="be|xyz")
    with pytest.raises(InputError, match="score writes no text, and goes without options of how one is written"):
        made.predict(["to"], score="be|or", regex="a")
    with pytest.raises(InputError, match="have 10 tokens, more than the 8 of the model's context"):
        made.predict(["to be o"], score="t b|t")


def test_documents_are_scored_as_texts_a_window_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("to be or not to be")
    (folder / "b.txt").write_text("that is")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "to be or not to be"}\n{"text": ""}\n{"text": null}\n{"text": "that is"}\n')
    made = task(Corpus(str(folder)), tmp_path)
    wanted = made.predict(["to be or not to be", "that is"], score=True)
    # No document is read as a whole.
    monkeypatch.setattr(Corpus, "__getitem__", None)
    for made.samples in ("windows", "documents"):
        for path, name, numbers in (
            (folder, "file", [str(folder / "a.txt"), str(folder / "b.txt")]),
            (rows, "row", [0, 3]),
        ):
            found = list(made.rows_of_test(Corpus(str(path))))
            assert [list(row) for row in found] == [[name, "tokens", "loss", "perplexity"]] * 2
            assert [row.pop(name) for row in found] == numbers
            for row, other in zip(found, wanted, strict=True):
                assert row == pytest.approx({key: other[key] for key in row}, rel=1e-5)
    monkeypatch.setattr(scoring, "LOGITS", 1)
    texts = [[np.array([5])], [np.zeros(0)], [np.full(13, 3), np.full(7, 3)]]
    assert [(number, score["tokens"]) for number, score in scoring.score_ids(made, texts)] == [(0, 1), (2, 20)]


def test_files_of_any_length_are_scored_a_few_windows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, long = tmp_path / "texts", "to be or not to be that is the question " * 50
    folder.mkdir()
    (folder / "a.txt").write_text(long)
    (folder / "b.txt").write_text("that is")
    files = Corpus(str(folder))
    made = task(files, tmp_path)
    wanted = made.predict([long, "that is"], score=True)
    monkeypatch.setattr(scoring, "LOGITS", 1)
    monkeypatch.setattr(streams, "PIECE", 64)
    monkeypatch.setattr(corpora, "BLOCK", 256)
    encode, lengths, getitem, model = Text.encode_batch, [], Corpus.__getitem__, made.model.forward
    seen: list[int] = []

    def watch(self: Text, texts: list[str]) -> list[np.ndarray]:
        lengths.append(sum(map(len, texts)))
        return encode(self, texts)

    def watch_model(batch: object, *rest: object) -> torch.Tensor:
        seen.append(sum(lengths))
        return model(batch, *rest)

    monkeypatch.setattr(Text, "encode_batch", watch)
    monkeypatch.setattr(made.model, "forward", watch_model)
    monkeypatch.setattr(Corpus, "__getitem__", None)
    rows = [row for (row,) in RowsOfSource(made, Joined((files, files)), TextConfig(score=True)).after(1)]
    assert [row.pop("file") for row in rows] == [str(folder / name) for name in ("b.txt", "a.txt", "b.txt")]
    for row, other in zip(rows, [wanted[1], *wanted], strict=True):
        # Without the text, which may be larger than memory.
        assert row == pytest.approx({name: other[name] for name in ("tokens", "loss", "perplexity")}, rel=1e-5)
    assert max(lengths) <= 128 and seen[3] < 500 < 2000 < seen[-1]
    # Rows of a table have their text beside them; so has what a file is gone on with.
    monkeypatch.setattr(Corpus, "__getitem__", getitem)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "that is"}\n{"text": ""}\n')
    told: list[str] = []
    found = RowsOfSource(made, Corpus(str(rows)), TextConfig(score=True), failed=told.append).after()
    assert [list(row) for (row,) in found] == [["row", "text", "tokens", "loss", "perplexity"], ["row", "error"]]
    assert told == [f"{rows} row 1: field 'text': the text is empty, and has no probability"]
    assert made.predict(files.take([1]), max_new_tokens=1)[0]["text"] == "that is"
    assert made.embed(files.take([0]), pool="tokens")[0]["text"].shape == (len(long), 12)


def _batch(made: object, ids: torch.Tensor) -> object:
    from anyformer.packing import collate
    from anyformer.tokens import TokenSet

    place = torch.arange(len(ids))
    return collate([{made.field: TokenSet(ids, place[:, None], place)}], made.model.tokenizers)


@pytest.mark.parametrize("samples", ["windows", "documents"])
def test_the_rows_of_masked_tokens_are_in_sum_what_an_evaluation_measures(
    tmp_path: Path, corpus: Corpus, samples: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(corpus, tmp_path, "bytes", samples=samples, masking=Masking(0.3, redrawn=0.2))
    chopper, view = made.chopper(False), made.view(corpus, False)
    made.begin_evaluation()
    made.evaluate(chopper.collate([chopper(view[i]) for i in range(len(view))]))
    metrics = {name: float(value) for name, value in made.report("val").items()}
    assert made.shows_predictions
    rows = list(made.rows_of_test(corpus))
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert list(rows[0]) == ["row", "masked", "right", "loss", "perplexity"]
    n = sum(row["masked"] for row in rows)
    assert sum(row["right"] for row in rows) / n == pytest.approx(metrics["accuracy"])
    assert sum(row["masked"] * row["loss"] for row in rows) / n == pytest.approx(metrics["loss"], rel=1e-5)
    # A document of 7 bytes beside one of 54: each token counts where it stands.
    assert rows[0]["masked"] < rows[2]["masked"] and rows[2]["perplexity"] == pytest.approx(math.exp(rows[2]["loss"]))
    monkeypatch.setattr(scoring, "LOGITS", 1)
    for row, other in zip(rows, made.rows_of_test(corpus), strict=True):
        assert other == pytest.approx(row, rel=1e-5)
    # A window masks one token of the four of its documents, and a document of one token its own.
    (tmp_path / "short.txt").write_text("a\nb\nc\nd")
    found = list(made.rows_of_test(Corpus(str(tmp_path / "short.txt"), split="line")))
    assert sum(row["masked"] for row in found) == (1 if samples == "windows" else 4)
    assert all((row["loss"] is None) == (row["perplexity"] is None) == (row["masked"] == 0) for row in found)


@torch.no_grad()
def test_the_perplexity_of_the_corpus_is_that_of_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("to be or not to be that is")
    corpus = Corpus(str(tmp_path / "one.txt"))
    made = task(corpus, tmp_path)
    (result,) = made.predict(corpus, score=True)
    chopper, source = made.chopper(False), made.view(corpus, False)
    made.begin_evaluation()
    made.evaluate(chopper.collate([chopper(source[i]) for i in range(len(source))]))
    # There the end of the text is predicted too.
    n = result["tokens"]
    total = float(made.report("val")["loss"]) * (n + 1)
    assert n * result["loss"] < total < n * result["loss"] + 20
