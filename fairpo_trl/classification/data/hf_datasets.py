"""Multi-label data from `datasets`: an image column and a column of labels or of objects with a category."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Image, List, Value

from fairpo_trl.classification.data.columns import SplitName
from fairpo_trl.classification.data.label_cells import matrix_of_names, names_of_cells
from fairpo_trl.classification.data.split import ImageSource, MultiLabelSplit, StoredImages, check_splits
from fairpo_trl.core.messages import unknown_names_message


def from_dataset(
    dataset: Dataset | DatasetDict,
    *,
    image_column: str = "image",
    labels_column: str = "labels",
    label_names: Sequence[str] | None = None,
    id_column: str | None = None,
    series_column: str | None = None,
    keep_unlabeled: bool = True,
) -> dict[str, MultiLabelSplit]:
    """
    Takes the splits of a `datasets` object; images stay where they are and are read when asked for.

    Args:
        dataset (`Dataset` or `DatasetDict`):
            One split, taken as train, or several named `train`, `validation` and `test`.
        image_column (`str`, *optional*, defaults to `"image"`):
            Column of type `Image`, or of bytes.
        labels_column (`str`, *optional*, defaults to `"labels"`):
            Column with a list of `ClassLabel` or of names for each row. A dot goes into a column of objects:
            `"objects.category"` takes the category of every object.
        label_names (`Sequence[str]`, *optional*):
            All labels, in the order wanted. `None`: the names of the `ClassLabel`, or those that occur, sorted.
        id_column, series_column (`str`, *optional*):
            Column of unique ids (`None` numbers the rows of each split), and of the series of near-duplicates.
        keep_unlabeled (`bool`, *optional*, defaults to `True`):
            Whether to keep rows without any label; their number is in the notes.

    Raises:
        ValueError: If a column is missing or of another type, a split has another name, or a row cannot be used
            (rows count from 1).
    """
    parts = dict(dataset) if isinstance(dataset, DatasetDict) else {"train": dataset}
    unknown = [name for name in parts if name not in get_args(SplitName)]
    if unknown:
        raise ValueError(
            unknown_names_message("split", unknown, get_args(SplitName))
            + " Pass a DatasetDict that has only the splits to use, under these names."
        )
    for name, part in parts.items():
        if not isinstance(part, Dataset):
            raise ValueError(f"The {name} split must be a datasets.Dataset, got {type(part).__name__}: do not stream.")
        used = [image_column, labels_column.split(".")[0], *(c for c in (id_column, series_column) if c)]
        absent = [column for column in used if column not in part.column_names]
        if absent:
            message = unknown_names_message("column", absent, part.column_names)
            raise ValueError(f"The {name} split: {message}")

    cells = {name: _names(part, labels_column, f"The {name} split") for name, part in parts.items()}
    if label_names is None:
        listed = [tuple(kind.names) for part in parts.values() if (kind := _class_label(part, labels_column))]
        label_names = (
            listed[0] if listed else tuple(sorted({n for rows in cells.values() for row in rows for n in row}))
        )
    splits = {}
    for name, part in parts.items():
        _, labels = matrix_of_names(cells[name], label_names, f"The {name} split", labels_column)
        labelled = labels.any(axis=1)
        split = MultiLabelSplit(
            name=name,
            label_names=tuple(label_names),
            labels=labels,
            ids=tuple(f"{name}-{i + 1}" for i in range(len(part))) if id_column is None else _strings(part, id_column),
            images=_DatasetImages(part, image_column, name),
            series=None if series_column is None else _strings(part, series_column),
            notes={
                "rows listed": len(part),
                f"without a label, {'kept' if keep_unlabeled else 'dropped'}": int((~labelled).sum()),
            },
        )
        splits[name] = split if keep_unlabeled else split.select(labelled)
    check_splits(splits)
    return splits


class _DatasetImages(StoredImages):
    """The encoded images of a dataset, as bytes or paths when asked for; `open_image` decodes them."""

    def __init__(self, dataset: Dataset, column: str, split: str) -> None:
        kind = dataset.features[column]
        dataset = dataset.select_columns([column]).with_format(None)
        if isinstance(kind, Image):
            dataset = dataset.cast_column(column, Image(decode=False))
        elif not (isinstance(kind, Value) and kind.dtype in ("binary", "large_binary")):
            raise ValueError(
                f"The {split} split: column {column!r} must be of type Image or bytes, got {kind}: use "
                f"cast_column({column!r}, datasets.Image()), or load_table for paths."
            )
        row = 1
        for batch in dataset.with_format("arrow").iter(batch_size=1000):
            values = batch[column]
            empty = values.is_null()
            if isinstance(kind, Image):
                empty = pc.and_(pc.struct_field(values, "bytes").is_null(), pc.struct_field(values, "path").is_null())
            if pc.any(empty).as_py():
                at = row + empty.to_pylist().index(True)
                raise ValueError(f"The {split} split: row {at}, column {column!r} holds no image.")
            row += len(values)
        self.dataset, self.column = dataset, column

    def __len__(self) -> int:
        return len(self.dataset)

    def get(self, row: int) -> ImageSource:
        value = self.dataset[row][self.column]
        if isinstance(value, bytes):
            return value
        return Path(value["path"]) if value["bytes"] is None else value["bytes"]


def _class_label(dataset: Dataset, column: str) -> ClassLabel | None:
    """The `ClassLabel` at the end of a dotted column, if there is one."""
    top, *rest = column.split(".")
    kind: Any = dataset.features[top]
    for key in rest:
        kind = kind.feature if isinstance(kind, List) else kind
        if not isinstance(kind, dict) or key not in kind:
            raise ValueError(f"Column {top!r} has no field {key!r}: its type is {dataset.features[top]}.")
        kind = kind[key]
    kind = kind.feature if isinstance(kind, List) else kind
    return kind if isinstance(kind, ClassLabel) else None


def _names(dataset: Dataset, column: str, where: str) -> list[list[str]]:
    """The label names of each row."""
    top, *rest = column.split(".")
    classes = _class_label(dataset, column)
    rows = [_inner(value, rest) for value in dataset.select_columns([top]).with_format(None)[top]]
    if classes is not None:
        for row, values in enumerate(rows, start=1):
            values = values if isinstance(values, list) else [values]
            wrong = [value for value in values if value is None or not 0 <= value < classes.num_classes]
            if wrong:
                raise ValueError(f"{where}, row {row}, column {column!r}: {wrong[0]!r} is no class of {column!r}.")
            rows[row - 1] = [classes.names[value] for value in values]
    return names_of_cells(rows, None, where, column)


def _inner(value: Any, keys: list[str]) -> Any:
    """Follows the keys into an object, or into every object of a list."""
    if not keys:
        return value
    if isinstance(value, list):
        return [_inner(item, keys) for item in value]
    return _inner(value[keys[0]], keys[1:])


def _strings(dataset: Dataset, column: str) -> tuple[str, ...]:
    values = list(dataset.select_columns([column]).with_format(None)[column])
    if None in values:
        raise ValueError(f"Row {values.index(None) + 1}, column {column!r} is empty.")
    return tuple(str(value) for value in values)
