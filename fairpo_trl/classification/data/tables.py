"""Multi-label data of one's own: a CSV, JSONL or Parquet table, or a folder of precomputed features."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fairpo_trl.classification.data.columns import MissingImages, splits_of_columns, with_images
from fairpo_trl.classification.data.label_cells import matrix_of_columns, matrix_of_names, names_of_cells
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.core.messages import shortened, unknown_names_message
from fairpo_trl.tables import SUFFIXES, columns_of_rows, read_rows


_RESERVED = ("path", "image", "split", "series", "id")
_LISTED = 30
"""Columns that an error names."""


def load_table(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    path_column: str = "path",
    labels_column: str = "labels",
    label_names: Sequence[str] | None = None,
    label_columns: Sequence[str] | Literal["all"] | None = None,
    separator: str | None = None,
    unknown: str | int | None = None,
    absent: str | int | None = None,
    one_label_per_row: bool = False,
    keep_unlabeled: bool = True,
    missing_images: MissingImages = "raise",
) -> dict[str, MultiLabelSplit]:
    """
    Loads a table with one row per image.

    Columns: `path` (posix, relative to `image_root`) or, in Parquet, `image` (bytes, or the struct of `bytes` and
    `path` that `datasets` writes), the labels, and optionally `split` (`train`, `validation` or `test`; without it all
    rows are train), `series` (near-duplicates that belong together) and `id` (defaults to `path`, or to the row).

    The labels are either one column `labels` with the names of the labels present (a list, also as JSON or Python
    writes it, or names joined by `separator`; `[]` for none), or one column per label with 1, 0, or nothing where it
    is unknown; which columns these are is always said, with `label_columns` or `label_names`.

    Args:
        path (`str` or `Path`):
            A table as [`~fairpo_trl.tables.read_rows`] takes it: CSV, JSON or Parquet.
        image_root (`str` or `Path`, *optional*):
            Folder the paths are relative to, and must stay inside; `None` is the folder of the table.
        path_column (`str`, *optional*, defaults to `"path"`):
            The column of the images' paths.
        labels_column (`str`, *optional*, defaults to `"labels"`):
            The column with the names of the labels present.
        label_names (`Sequence[str]`, *optional*):
            All labels, in the order wanted; numbers of labels are places in it, from 0 on. `None`: those that occur,
            sorted; or the label columns in their order.
        label_columns (`Sequence[str]` or `"all"`, *optional*):
            The columns that are labels, when there is no `labels_column`; `"all"`: all but the ones named above.
        separator (`str`, *optional*):
            What joins names in a cell. `None` is `"|"`, and refuses cells that look joined by something else.
        unknown (`str` or `int`, *optional*):
            A value that means unknown in a label column, besides an empty cell, such as `"?"`.
        absent (`str` or `int`, *optional*):
            A value that means absent in a label column, besides 0: `-1` as in CelebA, or `""` for an empty cell.
            Columns with empty cells and not a single 0 are refused unless `absent` or `unknown` is `""`.
        one_label_per_row (`bool`, *optional*, defaults to `False`):
            Whether an image has a row for each of its labels, which are brought together.
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
    path = Path(path).expanduser()
    columns = _read(path, path_column)
    where = path.name
    if one_label_per_row:
        columns = _one_row_per_image(columns, where, labels_column)
    names, labels = _labels(
        columns, where, labels_column, label_names, label_columns, separator, unknown=unknown, absent=absent
    )
    root = path.parent if image_root is None else Path(image_root).expanduser()
    return with_images(columns, where, root, names, labels, keep_unlabeled, missing_images)


def load_features(
    folder: str | Path,
    *,
    labels_column: str = "labels",
    label_names: Sequence[str] | None = None,
    label_columns: Sequence[str] | Literal["all"] | None = None,
    separator: str | None = None,
    unknown: str | int | None = None,
    absent: str | int | None = None,
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
        labels_column, label_names, label_columns, separator, unknown, absent, keep_unlabeled:
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
    table = _one_of(root, tuple(f"labels{suffix}" for suffix in SUFFIXES))
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
    names, labels = _labels(
        columns, table.name, labels_column, label_names, label_columns, separator, unknown=unknown, absent=absent
    )
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"{features_file.name} has shape {list(features.shape)} but {table.name} has {len(labels)} rows; row i of "
            "one belongs to row i of the other."
        )
    return splits_of_columns(columns, table.name, names, labels, keep_unlabeled, features=features)


