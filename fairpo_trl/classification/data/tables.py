"""Multi-label data of one's own: a CSV, JSONL or Parquet table, or a folder of precomputed features."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fairpo_trl.classification.data.images import ImageFiles, existing_files
from fairpo_trl.classification.data.label_cells import matrix_of_columns, matrix_of_names, names_of_cells
from fairpo_trl.classification.data.split import ImageSource, MultiLabelSplit, check_splits
from fairpo_trl.core.names import shortened, unknown_names_message


MissingImages = Literal["raise", "skip"]
SplitName = Literal["train", "validation", "test"]

_RESERVED = ("path", "image", "split", "series", "id")
_SUFFIXES = (".csv", ".jsonl", ".parquet")


def load_table(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    labels_column: str = "labels",
    label_names: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    separator: str | None = None,
    unknown: str | int | None = None,
    keep_unlabeled: bool = True,
    missing_images: MissingImages = "raise",
) -> dict[str, MultiLabelSplit]:
    """
    Loads a table with one row per image.

    Columns: `path` (posix, relative to `image_root`) or, in Parquet, `image` (bytes, or the struct of `bytes` and
    `path` that `datasets` writes), the labels, and optionally `split` (`train`, `validation` or `test`; without it all
    rows are train), `series` (near-duplicates that belong together) and `id` (defaults to `path`, or to the row).

    The labels are either one column `labels` with the names of the labels present (a list, a JSON list, or names
    joined by `separator`; `[]` for none), or one column per label with 1, 0, or nothing where it is unknown.

    Args:
        path (`str` or `Path`):
            A `.csv` (UTF-8, with a header), `.jsonl` or `.parquet` file.
        image_root (`str` or `Path`, *optional*):
            Folder the paths are relative to, and must stay inside; `None` is the folder of the table.
        labels_column (`str`, *optional*, defaults to `"labels"`):
            The column with the names of the labels present.
        label_names (`Sequence[str]`, *optional*):
            All labels, in the order wanted. `None`: those that occur, sorted; or the label columns in their order.
        label_columns (`Sequence[str]`, *optional*):
            The columns that are labels, when there is no `labels_column`. `None`: all but the ones named above.
        separator (`str`, *optional*):
            What joins names in a cell. `None` is `"|"`, and refuses cells that look joined by something else.
        unknown (`str` or `int`, *optional*):
            A value that also means unknown in a label column, such as `-1` or `"?"`.
        keep_unlabeled (`bool`, *optional*, defaults to `True`):
            Whether to keep rows without any label present; their number is in the notes.
        missing_images (`str`, *optional*, defaults to `"raise"`):
            `"raise"`, or `"skip"` with the number in the notes.

    Returns:
        `dict[str, MultiLabelSplit]`: the splits that occur, train first.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If a row cannot be used; names the row and the column. Rows count from 1, below the header.
    """
    if missing_images not in get_args(MissingImages):
        raise ValueError(unknown_names_message("missing_images", [missing_images], get_args(MissingImages)))
    path = Path(path).expanduser()
    columns = _read(path)
    where = path.name
    names, labels = _labels(columns, where, labels_column, label_names, label_columns, separator, unknown)
    n = len(labels)
    root = path.parent if image_root is None else Path(image_root).expanduser()
    there = np.ones(n, dtype=bool)
    images: Sequence[ImageSource]
    if "image" in columns:
        images = _EmbeddedImages(columns["image"], where)
    elif "path" in columns:
        files = _texts(columns["path"], "path", where)
        try:
            there = np.array(existing_files(root, files), dtype=bool)
        except ValueError as error:
            raise ValueError(f"{where}, column 'path': {error}") from error
        images = ImageFiles(root, files)
        missing = np.flatnonzero(~there)
        if len(missing) and missing_images == "raise":
            raise FileNotFoundError(
                f"{where}: {len(missing)} of {n} images are missing from {str(root)!r}, the first in row "
                f"{missing[0] + 1}: {files[missing[0]]!r}. Check `image_root`, or pass missing_images='skip'."
            )
    else:
        raise ValueError(f"{where} has neither a column 'path' nor 'image'; its columns: {', '.join(columns)}.")
    return _splits(columns, where, names, labels, keep_unlabeled, images=images, there=there)


def load_features(
    folder: str | Path,
    *,
    labels_column: str = "labels",
    label_names: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    separator: str | None = None,
    unknown: str | int | None = None,
    keep_unlabeled: bool = True,
) -> dict[str, MultiLabelSplit]:
    """
    Loads precomputed features and their labels from a folder of two files:

    ```
    FOLDER/
      features.npy            [N, D] float16 or float32 (memory-mapped); or features.safetensors, tensor "features"
      labels.csv              N rows as in `load_table` (or labels.jsonl, labels.parquet); row i belongs to row i
    ```

    The table needs no images: `id` (or `path`, taken as the id) is optional, as are `split` and `series`.

    Args:
        folder (`str` or `Path`):
            The folder.
        labels_column, label_names, label_columns, separator, unknown, keep_unlabeled:
            As in [`load_table`].

    Returns:
        `dict[str, MultiLabelSplit]`: the splits that occur, with features and without images.

    Raises:
        FileNotFoundError: If a file is missing; shows the layout.
        ValueError: As [`load_table`]; if there are two files for one purpose, the numbers of rows differ (gives both),
            or a feature is not finite (rows and columns of features count from 0).
    """
    root = Path(folder).expanduser()
    features_file = _one_of(root, ("features.npy", "features.safetensors"))
    table = _one_of(root, tuple(f"labels{suffix}" for suffix in _SUFFIXES))
    if features_file.suffix == ".npy":
        try:
            features = np.load(features_file, mmap_mode="r", allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # a damaged header is parsed as Python, so that anything may come; never unpickled
            raise ValueError(
                f"{features_file.name} is not a whole array of numbers in NumPy's format; objects are never read."
            ) from error
    else:
        try:
            tensors = safetensors.numpy.load_file(features_file)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{features_file.name} is not a whole safetensors file ({error}).") from error
        if set(tensors) != {"features"}:
            raise ValueError(f"{features_file.name} must hold one tensor 'features', got {sorted(tensors)}.")
        features = tensors["features"]
    columns = _read(table)
    names, labels = _labels(columns, table.name, labels_column, label_names, label_columns, separator, unknown)
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"{features_file.name} has shape {list(features.shape)} but {table.name} has {len(labels)} rows; row i of "
            "one belongs to row i of the other."
        )
    return _splits(columns, table.name, names, labels, keep_unlabeled, features=features)


class _EmbeddedImages(Sequence[ImageSource]):
    """The encoded images of a Parquet column, as bytes when asked for."""

    def __init__(self, column: pa.ChunkedArray, where: str) -> None:
        if pa.types.is_struct(column.type):
            if column.type.get_field_index("bytes") < 0:
                raise ValueError(f"{where}, column 'image': a struct must have the field `bytes`, got {column.type}.")
            column = pa.chunked_array(
                [chunk.field("bytes") for chunk in column.chunks], type=column.type["bytes"].type
            )
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise ValueError(f"{where}, column 'image' must hold encoded images as bytes, got {column.type}.")
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise ValueError(f"{where}, row {row + 1}, column 'image' holds no bytes.")
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> ImageSource: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageSource]: ...
    def __getitem__(self, index: int | slice) -> ImageSource | Sequence[ImageSource]:
        if isinstance(index, slice):
            return self.column[index].to_pylist()
        return self.column[index].as_py()


def _splits(
    columns: Mapping[str, Any],
    where: str,
    names: Sequence[str],
    labels: NDArray[np.int8],
    keep_unlabeled: bool,
    images: Sequence[ImageSource] | None = None,
    features: NDArray[Any] | None = None,
    there: NDArray[np.bool_] | None = None,
) -> dict[str, MultiLabelSplit]:
    """Divides the rows by the column `split` and states what was left out."""
    n = len(labels)
    id_column = next((column for column in ("id", "path") if column in columns), None)
    ids = [f"row-{i + 1}" for i in range(n)]
    if id_column:
        ids = _texts(columns[id_column], id_column, where)
        first: dict[str, int] = {}
        for row, value in enumerate(ids):
            if value in first:
                raise ValueError(
                    f"{where}: rows {first[value] + 1} and {row + 1} have the same {id_column} {shortened(value)}; "
                    "remove one, or give a column 'id'."
                )
            first[value] = row
    known = get_args(SplitName)
    split_of = ["train"] * n
    if "split" in columns:
        split_of = _texts(columns["split"], "split", where)
        for row, value in enumerate(split_of):
            if value not in known:
                message = unknown_names_message("split", [value], known)
                raise ValueError(f"{where}, row {row + 1}, column 'split': {message}")
    series = tuple(_texts(columns["series"], "series", where)) if "series" in columns else None
    whole = MultiLabelSplit(where, tuple(names), labels, tuple(ids), images=images, features=features, series=series)

    labelled = (labels == 1).any(axis=1)
    there = np.ones(n, dtype=bool) if there is None else there
    keep = there if keep_unlabeled else there & labelled
    splits: dict[str, MultiLabelSplit] = {}
    for name in known:
        mine = np.array([value == name for value in split_of])
        if not mine.any():
            continue
        notes: dict[str, int | str] = {
            "rows listed": int(mine.sum()),
            f"without a label, {'kept' if keep_unlabeled else 'dropped'}": int((mine & ~labelled).sum()),
        }
        if images is not None:
            notes["missing images, skipped"] = int((mine & ~there).sum())
        if not (mine & keep).any():
            raise ValueError(f"{where}: the split {name!r} has no row left. {notes}")
        splits[name] = replace(whole.select(mine & keep, name=name), notes=notes)
    check_splits(splits)
    return splits


def _labels(
    columns: Mapping[str, Any],
    where: str,
    labels_column: str,
    label_names: Sequence[str] | None,
    label_columns: Sequence[str] | None,
    separator: str | None,
    unknown: str | int | None,
) -> tuple[Sequence[str], NDArray[np.int8]]:
    """Label names and `[N, T]` from either form."""
    if labels_column in columns:
        if label_columns is not None or unknown is not None:
            raise ValueError(
                f"{where} has a column {labels_column!r} with the names of the labels; `label_columns` and `unknown` "
                "are for tables with one column per label. Rename that column, or leave them out."
            )
        cells = names_of_cells(columns[labels_column], separator, where, labels_column)
        return matrix_of_names(cells, label_names, where, labels_column)
    if separator is not None:
        raise ValueError(f"{where} has no column {labels_column!r} for `separator`; columns: {', '.join(columns)}.")
    wanted = label_names if label_columns is None else label_columns
    if label_columns is not None and label_names is not None and list(label_columns) != list(label_names):
        raise ValueError(
            "Give `label_columns` or `label_names`, not two different lists: both are the columns' names."
        )
    if wanted is None:
        wanted = [column for column in columns if column not in _RESERVED]
    absent = [column for column in wanted if column not in columns]
    if absent or not wanted:
        problem = unknown_names_message("label column", absent, list(columns)) if absent else "No column is left."
        raise ValueError(
            f"{where} has neither a column {labels_column!r} (`labels_column`) nor the columns of the labels. "
            + problem
        )
    return matrix_of_columns({column: columns[column] for column in wanted}, unknown, where)


def _read(path: Path) -> dict[str, Any]:
    """Column name -> list of cells (an Arrow column for `image`), all of one length."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path.name}: unknown file type {path.suffix!r}; use one of {', '.join(_SUFFIXES)}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {str(path)!r}.")
    if path.suffix.lower() == ".parquet":
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path.name} is not a readable Parquet file ({error}).") from error
        columns = {name: table[name] if name == "image" else table[name].to_pylist() for name in table.column_names}
        n = table.num_rows
    else:
        columns, n = (_read_csv if path.suffix.lower() == ".csv" else _read_jsonl)(path)
    if n == 0:
        raise ValueError(f"{path.name} has no rows.")
    return columns


