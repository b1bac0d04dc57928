import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tasks.targets.masked import Masked, token_sets
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.molecule import FEATURES, Molecule
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import Ids

SMALL = TransformerConfig(d_model=12, depth=2, n_heads=3, init_std=0.3)
PATCHES = ImagePatches(size=(4, 6), patch=2, channels=1)
TEXT = Text("characters", vocabulary="abcdefgh", max_len=12)


def pictures(n: int) -> list[TokenSet]:
    return [PATCHES.encode(np.random.default_rng(i).integers(0, 256, (4, 6), dtype=np.uint8)) for i in range(n)]


def hidden(n=3, share=0.5):
    """A model and its head for masked pictures and texts, and a batch of both."""
    torch.manual_seed(0)
    tokenizers = {"image": PATCHES, "text": TEXT}
    targets = {"image": Masked(share), "text": Masked(share)}
    model = Anyformer(tokenizers, SMALL, maskable=list(tokenizers)).eval()
    heads = {name: target.head(name, model, SMALL).eval() for name, target in targets.items()}
    samples = [{"image": image, "text": TEXT.encode("abcdefgh"[: 4 + i])} for i, image in enumerate(pictures(n))]
    samples = [
        {name: targets[name].hide(name, part, tokenizers[name], None, alone=False) for name, part in sample.items()}
        for sample in samples
    ]
    return model, targets, heads, samples, tokenizers


def test_the_share_that_is_asked_for_is_hidden_and_one_at_least():
    for share, n in ((0.5, 3), (0.75, 4), (0.01, 1), (0.99, 6)):
        assert Masked(share).hide("image", pictures(1)[0], PATCHES, None, alone=False).masked.sum() == n
    assert Masked(0.99).hide("image", pictures(1)[0], PATCHES, None, alone=True).masked.sum() == 5
    one = TokenSet(torch.tensor([3]))
    assert not Masked(0.5).hide("text", one, Ids(9), None, alone=True).masked.any()


def test_what_is_hidden_is_drawn_in_training_and_a_function_of_the_content_else():
    (image, other), target = pictures(2), Masked(0.5)
    draws = [target.hide("image", image, PATCHES, np.random.default_rng(i), False).masked for i in range(6)]
    assert len({tuple(draw.tolist()) for draw in draws}) > 1
    twice = [target.hide("image", image, PATCHES, None, False).masked for _ in range(2)]
    assert torch.equal(*twice)
    assert not torch.equal(twice[0], target.hide("image", other, PATCHES, None, False).masked)


def test_special_tokens_are_not_hidden():
    ids = torch.tensor([TEXT.eos_id, 0, 1, 2, TEXT.mask_id])
    masked = Masked(0.99).hide("text", TokenSet(ids), TEXT, None, alone=True).masked
    assert masked.tolist() == [False, True, True, True, False]


def test_hidden_content_reaches_no_vector_and_no_gradient_but_as_a_target():
    model, targets, heads, samples, tokenizers = hidden()
    batch = collate(samples, tokenizers)
    changed = [
        {
            name: TokenSet(
                torch.where(part.masked.view(-1, *[1] * (part.content.ndim - 1)), part.content * 0 + 1, part.content),
                part.position, part.order, extent=part.extent, masked=part.masked,
            )
            for name, part in sample.items()
        }
        for sample in samples
    ]  # fmt: skip
    assert torch.equal(model(batch), model(collate(changed, tokenizers)))
    for name, target in targets.items():
        aim = target.aim(name, [None] * 3, batch)
        masked = torch.cat([sample[name].masked for sample in samples])
        assert len(aim.read) == masked.sum()
        assert torch.equal(aim.values, batch.fields[name].content[masked])
        assert aim.sample.tolist() == [i for i, sample in enumerate(samples) for m in sample[name].masked if m]
        vectors = model(batch).flatten(0, 1)[aim.read]
        loss, n = heads[name].loss(vectors, aim.values)
        assert n == len(aim.read) and loss.isfinite()
        loss.backward()
    assert all(mask.grad.abs().sum() > 0 for mask in model.embeddings.masks.values())


