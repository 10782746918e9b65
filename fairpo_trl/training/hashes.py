"""Content hash of the rows of a `datasets.Dataset`; its own fingerprint says how it was made, not what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
from datasets import Dataset


_ROWS_AT_ONCE = 1000


def dataset_hash(dataset: Dataset, columns: Sequence[str]) -> str:
    """
    SHA-256 over some columns of all rows, in the order of the dataset.

    The same rows give the same hash whether they lie in memory or in a file, in one piece or many, selected by index
    or written out.

    Args:
        dataset (`Dataset`):
            The rows.
        columns (`Sequence[str]`):
            The columns that count, whatever others there are.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((len(dataset), list(columns))).encode())
    for table in dataset.select_columns(list(columns)).with_format("arrow").iter(_ROWS_AT_ONCE):
        table = table.select(list(columns)).replace_schema_metadata(None)
        # Taking the rows copies them: a slice would bring what it does not show of its buffers.
        table = table.take(pa.array(range(len(table)))).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        digest.update(sink.getvalue())
    return digest.hexdigest()
