"""BERT of transformers goes in from its folder and comes out again: the same ids, logits, gradients and bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from transformers import AutoTokenizer, BertForMaskedLM, BertForSequenceClassification

from anyformer.packing import collate
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.huggingface import from_transformers, take_in, to_transformers
from anyformer.tokens import TokenSet
from anyformer.weights.bert import BERT
from tests.helpers.transformers_folders import ODD, bert, disagreement, padded, word_pieces

TEXTS = ["to be or not", "the mind", "être 東京 nobler tis nobler"]
TYPES = "bert.embeddings.token_type_embeddings.weight"
WIDE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "hidden_act": "gelu_new"}
KINDS = {"masked": BertForMaskedLM, "classes": BertForSequenceClassification}


def logits(task: Task, texts: list[str]) -> torch.Tensor:
    """Of every token, (tokens, v), or of every text, (b, classes)."""
    if isinstance(task, Classify):
        chopper = task.chopper(training=False)
        return task(chopper.collate([chopper({"text": text}, labelled=False) for text in texts]).tokens)
    samples = [{"text": task.text.encode(text)} for text in texts]
    batch = collate(samples, task.model.tokenizers)
    return task.head(task.model(batch)[batch.layout.segment > 0])


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["small", "wide"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_same_logits_and_gradients(tmp_path: Path, kind: str, sizes: dict) -> None:
    theirs = bert(tmp_path / "hub", kind, **sizes)
    task, report = take_in(tmp_path / "hub")
    assert report.unused == (f"{TYPES}[1:]",)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    batch = padded([tokenizer(text)["input_ids"] for text in TEXTS])
    expected = theirs(**batch).logits
    if kind == "masked":
        expected = expected[batch["attention_mask"].bool()]
    assert disagreement(BERT, tmp_path / "hub", theirs, expected, task, logits(task, TEXTS)) < 1e-4


def test_what_a_record_says_is_that_of_transformers(tmp_path: Path) -> None:
    theirs = bert(tmp_path / "hub", "classes")
    task = from_transformers(tmp_path / "hub")
    assert task.classes == ["dull", "fair", "fine"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    results = task.predict([{"text": text} for text in TEXTS])
    for text, result in zip(TEXTS, results, strict=True):
        p = theirs(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        names = theirs.config.id2label
        assert result["probabilities"] == pytest.approx({names[i]: p[i].item() for i in range(3)}, abs=1e-5)


def test_gaps_are_filled_as_transformers_fills_them(tmp_path: Path) -> None:
    theirs = bert(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    ids = tokenizer("to be [MASK] not to be", return_tensors="pt")
    row = theirs(**ids).logits[0, (ids["input_ids"][0] == tokenizer.mask_token_id).nonzero().item()]
    row[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = -torch.inf
    (result,) = task.predict([{"text": "to be ___ not to be"}])
    (candidates,) = result["candidates"]
    p, best = row.softmax(-1).topk(5)
    assert [text for text, _ in candidates] == [task.text.decode([i]) for i in best.tolist()]
    assert [share for _, share in candidates] == pytest.approx(p.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_text_becomes_the_same_ids(tmp_path: Path, kind: str) -> None:
    bert(tmp_path / "hub", kind)
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    text = task.tokenizers["text"]
    for folder in ("hub", "out"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        for line in ODD:
            found = text.encode(line).content.tolist()
            assert found == tokenizer(line, split_special_tokens=True)["input_ids"]
            assert (found[0], found[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            assert not {*found[1:-1]} & set(text.special_ids)
        assert tokenizer.mask_token_id == text.mask_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, kind: str) -> None:
    theirs = bert(tmp_path / "hub", kind)
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    # One sentence has one type.
    before[TYPES] = before[TYPES][:1].clone()
    same = {name: tensor for name, tensor in before.items() if "decoder" not in name}
    assert same.keys() == after.keys()
    assert all(same[name].numpy().tobytes() == after[name].numpy().tobytes() for name in same)
    loaded, info = KINDS[kind].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    ids = padded([[2, 7, 9, 3], [2, 8, 3]])
    assert torch.equal(loaded.eval()(**ids).logits, theirs(**ids).logits)
    assert loaded.config.id2label == theirs.config.id2label
    again, report = take_in(tmp_path / "out")
    assert not report.unused
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in task.state_dict().items())


def test_the_first_models_files_go_in(tmp_path: Path) -> None:
    """Norms of gamma and beta, a pooler and a head for sentences beside, and vocab.txt."""
    tokenizer = word_pieces(do_lower_case=False)
    bert(tmp_path / "hub", tokenizer=tokenizer)
    task = from_transformers(tmp_path / "hub")
    path = tmp_path / "hub" / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(path).items()
    }
    old |= {"bert.pooler.dense.weight": torch.ones(12, 12), "bert.embeddings.position_ids": torch.arange(40)[None]}
    save_file(old, path)
    (tmp_path / "hub" / "tokenizer.json").unlink()
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    (tmp_path / "hub" / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    (tmp_path / "hub" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    other, report = take_in(tmp_path / "hub")
    assert report.unused == (f"{TYPES}[1:]", "bert.pooler.dense.weight")
    assert torch.equal(logits(other, ODD), logits(task, ODD))


def test_samples_for_training_are_wrapped_and_masked_inside(tmp_path: Path) -> None:
    from anyformer.tokenizers.text.corpus import Corpus

    bert(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    task.cache = str(tmp_path / "cache")
    (tmp_path / "lines.txt").write_text("to be or not to be that is\n" + "the question " * 30)
    source = task.view(Corpus(str(tmp_path / "lines.txt"), split="line"), training=True)
    chopper = task.chopper(training=True)
    (cls,), (sep,) = task.text.around
    for i in range(len(source)):
        sample, place, target, _ = chopper(source[i])
        ids: TokenSet = sample["text"]
        seen = ids.content.tolist()
        assert seen[0] == cls and seen[-1] == sep and sep not in seen[:-1]
        assert len(seen) <= task.context
        record = source[i]["text"]
        whole = record.stream.window(record.start, record.n)
        assert torch.equal(whole[place - 1], target)
        assert chopper.count(source[i]) >= len(seen)
    assert len(source) > 2