def _labels(
    columns: Mapping[str, Any],
    where: str,
    labels_column: str,
    label_names: Sequence[str] | None,
    label_columns: Sequence[str] | str | None,
    separator: str | None,
    *,
    unknown: str | int | None,
    absent: str | int | None,
) -> tuple[Sequence[str], NDArray[np.int8]]:
    """Label names and `[N, T]` from either form."""
    if labels_column in columns:
        if label_columns is not None or unknown is not None or absent is not None:
            raise ValueError(
                f"{where} has a column {labels_column!r} with the names of the labels; `label_columns`, `unknown` and "
                "`absent` are for tables with one column per label. Rename that column, or leave them out."
            )
        cells = names_of_cells(columns[labels_column], separator, where, labels_column)
        return matrix_of_names(cells, label_names, where, labels_column)
    if separator is not None:
        raise ValueError(f"{where} has no column {labels_column!r} for `separator`; columns: {', '.join(columns)}.")
    candidates = [column for column in columns if column not in _RESERVED]
    if isinstance(label_columns, str):
        label_columns = candidates if label_columns == "all" else [label_columns]
    wanted = label_names if label_columns is None else label_columns
    if label_columns is not None and label_names is not None and list(label_columns) != list(label_names):
        raise ValueError(
            "Give `label_columns` or `label_names`, not two different lists: both are the columns' names."
        )
    if wanted is None and candidates:
        listed = " ".join(candidates) if len(candidates) <= _LISTED else " ".join([*candidates[:_LISTED], "..."])
        raise ValueError(
            f"{where} has no column {labels_column!r} with names of labels, so its labels are columns: pass "
            f"`--label_columns {listed}` without those that are no labels, or `--label_columns all` for these "
            f"{len(candidates)} (in Python label_columns=[...] or 'all'). If one column holds the names, name it with "
            "`--labels_column`."
        )
    wanted = wanted or ()
    lacking = [column for column in wanted if column not in columns]
    if lacking or not wanted:
        problem = unknown_names_message("label column", lacking, list(columns)) if lacking else "No column is left."
        raise ValueError(
            f"{where} has neither a column {labels_column!r} (`labels_column`) nor the columns of the labels. "
            + problem
        )
    return matrix_of_columns({column: columns[column] for column in wanted}, unknown, where, absent)


def _one_row_per_image(columns: Mapping[str, Any], where: str, labels_column: str) -> dict[str, Any]:
    """A table with a row for each label of an image, as one with a row for each image and a list of its labels."""
    key = next((column for column in ("path", "id") if column in columns), None)  # an id may be that of a row
    if key is None or labels_column not in columns:
        raise ValueError(
            f"{where}: `one_label_per_row` needs a column {labels_column!r}, and 'path' or 'id' that says which rows "
            f"belong together; its columns: {', '.join(columns)}."
        )
    first: dict[Any, int] = {}
    labels: dict[Any, list[Any]] = {}
    for row, image in enumerate(columns[key]):
        image = posixpath.normpath(image) if key == "path" and isinstance(image, str) else image
        start = first.setdefault(image, row)
        labels.setdefault(image, []).append(columns[labels_column][row])
        for name in set(_RESERVED) & set(columns) - {"image", key}:
            if columns[name][row] != columns[name][start]:
                raise ValueError(
                    f"{where}: rows {start + 1} and {row + 1} have the same {key} {shortened(image)} but another "
                    f"{name}: give all rows of an image the same one."
                )
    kept = list(first.values())
    merged = {name: [cells[row] for row in kept] for name, cells in columns.items() if name != "image"}
    return {**merged, labels_column: list(labels.values())}


def _read(path: Path, path_column: str = "path") -> dict[str, Any]:
    """Column name -> list of cells (an Arrow column for `image`), all of one length; the column of paths is `path`."""
    table = read_rows(path)
    columns: dict[str, Any]
    if isinstance(table, pa.Table):
        columns = {name: table[name] if name == "image" else table[name].to_pylist() for name in table.column_names}
    else:
        names = columns_of_rows(table)
        if "image" in names and path_column != "image":
            raise ValueError(
                f"{path.name}: embedded images need Parquet; write a column 'path' instead of 'image', or name it "
                "with `--path_column image` (in Python path_column='image') if it holds paths."
            )
        columns = {name: [row.get(name) for row in table] for name in names}
    if path_column != "path":
        if path_column not in columns or "path" in columns:
            known = unknown_names_message("column", [path_column], list(columns))
            raise ValueError(f"{path.name}: `path_column` names the column of the images' paths. {known}")
        columns = {"path" if name == path_column else name: cells for name, cells in columns.items()}
    return columns


def _one_of(root: Path, names: tuple[str, ...]) -> Path:
    """The one of these files that exists."""
    found = [root / name for name in names if (root / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{str(root)!r} holds {' and '.join(path.name for path in found)}: keep one.")
    if not found:
        raise FileNotFoundError(
            f"{str(root)!r} has no {' or '.join(names)}. A folder of features holds features.npy or "
            "features.safetensors, and labels.csv (or .tsv, .json, .jsonl, .parquet)."
        )
    return found[0]
