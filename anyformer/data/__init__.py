"""Records: sources, tables, folders, splits, and the loader of batches."""

from anyformer.data.chopper import Chopper
from anyformer.data.folders import Folders
from anyformer.data.loader import Loader
from anyformer.data.source import Joined, Pick, Source, Subset
from anyformer.data.splits import split
from anyformer.data.tables import Hub, Table

__all__ = ["Chopper", "Folders", "Hub", "Joined", "Loader", "Pick", "Source", "Subset", "Table", "split"]
