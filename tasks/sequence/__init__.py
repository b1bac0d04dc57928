"""Sequence to sequence: speech to text and translation."""

from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.sequence.transcripts import TranscriptConfig

__all__ = ["CTCConfig", "DecodeConfig", "SequenceToSequence", "TranscriptConfig"]
