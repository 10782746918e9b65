"""SHA-256 of everything that identity rests on: files, JSON, arrays, weights, rows. The one hasher of the package."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from numpy.typing import NDArray

_ROWS = 4096  # of an array that are read at once: a memory map is not loaded whole
_ROWS_AT_ONCE = 1000  # of a data set


def sha256(parts: Iterable[Any]) -> str:
    """SHA-256 over bytes-like parts, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: str | os.PathLike[str], sync: bool = False) -> str:
    """
    The SHA-256 of a file's content; with `sync` the content is made durable before it is read, so that the hash is of
    what a power cut leaves.
    """
    with open(path, "rb") as file:
        if sync and os.name != "nt":  # Windows flushes only files opened for writing
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys, so that their order does not count."""
    return sha256([json.dumps(value, sort_keys=True).encode()])


def sha256_of_array(values: NDArray[Any]) -> str:
    """SHA-256 over type, shape and content of an array, which may be a memory map."""
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    for start in range(0, len(values), _ROWS):
        digest.update(np.ascontiguousarray(values[start : start + _ROWS]).data)
    return digest.hexdigest()


def sha256_of_tensors(state: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in the order of the names; of pairs, in theirs."""
    import torch  # not for those who hash files

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()) if isinstance(state, Mapping) else state:
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256_of_rows(dataset: Dataset, columns: Sequence[str]) -> str:
    """
    SHA-256 over some columns of all rows of a data set, in their order; its own fingerprint says how it was made.

    The same rows give the same hash whether they lie in memory or in a file, in one piece or many, selected by index
    or written out, whatever other columns there are.
    """
    import pyarrow as pa  # as torch above

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
