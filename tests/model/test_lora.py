"""An adapter is its formula, starts as nothing, merges into one matrix, and can act in some samples alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.cache import Cache
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.lora import LoraConfig, LoraLinear, adapt, adapters, full_weight, merge_adapters
from anyformer.packing import collate
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample
from tests.helpers.witnesses import redraw

TOKENIZERS = {
    "image": ImagePatches((4, 4), patch=2, channels=1),
    "text": Text(kind="characters", max_len=8).fit(["abcdef"]),
}
SIZES = TransformerConfig(10, depth=3, n_heads=2, d_ff=14, gated=True)


class Holder(nn.Module):
    """A task as far as adapters are concerned."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.model = Anyformer(TOKENIZERS, SIZES, **options)
        redraw(self)


def holder(config: LoraConfig, **options: Any) -> Holder:
    """One whose adapters are far from nothing."""
    module = Holder(**options)
    adapt(module, config)
    for layer in adapters(module).values():
        nn.init.normal_(layer.lora_b)
    return module.eval().requires_grad_(False)


def samples() -> list[Sample]:
    """Pictures, of which the second and the fourth have a text."""
    found = []
    for i, text in enumerate([None, "ab", None, "fed", None]):
        sample = {"image": TOKENIZERS["image"].encode(torch.rand(1, 4, 4, generator=torch.manual_seed(i)))}
        found.append(sample if text is None else sample | {"text": TOKENIZERS["text"].encode(text)})
    return found


def without(module: Holder) -> Holder:
    """The same without what its adapters add."""
    plain = copy.deepcopy(module)
    for layer in adapters(plain).values():
        nn.init.zeros_(layer.lora_b)
    return plain


def by_sample(hidden: torch.Tensor, batch: Any) -> list[torch.Tensor]:
    flat = hidden.flatten(0, 1)
    found = []
    for i in range(batch.n_samples):
        of_fields = [tokens.index[tokens.sample == i] for tokens in batch.fields.values()]
        found.append(flat[torch.cat(of_fields)])
    return found


@pytest.mark.parametrize("stabilized", [True, False])
def test_an_adapter_adds_its_formula_and_at_first_nothing(stabilized: bool) -> None:
    module = nn.ModuleDict({"q": nn.Linear(5, 7), "v": nn.Linear(5, 7)})
    x, plain = torch.randn(3, 5), copy.deepcopy(module)
    adapt(module, LoraConfig(rank=4, on=["q"], alpha=3.0, rank_stabilized=stabilized))
    assert isinstance(module["q"], LoraLinear) and type(module["v"]) is nn.Linear
    assert torch.equal(module["q"](x), plain["q"](x))
    layer = module["q"]
    nn.init.normal_(layer.lora_b)
    added = (3.0 / (2.0 if stabilized else 4.0)) * x @ layer.lora_a.T @ layer.lora_b.T
    torch.testing.assert_close(layer(x), plain["q"](x) + added)
    assert [*layer.state_dict()] == ["weight", "bias", "lora_a", "lora_b"]


def test_dropout_is_on_what_a_is_given_and_in_training_alone() -> None:
    module = nn.ModuleDict({"q": nn.Linear(50, 7)})
    adapt(module, LoraConfig(rank=4, on=["*"], dropout=0.5))
    layer, x = module["q"], torch.randn(2, 50)
    assert torch.equal(layer.train()(x), layer.eval()(x))  # As B is 0.
    nn.init.normal_(layer.lora_b)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_merged_equals_unmerged_everywhere() -> None:
    module = holder(LoraConfig(rank=3, on=["*"]))
    batch = collate(samples(), TOKENIZERS)
    before, names = module.model(batch), [name for name, _ in Holder().named_parameters()]
    assert (before - without(module).model(batch)).abs().max() > 0.1
    merge_adapters(module)
    assert [name for name, _ in module.named_parameters()] == names and not adapters(module)
    assert all(type(part) is nn.Linear for part in module.modules() if isinstance(part, nn.Linear))
    torch.testing.assert_close(module.model(batch), before, rtol=0, atol=1e-6 * before.std().item() + 2e-6)


def test_a_head_over_a_vocabulary_has_its_adapter_in_loss_and_logits() -> None:
    model = Anyformer(TOKENIZERS, SIZES)
    module = nn.ModuleDict({"head": Head(model.embeddings.lifts["text"], SIZES, HeadConfig(tied=False))})
    adapt(module, LoraConfig(rank=2, on=["head.output"]))
    head, hidden = module["head"], torch.randn(6, 10)
    nn.init.normal_(head.output.lora_b)
    logits = hidden @ full_weight(head.output).T
    torch.testing.assert_close(head(hidden), logits)
    target = torch.arange(6) % logits.shape[1]
    torch.testing.assert_close(head.loss(hidden, target), nn.functional.cross_entropy(logits, target, reduction="sum"))
    head.loss(hidden, target).backward()
    assert head.output.lora_a.grad.abs().max() > 0


