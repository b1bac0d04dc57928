"""What is masked, and what a batch of a language model holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.language.batch import Masking, TextChopper
from anyformer.tokenizers.text.text import Text


def many(kind: str = "bytes") -> tuple[TextChopper, torch.Tensor]:
    text = Text(kind)
    ids = torch.from_numpy(text.encode_batch(["a quick brown fox jumps over lazy dogs " * 100])[0])
    return TextChopper({"text": text}, "text", masking=Masking()), ids


def test_masked_tokens_are_as_many_and_of_the_kinds_that_bert_has():
    chopper, ids = many()
    place, seen = chopper._mask(ids, np.random.default_rng(0))
    assert len(place) == round(0.15 * len(ids)) and len(set(place.tolist())) == len(place)
    untouched = torch.ones(len(ids), dtype=torch.bool)
    untouched[place] = False
    assert torch.equal(seen[untouched], ids[untouched])
    n_masked = (seen[place] == chopper.text.mask_id).sum() / len(place)
    n_same = (seen[place] == ids[place]).sum() / len(place)
    assert abs(n_masked - 0.8) < 0.06 and abs(n_same - 0.1) < 0.05
    drawn = seen[place][(seen[place] != ids[place]) & (seen[place] != chopper.text.mask_id)]
    assert len(set(drawn.tolist())) > 30 and not set(drawn.tolist()) & set(chopper.text.special_ids)


def test_no_token_is_redrawn_as_a_special_one():
    text = Text("characters").fit(["ab"])
    ids = torch.from_numpy(text.encode_batch(["ab" * 300])[0])
    chopper = TextChopper({"text": text}, "text", masking=Masking(share=0.9, replaced=0.0, redrawn=1.0))
    place, seen = chopper._mask(ids, np.random.default_rng(0))
    ordinary = set(range(text.n_ids)) - set(text.special_ids)
    assert len(text.special_ids) >= 2 and set(seen[place].tolist()) == ordinary


def test_whole_words_are_masked_together():
    chopper, ids = many()
    chopper = replace(chopper, masking=Masking(whole_words=True))
    place, _ = chopper._mask(ids, np.random.default_rng(0))
    words = chopper.text.words(ids)
    chosen = set(words[place].tolist())
    assert sorted(place.tolist()) == [i for i, word in enumerate(words.tolist()) if word in chosen]
    assert abs(len(place) / len(ids) - 0.15) < 0.05


def test_special_tokens_are_never_masked():
    chopper, _ = many()
    ids = torch.tensor([97, 256] * 50)
    for seed in range(20):
        place, _ = chopper._mask(ids, np.random.default_rng(seed))
        assert (ids[place] == 97).all() and len(place) == round(0.15 * 50)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"replaced": 0.8, "redrawn": 0.3}, {"redrawn": -0.1}])
def test_masks_that_cannot_be_say_why(options):
    with pytest.raises(InputError, match=r"masking\.(share|replaced)"):
        Masking(**options)
