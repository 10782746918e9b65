"""Columns of labels, and folders of a published layout, as splits: images and ids, and what was left out."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairpo_trl.classification.data.images import ImageFiles, existing_files
from fairpo_trl.classification.data.split import ImageSource, MultiLabelSplit, StoredImages, check_splits, first_few
from fairpo_trl.core.messages import require_known, shortened, unknown_names_message


MissingImages = Literal["raise", "skip"]
SplitName = Literal["train", "validation", "test"]

_NAMED = 12  # missing paths of a layout that a message lists


def with_images(
    columns: Mapping[str, Any],
    where: str,
    root: Path,
    names: Sequence[str],
    labels: NDArray[np.int8],
    keep_unlabeled: bool,
    missing_images: MissingImages,
) -> dict[str, MultiLabelSplit]:
    """The splits of a table whose labels are read, with its images."""
    require_known("missing_images", [missing_images], get_args(MissingImages))
    n = len(labels)
    there = np.ones(n, dtype=bool)
    images: Sequence[ImageSource]
    if "image" in columns:
        images = EmbeddedImages(columns["image"], where)
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
                f"{missing[0] + 1}: {files[missing[0]]!r}. Check `image_root`, or pass `--missing_images skip` (in "
                "Python missing_images='skip')."
            )
    else:
        raise ValueError(
            f"{where} has neither a column 'path' nor 'image'; its columns: {', '.join(columns)}. Name the column of "
            "paths with `--path_column` (in Python path_column='...')."
        )
    return splits_of_columns(columns, where, names, labels, keep_unlabeled, images=images, there=there)


def splits_of_columns(
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
    for column in ("id", "path"):
        first: dict[Any, int] = {}
        for row, value in enumerate(ids if column == id_column else columns.get(column, ())):
            key = posixpath.normpath(value) if column == "path" and isinstance(value, str) else value
            before = first.setdefault(key, row)
            if before != row and value is not None:
                raise ValueError(
                    f"{where}: rows {before + 1} and {row + 1} have the same {column} {shortened(value)}. "
                    "Remove one; or, if each row holds one label of its image, pass `--one_label_per_row true` (in "
                    "Python one_label_per_row=True)."
                )
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


def split_of_files(
    name: str,
    label_names: Sequence[str],
    labels: NDArray[np.int8],
    folder: Path,
    files: Sequence[str],
    *,
    listed: str,
    keep_unlabeled: bool,
    missing_images: MissingImages,
    counted: Mapping[str, int | str] | None = None,
    prefix: str = "",
) -> MultiLabelSplit:
    """
    One split of images, `files` (paths with slashes) in one folder, with what was left out in its notes.

    `listed` is what lists the images, for messages; `counted` are further notes; a prefix stands before the paths in
    ids; the other arguments are as in [`load_table`].

    Raises:
        FileNotFoundError: If an image of a row that is kept is missing, unless it may be.
    """
    require_known("missing_images", [missing_images], get_args(MissingImages))
    labelled = (labels == 1).any(axis=1)
    keep = np.ones(len(files), dtype=bool) if keep_unlabeled else labelled
    there = np.array(existing_files(folder, files), dtype=bool)
    missing = np.flatnonzero(keep & ~there)
    if len(missing) and missing_images == "raise":
        raise FileNotFoundError(
            f"{len(missing)} of the {int(keep.sum())} images of {listed} are missing from {folder.name}/: "
            f"{first_few([files[i] for i in missing.tolist()])}. Download them, or pass `--missing_images skip` (in "
            "Python missing_images='skip')."
        )
    kept = np.flatnonzero(keep & there)
    notes: dict[str, int | str] = {
        "images listed": len(files),
        f"without a label, {'kept' if keep_unlabeled else 'dropped'}": int((~labelled).sum()),
        **(counted or {}),
        "missing images, skipped": len(missing),
    }
    names = [files[i] for i in kept.tolist()]
    return MultiLabelSplit(
        name,
        tuple(label_names),
        labels[kept],
        tuple(prefix + file for file in names),
        images=ImageFiles(folder, names),
        notes=notes,
    )


class EmbeddedImages(StoredImages):
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

    def get(self, row: int) -> ImageSource:
        """The content of a file."""
        return self.column[row].as_py()


def _texts(cells: Sequence[Any], column: str, where: str) -> list[str]:
    """Non-empty strings; numbers become their text."""
    for row, cell in enumerate(cells):
        if isinstance(cell, bool | float) or not isinstance(cell, str | int) or not str(cell).strip():
            raise ValueError(
                f"{where}, row {row + 1}, column {column!r} must be a text that is not empty, got {shortened(cell)}."
            )
    return [str(cell) for cell in cells]


def find_layout(
    root: Path, wanted: Sequence[tuple[str, ...]], *, dataset: str, tree: str, remark: str = ""
) -> list[Path]:
    """
    Finds each wanted file or folder in a data folder: the first that exists of the places where it may lie.

    Raises:
        FileNotFoundError: One error that names everything missing, shows the layout (`tree`), and adds the remark.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(root)!r}. {dataset} is read from a folder like this:\n{tree}"
        )
    found, missing = [], []
    for places in wanted:
        path = next((root / place for place in places if (root / place).exists()), None)
        if path is None:
            missing.append(" or ".join(places))
        else:
            found.append(path)
    if missing:
        more = [f"and {len(missing) - _NAMED} more"] if len(missing) > _NAMED else []
        listed = "\n".join(f"  {line}" for line in (*missing[:_NAMED], *more))
        raise FileNotFoundError(
            f"{str(root)!r} is not a complete {dataset} folder. Missing:\n{listed}\n"
            + (f"{remark}\n" if remark else "")
            + f"Expected layout:\n{tree}"
        )
    return found