# Some samples alone.

ON = ["*.q", "*.k", "*.v", "*.o", "*.mlp.*"]


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_samples_without_the_field_are_what_they_were_bit_for_bit(pack: bool, read: bool) -> None:
    module = holder(LoraConfig(rank=3, on=ON, only_with=["text"]))
    batch = collate(samples(), TOKENIZERS, rows=[0, 0, 0, 1, 1] if pack else None)
    places = None
    if read:
        places = torch.tensor([[0, 4, 5, 10]] * 2 if pack else [[0, 3]] * 5)
    adapted, plain = module.model(batch, read=places), without(module).model(batch, read=places)
    if read:
        sample = torch.full(batch.shape, -1).flatten()
        for tokens in batch.fields.values():
            sample[tokens.index] = tokens.sample
        sample = sample.view(batch.shape).gather(1, places)
        same, has_text = (adapted == plain).all(-1), (sample == 1) | (sample == 3)
        assert same[~has_text].all() and not same[has_text].any()
        return
    for i, (one, other) in enumerate(zip(by_sample(adapted, batch), by_sample(plain, batch), strict=True)):
        if i in (1, 3):
            assert (one - other).abs().max() > 0.1
        else:
            assert torch.equal(one, other)
    # And the bits are those of a model that never had an adapter.
    never = Holder()
    never.load_state_dict({n: v for n, v in module.state_dict().items() if "lora_" not in n})
    few = collate([samples()[0], samples()[2]], TOKENIZERS)
    assert torch.equal(module.model(few), never.eval().model(few))


def test_an_adapter_that_acts_acts_as_everywhere() -> None:
    torch.manual_seed(0)
    some = holder(LoraConfig(rank=3, on=ON, only_with=["text"]))
    every = copy.deepcopy(some)
    every.model.adapts_with = None
    batch = collate([samples()[1], samples()[3]], TOKENIZERS)
    assert torch.equal(some.model(batch), every.model(batch))


def test_a_cache_and_an_encoder_change_nothing() -> None:
    torch.manual_seed(0)
    words = {"text": TOKENIZERS["text"].encode("abc")}
    target = {"text": replace(words["text"], order=torch.arange(3))}
    module = holder(LoraConfig(rank=3, on=ON, only_with=["image"]), encoder=SIZES)
    plain = without(module)
    with_picture, no_picture = {"image": samples()[0]["image"]}, words
    for condition, acts in ((with_picture, True), (no_picture, False)):
        conditions, batch = collate([condition], TOKENIZERS), collate([target], TOKENIZERS)
        whole = module.model(batch, conditions)
        assert torch.equal(whole, plain.model(batch, conditions)) is not acts
        cache = Cache()
        torch.testing.assert_close(module.model(batch, conditions, cache), whole)
        later = collate([{"text": replace(TOKENIZERS["text"].encode("d"), order=torch.tensor([3]))}], TOKENIZERS)
        one, other = (each.model(later, cache=copy.deepcopy(cache)) for each in (module, plain))
        assert torch.equal(one, other) is not acts


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"lora\.rank must be at least 1, got 0"),
        ({"alpha": 0.0}, r"lora\.alpha must be above 0, got 0\.0"),
        ({"dropout": 1.0}, r"lora\.dropout must be at least 0 and below 1, got 1\.0"),
        ({"on": [], "only_with": ["text"]}, r"lora\.only_with is for adapters, and lora\.on names no map"),
        ({"on": ["*.qq"]}, r"lora\.on: no linear map is named '\*\.qq'; did you mean .*'\*\.q'"),
        ({"on": ["zebra"]}, r"lora\.on: no linear map is named 'zebra'; there are .*\*\.down, .*\*\.q"),
        (
            {"rank": 11, "on": ["*.q"]},
            r"lora\.rank is 11, more than model\.transformer\.blocks\.0\.attention\.q has, a matrix of 10 x 10; give "
            r"at most 10",
        ),
        ({"rank": 2, "only_with": ["txt"]}, r"lora\.only_with: there is no field 'txt'.*did you mean 'text'"),
        (
            {"rank": 2, "on": ["*.linear"], "only_with": ["text"]},
            r"lora\.only_with: model\.embeddings\.lifts\.image\.linear cannot adapt some samples alone",
        ),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapt(Holder(), LoraConfig(**options))


def test_adapters_of_some_samples_are_not_merged() -> None:
    with pytest.raises(InputError, match=r"lora\.only_with: adapters that act in some samples alone cannot be merged"):
        merge_adapters(holder(LoraConfig(rank=2, only_with=["text"])))
