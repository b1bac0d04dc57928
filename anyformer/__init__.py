"""anyformer: chop it up and feed it in."""

__version__ = "0.1.0"
