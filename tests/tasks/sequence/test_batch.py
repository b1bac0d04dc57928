"""Pairs of inputs and texts: what is read where, in all architectures, and what cannot be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.data.chopper import LeftOut
from anyformer.errors import InputError
from anyformer.tasks.sequence.batch import Pairs
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tokenizers.text.text import Text
from tests.helpers.turned import Turned, audio, recogniser, sound, translator
from tests.helpers.witnesses import redraw

RECORDS = [{"text": "abc", "turned": "cba"}, {"text": "ddabcd", "turned": "dcbadd"}, {"text": "a", "turned": "a"}]
ROWS = {"a row each": None, "two in a row": [0, 1, 0]}


def built(task: SequenceToSequence) -> SequenceToSequence:
    task.fit_tokenizers(Turned())
    task.build()
    redraw(task.model)
    return task.eval()


def batch_of(
    task: SequenceToSequence,
    records: Sequence[dict[str, Any]],
    rows: Sequence[int] | None = None,
    training: bool = True,
) -> Pairs:
    chopper = task.chopper(training)
    return chopper.collate([chopper(record) for record in records], rows)


def terms(task: SequenceToSequence, batch: Pairs) -> Tensor:
    hidden = task.model(batch.tokens, batch.inputs).flatten(0, 1)[batch.read]
    return F.cross_entropy(task.head(hidden), batch.target, reduction="none")


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_a_target_changes_no_term_up_to_its_own_and_is_never_read_for_it(architecture: str, rows: str) -> None:
    task = built(translator(architecture))
    batch = batch_of(task, RECORDS, ROWS[rows])
    end = task.text.eos_id
    assert batch.target.tolist() == [
        i for record in RECORDS for i in [*task.text.encode_batch([record["turned"]])[0].tolist(), end]
    ]
    before = terms(task, batch)
    total, n = task.loss(batch)
    torch.testing.assert_close(total, before.sum())
    assert n == len(batch.target)
    own = batch.tokens.fields["turned"]
    # The token that is fed at a place is the target of the term before.
    starts = {int((own.sample < i).sum()) for i in range(len(RECORDS))}
    for place in range(len(own.content)):
        if place in starts:
            assert own.content[place] == end, "the start token"
            continue
        held = own.content[place].item()
        own.content[place] = (held + 1) % 4
        after = terms(task, batch)
        own.content[place] = held
        later = (torch.arange(len(before)) >= place) & (own.sample == own.sample[place])
        assert torch.equal(after[~later], before[~later])
        assert (after[later] - before[later]).abs().max() > 1e-4


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_the_gradient_of_a_term_by_its_own_token_is_0(architecture: str, shared: bool) -> None:
    task = built(translator(architecture, shared_vocabulary=shared))
    batch, lifted = batch_of(task, RECORDS), []
    # What the content of each token becomes; its gradient tells whether a term has read it.
    task.model.embeddings.lifts["turned"].register_forward_hook(
        lambda module, given, out: lifted.append(out.detach().requires_grad_()) or lifted[-1]
    )
    every = terms(task, batch)
    (fed,) = [part for part in lifted if len(part)]
    assert len(fed) == len(every)
    for place, term in enumerate(every):
        (gradient,) = torch.autograd.grad(term, fed, retain_graph=True)
        # Term j reads the tokens up to its place, and its own token is fed at the next.
        sizes = gradient.abs().sum(1)
        assert sizes[place] > 0
        assert torch.equal(sizes[place + 1 :], torch.zeros(len(sizes) - place - 1))


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_what_is_written_depends_on_the_inputs_of_its_own_sample_alone(architecture: str) -> None:
    task = built(translator(architecture))
    before = terms(task, batch_of(task, RECORDS))
    after = terms(task, batch_of(task, [{**RECORDS[0], "text": "abd"}, *RECORDS[1:]]))
    own = torch.arange(len(before)) < len("cba") + 1
    torch.testing.assert_close(after[~own], before[~own])
    assert ((after - before).abs()[own] > 1e-4).all()


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder", "encoder"])
@pytest.mark.parametrize("rows", [[0, 1, 0, 1], None])
def test_packed_padded_and_one_by_one_give_the_same_loss(architecture: str, rows: list[int] | None) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig(weight=0.4)))
    records = [Turned()[i] for i in range(4)]
    alone = [task.loss(batch_of(task, [record])) for record in records]
    loss, n = task.loss(batch_of(task, records, rows))
    torch.testing.assert_close(loss, sum(part for part, _ in alone))
    torch.testing.assert_close(n, sum(part for _, part in alone))


def test_an_input_may_be_absent_and_lengths_are_those_of_both_sides() -> None:
    fields = {"text": Text("characters"), "audio": audio(), "turned": Text("characters")}
    task = SequenceToSequence(fields, replace(translator().transformer, rotary=None), target="turned")
    task.fit_tokenizers(Turned())
    task.embedding = replace(task.embedding, positions=[])
    task.build()
    record = Turned()[3]
    both, written = dict(record), {name: record[name] for name in ("text", "turned")}
    batch = batch_of(task, [both, written, {**both, "text": None}])
    assert [len(batch.inputs.fields[name].extents) for name in ("text", "audio")] == [2, 2]
    assert torch.isfinite(task.loss(batch)[0])
    n = len(record["text"])
    n_audio = len(fields["audio"].encode(record["audio"]))
    counts = {name: translator(name) for name in ("encoder_decoder", "decoder")}
    for each in counts.values():
        each.fit_tokenizers(Turned())
    assert counts["encoder_decoder"].chopper(True).count(written) == (n, n + 1)
    assert counts["decoder"].chopper(True).count(written) == 2 * n + 1
    assert task.chopper(True).count(both) == (n + n_audio, n + 1)
    with pytest.raises(InputError, match="a record needs one of the fields text, audio"):
        batch_of(task, [{"turned": "a"}])


def test_several_start_tokens_are_fed_and_not_learnt() -> None:
    task = translator(start=["<mask>", "<eos>"])
    task = built(task)
    batch = batch_of(task, RECORDS[:1])
    mask, end = task.text.mask_id, task.text.eos_id
    ids = task.text.encode_batch(["cba"])[0].tolist()
    own = batch.tokens.fields["turned"]
    assert own.content.tolist() == [mask, end, *ids] and own.position.squeeze(1).tolist() == [0, 1, 2, 3, 4]
    assert batch.target.tolist() == [*ids, end] and batch.read.tolist() == own.index[1:].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^field 'text': the text is empty, there is nothing to learn from it; give allow_empty: true if"),
        (None, r"^field 'text' must hold the text to be learnt, but it is missing or empty$"),
        (7, r"^field 'text': a text must be a string, got int$"),
        ("abéc", r"^field 'text': the text holds 'é', which is not in the vocabulary of the training records$"),
    ],
)
def test_texts_that_cannot_be_learned_from_say_why(text: Any, message: str) -> None:
    chopper = built(recogniser("encoder")).chopper(True)
    record = {"audio": (sound("abc"), 8000), "text": text}
    for use in (chopper, chopper.count):
        with pytest.raises(InputError, match=message) as raised:
            use(record)
        assert not isinstance(raised.value, LeftOut)


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder_decoder"])
def test_a_text_that_needs_more_frames_than_there_are_is_left_out_of_training_alone(architecture: str) -> None:
    task = built(recogniser(architecture, ctc=CTCConfig()))
    long = {"audio": (sound("ab"), 8000), "text": "aaaabbbb" * 3}
    with pytest.raises(LeftOut, match=r"^field 'text': the text needs 42 frames, and field 'audio' has \d+$"):
        task.chopper(True)(long)
    fits = Turned()[0]
    both, one = (batch_of(task, records, training=False) for records in ([fits, long], [fits]))
    assert len(both.references) == 2 and both.n_heard == one.n_heard == len(fits["text"])
    if architecture == "encoder":
        torch.testing.assert_close(task.loss(both)[0], task.loss(one)[0])


def test_a_text_longer_than_its_positions_is_an_error_or_cut() -> None:
    task = translator()
    task.tokenizers["turned"] = Text("characters", max_len=4)
    task.fit_tokenizers(Turned())
    assert len(task.chopper(True)({"text": "abc", "turned": "abc"}).ids) == 3
    with pytest.raises(
        InputError, match=r"^field 'turned': the text has 4 tokens, more than the 3 that max_len=4 leaves"
    ):
        task.chopper(True)({"text": "abc", "turned": "abcd"})
    task.tokenizers["turned"] = replace(task.text, truncate=True)
    assert np.array_equal(task.chopper(True)({"text": "abc", "turned": "abcd"}).ids, task.text.encode_batch(["abc"])[0])


@pytest.mark.parametrize("architecture", ["encoder", "encoder_decoder", "decoder"])
@pytest.mark.parametrize("nothing", ["", "  ", None])
def test_a_text_of_nothing_is_learnt_as_silence_where_it_is_allowed(architecture: str, nothing: str | None) -> None:
    task = built(recogniser(architecture))
    task.allow_empty = True
    records = [{"audio": (sound("abc"), 8000), "text": text} for text in (nothing, "ab", nothing)]
    batch = batch_of(task, records, training=False)
    assert batch.n_ids == (0, 2, 0) and batch.references == ("", "ab", "")
    silence = batch_of(task, records[:1])
    loss, n_targets = task.loss(silence)
    assert torch.isfinite(loss) and n_targets > 0
    loss.backward()
    if architecture == "encoder":
        # The only path is of blanks alone.
        log_probs = task.ctc_head(task.read(silence).frames)
        torch.testing.assert_close(loss, -log_probs[:, task.ctc_head.blank].sum())
    else:
        assert silence.target.tolist() == [task.text.eos_id]
    with pytest.raises(InputError, match="must hold the text to be learnt"):
        task.chopper(True)({"audio": (sound("abc"), 8000)})
