"""Which features there are of which tokenizer: one more entry gives a kind of data, or a class of your own, its own."""

from __future__ import annotations

from anyformer.baselines.features.columns import RowColumns
from anyformer.baselines.features.contents import TokenStatistics
from anyformer.baselines.features.features import Features
from anyformer.baselines.features.ngrams import CharacterNgrams, TextNgrams
from anyformer.baselines.features.pictures import Pixels
from anyformer.baselines.features.signals import MelSegments, SeriesSegments
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.series.series import Series
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

FEATURES: dict[type[Tokenizer], type[Features]] = {
    Text: TextNgrams,
    NGrams: CharacterNgrams,
    Molecule: CharacterNgrams,
    Row: RowColumns,
    ImagePatches: Pixels,
    Audio: MelSegments,
    Series: SeriesSegments,
    Tokenizer: TokenStatistics,
}
"""By the class of the tokenizer, or one that it is a subclass of."""


def features_of(tokenizer: Tokenizer) -> Features:
    """What simple models read of a field. tokenizer: as the config gives it."""
    return next(FEATURES[each] for each in type(tokenizer).__mro__ if each in FEATURES)(tokenizer)
