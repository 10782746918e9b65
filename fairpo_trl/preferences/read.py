"""Tables and preference data from disk, as splits of rows."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow.parquet
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from fairpo_trl.core.names import unknown_names_message
from fairpo_trl.data_folder import check_data_folder


Rows: TypeAlias = Dataset | list[dict[str, Any]]
"""Rows of one split; a list where they come from JSON, which may mix types that a `Dataset` does not."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

TEXT_COLUMNS = ("prompt", "chosen", "rejected", "response", "attribute", "split")
"""Columns that a CSV file must not turn into numbers, whatever is written in them."""


def read_splits(path: str | Path) -> dict[str, Rows]:
    """
    The splits of a file or folder.

    Args:
        path (`str` or `Path`):
            A JSONL, JSON (a list of rows), CSV or Parquet file, the first two also with `.gz`; a folder written by
            `save_to_disk`; or a folder of data files as the Hub has them. A file with a column `split` is divided by
            it, otherwise all of it is `train`. In a CSV file only an empty cell is a missing value.

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
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in SUFFIXES or (path.suffix == ".gz" and suffix not in (".jsonl", ".json")):
        raise ValueError(f"{path.name}: unknown file type {suffix or path.suffix!r}; use one of {list(SUFFIXES)}.")
    rows: Rows
    if suffix == ".csv":
        try:
            rows = Dataset.from_pandas(_read_csv(path), preserve_index=False)
        except (
            OverflowError,
            pyarrow.ArrowException,
        ) as error:  # a number beyond 64 bits, or a column of several types
            raise ValueError(f"{path.name} has a column that fits into no table: {error}.") from error
    elif suffix == ".parquet":
        try:
            rows = Dataset(pyarrow.parquet.read_table(path))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path.name} is not a readable Parquet file ({error}).") from error
    else:
        rows = _read_json(path, lines=suffix == ".jsonl")
    if not len(rows):
        raise ValueError(f"{path.name} has no rows.")
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
    if path.suffix == ".csv" and path.is_file():
        table = _read_csv(path)
        if table.empty:
            raise ValueError(f"{path.name} has no rows.")
        return table
    splits = read_splits(path)
    rows = [row if len(splits) == 1 else {**row, "split": name} for name, part in splits.items() for row in part]
    return pd.DataFrame(rows)


def columns_of(rows: Rows) -> list[str]:
    """The columns of some rows: those of the data set, or every key of a list of rows."""
    if isinstance(rows, Dataset):
        return list(rows.column_names)
    return list(dict.fromkeys(name for row in rows for name in row))


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


def check_columns(wanted: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raises `ValueError` that names the missing columns and near matches."""
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(
            f"{what} lacks {'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}. "
            f"{unknown_names_message('column', missing, list(known))}"
        )


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file in which only an empty cell is missing: "None" and "NA" may be what somebody wrote."""
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as CSV in UTF-8: {error}") from error


def _read_json(path: Path, lines: bool) -> list[dict[str, Any]]:
    """The rows of a JSON or JSONL file, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            if lines:
                rows = [_parse(line, f"{path.name}, line {n}") for n, line in enumerate(file, start=1) if line.strip()]
            else:
                rows = _parse(file.read(), path.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8 ({error}).") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}. Compress it again.") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path.name} must hold a list of rows, or end with .jsonl if it has a row per line.")
    wrong = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    if wrong:
        raise ValueError(f"{path.name}: row {wrong[0]} is no JSON object with columns.")
    return rows


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply to be rows.") from error


def _mixed_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    for column in dict.fromkeys(name for row in rows for name in row):
        kinds = {type(row[column]) for row in rows if row.get(column) is not None}
        if len(kinds - {int, float}) + bool(kinds & {int, float}) > 1:
            return column
    return None
