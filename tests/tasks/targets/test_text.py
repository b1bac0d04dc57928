from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.generation.grammar.options import GrammarOptions
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.targets.text import TextTarget, Writing
from anyformer.tokenizers.text.text import Text
from tests.helpers.witnesses import Ids
from tests.tasks.targets.test_target import column

SMALL = TransformerConfig(d_model=24, depth=2, n_heads=3, init_std=0.1)
INPUT = Ids(9)
TEXTS = ("one", "two", "three", "four")


def made():
    """A model that reads a number and writes it as a word, its head, and the samples of all numbers."""
    torch.manual_seed(0)
    target = TextTarget(Text("characters")).fit("word", column("word", [*TEXTS, None]))
    model = Anyformer({"number": INPUT, "word": target.generated}, SMALL)
    samples = [{"number": INPUT.encode([i])} for i in range(len(TEXTS))]
    return target, model, target.head("word", model, SMALL), samples


def read(target, model, samples, values):
    given = [
        sample | ({} if value is None else {"word": target.tokens(value)})
        for sample, value in zip(samples, values, strict=True)
    ]
    batch = collate(given, model.tokenizers)
    aim = target.aim("word", values, batch)
    return model(batch).flatten(0, 1)[aim.read], aim


def test_a_text_learns_its_vocabulary_and_how_long_it_gets():
    target = TextTarget(Text("characters")).fit("word", column("word", list(TEXTS)))
    assert target.text.vocabulary == "efhnortuw" and target.decoding.max_new_tokens == 12
    assert target.generated.max_len == 13 and target.text.max_len is None
    assert target.count("word", {"word": "two"}) == 4 and target.count("word", {}) == 0
    assert TextTarget(Text("bytes", max_len=5)).generated.max_len == 5


def test_each_token_is_read_for_the_one_that_follows_it():
    target, model, _, samples = made()
    values = [target.value("word", {"word": word}) for word in ("one", None, "two")]
    vectors, aim = read(target, model, samples[:3], values)
    assert target.text.decode(aim.values) == "onetwo" and aim.values[3] == aim.values[7] == target.text.eos_id
    assert aim.sample.tolist() == [0] * 4 + [2] * 4 and len(vectors) == 8


def test_a_later_letter_changes_no_earlier_prediction():
    target, model, _, samples = made()
    model.eval()
    words = [target.value("word", {"word": word}) for word in ("three", "throw")]
    one, other = (read(target, model, samples[:1], [word])[0] for word in words)
    # The start and t, h, r are read before the fourth letter is seen.
    assert torch.equal(one[:4], other[:4]) and not torch.equal(one[4], other[4])


def test_what_was_learnt_by_heart_is_written(tmp_path):
    target, model, head, samples = made()
    values = [target.value("word", {"word": word}) for word in TEXTS]
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=0.01)
    for _ in range(60):
        vectors, aim = read(target, model, samples, values)
        loss, n = head.loss(vectors, aim.values)
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    model.eval(), head.eval()
    assert head.write(samples) == list(TEXTS) and head.write([]) == []
    head.form = GrammarOptions(regex="t.*|f..r")
    assert head.write(samples)[1:] == ["two", "three", "four"] and head.write(samples)[0][0] in "tf"
    head.form = GrammarOptions()
    head.target = replace(target, decoding=DecodeConfig(score="four|one"))
    assert head.write(samples)[::3] == ["one", "four"]
    head.target = target
    head.add_loss(vectors.detach(), aim.values)
    assert head.compare(samples, ["one", "two", "tree", "four"]) == (["one", "two", "tree", "four"], list(TEXTS))
    metrics = head.compute()
    assert metrics["exact_match"] == 0.75 and metrics["cer"].item() == pytest.approx(1 / 14)
    assert metrics["loss"] < 0.2
    head.reset()
    assert all(figure.isnan() for figure in head.compute().values()), "no text was seen"


def test_smoothing_is_for_learning_alone():
    target, model, head, samples = made()
    smooth = TextTarget(target.text, label_smoothing=0.2).head("word", model, SMALL)
    vectors, aim = read(target, model, samples, [Writing(np.array([0, 1]), "ef")] * 4)
    assert smooth.train().loss(vectors, aim.values)[0] != head.loss(vectors, aim.values)[0]
    assert smooth.eval().loss(vectors, aim.values)[0] == head.loss(vectors, aim.values)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": Ids(9)}, "text must be a Text, got Ids"),
        ({"text": Text("bytes"), "label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
        ({"text": Text("bytes"), "decoding": DecodeConfig("ctc")}, "decoding.method must be attention, got ctc"),
        ({"text": Text("bytes"), "decoding": DecodeConfig(fallback=(0.2,))}, "decoding.fallback: a target's text says"),
        ({"text": Text("bytes"), "decoding": DecodeConfig(n_best=1)}, "decoding.n_best: a target's text is the best"),
        ({"text": Text("bytes"), "decoding": DecodeConfig(confidence=True)}, "decoding.confidence: a target's text"),
        ({"text": Text("bytes"), "weight": -1.0}, "weight must be above 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        TextTarget(**arguments)


def test_a_text_that_cannot_be_learnt_is_named():
    target = made()[0]
    with pytest.raises(InputError, match="field 'word': the text holds 's', which is not in the vocabulary"):
        target.value("word", {"word": "six"})
    with pytest.raises(InputError, match="field 'word': the text is empty"):
        target.value("word", {"word": ""})