def _read_csv(path: Path) -> tuple[dict[str, Any], int]:
    rows: list[list[str]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows.extend(row for row in csv.reader(file) if row)
        except csv.Error as error:
            raise ValueError(
                f"{path.name}, row {max(len(rows), 1)} cannot be read ({error}): is a quote left open there?"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name} is not text in UTF-8 ({error}).") from error
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    doubled = sorted({name for name in header if header.count(name) > 1 or not name.strip()})
    if doubled:
        raise ValueError(f"{path.name}: the header has a column without a name or twice: {doubled}.")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{path.name}, row {number} has {len(row)} cells but the header has {len(header)} columns; quote "
                "cells that contain a comma."
            )
    return {name: [row[i] for row in body] for i, name in enumerate(header)}, len(body)


def _read_jsonl(path: Path) -> tuple[dict[str, Any], int]:
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8 ({error}).") from error
    lines = text.split("\n")  # not splitlines(): a string in JSON may hold what Unicode counts as the end of a line
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path.name}, row {number} is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(
                f'{path.name}, row {number} must be an object such as {{"path": ...}}, got {line[:40]!r}.'
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if "image" in names:
        raise ValueError(f"{path.name}: embedded images need Parquet; write a column 'path' instead of 'image'.")
    return {name: [row.get(name) for row in rows] for name in names}, len(rows)


def _texts(cells: Sequence[Any], column: str, where: str) -> list[str]:
    """Non-empty strings; numbers become their text."""
    for row, cell in enumerate(cells):
        if isinstance(cell, bool | float) or not isinstance(cell, str | int) or not str(cell).strip():
            raise ValueError(
                f"{where}, row {row + 1}, column {column!r} must be a text that is not empty, got {shortened(cell)}."
            )
    return [str(cell) for cell in cells]


def _one_of(root: Path, names: tuple[str, ...]) -> Path:
    """The one of these files that exists."""
    found = [root / name for name in names if (root / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{str(root)!r} holds {' and '.join(path.name for path in found)}: keep one.")
    if not found:
        raise FileNotFoundError(
            f"{str(root)!r} has no {' or '.join(names)}. A folder of features holds features.npy or "
            "features.safetensors, and labels.csv, labels.jsonl or labels.parquet."
        )
    return found[0]
