"""Label matrices from the cells of a table: lists of names, joined names, or one column per label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.core.messages import joined_names, shortened, unknown_names_message
from fairpo_trl.tables import structure_of, truth_of


_OTHER_MARKS = (";", ",", "\t", " ")
"""What may join names in a cell besides `|`; a cell that holds one is not guessed at."""


_NO_LABEL = frozenset({"none", "nan", "null", "nil", "n/a", "na", "-", "--"})
"""What tables write where there is nothing; a label of such a name has to be named."""

_LONGEST = 500
"""Characters of the longest name of a label: beyond it a text was read as a name by mistake."""


def names_of_cells(cells: Sequence[Any], separator: str | None, where: str, column: str) -> list[list[str]]:
    """
    The label names in each cell: a list, a list as JSON or Python writes it, or names joined by `separator`.

    Without a separator it is `"|"`, and cells that look joined by `;`, `,` or blanks are refused. `where` and `column`
    are what errors call table and column.

    Raises:
        ValueError: If a cell or a name in it is empty, or neither text nor a number. Rows count from 1.
    """
    if separator == "":
        raise ValueError('`separator` must not be empty; write the character that joins names, such as "|".')
    parsed = []
    joined: list[str] = []  # cells of text
    for row, cell in enumerate(cells, start=1):
        place = f"{where}, row {row}, column {column!r}"
        items = cell
        if isinstance(cell, str):
            try:
                items = structure_of(cell)
            except ValueError as error:
                raise ValueError(f"{place}: {error}.") from error
            if items is None and cell.lstrip()[:1] == "[":
                raise ValueError(f"{place}: {shortened(cell)} is no list as JSON or Python writes it.")
            if items is None:
                joined.append(cell)
                items = re.split(r"\s+", cell.strip()) if separator == " " else cell.split(separator or "|")
        if isinstance(items, dict) and list(items) == ["choices"]:  # as Label Studio writes several into CSV
            items = items["choices"]
        if not isinstance(items, list | tuple):
            raise ValueError(f"{place} must hold the names of the labels present, got {shortened(cell)}; [] for none.")
        if any(not isinstance(item, str | int) or isinstance(item, bool) for item in items) or _is_matrix_row(items):
            raise ValueError(
                f"{place}: labels are given by name, got {shortened(items)}. A matrix of 0 and 1 goes into one column "
                "per label."
            )
        names = [str(item).strip() for item in items]
        if "" in names:
            raise ValueError(f"{place}: empty label in {shortened(cell)}; write [] for a row without a label.")
        if len(longest := max(names, key=len, default="")) > _LONGEST:
            raise ValueError(
                f"{place}: a text of {len(longest):,} characters is no name of a label: {shortened(longest)}."
            )
        parsed.append(names)
    if separator is None:
        _refuse_other_marks(joined, parsed, where, column)
        _refuse_joined_items(parsed, where, column)
    return parsed


def _is_matrix_row(items: Sequence[Any]) -> bool:
    """Whether a list is a row of 0 and 1 rather than numbers of labels, which would not repeat."""
    return len(items) > 2 and all(type(item) is int and item in (0, 1) for item in items)


def _refuse_other_marks(joined: Sequence[str], parsed: Sequence[Sequence[str]], where: str, column: str) -> None:
    """Without a `separator`: cells of text that look joined by something other than `|`."""
    if not any("|" in cell for cell in joined):
        for mark in _OTHER_MARKS:
            if any(mark in cell.strip() for cell in joined):
                raise ValueError(
                    f"{where}, column {column!r}: no cell contains '|' but some contain {mark!r}, such as "
                    f"{shortened(next(cell for cell in joined if mark in cell.strip()))}. Pass `--separator {mark!r}` "
                    f"(in Python separator={mark!r}) if it stands between labels, or `--separator '|'` "
                    "(separator='|') if it belongs to their names."
                )
    found = joined_names(name for names in parsed for name in names) if joined else []
    if found:
        name, mark = found[0]
        row = next(number for number, names in enumerate(parsed, start=1) if name in names)
        raise ValueError(
            f"{where}, row {row}, column {column!r}: {shortened(name)} looks like several labels joined by {mark!r}, "
            f"as its parts are labels of other rows. Pass `--separator {mark!r}` (in Python separator={mark!r}) if it "
            "stands between labels in every row, or `--separator '|'` (separator='|') if it is one label."
        )


def _refuse_joined_items(parsed: Sequence[Sequence[str]], where: str, column: str) -> None:
    """Without a `separator`: items of lists that are other labels, joined."""
    every = {name for names in parsed for name in names}
    for row, names in enumerate(parsed, start=1):
        for name in names:
            for mark in "|;,\n":
                parts = [part.strip() for part in name.split(mark)]
                if len(parts) > 1 and every.issuperset(parts):
                    raise ValueError(
                        f"{where}, row {row}, column {column!r}: {shortened(name)} is several labels of other rows, "
                        f"joined by {mark!r}. Make each an item of the list, or pass `--separator '|'` (in Python "
                        "separator='|') if it is one label."
                    )


def matrix_of_names(
    cells: Sequence[Sequence[str]], label_names: Sequence[str] | None, where: str, column: str
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """
    Label names and `[N, T]` int8 of 0 and 1 from the names present in each row, which may repeat.

    `label_names` are all labels, in the order wanted; `None`: those that occur, sorted. Whole numbers, if all are, are
    places in it, from 0 on, unless they are these names.

    Raises:
        ValueError: If a name is not in `label_names`, labels are numbers without `label_names`, or no label occurs at
            all. Rows count from 1.
    """
    found = {name for cell in cells for name in cell}
    names = tuple(sorted(found) if label_names is None else label_names)
    if label_names is None and (no_label := sorted(name for name in found if name.casefold() in _NO_LABEL)):
        row = next(number for number, cell in enumerate(cells, start=1) if no_label[0] in cell)
        raise ValueError(
            f"{where}, row {row}, column {column!r} holds {no_label[0]!r}: write [] for a row without a label, or "
            "name every label, this one too, with `--labels` (in Python label_names=[...])."
        )
    if not names:
        raise ValueError(f"{where}, column {column!r}: no row has a label; give `label_names` if that is meant.")
    column_of = {name: i for i, name in enumerate(names)}
    if found and all(re.fullmatch(r"\d+", name) for name in found):
        if label_names is None:
            numbers = sorted(map(int, found))
            raise ValueError(
                f"{where}, column {column!r}: labels are given by name, got the numbers {numbers[0]} to "
                f"{numbers[-1]}. Pass `--labels` with {numbers[-1] + 1} names in the order of these numbers, "
                "which count from 0 (in Python label_names=[...]), or with the numbers themselves if they are the "
                "names."
            )
        if not found <= set(names):
            column_of = {str(i): i for i in range(len(names))}
    labels = np.zeros((len(cells), len(names)), dtype=np.int8)
    for row, cell in enumerate(cells):
        unknown = [name for name in cell if name not in column_of]
        if unknown:
            message = unknown_names_message("label", unknown, list(column_of))
            raise ValueError(f"{where}, row {row + 1}, column {column!r}: {message}")
        labels[row, [column_of[name] for name in cell]] = 1
    return names, labels


def matrix_of_columns(
    columns: Mapping[str, Sequence[Any]], unknown: str | int | None, where: str, absent: str | int | None = None
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """
    Label names and `[N, T]` int8 of 1, 0 and -1 (unknown) from one column per label: cells of 1, 0, true, false, or
    empty where it is unknown.

    `unknown` and `absent` are values that also mean that: `""` for an empty cell, `-1` for CelebA's.

    Raises:
        ValueError: For any other cell, and for empty cells in a column without a single 0, unless `unknown` or
            `absent` is `""`. Rows count from 1.
    """
    said = {None if value is None else str(value).strip(): code for value, code in ((unknown, -1), (absent, 0))}
    if unknown is not None and absent is not None and len(said) < 2:
        raise ValueError(f"`unknown` and `absent` are both {unknown!r}: a value means one of them.")
    labels = np.empty((len(next(iter(columns.values()))), len(columns)), dtype=np.int8)
    doubtful = []
    for position, (column, cells) in enumerate(columns.items()):
        # An empty cell is "", null or NaN, by the format.
        texts = ["" if cell is None or cell != cell else str(cell).strip() for cell in cells]
        codes = {text: said.get(text, -1 if text == "" else truth_of(text)) for text in set(texts)}
        bad = next((row for row, text in enumerate(texts) if codes[text] is None), None)
        if bad is not None:
            value = texts[bad]
            means = (  # a code is short; a text, a list or a long number stands for neither
                f"If that value means absent (as in CelebA), pass `--absent_value {value}` (in Python "
                f"absent={value!r}); if it means unknown, `--unknown_value {value}` (unknown={value!r}). "
            )
            raise ValueError(
                f"{where}, row {bad + 1}, column {column!r} holds {shortened(cells[bad])}; a label is 1, 0, or empty "
                f"where it is unknown. {means if len(value) <= 20 else ''}If the column is not a label, name those "
                "that are in `label_columns`."
            )
        labels[:, position] = np.array([codes[text] for text in texts], dtype=np.int8)
        if "" in codes and "" not in said and not (labels[:, position] == 0).any():
            doubtful.append(column)
    if doubtful:
        raise ValueError(
            f"{where}: {len(doubtful)} of {len(columns)} label columns hold 1 and empty cells but not a single 0, the "
            f"first {doubtful[0]!r}. If an empty cell means absent, pass `--absent_value ''` (in Python absent=''); "
            "if it means that nobody knows, `--unknown_value ''` (unknown='')."
        )
    return tuple(columns), labels
