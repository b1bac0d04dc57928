from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.functional.classification import binary_auroc, multiclass_f1_score

from anyformer.data.batch_plan import Draw
from anyformer.data.samples import Samples
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.packing import collate
from anyformer.saving.model_folder import load, save
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.targets.category import CategoryHead
from anyformer.tasks.targets.pooling import Pool
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.mixing import Mixing
from anyformer.tokenizers.text.text import Text

SMALL = TransformerConfig(d_model=12, depth=2, n_heads=3, init_std=0.3)


@dataclass(frozen=True)
class Rows(Source):
    """Records given as they are."""

    records: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.records[i]

    def name(self, i: int) -> str:
        return f"row {i}"


def pictures(n, rows=4, columns=6):
    return [np.random.default_rng(i).integers(0, 256, (rows, columns), dtype=np.uint8) for i in range(n)]


def task(classes=("a", "b", "c"), tokenizers=None, **options):
    tokenizers = tokenizers or {"image": ImagePatches(size=(4, 6), patch=2, channels=1)}
    built = Classify(tokenizers, SMALL, classes=list(classes), **options)
    built.build()
    return built.eval()


def truth(examples):
    return examples.aims["label"].values


def batch(made, records):
    chopper = made.chopper(training=False)
    return chopper.collate([chopper(record) for record in records])


def test_classes_are_the_labels_in_the_sequence_of_numbers_or_of_the_alphabet():
    numbers = Classify({"image": ImagePatches()}, SMALL)
    numbers.fit_tokenizers(Rows(tuple({"image": 0, "label": label} for label in ["10", "9", "-2", "10", "09"])))
    assert numbers.classes == ["-2", "09", "9", "10"]
    odd = Classify({"image": ImagePatches()}, SMALL)
    odd.fit_tokenizers(Rows(tuple({"image": 0, "label": label} for label in ["1", "\u00b2", "--5"])))
    assert odd.classes == ["--5", "1", "\u00b2"]
    names = Classify({"image": ImagePatches()}, SMALL, target="kind")
    names.fit_tokenizers(Rows(tuple({"image": 0, "kind": label} for label in ["wolf", "10", "cat"])))
    assert names.classes == ["10", "cat", "wolf"]
    names = Classify({"image": ImagePatches()}, SMALL, class_weights="balanced")
    names.fit_tokenizers(
        Rows(tuple({"image": 0, "label": label} for label in ["cat", None, float("nan"), "dog", "", " "]))
    )
    assert names.classes == ["cat", "dog"] and names.class_weights == [1, 1]


def test_balanced_weights_give_every_class_the_same_sum():
    made = Classify({"image": ImagePatches()}, SMALL, class_weights="balanced")
    made.fit_tokenizers(Rows(tuple({"image": 0, "label": label} for label in "aaab")))
    assert made.class_weights == pytest.approx([4 / 6, 4 / 2])


@pytest.mark.parametrize("read", ["class", "first", "mean", "attention"])
def test_a_prediction_does_not_depend_on_the_samples_beside_it(read):
    made = task(read=read, n_registers=2, tokenizers={"image": ImagePatches(size=None, patch=2, channels=1)},
                embedding=EmbeddingConfig(positions=[]))  # fmt: skip
    records = [{"image": image} for image in (*pictures(2), *pictures(2, 6, 4), *pictures(1, 2, 2))]
    together = made.predict(records)
    for record, result in zip(records, together, strict=True):
        (alone,) = made.predict([record])
        assert alone["probabilities"] == pytest.approx(result["probabilities"], abs=1e-5)


def test_the_mean_and_the_attention_of_a_pool_are_those_of_each_sample():
    made = task(read="mean", n_registers=1)
    tokens = batch(made, [{"image": image, "label": "a"} for image in pictures(3)]).tokens
    hidden = torch.randn(*tokens.shape, 12)
    patches = tokens.by_field(hidden)["image"].unflatten(0, (3, 6))
    torch.testing.assert_close(Pool("mean", ["image"], SMALL)(hidden, tokens), patches.mean(1))
    pool = Pool("attention", ["image"], SMALL)
    torch.nn.init.normal_(pool.score.weight)
    weights = pool.score(patches).softmax(1)
    torch.testing.assert_close(pool(hidden, tokens), (weights * patches).sum(1))


