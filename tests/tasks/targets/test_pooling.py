import pytest
import torch

from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tasks.targets.pooling import Pool, first_places, own_tokens
from tests.helpers.witnesses import Ids

SMALL = TransformerConfig(d_model=12, depth=2, n_heads=3, init_std=0.3)
INPUTS = {"left": Ids(9, ("word",), max_len=5), "right": Ids(7)}


def batch(rows=None):
    own = own_tokens(2, placed=False)
    samples = [
        {"left": INPUTS["left"].encode([1, 2, 3]), "right": INPUTS["right"].encode([4])},
        {"left": INPUTS["left"].encode([5])},
        {"left": INPUTS["left"].encode([2, 2]), "right": INPUTS["right"].encode([6, 1])},
    ]
    samples = [sample | {name: tokenizer.encode() for name, tokenizer in own.items()} for sample in samples]
    return collate(samples, {**INPUTS, **own}, rows)


@pytest.mark.parametrize("rows", [None, [0, 1, 0]], ids=["apart", "packed"])
@pytest.mark.parametrize("read", ["class", "first", "mean", "attention"])
def test_what_is_read_without_the_rest_is_what_is_read_of_it(read, rows):
    tokens = batch(rows)
    model = Anyformer({**INPUTS, **own_tokens(2, placed=False)}, SMALL).eval()
    pool = Pool(read, list(INPUTS), SMALL)
    torch.testing.assert_close(pool.read(model, tokens), pool(model(tokens), tokens))


def test_the_first_token_of_each_sample_is_found_wherever_its_row_is():
    tokens = batch([0, 1, 0])
    # The first row holds 6 tokens of sample 0 and then those of sample 2.
    assert first_places(tokens, "left").tolist() == [0, 12, 6]
    assert tokens.shape == (2, 12)


def test_a_mean_is_over_the_tokens_that_a_sample_has():
    tokens = batch()
    hidden = torch.randn(*tokens.shape, 12)
    vectors = tokens.by_field(hidden)
    pooled = Pool("mean", list(INPUTS), SMALL)(hidden, tokens)
    torch.testing.assert_close(pooled[0], torch.cat([vectors["left"][:3], vectors["right"][:1]]).mean(0))
    torch.testing.assert_close(pooled[1], vectors["left"][3])


@pytest.mark.parametrize("read", ["mean", "attention"])
def test_a_sample_without_a_token_spoils_nothing(read):
    sample = {"left": INPUTS["left"].encode([1]), "right": INPUTS["right"].encode([2])}
    tokens = collate([sample, {"left": INPUTS["left"].encode([])}], INPUTS)
    hidden = torch.randn(*tokens.shape, 12, requires_grad=True)
    pool = Pool(read, list(INPUTS), SMALL)
    pooled = pool(hidden, tokens)
    pooled.sum().backward()
    assert pooled[1].tolist() == [0] * 12 and pooled.isfinite().all() and hidden.grad.isfinite().all()


def test_there_is_no_field_of_own_tokens_without_a_token():
    assert own_tokens(0, placed=True) == {} and own_tokens(3, placed=True)["class"].sizes == {"slot": 3}
