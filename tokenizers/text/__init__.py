"""Text: bytes, characters and BPE, corpora, and vocabularies of other libraries."""

from anyformer.tokenizers.text.aligned import Aligned
from anyformer.tokenizers.text.corpus import Corpus, Documents, PythonDocs
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text

__all__ = ["Aligned", "Corpus", "Documents", "NGrams", "PythonDocs", "Text"]