def test_pictures_are_normed_within_each_token_and_nothing_else_is():
    _, _, heads, _, _ = hidden()
    wanted = heads["image"].wanted(torch.randn(5, 4) * 3 + 2)
    torch.testing.assert_close(wanted.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(wanted.var(1, correction=0), torch.ones(5), atol=1e-3, rtol=0)
    assert heads["image"].wanted(torch.ones(2, 4)).abs().max() == 0
    assert Masked().normalizes(PATCHES) and not Masked().normalizes(TEXT)
    assert not Masked(normalize=False).normalizes(PATCHES)


def test_what_is_shown_stays_and_what_is_right_comes_back_as_it_was():
    _, _, heads, samples, tokenizers = hidden()
    batch = collate(samples, tokenizers)
    tokens, head = batch.fields["image"], heads["image"]
    wanted = head.wanted(tokens.content[tokens.masked])
    # A vector that the output layer turns into what is wanted.
    vectors = torch.linalg.lstsq(head.output.weight.detach(), (wanted - head.output.bias.detach()).T).solution.T
    torch.testing.assert_close(head.filled(vectors, tokens).detach(), tokens.content, atol=1e-4, rtol=0)
    loss, _ = head.loss(vectors, tokens.content[tokens.masked])
    assert loss.item() == pytest.approx(0, abs=1e-6)
    again = token_sets(tokens, tokens.content)
    assert all(torch.equal(a.content, b["image"].content) for a, b in zip(again, samples, strict=True))


def test_results_are_of_each_sample_and_a_text_is_filled_in():
    model, targets, heads, samples, tokenizers = hidden()
    del samples[1]["text"]
    batch = collate(samples, tokenizers)
    for name, head in heads.items():
        aim = targets[name].aim(name, [None] * 3, batch)
        vectors = model(batch).flatten(0, 1)[aim.read].detach()
        results = head.fill(vectors, batch.fields[name], 3)
        head.evaluate(vectors, aim.values)
        counts = [int(sample[name].masked.sum()) if name in sample else 0 for sample in samples]
        total = sum(result["loss"] * n for result, n in zip(results, counts, strict=True) if n)
        assert head.compute()["loss"].item() == pytest.approx(total / sum(counts), rel=1e-5)
    assert results[1] == {"loss": None, "text": None}
    assert len(results[0]["text"]) == 4 and targets["text"].render(results[0]).startswith(results[0]["text"])
    assert targets["text"].render(results[1]) == "-"
    assert targets["text"].row("text", results[1]) == {"text_loss": None, "text_text": None}
    shown = samples[0]["text"]
    kept = TEXT.decode(shown.content[~shown.masked])
    assert kept == "".join(c for c, m in zip(results[0]["text"], shown.masked.tolist(), strict=True) if not m)
    assert 0 <= heads["text"].compute()["accuracy"] <= 1


def test_pictures_of_an_evaluation_are_drawn(tmp_path):
    model, targets, heads, samples, tokenizers = hidden(n=10)
    batch = collate(samples, tokenizers)
    for name in ("image", "text"):
        aim = targets[name].aim(name, [None] * 10, batch)
        heads[name].keep(model(batch).flatten(0, 1)[aim.read].detach(), batch.fields[name])
        heads[name].draw(tmp_path, f"_{name}")
    assert [path.name for path in tmp_path.iterdir()] == ["reconstructions_image.png"]
    assert len(heads["image"].drawn) == 8
    whole, shown, filled = heads["image"].drawn[0]
    assert (whole == shown).mean() == pytest.approx(0.5, abs=0.05) and (
        filled[whole == shown] == whole[whole == shown]
    ).all()


def test_what_cannot_be_masked_is_named():
    stemmed = ImagePatches(size=(4, 6), patch=2, channels=1, stem=ConvStem(4))
    tokens = stemmed.encode(np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match="field 'image': 6 tokens are made of 24 pieces of content, and a token alone"):
        Masked().hide("image", tokens, stemmed, None, alone=False)
    with pytest.raises(InputError, match=r"share must lie between 0 and 1, got 1.0"):
        Masked(1.0)


def test_of_atoms_every_feature_is_filled_in():
    pytest.importorskip("rdkit")
    torch.manual_seed(0)
    graph, target = Molecule(kind="graph"), Masked(0.5)
    model = Anyformer({"smiles": graph}, SMALL, maskable=["smiles"]).eval()
    head = target.head("smiles", model, SMALL).eval()
    tokens = target.hide("smiles", graph.encode("OCC(N)C"), graph, None, alone=False)
    batch = collate([{"smiles": tokens}], {"smiles": graph})
    aim = target.aim("smiles", [None], batch)
    vectors = model(batch).flatten(0, 1)[aim.read]
    assert aim.values.shape == (2, 8)
    logits = head.output(vectors).split(list(FEATURES.values()), -1)
    expected = [
        sum(-logits[k][i].log_softmax(-1)[aim.values[i, k]] for k in range(8)).item() / 8 for i in range(len(vectors))
    ]
    assert head.each_loss(vectors, aim.values).tolist() == pytest.approx(expected)
    loss, n = head.loss(vectors, aim.values)
    assert loss.item() == pytest.approx(sum(expected)) and n == 2
    head.evaluate(vectors, aim.values)
    right = sum((logits[k][i].argmax() == aim.values[i, k]).item() for i in range(2) for k in range(8))
    assert head.compute()["accuracy"] == pytest.approx(right / 16)
    filled = head.filled(vectors, batch.fields["smiles"])
    assert torch.equal(filled[~tokens.masked], tokens.content[~tokens.masked])
    assert filled[tokens.masked].tolist() == [[each[i].argmax().item() for each in logits] for i in range(2)]
