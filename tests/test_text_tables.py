"""Tables for the terminal."""

from __future__ import annotations

from anyformer.text_tables import align


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    rows = [["reads", "model", "auroc"], ["-", "most frequent", "0.5"], ["smiles", "forest", ""]]
    assert align(rows, n_words=2) == [
        "reads   model          auroc",
        "-       most frequent    0.5",
        "smiles  forest",
    ]
    assert align([["a", "1"], ["bb", "10"]]) == ["a    1", "bb  10"]