def test_the_class_token_is_read_and_registers_only_take_part():
    made = task(n_registers=2)
    tokens = batch(made, [{"image": image, "label": "a"} for image in pictures(2)]).tokens
    assert tokens.kind == "everything"
    hidden = made.model(tokens)
    assert torch.equal(made.pool(hidden, tokens), tokens.by_field(hidden)["class"].view(2, 3, 12)[:, 0])
    with torch.no_grad():
        before = made(tokens)
        made.model.embeddings.lifts["class"].table[1:] += torch.randn(2, 12)
        assert (made(tokens) - before).abs().max() > 1e-2


@pytest.mark.parametrize("rows", [None, [0, 1, 0]], ids=["apart", "packed"])
def test_the_first_token_of_the_first_field_is_read(rows):
    made = task(read="first", tokenizers={"text": Text("bytes", max_len=9), "more": Text("bytes", max_len=9)})
    assert not made.own_tokens
    chopper = made.chopper(training=False)
    records = [{"text": "cat", "more": "x"}, {"text": "dog"}, {"text": "d", "more": "yz"}]
    tokens = chopper.collate([chopper(record, labelled=False) for record in records], rows).tokens
    hidden = made.model(tokens)
    vectors = tokens.by_field(hidden)["text"][[0, 3, 6]]
    torch.testing.assert_close(made(tokens), made.head("label").output(vectors))
    for wrong in ({"more": "x"}, {"more": "x", "text": ""}):
        with pytest.raises(InputError, match=r"field 'text' must hold the token that is read \(read: first\)"):
            chopper(wrong, labelled=False)


def test_what_is_read_goes_through_a_norm_a_matrix_and_a_tanh_when_asked():
    made = task(pool_norm=True, pool_dense=True)
    norm, dense = made.pool.norm, made.pool.dense
    torch.nn.init.normal_(dense.bias)
    tokens = batch(made, [{"image": image, "label": "a"} for image in pictures(3)]).tokens
    x = tokens.by_field(made.model(tokens))["class"]
    torch.testing.assert_close(made(tokens), made.head("label").output(torch.tanh(dense(norm(x)))))


def test_the_loss_is_a_sum_with_weights_and_smoothing():
    made = task(class_weights=[1.0, 2.0, 4.0], label_smoothing=0.1)
    scores = made.head("label").train()
    examples = batch(made, [{"image": image, "label": label} for image, label in zip(pictures(3), "abc", strict=True)])
    loss, n_targets = made.loss(examples)
    mean = F.cross_entropy(made(examples.tokens), truth(examples), scores.loss_weights, label_smoothing=0.1)
    assert n_targets == 7
    torch.testing.assert_close(loss / n_targets, mean)


def test_figures_are_those_of_the_whole_set_and_not_means_of_batches():
    made = task(classes=("a", "b"), class_weights=[1.0, 5.0])
    records = [{"image": image, "label": "ab"[i % 3 == 0]} for i, image in enumerate(pictures(11))]
    made.begin_evaluation()
    scores = [made.evaluate(batch(made, part))["accuracy"] for part in (records[:8], records[8:])]
    logged = {f"val/{name}": value for name, value in made.report("val").items()}
    with torch.no_grad():
        examples = batch(made, records)
        logits = made(examples.tokens)
    loss = F.cross_entropy(logits, truth(examples), made.head("label").loss_weights)
    assert logged["val/loss"] == pytest.approx(loss.item(), rel=1e-5)
    right = logits.argmax(1) == truth(examples)
    assert logged["val/accuracy"] == pytest.approx(right.float().mean().item())
    assert torch.cat(scores).tolist() == right.tolist()
    f1 = multiclass_f1_score(logits, truth(examples), 2, average="macro")
    assert logged["val/f1"] == pytest.approx(f1.item())
    auroc = binary_auroc(logits.softmax(1)[:, 1], truth(examples))
    assert logged["val/auroc"] == pytest.approx(auroc.item())
    assert "val/top5" not in logged
    assert made.head("label").confusion.sum() == 11


