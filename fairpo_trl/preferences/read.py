"""Preference data and ratings from disk, as splits of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.tables import columns_of_rows, number_of, read_rows, truth_of, type_of


Rows: TypeAlias = Dataset | list[dict[str, Any]]
"""Rows of one split; a list where they come from JSON or CSV, which may mix types that a `Dataset` does not."""

TEXT_COLUMNS = ("prompt", "chosen", "rejected", "response", "attribute", "split", "id")
"""Columns that a CSV file must not turn into numbers, whatever is written in them."""


def read_splits(path: str | Path) -> dict[str, Rows]:
    """
    The splits of a file or folder.

    Args:
        path (`str` or `Path`):
            A file as [`~fairpo_trl.tables.read_rows`] takes it; a folder written by `save_to_disk`; or a folder of
            data files as the Hub has them. A file with a column `split` is divided by it, otherwise all of it is
            `train`. In a CSV file only an empty cell is a missing value, and a column of nothing but numbers, or of
            true and false, is one.

    Returns:
        `dict[str, Rows]`: split -> rows.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If the file type is unknown, a line is not JSON, or the file has no rows.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        check_data_folder(path)
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded: Any = load_from_disk(str(path))
            return dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
        try:
            return dict(load_dataset(str(path)))
        except DatasetsError as error:  # no data files, or one that cannot be read: the cause says which
            cause = error.__cause__ or error
            raise ValueError(f"The folder {path.name!r} cannot be read as data files: {cause}.") from error
    if not path.is_file():
        raise FileNotFoundError(f"There is no file or folder {str(path)!r} to read preferences from.")
    rows = _rows_of(path)
    if "split" not in columns_of(rows):
        return {"train": rows}
    names = [row.get("split") for row in rows]
    if any(not isinstance(name, str) or not name.strip() for name in names):
        raise ValueError(f"{path.name} is divided by its column 'split', but some rows have no split there.")
    divided: dict[str, Rows] = {}
    for name in dict.fromkeys(map(str, names)):
        indices = [index for index, other in enumerate(names) if other == name]
        divided[name] = rows.select(indices) if isinstance(rows, Dataset) else [rows[index] for index in indices]
    return divided


def read_table(path: str | Path) -> pd.DataFrame:
    """
    All rows of a file or folder as one table; rows of several splits get a column `split`.

    Raises:
        FileNotFoundError, ValueError: As `read_splits`.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return pd.DataFrame(list(_rows_of(path)))
    splits = read_splits(path)
    rows = [row if len(splits) == 1 else {**row, "split": name} for name, part in splits.items() for row in part]
    return pd.DataFrame(rows)


def columns_of(rows: Rows) -> list[str]:
    """The columns of some rows: those of the data set, or every key of a list of rows."""
    return list(rows.column_names) if isinstance(rows, Dataset) else columns_of_rows(rows)


def as_dataset(rows: Sequence[Mapping[str, Any]], what: str) -> Dataset:
    """
    Rows as a `Dataset`.

    Raises:
        ValueError: If a column mixes types, such as text and messages.
    """
    if isinstance(rows, Dataset):
        return rows
    try:
        return Dataset.from_list([dict(row) for row in rows])
    except (ValueError, TypeError, OverflowError) as error:  # of arrow; names the value, but neither row nor column
        column = _mixed_column(rows)
        hint = f" Column {column!r} mixes types." if column else ""
        raise ValueError(f"{what} does not fit into one table.{hint} Every column needs one type. {error}") from error


def check_columns(wanted: Sequence[str], known: Sequence[str], what: str, mend: str = "") -> None:
    """Raises `ValueError` that names the missing columns, near matches and the mend."""
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(
            f"{what} lacks {'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}. "
            f"{unknown_names_message('column', missing, list(known))} {mend}".rstrip()
        )


def _rows_of(path: Path) -> Rows:
    """The rows of a file, all with the same columns."""
    found = read_rows(path)
    if isinstance(found, pyarrow.Table):
        return Dataset(found)
    rows = _typed(found) if type_of(path) in (".csv", ".tsv") else found
    columns = columns_of_rows(rows)
    return [{name: row.get(name) for name in columns} for row in rows]


def _typed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a CSV file, with numbers and truth values in the columns that hold nothing else."""
    kinds: dict[str, Any] = {}
    for name in columns_of_rows(rows):
        cells = [row[name] for row in rows if row[name] is not None]
        if name in TEXT_COLUMNS or not cells:
            continue
        if all(number_of(cell) is not None for cell in cells):
            whole = all(isinstance(number_of(cell), int) for cell in cells)
            kinds[name] = int if whole else float
        elif all(truth_of(cell) is not None for cell in cells):
            kinds[name] = truth_of
    return [
        {name: kinds[name](cell) if name in kinds and cell is not None else cell for name, cell in row.items()}
        for row in rows
    ]


def _mixed_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    for column in dict.fromkeys(name for row in rows for name in row):
        kinds = {type(row[column]) for row in rows if row.get(column) is not None}
        if len(kinds - {int, float}) + bool(kinds & {int, float}) > 1:
            return column
    return None
