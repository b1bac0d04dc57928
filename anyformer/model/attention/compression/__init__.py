"""Attention to fewer keys than there are places: what makes them, and who sees them."""

from anyformer.model.attention.compression.linformer import PlaceProjection, Projected, ProjectedSight, lay_samples
from anyformer.model.attention.compression.strided import CompressedSight, StridedConvolution, Windows

__all__ = [
    "CompressedSight",
    "PlaceProjection",
    "Projected",
    "ProjectedSight",
    "StridedConvolution",
    "Windows",
    "lay_samples",
]
