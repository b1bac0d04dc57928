"""Models without a head, whose vectors are taken."""

from anyformer.tasks.embed.embed import Embed

__all__ = ["Embed"]
