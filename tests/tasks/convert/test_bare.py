"""Models of transformers without a head give the same vectors here; sentence-transformers' folders say how they are
read, and what has no counterpart is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("transformers")

from tokenizers import processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    WhisperModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from anyformer.errors import InputError
from anyformer.saving.model_folder import load, save
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.bare import read_sentences
from anyformer.tasks.convert.huggingface import export, from_transformers, take_in
from anyformer.tasks.embed.embed import Embed
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.transformers_folders import _write, byte_level, padded, unigrams, whisper, word_pieces
from tests.helpers.witnesses import redraw

TEXTS = ["to be or not to be", "the question", "whether tis nobler in the mind être"]
SMALL = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
SMALL |= {"layer_norm_eps": 0.1}


def bert(folder: Path, **options: Any) -> nn.Module:
    sizes = SMALL | {"vocab_size": 90, "max_position_embeddings": 40} | options
    return _write(BertModel(BertConfig(**sizes)), word_pieces(), folder)


def roberta(folder: Path, is_multilingual: bool = False) -> nn.Module:
    package = byte_level().backend_tokenizer
    package.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    ids = {name: package.token_to_id(name) for name in ("<s>", "</s>", "<pad>")}
    package.post_processor = processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=package, pad_token="<pad>", cls_token="<s>", sep_token="</s>")
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 42, "pad_token_id": 1}
    config, model = (XLMRobertaConfig, XLMRobertaModel) if is_multilingual else (RobertaConfig, RobertaModel)
    return _write(model(config(**SMALL, **sizes)), tokenizer, folder)


def gpt2(folder: Path) -> nn.Module:
    sizes = {"n_positions": 48, "n_embd": 12, "n_layer": 2, "n_head": 3, "layer_norm_epsilon": 0.1}
    tokenizer = byte_level()
    return _write(GPT2Model(GPT2Config(vocab_size=len(tokenizer), **sizes)), tokenizer, folder)


def t5_encoder(folder: Path) -> nn.Module:
    tokenizer = unigrams()
    sizes = {"vocab_size": len(tokenizer) + 5, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_heads": 3, "num_layers": 2}
    sizes |= {"layer_norm_epsilon": 0.1, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    model = T5EncoderModel(T5Config(**sizes))
    redraw(model, spread=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


def vit(folder: Path, **options: Any) -> nn.Module:
    model = ViTModel(ViTConfig(**SMALL, image_size=12, patch_size=4, **options))
    redraw(model)
    model.save_pretrained(folder)
    size = {"height": 12, "width": 12}
    ViTImageProcessor(size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return model.eval()


OF_TEXT: dict[str, Callable[[Path], nn.Module]] = {
    "BertModel": bert,
    "RobertaModel": roberta,
    "XLMRobertaModel": lambda folder: roberta(folder, is_multilingual=True),
    "GPT2Model": gpt2,
    "T5EncoderModel": t5_encoder,
}


def off(found: Any, expected: torch.Tensor) -> float:
    """The largest difference, in standard deviations of what is expected."""
    return float(np.abs(np.asarray(found) - expected.numpy()).max() / expected.std())


@pytest.mark.parametrize("name", OF_TEXT)
def test_tokens_and_means_are_those_of_transformers_in_padded_batches_too(tmp_path: Path, name: str) -> None:
    theirs = OF_TEXT[name](tmp_path / "hub")
    task, report = take_in(tmp_path / "hub")
    assert isinstance(task, Embed)
    assert {each.rpartition("[")[0] or each for each in report.unused} <= {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "bert.embeddings.token_type_embeddings.weight",
    }
    save(task, tmp_path / "run" / "model")
    task = load(tmp_path / "run")
    assert isinstance(task, Embed)
    ids = [task.samples_of({"text": text})[0]["text"].content.tolist() for text in TEXTS]
    batch = padded(ids)
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    expected = [own[: len(each)] for own, each in zip(hidden, ids, strict=True)]
    for found, wanted in zip(task.embed(TEXTS, pool="tokens"), expected, strict=True):
        assert off(found["text"], wanted) < 1e-4
    means = torch.stack([own.mean(0) for own in expected])
    assert off(task.embed(TEXTS), means) < 1e-4
    assert off(task.embed(TEXTS, pool="last"), torch.stack([own[-1] for own in expected])) < 1e-4
    layers = theirs(**batch, output_hidden_states=True).hidden_states
    for layer in range(len(layers)):
        wanted = layers[layer][0, : len(ids[0])].detach()
        assert off(task.embed(TEXTS[0], layer=layer, pool="tokens")["text"], wanted) < 1e-4


def test_a_wrong_option_shows(tmp_path: Path) -> None:
    """What the test above would say if something were left out: far more than 1e-4."""
    gpt2(tmp_path / "gpt2")
    right = from_transformers(tmp_path / "gpt2")
    wrong = Embed(right.tokenizers, right.transformer, right.embedding, causal=False)
    wrong.build()
    wrong.load_state_dict(right.state_dict())
    expected = torch.from_numpy(right.embed(TEXTS))
    assert off(wrong.eval().embed(TEXTS), expected) > 1e-2
    theirs = roberta(tmp_path / "roberta")
    task = from_transformers(tmp_path / "roberta")
    table = task.model.embeddings.positions[0].state_dict()["table"]
    assert torch.equal(table, theirs.embeddings.position_embeddings.weight[2:])


def test_a_vit_reads_pictures_as_its_processor_and_model_do(tmp_path: Path) -> None:
    theirs = vit(tmp_path)
    task, report = take_in(tmp_path)
    assert set(report.unused) <= {"pooler.dense.weight", "pooler.dense.bias"}
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)) for _ in range(3)]
    pixels = ViTImageProcessor.from_pretrained(tmp_path)(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        hidden = theirs(pixels).last_hidden_state
    assert off(task.embed(pictures), hidden[:, 0]) < 1e-4
    assert off(task.embed(pictures, pool="mean"), hidden[:, 1:].mean(1)) < 1e-4
    assert off(task.embed(pictures[0], pool="tokens")["image"], hidden[0, 1:]) < 1e-4
    options = {"transformer": task.transformer, "embedding": task.embedding, "classes": ["a", "b"], "place_class": True}
    other = Classify({"image": ImagePatches((12, 12), 4)}, **options)
    save(task, tmp_path / "run" / "model")
    other.build()
    report = other.start_from(tmp_path / "run")
    assert not report.unused and all(name.startswith("heads.") for name in report.fresh)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 12}}')
    with pytest.raises(InputError, match=r"preprocessor_config\.json: size is .*, and the model reads 12 x 12 pixels"):
        from_transformers(tmp_path)


def test_a_whisper_without_its_head_is_the_same_as_with_it(tmp_path: Path) -> None:
    theirs = whisper(tmp_path / "hub")
    whole, _ = take_in(tmp_path / "hub", language="de")
    bare = WhisperModel.from_pretrained(tmp_path / "hub")
    settings = json.loads((tmp_path / "hub" / "config.json").read_text())
    bare.save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["architectures"] == ["WhisperModel"]
    assert settings["architectures"] == ["WhisperForConditionalGeneration"]
    task, report = take_in(tmp_path / "hub", language="de")
    assert isinstance(task, SequenceToSequence) and not report.unused
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    features = task.samples_of({"audio": (sound, 16000)})[0]["audio"].content
    with torch.no_grad():
        expected = theirs.model.encoder(features.T[None]).last_hidden_state[0]
    assert off(task.embed({"audio": (sound, 16000)}, pool="tokens")["audio"], expected) < 1e-4


def test_a_task_starts_from_a_model_without_a_head(tmp_path: Path) -> None:
    bert(tmp_path / "bert")
    task = from_transformers(tmp_path / "bert")
    save(task, tmp_path / "run" / "model")
    other = Classify({"text": Text(max_len=40)}, task.transformer, task.embedding, classes=["a", "b"], read="mean")
    other.inherit_from(task)
    assert other.tokenizers["text"].vocabulary == task.tokenizers["text"].vocabulary
    other.build()
    report = other.start_from(tmp_path / "run")
    assert not report.unused and all(name.startswith("heads.") for name in report.fresh)
    np.testing.assert_allclose(other.eval().embed(TEXTS), task.embed(TEXTS), rtol=1e-5, atol=1e-5)
    gpt2(tmp_path / "gpt2")
    task = from_transformers(tmp_path / "gpt2")
    save(task, tmp_path / "writer" / "model")
    writer = LanguageModel({"text": Text(max_len=48)}, task.transformer, task.embedding, context=48)
    writer.inherit_from(task)
    writer.build()
    report = writer.start_from(tmp_path / "writer")
    assert not report.unused and not [name for name in report.fresh if not name.startswith("head.")]
    np.testing.assert_allclose(writer.eval().embed(TEXTS), task.embed(TEXTS), rtol=1e-5, atol=1e-5)


# sentence-transformers


def sentences(folder: Path, *modules: str, pooling: dict[str, Any] | None = None, **others: Any) -> Path:
    bert(folder)
    names = ["Transformer", *modules]
    told = [
        {"type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}" if i else ""}
        for i, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(told))
    if "Pooling" in modules:
        place = folder / "1_Pooling"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    for name, values in others.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_a_folder_of_sentence_transformers_says_how_a_vector_is_read(tmp_path: Path) -> None:
    plain = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 12}
    folder = sentences(
        tmp_path / "a", "Pooling", "Normalize", pooling=plain, sentence_bert_config={"max_seq_length": 12}
    )
    task = from_transformers(folder)
    assert (task.pool, task.normalize, task.piece) == ("class", True, 12)
    tokens = task.embed(TEXTS[1], pool="tokens", normalize=False)["text"]
    np.testing.assert_allclose(task.embed(TEXTS[1]), tokens[0] / np.linalg.norm(tokens[0]), rtol=1e-4, atol=1e-5)
    newer = sentences(tmp_path / "b", "Pooling", pooling={"pooling_mode": "lasttoken"})
    assert (from_transformers(newer).pool, from_transformers(newer).normalize) == ("last", False)
    assert read_sentences(tmp_path) is None and from_transformers(sentences(tmp_path / "c")).pool == "mean"


def test_its_model_may_lie_deeper_and_have_a_head(tmp_path: Path) -> None:
    folder = sentences(tmp_path / "a", "Pooling")
    whole = from_transformers(folder).embed(TEXTS)
    deeper = tmp_path / "b"
    deeper.mkdir()
    (folder / "modules.json").rename(deeper / "modules.json")
    (folder / "1_Pooling").rename(deeper / "1_Pooling")
    folder.rename(deeper / "0_Transformer")
    told = json.loads((deeper / "modules.json").read_text())
    told[0]["path"] = "0_Transformer"
    (deeper / "modules.json").write_text(json.dumps(told))
    settings = deeper / "0_Transformer" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"architectures": ["BertForMaskedLM"]}))
    np.testing.assert_array_equal(from_transformers(deeper).embed(TEXTS), whole)


@pytest.mark.parametrize(
    ("modules", "options", "message"),
    [
        (["Pooling", "Dense"], {}, r"modules\.json: a module 'Dense' cannot be brought in; only Pooling and Normalize"),
        (["Pooling"], {"pooling": {"pooling_mode_max_tokens": True}}, r"the pooling is pooling_mode_max_tokens; only"),
        (
            ["Pooling"],
            {"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}},
            r"the pooling is pooling_mode_mean_tokens, pooling_mode_cls_token; only",
        ),
        (
            [],
            {"config_sentence_transformers": {"default_prompt_name": "query"}},
            r"default_prompt_name: 'query' cannot",
        ),
        ([], {"modules": []}, r"modules\.json must hold a list of modules"),
        ([], {"modules": [{"type": "a.WordEmbeddings"}]}, r"the first module is 'WordEmbeddings'; only a Transformer"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    tmp_path: Path, modules: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        from_transformers(sentences(tmp_path / "hub", *modules, **options))


def test_a_longer_text_is_read_in_pieces(tmp_path: Path) -> None:
    task = from_transformers(sentences(tmp_path / "a", sentence_bert_config={"max_seq_length": 12}))
    long = " ".join(TEXTS * 4)
    samples = [sample["text"] for sample in task.samples_of({"text": long})]
    (before,), (after,) = task.tokenizers["text"].around
    assert max(map(len, samples)) == 12 and len(samples) > 2
    assert all(each.content[0] == before and each.content[-1] == after for each in samples)
    inner = [i for each in samples for i in each.content[1:-1].tolist()]
    assert inner == task.tokenizers["text"].encode_batch([long])[0].tolist()


def test_half_precision_shards_and_the_older_form_of_weights_come_in(tmp_path: Path) -> None:
    theirs = bert(tmp_path / "hub")
    wanted = from_transformers(tmp_path / "hub").embed(TEXTS)
    theirs.save_pretrained(tmp_path / "hub", max_shard_size="5KB")
    (tmp_path / "hub" / "model.safetensors").unlink()
    assert len(list((tmp_path / "hub").glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(from_transformers(tmp_path / "hub").embed(TEXTS), wanted)
    for path in (tmp_path / "hub").glob("model*"):
        path.unlink()
    torch.save(theirs.state_dict(), tmp_path / "hub" / "pytorch_model.bin")
    np.testing.assert_array_equal(from_transformers(tmp_path / "hub").embed(TEXTS), wanted)
    theirs.half().save_pretrained(tmp_path / "hub")
    found = from_transformers(tmp_path / "hub").embed(TEXTS)
    assert 0 < np.abs(found - wanted).max() < 0.05


def test_a_folder_without_a_tokenizer_is_refused_and_nothing_goes_out(tmp_path: Path) -> None:
    for name, make, message in (
        ("roberta", roberta, r"holds no tokenizer\.json; write one with AutoTokenizer"),
        ("t5", t5_encoder, r"holds no tokenizer: neither tokenizer\.json nor spiece\.model is there"),
        ("bert", bert, r"holds no tokenizer: neither tokenizer\.json, nor vocab\.json"),
    ):
        make(tmp_path / name)
        task = from_transformers(tmp_path / name)
        (tmp_path / name / "tokenizer.json").unlink()
        with pytest.raises(InputError, match=message):
            from_transformers(tmp_path / name)
        with pytest.raises(InputError, match=r"^a model without a head is as it was brought in, and is not exported"):
            export(task, tmp_path / "out")
