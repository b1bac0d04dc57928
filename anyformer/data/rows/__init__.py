"""The rows of tables, read where they lie: one reader for each format, none of which guesses what a value is."""

from anyformer.data.rows.arrow_rows import ArrowRows, ParquetRows
from anyformer.data.rows.csv_rows import CsvRows
from anyformer.data.rows.joined_rows import JoinedRows
from anyformer.data.rows.json_rows import JsonRows
from anyformer.data.rows.rows import Rows

__all__ = ["ArrowRows", "CsvRows", "JoinedRows", "JsonRows", "ParquetRows", "Rows"]