def test_what_was_saved_predicts_the_same_from_anywhere(tmp_path):
    made = task(read="attention", n_registers=1, place_class=True)
    save(made, tmp_path / "model")
    records = [{"image": image} for image in pictures(3)]
    again = load(tmp_path)
    assert again.classes == ["a", "b", "c"]
    assert again.predict(records) == made.predict(records)


def test_a_result_is_shown_likeliest_first():
    made = task()
    text = made.render({"probabilities": {"b": 0.75, "a": 0.2, "c": 0.05}})
    assert text.splitlines()[0].split() == ["b", "75.0%"]


def test_a_confusion_matrix_is_drawn(tmp_path):
    made = task()
    made.head("label").confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 5]])
    made.draw(tmp_path)
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_a_field_may_be_missing_but_not_all():
    tokenizer = ImagePatches(size=(4, 6), patch=2, channels=1)
    made = task(tokenizers={"left": tokenizer, "right": tokenizer})
    left, right = pictures(2)
    results = made.predict([{"left": left, "right": right}, {"left": left}, {"right": right, "left": None}])
    assert results[1]["probabilities"] == pytest.approx(made.predict([{"left": left}])[0]["probabilities"], abs=1e-5)
    with pytest.raises(InputError, match="needs one of the fields left, right; it has other"):
        made.predict([{"other": left}])


def test_a_label_that_training_did_not_see_is_named():
    with pytest.raises(
        InputError, match="field 'label': the label 'd' was not seen in training; the classes are a, b, c"
    ):
        batch(task(), [{"image": pictures(1)[0], "label": "d"}])


