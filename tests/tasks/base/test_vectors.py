"""The vectors of records that every task gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.ensemble.ensemble import Ensemble
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.turned import Turned, recogniser
from tests.helpers.witnesses import redraw
from tests.helpers.worlds import decider, walks

BYTES = Text("bytes", max_len=20)
SIZES = TransformerConfig(d_model=12, depth=2, n_heads=3)
NOTES = ("to be", "or", "not to be, that is")
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)


def built(task: Task) -> Task:
    task.build()
    redraw(task)
    return task


def heard(architecture: Any) -> Task:
    task = recogniser(architecture, decoding=DecodeConfig(max_new_tokens=4))
    task.fit_tokenizers(Turned(4))
    return built(task)


def notes(**others: Sequence[Any]) -> list[dict[str, Any]]:
    columns = {"note": NOTES, **others}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def of_a_mixture() -> Task:
    tasks = {"mood": Classify({"note": BYTES}, classes=["a", "b"]), "poet": LanguageModel({"note": BYTES}, context=8)}
    return built(Mixture(tasks, SIZES)).members["mood"]


EMBEDS: dict[str, tuple[Callable[[], Task], Callable[[], Any]]] = {
    "classify": (lambda: built(Classify({"note": BYTES}, SIZES, classes=["a", "b"])), notes),
    "predict": (
        lambda: built(
            Predict(
                {"note": BYTES, "image": ImagePatches(size=(8, 8), patch=4, channels=1)},
                {"size": Regression(n=1, scaling="none"), "note": Masked()},
                SIZES,
                read="attention",
            )
        ),
        lambda: notes(image=list(PICTURES)),
    ),
    "language": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8)), notes),
    "documents": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8, samples="documents")), notes),
    "masked": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8, masking=Masking())), notes),
    "encoder and decoder": (
        lambda: heard("encoder_decoder"),
        lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)],
    ),
    "encoder": (lambda: heard("encoder"), lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)]),
    "decoder": (lambda: heard("decoder"), lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)]),
    "policy": (lambda: decider(walks("box")), lambda: [walks("box")[i]["episode"] for i in range(3)]),
    "one of a mixture": (of_a_mixture, notes),
}


@pytest.mark.parametrize("name", EMBEDS)
def test_every_task_gives_vectors_of_records_however_many_come_at_once(name: str) -> None:
    make, records = EMBEDS[name]
    task, given = make(), records()
    d_model = task.model.transformer.config.d_model
    found = task.embed(given)
    assert found.shape == (3, d_model) and found.dtype == np.float32
    alone = np.stack([task.embed(record) for record in given])
    np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(task.embed(given, batch_size=2), found, rtol=1e-4, atol=1e-5)
    assert found.std(0).max() > 0.01
    tokens = task.embed(given, pool="tokens")
    assert [set(each) for each in tokens] == [set(task.embedded_fields)] * 3
    means = np.stack([np.concatenate(list(each.values())).mean(0) for each in tokens])
    np.testing.assert_allclose(task.embed(given, pool="mean"), means, rtol=1e-4, atol=1e-5)
    assert not np.allclose(task.embed(given, pool="mean", layer=0), means)


def test_a_field_is_read_alone_or_with_what_the_others_have_shown_it() -> None:
    task, given = (made() for made in EMBEDS["predict"])
    alone = task.embed([{"image": record["image"]} for record in given])
    within = task.embed(given, field="image")
    tokens = task.embed(given[0], pool="tokens", field="image")
    assert list(tokens) == ["image"]
    np.testing.assert_allclose(within[0], tokens["image"].mean(0), rtol=1e-4, atol=1e-5)
    assert np.abs(alone - within).max() > 0.01
    assert not np.allclose(within, task.embed(given))
    # What is masked in an evaluation is read.
    np.testing.assert_allclose(task.embed(given[0]), task.embed([given[0]])[0], rtol=1e-4, atol=1e-5)
    assert task.embed([]).shape == (0, 12) and task.embed([], pool="tokens") == []


def test_the_class_token_is_read_where_the_head_reads_it() -> None:
    task = EMBEDS["classify"][0]()
    batch = task.chopper(training=False)
    tokens = batch.collate([batch(record, labelled=False) for record in notes()]).tokens
    with torch.inference_mode():
        wanted = task.pool.read(task.model, tokens)
    np.testing.assert_allclose(task.embed(notes()), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(task.embed(notes()), task.embed(notes(), pool="mean"))


def test_a_text_or_an_episode_longer_than_the_context_is_read_in_pieces() -> None:
    task = EMBEDS["language"][0]()
    pieces = [task.embed({"note": text}, pool="tokens")["note"] for text in ("not to b", "e, that ", "is")]
    whole = task.embed({"note": "not to be, that is"}, pool="tokens")["note"]
    np.testing.assert_allclose(whole, np.concatenate(pieces), rtol=1e-4, atol=1e-5)
    # A token sees none behind it.
    changed = task.embed({"note": "not to X"}, pool="tokens")["note"]
    np.testing.assert_allclose(changed[:7], pieces[0][:7], rtol=1e-4, atol=1e-5)
    assert np.abs(changed[7] - pieces[0][7]).max() > 0.01
    policy, (episode, *_) = (made() for made in EMBEDS["policy"])
    n = len(episode)
    assert n > policy.context
    steps = policy.embed({"episode": episode}, pool="tokens")
    assert len(steps["return"]) == len(steps["action"]) == n


def test_what_cannot_be_embedded_is_said() -> None:
    task = EMBEDS["classify"][0]()
    for options, message in (
        ({"layer": 3}, r"^layer must be from -3 to 2, got 3"),
        ({"field": "nope"}, r"^field: there is no field 'nope'; there are note$|did you mean 'note'"),
        ({"pool": "class", "field": "note"}, r"^pool: class is of whole records"),
        ({"pool": "meen"}, r"pool must be class, mean, last or tokens, got 'meen'; did you mean 'mean'\?"),
    ):
        with pytest.raises(InputError, match=message):
            task.embed(notes(), **options)
    with pytest.raises(InputError, match=r"^pool: the model has no class token; take mean, last or tokens$"):
        EMBEDS["language"][0]().embed("x", pool="class")
    with pytest.raises(InputError, match=r"^the task has no weights yet; fit it, or load a run$"):
        Classify({"note": BYTES}).embed("x")
    np.testing.assert_array_equal(task.embed(notes(), field="note"), task.embed(notes(), pool="mean"))
    both, (record, *_) = (made() for made in EMBEDS["predict"])
    with pytest.raises(InputError, match=r"^record 1 has nothing in image, which is to be read$"):
        both.embed([record, {"note": "x"}], field="image")
    mixture = Mixture({"a": Classify({"note": BYTES}), "b": LanguageModel({"note": BYTES}, context=8)}, SIZES)
    with pytest.raises(InputError, match=r"^a mixture has no `embed`; load one of its tasks by name: RUN:a, RUN:b$"):
        mixture.embed(notes())
    with pytest.raises(InputError, match=r"^Ensemble has no `embed`$"):
        Ensemble([Classify({"note": BYTES}, SIZES, classes=["a", "b"]) for _ in range(2)]).embed(notes())
    with pytest.raises(InputError, match=r"^record 0 must be an Episode, or hold one as `episode`; it has note$"):
        EMBEDS["policy"][0]().embed([{"note": 1}])
