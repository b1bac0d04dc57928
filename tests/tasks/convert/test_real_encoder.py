"""A published sentence encoder, all-MiniLM-L6-v2, gives the vectors of transformers' BertModel and ranks as they do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModel, AutoTokenizer

from anyformer.cli.main import main
from anyformer.saving.model_folder import load
from anyformer.tasks.embed.embed import Embed

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))
MINILM = next(DATA.absolute().parent.glob("*/minilm_l6"), None)

pytestmark = pytest.mark.skipif(MINILM is None, reason="needs minilm_l6 beside ANYFORMER_DATA")

PAIRS = [
    ("A man is eating food.", "A man is eating a meal."),
    ("A man is eating food.", "The girl is carrying a baby."),
    ("A man is riding a horse.", "Someone rides a horse across a field."),
    ("The weather is lovely today.", "It's so sunny outside!"),
    ("The weather is lovely today.", "He drove to the stadium."),
    ("How do I sort a list in Python?", "sorted() returns a new list in ascending order."),
    ("How do I sort a list in Python?", "Bake the dough for twenty minutes."),
    ("The bank raised its interest rates.", "Borrowing has become more expensive."),
    ("The river bank was flooded.", "The bank raised its interest rates."),
    ("Naïve Bayes, 2nd edition (2019)!", "a textbook on probabilistic classifiers " * 6),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "minilm"
    assert main(["import", str(MINILM), str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def model(run: Path) -> Embed:
    return load(run)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def theirs() -> np.ndarray:
    """The means of their last hidden vectors, of all sentences in one padded batch, (20, 384)."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    encoder = AutoModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    texts = [text for pair in PAIRS for text in pair]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    return ((hidden * mask).sum(1) / mask.sum(1)).numpy()


def normed(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Of each pair."""
    one, other = normed(vectors).reshape(len(PAIRS), 2, -1).swapaxes(0, 1)
    return (one * other).sum(1)


def test_its_vectors_are_those_of_transformers_padded_or_alone(model: Embed, theirs: np.ndarray) -> None:
    texts = [text for pair in PAIRS for text in pair]
    assert np.abs(model.embed(texts) - theirs).max() < 1e-5
    assert np.abs(np.stack([model.embed(text) for text in texts[-4:]]) - theirs[-4:]).max() < 1e-5
    assert np.abs(model.embed(texts, normalize=True) - normed(theirs)).max() < 1e-5
    ranked = np.argsort(cosines(model.embed(texts)))
    assert ranked.tolist() == np.argsort(cosines(theirs)).tolist()
    assert cosines(theirs)[[0, 3, 5]].min() > cosines(theirs)[[1, 4, 6]].max() + 0.3, "the pairs differ"


def test_in_half_precision_they_are_so_to_a_thousandth(model: Embed, theirs: np.ndarray) -> None:
    texts = [text for pair in PAIRS for text in pair]
    try:
        found = model.half().embed(texts, normalize=True)
    finally:
        model.float()
    assert 1e-7 < np.abs(found - normed(theirs)).max() < 1e-3
    assert np.argsort(cosines(found)).tolist() == np.argsort(cosines(theirs)).tolist()


def test_the_recipe_takes_all_of_it_but_the_head(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[3] / "configs" / "text_minilm.yaml"
    monkeypatch.chdir(tmp_path)
    few = [f"--data.{part}.init_args.each=2" for part in ("train", "validation")]
    short = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"]
    options = [f"--model.init_from={run}", "--run_dir=run", *few, *short]
    assert main(["fit", "--config", str(config), *options]) == 0
    said = capsys.readouterr().err
    assert "101 tensors taken, 2 fresh (heads.class_head.output.weight, heads.class_head.output.bias)" in said
    assert load("run").tokenizers["text"].wrap, "it reads a text between [CLS] and [SEP], as the encoder has learnt"
