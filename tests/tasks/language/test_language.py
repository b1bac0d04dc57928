"""Language modelling: what is read where, windows and documents, masks, metrics, and use."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.lora import LoraConfig
from anyformer.packing import collate
from anyformer.runs.fit import evaluate, fit
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import FillConfig, LanguageModel
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet
from tests.helpers.language_models import DOCUMENTS, SMALL, examples, stream_of, task


@pytest.mark.parametrize("samples", ["windows", "documents"])
@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_every_token_of_the_text_is_predicted_once_from_the_one_before(corpus, tmp_path, samples, kind):
    made = task(corpus, tmp_path, kind, samples=samples)
    batch, stream = examples(made, corpus), stream_of(made)
    assert batch.target.tolist() == stream
    seen = batch.tokens.fields["text"].content.tolist()
    assert seen == [made.text.eos_id, *stream[:-1]]
    if samples == "documents":
        # A document begins after the end of another, and no sample holds tokens of two.
        ends = np.cumsum([len(made.text.encode_batch([text])[0]) + 1 for text in DOCUMENTS])
        owner = batch.tokens.fields["text"].sample.numpy()
        document = np.searchsorted(ends, np.arange(len(stream)), "right")
        assert all(len(set(document[owner == i])) == 1 for i in set(owner))
    assert batch.n_bytes == pytest.approx(sum(len(text) for text in DOCUMENTS))


@pytest.mark.parametrize("rows", [None, "packed"])
def test_a_loss_is_read_where_its_token_is_next_and_depends_on_nothing_later(corpus, tmp_path, rows):
    made = task(corpus, tmp_path, samples="documents")
    n = len(made.view(corpus, False))
    batch = examples(made, corpus, None if rows is None else [i % 3 for i in range(n)])

    def terms() -> torch.Tensor:
        hidden = made.model(batch.tokens).flatten(0, 1)[batch.read]
        return F.cross_entropy(made.head(hidden), batch.target, reduction="none")

    before = terms()
    total, n_targets = made.loss(batch)
    torch.testing.assert_close(total, before.sum())
    assert n_targets == len(batch.target)
    content, owner = batch.tokens.fields["text"].content, batch.tokens.fields["text"].sample
    for j in (3, 11, 30):
        old = content[j].item()
        content[j] = (old + 1) % made.text.n_ids
        after = terms()
        content[j] = old
        # Token j is the target of term j - 1 and is seen from term j on, in its own sample.
        is_after = (torch.arange(len(content)) >= j) & (owner == owner[j])
        assert torch.equal(after[~is_after], before[~is_after])
        assert (after[is_after] - before[is_after]).abs().max() > 1e-3


def test_figures_are_those_of_the_whole_text(corpus, tmp_path):
    made = task(corpus, tmp_path, "bpe")
    data = Records(corpus, corpus, corpus, batch_size=3)
    metrics = evaluate(made, data, "test", accelerator="cpu", enable_progress_bar=False)
    batch = examples(made, corpus)
    with torch.no_grad():
        loss = made.loss(batch)[0].item()
    n_bytes = sum(len(text) for text in DOCUMENTS)
    assert metrics["test/loss"] == pytest.approx(loss / len(batch.target), rel=1e-5)
    assert metrics["test/perplexity"] == pytest.approx(math.exp(loss / len(batch.target)), rel=1e-4)
    assert metrics["test/bits_per_byte"] == pytest.approx(loss / n_bytes / math.log(2), rel=1e-5)


def test_another_vocab_size_kind_or_normalization_is_another_entry_of_the_cache(tmp_path):
    """Models that share a cache learn each their own vocabulary, and read it back as it is."""
    path = tmp_path / "text.txt"
    path.write_text("The rain in Spain stays MAINLY in the plain.\n\ufb01ve \u00e9e\u0301 and The rain\n" * 5)
    options = [
        *({"kind": "bpe", "vocab_size": size, "normalize": n} for size in (262, 275) for n in ("none", "lowercase")),
        *({"kind": "characters", "vocab_size": 262, "normalize": n} for n in ("none", "nfc", "nfkc", "lowercase")),
    ]
    found = []
    for _ in range(2):
        for each in options:
            text = Text(**each)
            made = LanguageModel({"text": text}, SMALL, context=8, cache=str(tmp_path / "cache"))
            source = Corpus(str(path), split="line")
            made.fit_tokenizers(source)
            assert made.text.vocabulary == text.fit(source.texts()).vocabulary
            windows = made.view(source, training=False)
            assert windows.stream.ids.tolist() == [
                i for line in source.texts() for i in (*made.text.encode_batch([line])[0], made.text.eos_id)
            ]
            found.append((made.text.vocabulary, windows.stream.path))
    assert found[len(options) :] == found[: len(options)]
    assert len({vocabulary for vocabulary, _ in found}) == len({path for _, path in found}) == len(options)


def test_a_path_is_a_corpus_and_fractions_are_its_end(corpus, tmp_path):
    made = task(corpus, tmp_path)
    path = tmp_path / "long.txt"
    path.write_text("to be or not to be that is the question " * 25)
    data = Records(str(path), 0.1, 0.2, batch_size=4)
    metrics = fit(made, data, tmp_path / "run", max_steps=1, accelerator="cpu", enable_progress_bar=False)
    assert "test/loss" in metrics
    texts = {name: "".join(source.texts()) for name, source in data.sources.items()}
    assert {name: len(text) for name, text in texts.items()} == {"train": 700, "validation": 100, "test": 200}
    assert texts["train"] + texts["validation"] + texts["test"] == path.read_text()
    with pytest.raises(InputError, match="validation must be a fraction of train above 0 that leaves some of it"):
        corpus.divide({"test": 0.5, "validation": 0.5})


def test_a_masked_model_is_told_what_was_there_and_sees_both_sides(corpus, tmp_path):
    made = task(corpus, tmp_path, "bytes", masking=Masking(share=0.3))
    batch, again = examples(made, corpus), examples(made, corpus)
    assert torch.equal(batch.target, again.target) and torch.equal(batch.read, again.read)
    assert batch.tokens.kind == "dense" and not batch.tokens.layout.order.any()
    stream, content = stream_of(made), batch.tokens.fields["text"].content.tolist()
    index = batch.tokens.fields["text"].index.tolist()
    places = [index.index(at) for at in batch.read.tolist()]
    assert [stream[place] for place in places] == batch.target.tolist()
    assert {i for i, (a, b) in enumerate(zip(stream, content, strict=True)) if a != b} <= set(places)
    with pytest.raises(InputError, match="a model of masked tokens does not go on with a text"):
        _ = made.generator


def test_gaps_are_filled_with_what_is_likeliest_there(corpus, tmp_path):
    made = task(corpus, tmp_path, "characters", masking=Masking())
    (result,) = made.predict([{"text": "t___ b___"}])
    ids = made.text.encode_batch(["to be"])[0]
    ids[[1, 4]] = made.text.mask_id
    sample = {"text": TokenSet(torch.from_numpy(ids), torch.arange(5)[:, None])}
    with torch.no_grad():
        p = made.head(made.model(collate([sample], made.tokenizers))[0]).softmax(-1)
    p[:, list(made.text.special_ids)] = 0
    p = p / p.sum(1, keepdim=True)
    best = made.text.decode(p[[1, 4]].argmax(1))
    assert result["filled"] == f"t{best[0]} b{best[1]}"
    assert [len(each) for each in result["candidates"]] == [5, 5]
    assert dict(result["candidates"][0])[best[0]] == pytest.approx(p[1].max().item(), rel=1e-4)
    assert made.render(result).startswith(result["filled"] + "\n")
    assert made.row(result) == {name: result[name] for name in ("text", "filled")}
    assert "".join(made.stream({"text": "t___"})) == made.render(made.predict([{"text": "t___"}])[0])
    (other,) = made.predict([{"text": "t? b?"}], FillConfig(blank="?", top=2))
    assert other["filled"] == result["filled"] and len(other["candidates"][0]) == 2
    with pytest.raises(InputError, match="there is no gap to fill; write ___ where one is"):
        made.predict([{"text": "to be"}])


def test_a_gap_takes_the_space_of_its_word_along(corpus, tmp_path):
    made = task(corpus, tmp_path, "bpe", masking=Masking(), context=32)
    seen: list[torch.Tensor] = []
    made.model.register_forward_pre_hook(lambda module, given: seen.append(given[0].fields["text"].content))
    made.predict([{"text": "to be or ___ to be"}])
    before, after = made.text.encode_batch(["to be or", " to be"])
    assert seen[0].tolist() == [*before, made.text.mask_id, *after]


def test_all_candidates_of_a_gap_are_kept_where_they_read_alike(corpus, tmp_path):
    made = task(corpus, tmp_path, "bytes", masking=Masking())
    (result,) = made.predict([{"text": "t___"}], FillConfig(top=200))
    shares = [share for _, share in result["candidates"][0]]
    assert len(shares) == 200 and shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("pack", [False, True])
def test_a_model_of_masked_tokens_trains_and_says_how_many_it_finds(corpus, tmp_path, pack):
    made = LanguageModel(
        {"text": Text("characters")}, SMALL, masking=Masking(), samples="documents", context=16, example=None,
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    batches = {"max_tokens": 64, "pack": True} if pack else {"batch_size": 4}
    metrics = fit(
        made, Records(corpus, corpus, **batches), tmp_path / "run", max_epochs=2, accelerator="cpu",
        enable_progress_bar=False,
    )  # fmt: skip
    assert 0 <= metrics["val/accuracy"] <= 1 and metrics["val/loss"] > 0 and "val/bits_per_byte" not in metrics
    with torch.no_grad():
        batch = examples(made.eval(), corpus)
        right = (made.head(made.model(batch.tokens).flatten(0, 1)[batch.read]).argmax(-1) == batch.target).float()
    assert evaluate(made, Records(corpus, corpus, **batches), "validate", accelerator="cpu", enable_progress_bar=False)[
        "val/accuracy"
    ] == pytest.approx(right.mean().item(), abs=1e-4)


def test_a_loss_that_is_no_number_is_not_left_out_of_the_figures(corpus, tmp_path):
    made = task(corpus, tmp_path)
    with torch.no_grad():
        made.model.embeddings.lifts["text"].table[made.text.encode_batch(["q"])[0][0]] = torch.nan
    metrics = evaluate(made, Records(corpus, corpus), "validate", accelerator="cpu", enable_progress_bar=False)
    assert math.isnan(metrics["val/loss"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("docs.json", '[{"text": "abcd", "n": 1}, {"text": "dcba", "n": 2}]'),
        ("docs.csv", "text,n\nabcd,1\ndcba,2\n"),
    ],
)
def test_the_path_of_a_table_is_read_by_its_column(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / f"other.{name}").write_text(content.replace("text", "body"))
    made = LanguageModel({"text": Text("characters")}, SMALL, context=4, cache=str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"row 0: no column 'text'; there are body, n"):
        made.fit_tokenizers(made.open(str(tmp_path / f"other.{name}")))
    made.fit_tokenizers(made.open(str(tmp_path / name)))
    assert set(made.text.vocabulary) == set("abcd")


def test_the_texts_may_be_a_column_of_a_table(tmp_path):
    (tmp_path / "reviews.csv").write_text("stars,review\n5,to be or not to be\n1,that is the question\n")
    made = LanguageModel({"review": Text("characters")}, SMALL, context=8, cache=str(tmp_path / "cache"))
    table = Table(str(tmp_path / "reviews.csv"))
    made.fit_tokenizers(table)
    made.build()
    assert len(made.view(table, training=True).stream) == len("to be or not to be" + "that is the question") + 2
    other = LanguageModel({"text": Text("characters")}, SMALL, context=8, cache=str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"reviews.csv row 0: no column 'text'; there are stars, review"):
        other.fit_tokenizers(table)


# Use


def test_a_vocabulary_comes_with_the_weights_that_a_run_starts_from(corpus, tmp_path, capfd):
    (tmp_path / "other.txt").write_text("what is aught but as tis valued")
    other = Corpus(str(tmp_path / "other.txt"))

    def train(data, folder, **options):
        text = Text("bpe", vocab_size=270, file=options.pop("file", None))
        made = LanguageModel({"text": text}, SMALL, context=8, cache=str(tmp_path / "cache"), example=None, **options)
        fit(made, Records(data, data), folder, max_steps=1, accelerator="cpu", enable_progress_bar=False)
        return made

    first = train(corpus, tmp_path / "a")
    assert train(other, tmp_path / "b", init_from=str(tmp_path / "a")).text.vocabulary == first.text.vocabulary
    alone = train(other, tmp_path / "c")
    assert alone.text.vocabulary != first.text.vocabulary
    file = tmp_path / "tokenizer.json"
    file.write_text(alone.text.vocabulary)
    # One that is asked for is taken, and the rows of what both spell alike come over.
    moved = train(other, tmp_path / "d", init_from=str(tmp_path / "a"), file=str(file))
    assert moved.text.vocabulary == alone.text.vocabulary
    n = len({*first.text.spellings} & {*alone.text.spellings})
    said = f"another vocabulary of text: {n} tokens of the same spelling taken, {alone.text.n_ids - n} new"
    assert said in capfd.readouterr().err
    # With adapters the table of which some rows are new is trained and kept; of the base it is no more.
    source, lora = str(tmp_path / "a"), LoraConfig(rank=2, on=["*.q"])
    adapted = train(other, tmp_path / "e", init_from=source, file=str(file), lora=lora)
    table = "model.embeddings.lifts.text.table"
    assert table in adapted.best_weights() and dict(adapted.named_parameters())[table].requires_grad
    assert "model.transformer.blocks.0.attention.q.weight" not in adapted.best_weights()


def test_another_tokenizer_json_than_that_of_the_checkpoint_is_named(corpus, tmp_path):
    texts = [Text("bpe", vocab_size=270).fit([text]) for text in ("to be or not to be", "that is the question, that")]
    file = tmp_path / "tokenizer.json"

    def train(text, **options):
        file.write_text(text.vocabulary)
        made = LanguageModel(
            {"text": Text("bpe", file=str(file))}, SMALL, context=8, cache=str(tmp_path / "cache"), example=None
        )
        fit(made, Records(corpus, corpus), tmp_path / "run", accelerator="cpu", enable_progress_bar=False, **options)

    train(texts[0], max_steps=1)
    with pytest.raises(InputError, match=r"tokenizer.json: not the vocabulary that the model was .* token \d+ was"):
        train(texts[1], max_steps=2, resume=True)


def test_an_example_that_does_not_fit_is_found_before_training(corpus, tmp_path):
    made = LanguageModel(
        {"text": Text("characters")}, SMALL, context=8, cache=str(tmp_path / "cache"), example="to be or not"
    )
    made.fit_tokenizers(corpus)
    with pytest.raises(InputError, match=r"example: field 'text': the prompt has 12 tokens, more than the 8"):
        made.build()


def test_a_seed_gives_a_prompt_the_same_text_whatever_it_comes_with(corpus, tmp_path):
    made = task(corpus, tmp_path)
    options = GenerationConfig(max_new_tokens=6, temperature=1.0, seed=3)
    alone = made.predict([{"text": "be"}], options)
    assert made.predict([{"text": "to"}, {"text": "be"}], options)[1:] == alone
    with pytest.raises(InputError, match=r"a record needs the field 'text', a text; it has txt"):
        made.predict([{"txt": "be"}], options)


def test_the_end_of_a_text_stops_whatever_else_does(corpus, tmp_path):
    made = task(corpus, tmp_path)
    made.head.bias = torch.nn.Parameter(torch.zeros(made.text.n_ids))
    with torch.no_grad():
        made.head.bias[made.text.eos_id] = 1e4
    assert made.predict([{"text": "be"}], GenerationConfig(stop_ids=(1,)))[0]["continuations"] == [""]
    with pytest.raises(InputError, match=r"stop_ids must name ids from 0 to \d+, got"):
        made.predict([{"text": "be"}], GenerationConfig(stop_ids=(10**9,)))


def test_a_run_learns_says_something_and_comes_back_with_its_vocabulary(corpus, tmp_path):
    made = LanguageModel(
        {"text": Text("bpe", vocab_size=270)}, SMALL, output=HeadConfig(tied=False, zero=True), context=8,
        cache=str(tmp_path / "cache"), example="to be",
    )  # fmt: skip
    data = Records(corpus, corpus, batch_size=4)
    metrics = fit(made, data, tmp_path / "run", max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    assert metrics["val/loss"] < math.log(270) + 0.01
    assert made.closing().startswith("A sample:\nto be")
    again = load(tmp_path / "run")
    assert again.text.vocabulary == made.text.vocabulary is not None
    options = GenerationConfig(max_new_tokens=5, temperature=1.0, n_samples=2, seed=1)
    (result,) = again.predict([{"text": "to be"}], options)
    assert result == made.predict([{"text": "to be"}], options)[0] and len(result["continuations"]) == 2
    first, second = result["continuations"]
    assert again.row(result) == {"text": "to be", "continuation 1": first, "continuation 2": second}
    greedy = GenerationConfig(max_new_tokens=5)
    assert "".join(again.stream({"text": "to"}, greedy)) == again.render(again.predict([{"text": "to"}], greedy)[0])
    beams = GenerationConfig(max_new_tokens=4, n_beams=2)
    assert "".join(again.stream({"text": "to"}, beams)) == again.render(again.predict([{"text": "to"}], beams)[0])


def test_a_prompt_longer_than_the_context_says_so(corpus, tmp_path):
    made = task(corpus, tmp_path)
    with pytest.raises(InputError, match=r"field 'text': the prompt has 9 tokens, more than the 8 of the model"):
        made.predict([{"text": "not to be"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizers": {"image": ImagePatches()}}, "tokenizers must be of one field, a Text, got image"),
        ({"tokenizers": {"a": Text(), "b": Text()}}, "tokenizers must be of one field, a Text, got a, b"),
        ({"context": 1}, "context must be at least 2 tokens, got 1"),
        (
            {"tokenizers": {"text": Text(max_len=9)}},
            r"context is 256 tokens, more than the 9 of tokenizers.text",
        ),
    ],
)
def test_arguments_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        LanguageModel(**({"tokenizers": {"text": Text()}} | options))
