"""Decoding against the whole model run again for every token, and against what CTC alone says."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import groupby, product

import pytest
import torch

from anyformer.errors import InputError
from anyformer.generation.ctc_search import greedy, prefix_beam_search
from anyformer.model.heads import HeadConfig
from anyformer.packing import collate
from anyformer.tasks.sequence.batch import Pair
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.sequence.target import written
from anyformer.tokenizers.text.text import Text
from tests.helpers.turned import Turned, recogniser, translator
from tests.helpers.witnesses import redraw

ARCHITECTURES = ["encoder_decoder", "decoder"]


def built(task: SequenceToSequence) -> SequenceToSequence:
    task.fit_tokenizers(Turned())
    task.build()
    redraw(task)
    return task.eval()


@torch.no_grad()
def by_hand(task: SequenceToSequence, record: dict, n: int) -> list[int]:
    """Greedily, without a cache, alone."""
    pair = task.chopper(False)(record, labelled=False)
    fields, ids = task.model.tokenizers, []
    for _ in range(n):
        text = {task.target: written(ids, task.start_ids)}
        if task.architecture == "decoder":
            hidden = task.model(collate([{**pair.sample, **text}], fields))
        else:
            hidden = task.model(collate([text], fields), collate([pair.sample], fields))
        new = int(task.head(hidden[0, -1]).argmax())
        if new == task.text.eos_id:
            break
        ids.append(new)
    return ids


@pytest.mark.parametrize("start", [None, ["<mask>", "<eos>"]])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_is_decoded_as_each_sample_by_the_whole_model(architecture: str, start: list[str] | None) -> None:
    task = built(translator(architecture, start=start, output=HeadConfig(tied=False)))
    records, chopper = [Turned()[i] for i in range(6)], task.chopper(False)
    batch = chopper.collate([chopper(record) for record in records])
    found = task.write(batch, DecodeConfig(max_new_tokens=9))
    assert found == [by_hand(task, record, 9) for record in records]
    unlabelled = chopper.collate([chopper(record, labelled=False) for record in records])
    assert task.write(unlabelled, DecodeConfig(max_new_tokens=9)) == found
    beams = task.write(batch, DecodeConfig(max_new_tokens=9, n_beams=3))
    assert beams != found and len(beams) == 6


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "encoder"])
def test_ctc_writes_what_the_frames_of_the_sound_say(architecture: str) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig()))
    records, chopper = [Turned()[i] for i in range(4)], task.chopper(False)
    batch = chopper.collate([chopper(record) for record in records])
    with torch.no_grad():
        frames = task.read(batch).frames
        log_probs = task.ctc_head(frames)
        # What a decoder alone makes of a prefix does not hang on what follows it.
        if architecture == "decoder":
            own = task.model(batch.tokens).flatten(0, 1)[batch.tokens.fields["audio"].index]
            torch.testing.assert_close(frames, own, rtol=1e-4, atol=1e-5)
    assert task.write(batch, DecodeConfig("ctc")) == greedy(log_probs, batch.n_frames)
    best = [beams[0][0] for beams in prefix_beam_search(log_probs, batch.n_frames, 4)]
    assert task.write(batch, DecodeConfig("ctc", n_beams=4)) == best


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_joint_decoding_stands_between_the_two(architecture: str) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig(), output=HeadConfig(tied=False)))
    records, chopper = [Turned()[i] for i in range(4)], task.chopper(False)
    batch = chopper.collate([chopper(record, labelled=False) for record in records])
    # So short that CTC has a path for all of it: what it has none for, it forbids whatever its weight.
    options = {"max_new_tokens": 3, "n_beams": 4}
    attention = task.write(batch, DecodeConfig("attention", **options))
    nearly = task.write(batch, DecodeConfig("joint", ctc_weight=1e-6, **options))
    assert nearly == attention
    assert task.write(batch, DecodeConfig("joint", ctc_weight=0.9, **options)) != attention


def test_texts_are_drawn_as_those_of_a_language_model_are() -> None:
    task = built(translator(output=HeadConfig(tied=False)))
    records = [Turned()[i] for i in range(6)]
    greedy_texts = task.predict(records, DecodeConfig(max_new_tokens=6))
    assert task.predict(records, DecodeConfig(max_new_tokens=6, temperature=3.0, top_k=1)) == greedy_texts
    drawn = task.predict(records, DecodeConfig(max_new_tokens=6, temperature=3.0))
    assert drawn != greedy_texts
    assert task.predict(records, DecodeConfig(max_new_tokens=6, temperature=3.0, seed=1)) != drawn
    alone = [task.predict([record], DecodeConfig(max_new_tokens=6, temperature=3.0))[0] for record in records]
    assert alone == drawn, "whatever inputs are beside it"


def test_no_text_is_longer_than_what_the_model_can_place() -> None:
    task = translator(start=["<mask>", "<eos>"])
    task.tokenizers["turned"] = Text("characters", max_len=9)
    task = built(task)
    # Fed are the start and all but the last: 2 + 7 places.
    assert task.decoder.generation(DecodeConfig(max_new_tokens=50)).max_new_tokens == 8
    chopper = task.chopper(False)
    batch = chopper.collate([chopper(Turned()[0])])
    # A text that the model never ends is as long as that.
    assert len(task.write(batch, DecodeConfig(max_new_tokens=50, suppressed=(task.text.eos_id,)))[0]) == 8


def test_a_text_that_is_cut_off_is_told_apart_from_one_that_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    task = built(translator(output=HeadConfig(tied=False)))
    records = [Turned()[i] for i in range(12)]
    ids = [by_hand(task, record, 3) for record in records]
    ended = ["length" if len(own) == 3 else "stop" for own in ids]
    assert set(ended) == {"length", "stop"}, "one alone shows little"
    for n_beams in (1, 2):
        results = task.predict(records, DecodeConfig(max_new_tokens=3, n_beams=n_beams))
        assert {result["ended"] for result in results} == {"length", "stop"}
        if n_beams == 1:
            assert [result["ended"] for result in results] == ended
            assert [task.row(result) for result in results] == results
    for record, own in zip(records[:2], ended[:2], strict=True):
        "".join(task.stream(record, DecodeConfig(max_new_tokens=3)))
        assert ("reached the limit of max_new_tokens" in capsys.readouterr().err) == (own == "length")
    # CTC writes what it hears, and no more.
    assert {r["ended"] for r in built(recogniser("encoder")).predict(records[:2])} == {"stop"}


def test_methods_and_options_that_cannot_be_say_why() -> None:
    for task, method, message in (
        (translator(), "ctc", "method: ctc needs a model that was trained with ctc; take method: attention"),
        (translator(), "joint", "method: joint needs a model that was trained with ctc"),
        (recogniser("encoder"), "attention", "method: attention needs a model with a decoder; take method: ctc"),
    ):
        with pytest.raises(InputError, match=message):
            built(task).predict([Turned()[0]], DecodeConfig(method))
    for options, message in (
        ({"n_beams": 0}, "n_beams must be at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"n_beams": 2, "temperature": 1.0}, "n_beams above 1 goes without temperature"),
        ({"ctc_weight": 1.0}, "ctc_weight must be above 0 and below 1, got 1.0"),
        ({"n_beams": 2, "n_best": 3}, "^n_best: 3 texts need as many n_beams, got 2$"),
        ({"n_best": 0}, "n_best must be at least 1, got 0"),
        ({"n_best": 1, "temperature": 0.5}, "^n_best goes without temperature: a text that is drawn is not the best"),
    ):
        with pytest.raises(InputError, match=message):
            DecodeConfig(**options)


@torch.no_grad()
def mean_log_prob(
    task: SequenceToSequence, record: dict, ids: list[int], ended: str, closed: tuple[int, ...] = ()
) -> float:
    """From the whole model, of the sample alone. closed: ids that cannot come."""
    pair, fields = task.chopper(False)(record, labelled=False), task.model.tokenizers
    targets = [*ids, *[task.text.eos_id] * (ended == "stop")]
    text = {task.target: written(targets, task.start_ids)}
    if task.architecture == "decoder":
        batch = collate([{**pair.sample, **text}], fields)
        hidden = task.model(batch)
    else:
        batch = collate([text], fields)
        hidden = task.model(batch, collate([pair.sample], fields))
    own = hidden.flatten(0, 1)[batch.fields[task.target].index]
    logits = task.head(own[len(task.start_ids) - 1 : -1])
    logits[:, list(closed)] = -torch.inf
    log_probs = logits.log_softmax(1)
    return sum(float(log_probs[i, token]) for i, token in enumerate(targets)) / (len(ids) + 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_text_is_found_anew_where_it_is_less_probable_than_it_must_be(architecture: str) -> None:
    task = built(translator(architecture, output=HeadConfig(tied=False)))
    records, chopper = [Turned()[i] for i in range(6)], task.chopper(False)
    batch = chopper.collate([chopper(record) for record in records])
    first = task.find(batch, DecodeConfig(max_new_tokens=9))
    own = [mean_log_prob(task, *each) for each in zip(records, *zip(*(f[:2] for f in first), strict=True), strict=True)]
    least = sorted(own)[3] - 1e-4
    config = DecodeConfig(max_new_tokens=9, fallback=(0.5, 50.0), min_log_prob=least, max_compression=100.0)
    again = task.find(batch, config)
    for before, after, value in zip(first, again, own, strict=True):
        if value >= least:
            assert after == before
        else:
            assert after.temperature > 0
    changed = [i for i, value in enumerate(own) if value < least]
    assert len(changed) == 3 and any(again[i].ids != first[i].ids for i in changed)
    # What is drawn for one does not hang on those beside it.
    for i in changed:
        (alone,) = task.find(chopper.collate([chopper(records[i])]), config)
        assert alone == again[i]
    never = task.find(batch, DecodeConfig(max_new_tokens=9, fallback=(0.5,), min_log_prob=9.0, max_compression=100.0))
    assert {each.doubt for each in never} == {"improbable"} and {each.temperature for each in never} == {0.5}


def test_what_breaks_off_is_as_probable_as_if_its_end_were_certain() -> None:
    """The mean is over the tokens and the end, be it there or not: else a text that never ends would be the better.

    And over what may come: what is closed takes nothing of the probability.
    """
    task = built(translator("encoder_decoder", output=HeadConfig(tied=False)))
    chopper, ended = task.chopper(False), []
    allowed = tuple(range(1, task.text.n_ids))
    for record, n, ids in product(
        [Turned()[i] for i in range(4)], (1, 9), ({}, {"allowed": allowed}, {"suppressed": (0,)})
    ):
        batch = chopper.collate([chopper(record)])
        (found,) = task.find(batch, DecodeConfig(max_new_tokens=n, **ids))
        ended.append(found.ended)
        value = mean_log_prob(task, record, found.ids, found.ended, (0,) if ids else ())
        for least, is_doubted in ((value - 1e-4, False), (value + 1e-4, True)):
            config = DecodeConfig(max_new_tokens=n, fallback=(0.5,), min_log_prob=least, max_compression=100.0, **ids)
            (again,) = task.find(batch, config)
            assert (again.temperature > 0) == is_doubted
    assert set(ended) == {"stop", "length"}, "one alone shows little"


def test_joint_decoding_and_beams_fall_back_too() -> None:
    task = built(recogniser("encoder_decoder", ctc=CTCConfig(), output=HeadConfig(tied=False)))
    records, chopper = [Turned()[i] for i in range(4)], task.chopper(False)
    batch = chopper.collate([chopper(record) for record in records])
    bounds = {"fallback": (0.7,), "min_log_prob": 9.0, "max_new_tokens": 9}
    found = task.find(batch, DecodeConfig("joint", n_beams=3, **bounds))
    assert found == task.find(batch, DecodeConfig("joint", temperature=0.7, **bounds | {"fallback": (0.1,)}))
    with pytest.raises(InputError, match="fallback finds a text anew by drawing, which method: ctc does not"):
        task.write(batch, DecodeConfig("ctc", fallback=(0.7,)))
    with pytest.raises(InputError, match="silence_id must be an id of the text, below"):
        task.write(batch, DecodeConfig(fallback=(0.7,), silence_id=task.text.n_ids))
    with pytest.raises(InputError, match=r"decoding.fallback finds a text anew by drawing, which ctc does not"):
        recogniser("encoder", decoding=DecodeConfig(fallback=(0.7,)))


def test_silence_gives_no_text_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    task = built(translator("encoder_decoder", output=HeadConfig(tied=False)))
    record = {name: value for name, value in Turned()[0].items() if name in task.inputs}
    likeliest = by_hand(task, record, 1)[0]
    config = DecodeConfig(max_new_tokens=9, fallback=(0.5,), certain_silence=0.0, silence_id=likeliest)
    (result,) = task.predict([record], config)
    assert result == {task.target: "", "ended": "length", "doubt": "silence", "temperature": 0.0} | {
        "ended": result["ended"]
    }
    assert task.row(result)["doubt"] == "silence"
    assert "".join(task.stream(record, config)) == ""
    assert "no speech was heard" in capsys.readouterr().err
    assert "doubt" not in task.predict([record], DecodeConfig(max_new_tokens=9))[0]


# A language model, a bonus for words, a lexicon


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What n-grams are counted from, and a few words that the target may consist of."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "texts.txt").write_text("\n".join(Turned(30, 2)[i]["text"] for i in range(30)))
    (folder / "words.txt").write_text("ab\nba\na\n")
    return {"language_model": str(folder / "texts.txt"), "lexicon": str(folder / "words.txt")}


METHODS = [
    ("encoder_decoder", "attention", 1),
    ("encoder_decoder", "attention", 3),
    ("encoder_decoder", "joint", 3),
    ("decoder", "joint", 2),
    ("encoder", "ctc", 40),
]


@pytest.mark.parametrize(("architecture", "method", "n_beams"), METHODS)
def test_a_language_model_has_as_much_to_say_as_its_weight(architecture, method, n_beams, files) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig(), output=HeadConfig(tied=False)))
    chopper = task.chopper(False)
    batch = chopper.collate([chopper(Turned()[i], labelled=False) for i in range(4)])
    options = {"method": method, "n_beams": n_beams, "max_new_tokens": 5}
    without = task.write(batch, DecodeConfig(**options))
    model = {"language_model": files["language_model"], "lm_unit": "character"}
    assert task.write(batch, DecodeConfig(**options, **model, lm_weight=0.0)) == without
    assert task.write(batch, DecodeConfig(**options, **model, lm_weight=20.0)) != without
    found = task.write(batch, DecodeConfig(**options, lexicon=files["lexicon"], word_bonus=3.0))
    texts = [task.text.decode(ids) for ids in found]
    assert {word for text in texts for word in text.split()} <= {"ab", "ba", "a"} and any(texts)


@torch.no_grad()
def test_beams_wide_enough_find_the_best_of_all_texts_by_attention_and_a_prior(files) -> None:
    task = built(translator(output=HeadConfig(tied=False)))
    chopper, n = task.chopper(False), task.text.n_ids
    batch = chopper.collate([chopper(Turned()[0], labelled=False)])
    config = DecodeConfig(
        n_beams=n * n,
        length_penalty=0.0,
        max_new_tokens=3,
        language_model=files["language_model"],
        lm_unit="character",
        word_bonus=6.0,
        suppressed=tuple({*task.text.special_ids, task.text.unk_id} - {task.text.eos_id}),
    )
    prior, eos = task.decoder.prior(config), task.text.eos_id
    used = [i for i in range(n) if i not in config.suppressed]
    scores: dict[tuple[int, ...], float] = {}
    pair = chopper(Turned()[0], labelled=False)
    for length in range(4):
        for ids in product([i for i in used if i != eos], repeat=length):
            text = {task.target: written(ids, task.start_ids)}
            fields = task.model.tokenizers
            logits = task.head(task.model(collate([text], fields), collate([pair.sample], fields))[0]).double()
            logits[:, list(config.suppressed)] = -torch.inf
            log_p = logits.log_softmax(1)
            own = sum(float(log_p[i, new]) for i, new in enumerate(ids))
            if length < 3:
                scores[ids] = own + float(log_p[len(ids), eos]) + prior.score(ids)
            else:
                # What is cut off has no end.
                state, added = prior.start, 0.0
                for new in ids:
                    state, more = prior.advance(state, new)
                    added += more
                scores[ids] = own + added
    (found,) = task.find(batch, config)
    assert tuple(found.ids) == max(scores, key=scores.get)
    plain = task.write(batch, DecodeConfig(n_beams=n * n, length_penalty=0.0, max_new_tokens=3))
    assert len(scores) > 50 and found.ids and plain[0] != found.ids


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "method", "n_beams"), [*METHODS, ("encoder", "ctc", 1)])
def test_the_best_texts_come_with_the_score_that_the_search_goes_by(architecture, method, n_beams, files) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig(), output=HeadConfig(tied=False)))
    chopper = task.chopper(False)
    pairs = [chopper(Turned()[i], labelled=False) for i in range(4)]
    batch = chopper.collate(pairs)
    config = DecodeConfig(method, n_beams=n_beams, max_new_tokens=3, n_best=min(n_beams, 2), length_penalty=0.5)
    found = task.find(batch, config)
    assert [each.ids for each in found] == task.write(batch, replace(config, n_best=None))
    reading = task.read(batch)
    heard = task.ctc_head(reading.frames).split(batch.n_frames)
    for each, pair, frames in zip(found, pairs, heard, strict=True):
        scores = [score for _, score in each.n_best]
        assert each.n_best[0][0] == each.ids and scores == sorted(scores, reverse=True) and len(scores) <= n_beams
        for ids, score in each.n_best[:3]:
            by_ctc = ctc_log_prob(frames, ids)
            if n_beams == 1 and method == "ctc":
                assert score == pytest.approx(float(frames.amax(1).sum()), rel=1e-4) and score <= by_ctc + 1e-4
            elif method == "ctc":
                # Paths that have left the beams are missing.
                assert score <= by_ctc + 1e-4
            else:
                ended = len(ids) < 3
                own = attention_log_prob(task, pair, ids, ended)
                if method == "joint" and ended:
                    own = 0.7 * own + 0.3 * by_ctc
                if method == "attention" or ended:
                    assert score == pytest.approx(own / (len(ids) + ended) ** 0.5, rel=1e-3, abs=1e-3)
    if method == "ctc" and n_beams > 1:
        beams = prefix_beam_search(torch.cat(heard), batch.n_frames, n_beams)
        assert [list(each.n_best) for each in found] == beams
    language = replace(config, language_model=files["language_model"], lm_unit="character", n_beams=max(n_beams, 2))
    assert all(len(each.n_best) > 1 for each in task.find(batch, replace(language, n_best=2)))


@torch.no_grad()
def attention_log_prob(task: SequenceToSequence, pair: Pair, ids: list[int], ended: bool) -> float:
    """Of ids and their end, from the whole model."""
    fields, text = task.model.tokenizers, {task.target: written(ids, task.start_ids)}
    if task.architecture == "decoder":
        hidden = task.model(collate([{**pair.sample, **text}], fields))[0, -len(ids) - 1 :]
    else:
        hidden = task.model(collate([text], fields), collate([pair.sample], fields))[0]
    log_p = task.head(hidden).double().log_softmax(1)
    return sum(float(log_p[i, new]) for i, new in enumerate([*ids, *[task.text.eos_id] * ended]))


def ctc_log_prob(frames: torch.Tensor, ids: list[int]) -> float:
    """Of ids over all their paths."""
    blank, n = frames.shape[1] - 1, len(frames)
    target = torch.tensor([ids], dtype=torch.int64).reshape(1, -1)
    return -float(torch.nn.functional.ctc_loss(frames[:, None].double(), target, [n], [len(ids)], blank, "sum"))


def test_what_a_fallback_draws_stands_alone_with_its_mean_log_probability() -> None:
    task = built(translator("encoder_decoder", output=HeadConfig(tied=False)))
    record, chopper = Turned()[0], task.chopper(False)
    drawn = DecodeConfig(max_new_tokens=9, n_beams=3, n_best=3, fallback=(0.5,), min_log_prob=9.0)
    batch = chopper.collate([chopper(record)])
    (found,) = task.find(batch, drawn)
    value = mean_log_prob(task, record, found.ids, found.ended)
    assert found.temperature == 0.5 and found.n_best == ((found.ids, pytest.approx(value, abs=1e-4)),)
    (found,) = task.find(batch, replace(drawn, min_log_prob=-1e9, max_compression=1e9))
    assert found.temperature == 0.0 and len(found.n_best) == 3
    (found,) = task.find(batch, replace(drawn, max_silence=0.0, silence_id=task.text.eos_id))
    assert found.doubt == "silence" and found.n_best == ()


def test_the_files_of_a_language_model_are_read_once(files, monkeypatch) -> None:
    task = built(recogniser("encoder"))
    config = DecodeConfig(n_beams=2, language_model=files["language_model"])
    assert task.decoder.prior(config) is task.decoder.prior(
        DecodeConfig(n_beams=5, language_model=config.language_model)
    )
    assert task.decoder.prior(DecodeConfig()) is None
    with pytest.raises(InputError, match=r"nothing\.txt"):
        task.predict([Turned()[0]], DecodeConfig(n_beams=2, language_model="nothing.txt"))


def test_a_search_by_attention_over_many_ids_takes_no_language_model(files, monkeypatch) -> None:
    monkeypatch.setattr("anyformer.tasks.sequence.decoding.MOST_IDS", 2)
    with pytest.raises(InputError, match=r"^language_model and lexicon score each of the \d+ ids of '\w+' at every"):
        built(translator()).predict([Turned()[0]], DecodeConfig(language_model=files["language_model"]))


# Confidence


def by_the_whole_model(task: SequenceToSequence, record: dict, ids: list[int]) -> list[float]:
    """The log-probability of each id after those before it, from a pass each."""
    pair, fields, log_probs = task.chopper(False)(record, labelled=False), task.model.tokenizers, []
    for n, new in enumerate(ids):
        text = {task.target: written(ids[:n], task.start_ids)}
        if task.model.encoder is None:
            hidden = task.model(collate([{**pair.sample, **text}], fields))
        else:
            hidden = task.model(collate([text], fields), collate([pair.sample], fields))
        log_probs.append(float(task.head(hidden[0, -1]).log_softmax(0)[new]))
    return log_probs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_confidence_of_a_text_is_that_of_its_tokens_and_its_end(architecture: str) -> None:
    task = built(translator(architecture, output=HeadConfig(tied=False)))
    record, chopper = Turned()[1], task.chopper(False)
    (plain,) = task.predict([record], DecodeConfig(max_new_tokens=9))
    (result,) = task.predict([record], DecodeConfig(max_new_tokens=9, confidence=True))
    assert result[task.target] == plain[task.target]
    (found,) = task.find(chopper.collate([chopper(record, labelled=False)]), DecodeConfig(max_new_tokens=9))
    targets = [*found.ids, *[task.text.eos_id] * (found.ended == "stop")]
    log_probs = by_the_whole_model(task, record, targets)
    assert result["confidence"] == pytest.approx(math.exp(sum(log_probs) / len(log_probs)), rel=1e-4)
    assert [word["text"] for word in result["word_confidence"]] == result[task.target].split()
    assert all(0 < word["confidence"] <= 1 for word in result["word_confidence"])


@torch.no_grad()
def test_ctc_is_as_sure_of_an_id_as_where_it_hears_it_best() -> None:
    task = built(recogniser("encoder"))
    records, chopper = [Turned()[i] for i in range(3)], task.chopper(False)
    batch = chopper.collate([chopper(record, labelled=False) for record in records])
    log_probs = task.ctc_head(task.read(batch).frames).split(batch.n_frames)
    for found, own in zip(task.find(batch, DecodeConfig(confidence=True)), log_probs, strict=True):
        # Greedily each id is the best of each of its frames.
        runs = [(int(i), list(rows)) for i, rows in groupby(range(len(own)), key=lambda row: int(own[row].argmax()))]
        best = [max(float(own[row, i]) for row in rows) for i, rows in runs if i != own.shape[1] - 1]
        assert found.log_probs == pytest.approx(best or own[:, -1].tolist())
    joint = built(recogniser(ctc=CTCConfig(), output=HeadConfig(tied=False)))
    (result,) = joint.predict([Turned()[0]], DecodeConfig("joint", max_new_tokens=4, confidence=True))
    assert 0 < result["confidence"] < 1 and joint.row(result)["confidence"] == result["confidence"]
    said = "".join(joint.stream(Turned()[0], DecodeConfig("joint", max_new_tokens=4, confidence=True)))
    assert f"\nconfidence {result['confidence']:.3f}" in said


# Texts that are given


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_texts_that_are_given_are_as_probable_as_their_tokens_and_their_end(architecture: str) -> None:
    task = built(translator(architecture, output=HeadConfig(tied=False)))
    records = [Turned()[1], Turned()[2]]
    texts = [record[task.target] for record in records]
    results = task.predict(records, score="|".join(texts))
    for record, result in zip(records, results, strict=True):
        scores = {each["text"]: each["score"] for each in result["n_best"]}
        assert set(scores) == set(texts) and result[task.target] == max(scores, key=scores.get)
        for text in texts:
            ids = [*task.text.encode_batch([text])[0].tolist(), task.text.eos_id]
            assert scores[text] == pytest.approx(sum(by_the_whole_model(task, record, ids)), abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_text_keeps_to_a_regular_expression_greedily_drawn_and_by_beams(architecture: str) -> None:
    task = built(translator(architecture, output=HeadConfig(tied=False)))
    for options in ({}, {"temperature": 1.0}, {"n_beams": 3}):
        for result in task.predict([Turned()[1], Turned()[2]], regex="(ab|c){3}", max_new_tokens=9, **options):
            assert re.fullmatch("(ab|c){3}", result[task.target]) and result["ended"] == "stop"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "a", "method": "ctc"}, "regex goes by what a decoder writes; take a model that has one"),
        ({"score": "a|b", "method": "joint"}, "score goes by what a decoder writes"),
        ({"score": "a|b", "n_best": 1}, "score asks for the texts that it names, and goes without n_best"),
        ({"score": "a|a"}, r"score must be different texts parted by \|"),
    ],
)
def test_what_goes_by_a_decoder_is_refused_without(options: dict, message: str) -> None:
    task = built(recogniser("encoder_decoder", ctc=CTCConfig()))
    with pytest.raises(InputError, match=message):
        task.decoder.method(DecodeConfig(**options))
