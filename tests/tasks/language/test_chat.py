"""Answers alone are learned, whatever the record spells the conversation as, and a prompt is answered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from anyformer.data.tables import Table
from anyformer.errors import InputError, say_once
from anyformer.generation.config import GenerationConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import evaluate, fit
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.records import Records
from anyformer.tasks.language.chat import ChatChopper, ChatModel, Conversation, Piece
from anyformer.tokenizers.text.text import Text
from tests.helpers.language_models import SMALL
from tests.helpers.witnesses import redraw

PAIRS = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(4) for b in range(3)]
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": ""},
]


def write(path: Path, records: list[dict[str, Any]]) -> Table:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Table(str(path))


@pytest.fixture
def pairs(tmp_path: Path) -> Table:
    return write(tmp_path / "pairs.jsonl", PAIRS)


def chat(source: Table, field: str = "question", answer: str | None = "answer", **options: Any) -> ChatModel:
    made = ChatModel({field: Text("characters")}, answer, transformer=SMALL, **{"context": 40} | options)
    made.fit_tokenizers(source)
    made.build()
    redraw(made.model)
    return made.eval()


def batch_of(made: ChatModel, source: Table, rows: list[int] | None = None) -> Any:
    chopper = made.chopper(True)
    return chopper.collate([chopper(source[i]) for i in range(len(source))], rows)


def test_targets_are_the_tokens_of_answers_and_the_end_behind_each(pairs: Table) -> None:
    made = chat(pairs)
    text, (sample, place, targets, n_bytes) = made.text, made.chopper(True)(PAIRS[4])
    assert text.decode(sample["question"].content) == "user:\n1+1?\nassistant:\n2"
    assert sample["question"].content[0] == text.eos_id
    assert targets.tolist() == [*text.encode_batch(["2"])[0], text.eos_id] and n_bytes == 1
    # Each is read where the token before it stands.
    whole = [*sample["question"].content.tolist(), text.eos_id]
    assert [whole[i + 1] for i in place.tolist()] == targets.tolist()


def test_every_answer_of_a_conversation_is_learned_and_its_json_is_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "talk.jsonl", [{"messages": TALK}, {"messages": json.dumps(TALK)}])
    made = chat(source, "messages", None, template="<{role}>{content};", context=70)
    (sample, place, targets, n_bytes), other = map(made.chopper(False), (source[0], source[1]))
    ids = [int(i) for word in ("ho",) for i in made.text.encode_batch([word])[0]]
    assert targets.tolist() == [*ids, made.text.eos_id, made.text.eos_id] and n_bytes == 2
    assert torch.equal(sample["messages"].content, other[0]["messages"].content) and torch.equal(place, other[1])
    written = "<system>be brief;<user>hi;<assistant>ho<user>bye;<assistant>"
    assert made.text.decode(sample["messages"].content) == written
    assert made.chopper(False).count(source[0]) == len(written) + 2


@pytest.mark.parametrize("rows", [None, "packed"])
def test_the_loss_is_on_answers_alone_and_no_gradient_comes_from_a_prompt(pairs: Table, rows: str | None) -> None:
    made = chat(pairs)
    batch = batch_of(made, pairs, None if rows is None else [i % 5 for i in range(len(pairs))])
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _given: Any, hidden: torch.Tensor) -> None:
        hidden.retain_grad()
        seen.append(hidden)

    handle = made.model.register_forward_hook(keep)
    loss, n = made.loss(batch)
    loss.backward()
    handle.remove()
    # Two digits at the most, and an end.
    assert n == sum(len(pair["answer"]) + 1 for pair in PAIRS)
    gradient = seen[0].grad.flatten(0, 1).abs().sum(1)
    is_read = torch.zeros(len(gradient), dtype=torch.bool)
    is_read[batch.read] = True
    assert (gradient[~is_read] == 0).all() and (gradient[is_read] > 0).all()
    # Alone, each record has the same loss as with others in its row.
    chopper, total = made.chopper(True), 0.0
    for record in PAIRS:
        sample, place, targets, _ = chopper(record)
        one = chopper.collate([(sample, place, targets, 0.0)])
        with torch.no_grad():
            logits = made.head(made.model(one.tokens)[0])
        assert len(logits) > len(targets)
        total += float(F.cross_entropy(logits[place], targets, reduction="sum"))
    torch.testing.assert_close(loss.detach(), torch.tensor(total), rtol=1e-5, atol=1e-5)


def test_what_a_prompt_says_matters_to_the_answer_though_it_is_not_learned(pairs: Table) -> None:
    made = chat(pairs)
    batch = batch_of(made, pairs.take([4]))
    before = made.loss(batch)[0]
    batch.tokens.fields["question"].content[8] += 1
    assert not torch.equal(before, made.loss(batch)[0])


def test_perplexity_and_bits_are_those_of_answers(pairs: Table) -> None:
    made = chat(pairs)
    metrics = evaluate(made, Records(pairs, pairs, batch_size=5), "validate", accelerator="cpu")
    batch = batch_of(made, pairs)
    with torch.no_grad():
        loss, n = (float(each) for each in made.loss(batch))
    assert metrics["val/perplexity"] == pytest.approx(math.exp(loss / n), rel=1e-4)
    n_bytes = sum(len(pair["answer"]) for pair in PAIRS)
    assert metrics["val/bits_per_byte"] == pytest.approx(loss / n_bytes / math.log(2), rel=1e-5)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"max_tokens": 120, "pack": True}])
def test_a_run_that_is_resumed_ends_as_one_that_was_not(tmp_path, pairs, options, capsys) -> None:
    def train(folder: str, **more: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        optimizer = OptimizerConfig(schedule="constant", warmup=0)
        made = ChatModel({"question": Text("characters")}, "answer", transformer=SMALL, optimizer=optimizer, context=40)
        data = Records(pairs, 0.25, **options)
        fit(made, data, tmp_path / folder, accelerator="cpu", enable_progress_bar=False, **more)
        return made.state_dict()

    say_once.cache_clear()
    whole = train("whole", max_epochs=2)
    assert "of the 9 training records" in (said := capsys.readouterr().err) and "are of answers and learned" in said
    train("parts", max_epochs=1)
    resumed = train("parts", max_epochs=2, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_prompt_is_answered_by_the_saved_model_too(tmp_path: Path, pairs: Table) -> None:
    made = chat(pairs)
    options = GenerationConfig(max_new_tokens=4)
    prompt = made._prompt({"question": "1+1?"})
    assert made.text.decode(prompt["question"].content) == "user:\n1+1?\nassistant:\n"
    (found,) = made.predict([{"question": "1+1?", "answer": "never seen"}], options)
    (expected,) = made.generator.generate([prompt], made._options(options), numbers=[0])
    assert found == {"question": "1+1?", "continuations": [expected[0].text]}
    assert made.predict("1+1?", options) == found
    assert "".join(made.stream({"question": "1+1?"}, options)) == made.render(found) == expected[0].text
    assert made.row(found) == {"question": "1+1?", "continuation 1": expected[0].text}
    save(made, tmp_path / "model")
    assert load(tmp_path / "model").predict("1+1?", options) == found


def test_messages_are_gone_on_with_where_the_last_is_to_be_answered(tmp_path: Path) -> None:
    made = chat(write(tmp_path / "talk.jsonl", [{"messages": TALK}]), "messages", None)
    prompt = made._prompt({"messages": TALK[:2]})["messages"]
    assert made.text.decode(prompt.content) == "system:\nbe brief\nuser:\nhi\nassistant:\n"
    same = [made._prompt({"messages": given})["messages"] for given in ("hi", json.dumps([TALK[1]]))]
    assert torch.equal(same[0].content, same[1].content)
    row = made.row(made.predict([{"messages": TALK[:2]}], GenerationConfig(max_new_tokens=2))[0])
    assert row["messages"] == json.dumps(TALK[:2])
    with pytest.raises(InputError, match="the last message is an answer; end with what is to be answered"):
        made.predict([{"messages": TALK[:3]}])


@pytest.mark.parametrize(
    ("answer", "record", "message"),
    [
        ("a", {"q": " ", "a": "x"}, "field 'q' must be a text, the prompt, got ' '"),
        ("a", {"q": "x"}, "the answer, 'a', is missing; it has q"),
        ("a", {"q": "x", "a": 3}, "field 'a' must be a text, the answer, got 3"),
        ("a", {"q": "x" * 40, "a": "y"}, "the record has 60 tokens, more than the 40 of the model's context; raise"),
        (None, {"q": "x"}, "no message is of the role 'assistant', whose content is learned; it has q"),
        (None, {"q": []}, r"field 'q' must be a list of messages, as in \[\{.*, got \[\]"),
        (None, {"q": [TALK[1], {"role": "assistant"}]}, "field 'q': message 1 must have a role and a content"),
    ],
)
def test_records_that_cannot_be_learned_are_refused(answer: str | None, record: dict[str, Any], message: str) -> None:
    text = Text("bytes")
    chopper = ChatChopper({"q": text}, "q", conversation=Conversation("q", answer), context=40)
    with pytest.raises(InputError, match=message):
        chopper(record)


def test_a_template_holds_the_content_once() -> None:
    for wrong in ("{role}", "{content}{content}"):
        with pytest.raises(InputError, match=r"template must hold \{content\} once"):
            Conversation("q", None, wrong)
    with pytest.raises(InputError, match="the column 'q' is the prompt's; name that of the answer"):
        Conversation("q", "q")
    found = Conversation("q", "a", "{content}|").pieces([("user", "{role}"), ("assistant", "b")])
    assert found == [Piece("{role}|", False), Piece("b", True)]
