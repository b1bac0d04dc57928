"""Error rates against sacrebleu, torchmetrics and tables small enough to fill in by hand."""

from __future__ import annotations

import random
import socket

import pytest
from torchmetrics.functional.text import char_error_rate, word_error_rate

from anyformer.metrics.text import N_SUMS, align_words, count_errors, edit_distance, error_rates

WORDS = ["the", "a", "dog", "cat", "runs", ",", "sits", ".", "Don't", "well-known", "3.5", "Mr.", "Smith's", "&"]


def draw_texts(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """References, and hypotheses with some of their words changed, left out or put in; some are empty."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.choice([0, 1, 5, 9, 14]))) for _ in range(n)]
    hypotheses = []
    for reference in references:
        words = [word for word in reference.split() if draw.random() > 0.1]
        words = [draw.choice(WORDS) if draw.random() < 0.1 else word for word in words]
        hypotheses.append(" ".join(part for word in words for part in (word, *["so"] * (draw.random() < 0.1))))
    return references, hypotheses


def distance_by_table(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        above, row = row, [i]
        for j, b in enumerate(right, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@pytest.mark.parametrize(
    ("left", "right", "n"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("flaw", "lawn", 2)]
)
def test_edit_distances_that_are_known(left: str, right: str, n: int) -> None:
    assert edit_distance(left, right) == n
    assert edit_distance(list(left), list(right)) == n, "of words as of characters"


def test_edit_distances_are_those_of_the_whole_table() -> None:
    draw = random.Random(0)
    for _ in range(200):
        left, right = ("".join(draw.choices("abc", k=draw.randrange(80))) for _ in range(2))
        assert edit_distance(left, right) == distance_by_table(left, right)


def test_word_and_character_error_rates_are_torchmetrics() -> None:
    references, hypotheses = draw_texts(50)
    rates = error_rates(count_errors(references, hypotheses))
    assert rates["wer"] == pytest.approx(word_error_rate(hypotheses, references).item())
    assert rates["cer"] == pytest.approx(char_error_rate(hypotheses, references).item())
    assert rates["exact_match"] == sum(map(str.__eq__, references, hypotheses)) / 50 > 0
    assert 0.1 < rates["wer"] < 0.4


def test_bleu_is_sacrebleus_of_the_whole_corpus() -> None:
    from sacrebleu import corpus_bleu

    references, hypotheses = draw_texts(50)
    rates = error_rates(count_errors(references, hypotheses))
    assert rates["bleu"] == pytest.approx(corpus_bleu(hypotheses, [references]).score, abs=1e-9)
    assert 20 < rates["bleu"] < 95
    assert "bleu_moses" not in rates, "no figure of what was not counted"


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("a dog runs in the park", "a dog walks in a park"),  # no 3-gram
        ("a dog runs in the park", "a dog runs on one park"),  # no 4-gram
        ("a dog runs", "the dog is running now"),  # one word
        ("a dog runs", "she sits there quietly"),  # nothing
        ("a dog", "a dog"),  # shorter than a 4-gram
        ("a dog runs in the park", "a dog"),
        ("a dog runs in the park", ""),
    ],
)
def test_bleu_is_sacrebleus_where_no_4_gram_matches(reference: str, hypothesis: str) -> None:
    from sacrebleu import corpus_bleu

    rates = error_rates(count_errors([reference], [hypothesis], "en"))
    assert rates["bleu"] == pytest.approx(corpus_bleu([hypothesis], [[reference]]).score, abs=1e-9)
    assert rates["bleu_moses"] == pytest.approx(rates["bleu"]), "of such texts the tokens are the same"


def test_bleu_of_lower_cased_moses_tokens() -> None:
    from sacrebleu import corpus_bleu

    # Points stay with abbreviations and German ordinals, and an apostrophe begins a token.
    references = ["A man isn't on the U.S. stage (now).", "Zwei Männer stehen am 3. Mai da!"]
    tokens = ["a man isn 't on the u.s. stage ( now ) .", "zwei männer stehen am 3. mai da !"]
    hypotheses = ["a man isn't at the U.S. stage (now).", "Zwei Männer gehen am 3. Mai da!"]
    expected = [text.replace(" on ", " at ").replace("stehen", "gehen") for text in tokens]
    german = error_rates(count_errors(references[1:], hypotheses[1:], "de"))
    assert german["bleu_moses"] == pytest.approx(corpus_bleu(expected[1:], [tokens[1:]], tokenize="none").score)
    english = error_rates(count_errors(references[:1], hypotheses[:1], "en"))
    assert english["bleu_moses"] == pytest.approx(corpus_bleu(expected[:1], [tokens[:1]], tokenize="none").score)
    shouted = error_rates(count_errors(references, [text.upper() for text in references], "en"))
    assert shouted["bleu_moses"] == pytest.approx(100) and shouted["bleu"] < 20


def test_sums_of_batches_add_up() -> None:
    references, hypotheses = draw_texts(30)
    whole = count_errors(references, hypotheses, "en")
    parts = [count_errors(references[i : i + 7], hypotheses[i : i + 7], "en") for i in range(0, 30, 7)]
    assert whole.shape == (N_SUMS,) and sum(parts).tolist() == whole.tolist()
    assert count_errors([], [], "en").tolist() == [0] * N_SUMS
    assert error_rates(count_errors([], [])) == {"wer": 0, "cer": 0, "exact_match": 0, "bleu": 0}


def test_nothing_said_is_all_deleted_and_what_is_too_much_counts() -> None:
    assert error_rates(count_errors(["a bc"], [""])) == {"wer": 1, "cer": 1, "exact_match": 0, "bleu": 0}
    assert error_rates(count_errors(["a"], ["a b c"]))["wer"] == 2
    rates = error_rates(count_errors(["a b ", "c"], ["a b", "c"]))
    assert rates["wer"] == 0 and rates["exact_match"] == 0.5, "white space is no word, but not nothing"


def test_nothing_reaches_for_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("a connection is made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    count_errors(["Ein Hund läuft."], ["Ein Hund rennt."], "de")
    assert not list(tmp_path.iterdir())


def test_words_are_aligned_with_the_fewest_errors() -> None:
    assert align_words("the cat sat on it", "a cat on it now") == [
        ("substituted", "the", "a"),
        ("equal", "cat", "cat"),
        ("deleted", "sat", ""),
        ("equal", "on", "on"),
        ("equal", "it", "it"),
        ("inserted", "", "now"),
    ]
    assert align_words("", "") == [] and align_words("", "a") == [("inserted", "", "a")]


def test_an_alignment_holds_both_texts_and_as_many_errors_as_their_distance() -> None:
    for reference, hypothesis in zip(*draw_texts(40, seed=1), strict=True):
        found = align_words(reference, hypothesis)
        assert [word.reference for word in found if word.kind != "inserted"] == reference.split()
        assert [word.hypothesis for word in found if word.kind != "deleted"] == hypothesis.split()
        n_errors = sum(word.kind != "equal" for word in found)
        assert n_errors == edit_distance(reference.split(), hypothesis.split())
        assert all((word.reference == word.hypothesis) == (word.kind == "equal") for word in found)
