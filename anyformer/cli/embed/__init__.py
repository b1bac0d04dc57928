"""`anyformer embed`: the hidden vectors of records, into files."""

from anyformer.cli.embed.embed import embed_command

__all__ = ["embed_command"]
