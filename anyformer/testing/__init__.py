"""The contract of a tokenizer and of a lift, for their authors."""

from anyformer.testing.lift import check_lift
from anyformer.testing.tokenizer import check_tokenizer

__all__ = ["check_lift", "check_tokenizer"]
