"""Which features there are of which tokenizer: one more entry gives a kind of data, or a class of your own, its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.sparse import csr_matrix, hstack

from anyformer.baselines.features.columns import RowColumns
from anyformer.baselines.features.contents import TokenStatistics
from anyformer.baselines.features.features import Features, Matrix
from anyformer.baselines.features.ngrams import CharacterNgrams, TextNgrams, WordNgrams
from anyformer.baselines.features.pictures import Pixels
from anyformer.baselines.features.signals import MelSegments, SeriesSegments
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.pretrained import Pretrained
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.series.series import Series
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.tree.tree import Tree
from anyformer.tokens import Tokenizer


class FacetFeatures(Features):
    """Those of every cut side by side, of cuts of one kind once. tokenizer: `Facets`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        each = [features_of(cut) for cut in tokenizer.parts.values()]
        self._each = list({type(features): features for features in each}.values())

    def read(self, value: Any) -> tuple[Any, ...]:
        return tuple(features.read(value) for features in self._each)

    def fit(self, kept: Sequence[tuple[Any, ...]]) -> None:
        for features, own in zip(self._each, zip(*kept, strict=True), strict=True):
            features.fit(own)

    def transform(self, kept: Sequence[tuple[Any, ...]]) -> Matrix:
        made = [features.transform([each[i] for each in kept]) for i, features in enumerate(self._each)]
        return made[0] if len(made) == 1 else csr_matrix(hstack(made))


FEATURES: dict[type[Tokenizer], type[Features]] = {
    Text: TextNgrams,
    NGrams: CharacterNgrams,
    Facets: FacetFeatures,
    Molecule: CharacterNgrams,
    Tree: WordNgrams,
    Row: RowColumns,
    ImagePatches: Pixels,
    Audio: MelSegments,
    Series: SeriesSegments,
    Tokenizer: TokenStatistics,
}
"""By the class of the tokenizer, or one that it is a subclass of."""


def features_of(tokenizer: Tokenizer) -> Features:
    """What simple models read of a field. tokenizer: as the config gives it; of one that an encoder reads its own."""
    if isinstance(tokenizer, Pretrained):
        return features_of(tokenizer.inner)
    return next(FEATURES[each] for each in type(tokenizer).__mro__ if each in FEATURES)(tokenizer)
