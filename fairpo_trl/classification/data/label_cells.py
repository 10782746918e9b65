"""Label matrices from the cells of a table: lists of names, joined names, or one column per label."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.core.names import shortened, unknown_names_message


_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1, "false": 0, "true": 1, "": -1}


def names_of_cells(cells: Sequence[Any], separator: str | None, where: str, column: str) -> list[list[str]]:
    """
    The label names in each cell: a list, a JSON list, or names joined by `separator`.

    Args:
        cells (`Sequence`):
            One cell a row.
        separator (`str`, *optional*):
            What joins names; `None` is `"|"`, and refuses cells that look joined by `;` or `,` instead.
        where (`str`):
            What errors call the table.
        column (`str`):
            What errors call the column.

    Raises:
        ValueError: If a cell or a name in it is empty, or not text. Rows count from 1.
    """
    if separator == "":
        raise ValueError('`separator` must not be empty; write the character that joins names, such as "|".')
    joined = [cell for cell in cells if isinstance(cell, str) and not cell.lstrip().startswith("[")]
    if separator is None and not any("|" in cell for cell in joined):
        for other in (";", ","):
            if any(other in cell for cell in joined):
                raise ValueError(
                    f"{where}, column {column!r}: no cell contains '|' but some contain {other!r}. Pass "
                    f"separator={other!r}, or separator='|' if it belongs to the names."
                )
    parsed = []
    for row, cell in enumerate(cells, start=1):
        place = f"{where}, row {row}, column {column!r}"
        items = cell
        if isinstance(cell, str):
            if cell.lstrip().startswith("["):
                try:
                    items = json.loads(cell)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise ValueError(f"{place}: {shortened(cell)} is not a JSON list ({error}).") from error
            else:
                items = cell.split(separator or "|")
        if not isinstance(items, list | tuple):
            raise ValueError(f"{place} must hold the names of the labels present, got {shortened(cell)}; [] for none.")
        for item in items:
            if not isinstance(item, str):
                raise ValueError(
                    f"{place}: labels are given by name, got {shortened(item)}. A matrix of 0 and 1 goes into one "
                    "column per label."
                )
            if not item.strip():
                raise ValueError(f"{place}: empty label in {shortened(cell)}; write [] for a row without a label.")
        parsed.append([item.strip() for item in items])
    return parsed


def matrix_of_names(
    cells: Sequence[Sequence[str]], label_names: Sequence[str] | None, where: str, column: str
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """
    Label names and `[N, T]` int8 of 0 and 1 from the names present in each row.

    Args:
        cells (`Sequence[Sequence[str]]`):
            Names present in each row; a name may repeat.
        label_names (`Sequence[str]`, *optional*):
            All labels, in the order wanted; `None`: those that occur, sorted.
        where (`str`):
            What errors call the table.
        column (`str`):
            What errors call the column.

    Raises:
        ValueError: If a name is not in `label_names`, or no label occurs at all. Rows count from 1.
    """
    names = tuple(sorted({name for cell in cells for name in cell}) if label_names is None else label_names)
    if not names:
        raise ValueError(f"{where}, column {column!r}: no row has a label; give `label_names` if that is meant.")
    column_of = {name: i for i, name in enumerate(names)}
    labels = np.zeros((len(cells), len(names)), dtype=np.int8)
    for row, cell in enumerate(cells):
        unknown = [name for name in cell if name not in column_of]
        if unknown:
            message = unknown_names_message("label", unknown, names)
            raise ValueError(f"{where}, row {row + 1}, column {column!r}: {message}")
        labels[row, [column_of[name] for name in cell]] = 1
    return names, labels


def matrix_of_columns(
    columns: Mapping[str, Sequence[Any]], unknown: str | int | None, where: str
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """
    Label names and `[N, T]` int8 of 1, 0 and -1 (unknown) from one column per label.

    Args:
        columns (`Mapping[str, Sequence]`):
            Label -> cells: 1, 0, true, false, or an empty cell where it is unknown.
        unknown (`str` or `int`, *optional*):
            A value that also means unknown.
        where (`str`):
            What errors call the table.

    Raises:
        ValueError: For any other cell. Rows count from 1.
    """
    values = _VALUES if unknown is None else {**_VALUES, str(unknown): -1}
    labels = np.empty((len(next(iter(columns.values()))), len(columns)), dtype=np.int8)
    for position, (column, cells) in enumerate(columns.items()):
        # An empty cell is "", null or NaN, by the format.
        texts = ["" if cell is None or cell != cell else str(cell).strip() for cell in cells]
        bad = next((row for row, text in enumerate(texts) if text not in values), None)
        if bad is not None:
            raise ValueError(
                f"{where}, row {bad + 1}, column {column!r} holds {shortened(cells[bad])}; a label is 1, 0, or empty "
                "where it is unknown. If the column is not a label, name those that are in `label_columns`; if that "
                "value means unknown, pass it as `unknown`."
            )
        labels[:, position] = [values[text] for text in texts]
    return tuple(columns), labels
