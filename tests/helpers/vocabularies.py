"""Small vocabularies for the tests of texts: trained here, and as a tokenizer.json of others."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer as Package
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from anyformer.tokenizers.text.text import Text

TEXTS = ["the cat sat on the mat, and the hat sat on the cat", "naïve café, naïve café; Straße 12 12 12"] * 2
BPE = Text(vocab_size=300).fit(TEXTS)
BYTES = Text("bytes")
CHARACTERS = Text("characters").fit(["hello", "world\n\0\U0001f600"])


def wordpiece(**options: Any) -> Package:
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "un", "##able", "able", "[", "]", "cls", "##s", "to"]
    package = Package(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    package.normalizer, package.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    package.decoder = decoders.WordPiece()
    package.add_special_tokens(words[:5])
    package.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return package


def whole_words(unk: str | None = "[UNK]") -> Package:
    words = [*([unk] if unk else []), "[CLS]", "a", "b"]
    package = Package(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unk or "a"))
    package.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    package.add_special_tokens(["[CLS]"])
    return package


def unigram() -> Package:
    package = Package(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("▁", -2.0)], 0))
    package.pre_tokenizer, package.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    package.add_special_tokens(["</s>"])
    return package
