"""Pictures as pixels, few of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F

from anyformer.baselines.features.features import Vectors
from anyformer.tokenizers.image.patches import ImagePatches

SIDE = 16
"""Pixels of a side at most."""


class Pixels(Vectors):
    """The pixels of a picture as the model sees it, averaged to at most 16 x 16."""

    tokenizer: ImagePatches

    def read(self, value: Any) -> np.ndarray:
        picture = self.tokenizer.decode(self.tokenizer.encode(value)).float() / 255
        # Of pictures that keep their own size all are brought to one.
        sides = [SIDE if self.tokenizer.size is None else min(side, SIDE) for side in picture.shape[1:]]
        return F.adaptive_avg_pool2d(picture, sides).flatten().numpy()