def test_a_record_without_a_label_is_named():
    with pytest.raises(InputError, match="field 'label' must hold what is to be predicted"):
        batch(task(), [{"image": pictures(1)[0]}])
    with pytest.raises(InputError, match="field 'label' must hold what is to be predicted"):
        batch(task(classes=("a", "nan")), [{"image": pictures(1)[0], "label": float("nan")}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizers": {}}, "at least one field"),
        ({"tokenizers": {"class": ImagePatches()}}, "the name 'class' is taken"),
        ({"target": "image"}, "the column 'image' is also an input"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
        (
            {"mix": Mixing(cutmix=1.0), "tokenizers": {"image": ImagePatches(None)}},
            "mix cannot blend the field 'image': pictures of their own shape share no grid; give a size",
        ),
        (
            {"mix": Mixing(cutmix=1.0), "tokenizers": {"left": ImagePatches(), "right": ImagePatches()}},
            "mix blends samples of one field, and tokenizers has left, right",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Classify(**({"tokenizers": {"image": ImagePatches()}} | options))


def test_weights_of_another_number_of_classes_are_refused():
    with pytest.raises(InputError, match="a number for each of the 3 classes, got 2"):
        task(class_weights=[1.0, 2.0])


def test_one_class_is_no_choice():
    with pytest.raises(InputError, match=r"at least two classes, got \['a'\]"):
        Classify({"image": ImagePatches()}, SMALL).fit_tokenizers(
            Rows(({"image": 0, "label": "a"}, {"image": 0, "label": "a"}))
        )


def test_a_vision_transformer_is_this_task_and_nothing_else():
    """The tokens of a picture and a class token, one row a sample: the model sees no more of the task than that."""
    made = task()
    records = [{"image": image, "label": "a"} for image in pictures(2)]
    own = made.chopper(training=False)
    plain = collate([own(record).sample for record in records], {**made.tokenizers, **made.own_tokens})
    assert isinstance(made.model, Anyformer)
    torch.testing.assert_close(made.model(plain), made.model(batch(made, records).tokens))


def test_weights_that_were_loaded_are_not_hidden_by_an_older_average(tmp_path):
    made = task()
    made.average.weights = {name: value.detach() + 1 for name, value in made.named_parameters()}
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    made.load_weights(kept)
    save(made, tmp_path / "model")
    again = load(tmp_path)
    assert all(torch.equal(value, kept[name]) for name, value in again.state_dict().items())


def shades(n):
    """One picture a level, whose class is one of three."""
    return Rows(tuple({"image": np.full((4, 6), 20 * i, np.uint8), "label": "abc"[i % 3]} for i in range(n)))


def mixed(mixing, n=12):
    """All samples of an epoch, blended: pictures as (n,) levels of their first pixels, and targets (n, 3)."""
    made = task(mix=mixing)
    samples = Samples(shades(n), made.chopper(training=True), training=True, seed=3)
    items = [samples[Draw(0, i)] for i in range(n)]
    examples = samples.chopper.collate(items)
    assert truth(examples).shape == (n, 3) and torch.allclose(truth(examples).sum(1), torch.ones(n))
    return made, samples, items, examples


def test_a_blend_is_of_two_samples_and_so_is_its_target():
    _, samples, items, examples = mixed(Mixing(mixup=1.0, chance=0.5))
    tokenizer = samples.chopper.tokenizers["image"]
    levels = [tokenizer.decode(item.sample["image"]).float().mean().item() for item in items]
    blends = 0
    for i, (level, target) in enumerate(zip(levels, truth(examples), strict=True)):
        shares = {name: share for name, share in zip("abc", target.tolist(), strict=True) if share}
        assert "abc"[i % 3] in shares
        if len(shares) == 2:
            blends += 1
            (other,) = shares.keys() - {"abc"[i % 3]}
            partners = [20 * j for j in range("abc".index(other), 12, 3)]
            own = shares["abc"[i % 3]]
            assert min(abs(own * 20 * i + (1 - own) * partner - level) for partner in partners) < 1
    assert 2 <= blends <= 9


def test_a_blend_is_a_function_of_seed_epoch_and_index():
    _, samples, items, _ = mixed(Mixing(mixup=0.5, cutmix=1.0))
    for i in reversed(range(12)):
        item = samples[Draw(0, i)]
        assert torch.equal(item.sample["image"].content, items[i].sample["image"].content)
        assert torch.equal(item.values["label"], items[i].values["label"])
    assert any(not torch.equal(samples[Draw(1, i)].values["label"], items[i].values["label"]) for i in range(12))


def test_nothing_is_blended_in_validation():
    made = task(mix=Mixing(cutmix=1.0))
    samples = Samples(shades(5), made.chopper(training=False))
    assert [samples[Draw(0, i)].values["label"] for i in range(5)] == [0, 1, 2, 0, 1]


def test_the_loss_of_a_distribution_is_the_mean_of_those_of_its_classes():
    made = task(mix=Mixing(cutmix=1.0), class_weights=[1.0, 2.0, 4.0], label_smoothing=0.1)
    logits, target = torch.randn(2, 3), torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    scores = CategoryHead(made.category, nn.Identity()).train()
    loss, weight = scores.loss(logits, target)
    parts = [scores.loss(logits[i : i + 1], torch.tensor([c]))[0] * target[i, c] for i in (0, 1) for c in range(3)]
    torch.testing.assert_close(loss, sum(parts))
    assert weight.item() == pytest.approx(0.25 + 2 * 0.75 + 4)


def test_a_bad_partner_is_named():
    made = task(mix=Mixing(mixup=1.0))
    records = (*shades(2).records, {"image": b"no picture", "label": "a"})
    samples = Samples(Rows(records), made.chopper(training=True), training=True)
    with pytest.raises(InputError, match=r"^row 2: field 'image': picture: not a picture"):
        for epoch in range(20):
            samples[Draw(epoch, 0)]
    skipping = replace(samples, on_bad_sample="skip")
    targets = torch.stack([skipping[Draw(epoch, 0)].values["label"] for epoch in range(20)])
    alone = torch.tensor([1.0, 0.0, 0.0])
    assert (targets == alone).all(1).any() and not (targets == alone).all()


def test_a_logit_belongs_to_its_sample_wherever_its_row_is():
    made = task()
    chopper = made.chopper(training=False)
    items = [chopper({"image": image, "label": "a"}) for image in pictures(3)]
    straight = made(chopper.collate(items).tokens)
    torch.testing.assert_close(made(chopper.collate(items, rows=[2, 0, 1]).tokens), straight)
    torch.testing.assert_close(made(chopper.collate(items, rows=[0, 0, 1]).tokens), straight)
