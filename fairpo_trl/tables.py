"""Tables from disk, read by one rule for pairs, ratings and labels; and what a cell of text means."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import tokenize
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fairpo_trl.core.messages import second_spellings, shortened


SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""File types that are read; all but Parquet also with `.gz` behind them."""

_DELIMITERS = (",", ";", "\t", "|")
_MEND = {
    ".xlsx": " Save the sheet as CSV (UTF-8).",
    ".xls": " Save the sheet as CSV (UTF-8).",
    ".zip": " Unpack it first.",
    ".arrow": " Name the folder that `save_to_disk` wrote.",
}


def type_of(path: Path) -> str:
    """
    The file type of a path, without `.gz`.

    Raises:
        ValueError: If it is none of `SUFFIXES`; lists them.
    """
    suffix = path.suffix.lower()
    kind = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    if kind not in SUFFIXES or (suffix == ".gz" and kind == ".parquet"):
        raise ValueError(
            f"{path.name}: unknown file type {kind or suffix!r}; use one of {list(SUFFIXES)}.{_MEND.get(kind, '')}"
        )
    return kind


def read_rows(path: str | Path) -> list[dict[str, Any]] | pyarrow.Table:
    """
    The rows of a file.

    Args:
        path (`str` or `Path`):
            - `.csv`, `.tsv`: UTF-8 (with or without a byte order mark), a header, the delimiter that divides it
              (comma, else semicolon, tab, `|`; a first line `sep=;` says it). Every cell is text; an empty one is
              `None`.
            - `.jsonl`, `.json`: a list of objects, or one object a line, whatever the name says.
            - `.parquet`.

            All but Parquet may be compressed (`.csv.gz`).

    Returns:
        `list[dict[str, Any]]` or `pyarrow.Table`: the rows; a table for Parquet. JSON rows may lack columns.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or has no rows; names the row or line.
    """
    path = Path(path).expanduser()
    kind = type_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    _refuse_other_contents(path)
    if kind == ".parquet":
        try:
            rows: Any = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path.name} is not a readable Parquet file ({error}).") from error
    else:
        text = _text(path)
        rows = _json_rows(text, path.name, kind) if kind in (".json", ".jsonl") else _csv_rows(text, path.name, kind)
    if not len(rows):
        raise ValueError(f"{path.name} has no rows.")
    return rows


def columns_of_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every column of some rows, in the order in which they occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def number_of(text: str) -> int | float | None:
    """The finite number that a cell of text is, written with a point; `None` for anything else."""
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?", text):
        number = float(text)
        return number if abs(number) != float("inf") else None
    return None


def truth_of(value: Any) -> bool | None:
    """Whether a cell says true (1, 1.0, true, in any case) or false (0, 0.0, false); `None` for anything else."""
    return {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}.get(
        str(value).strip().casefold()
    )


def structure_of(text: str) -> Any:
    """
    The list or object that is written in a text as JSON or as Python (as pandas writes it into CSV).

    Returns:
        `Any`: a list, tuple, set or dict; `None` if the text is plain.

    Raises:
        ValueError: If the text begins like a list of quoted names or of objects but cannot be read as one: NumPy
            writes arrays without commas, and cuts long ones.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return None
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)  # literals only: nothing is called
        if isinstance(value, (list, tuple, dict, set)) and not _strings_in_a_row(text):
            return sorted(value, key=str) if isinstance(value, set) else value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        pass
    if re.match(r"[\[(]\s*(['\"]|\{\s*['\"])|\{\s*['\"]|array\(", text):
        raise ValueError(
            f"{shortened(text)} begins like a list but cannot be read as one. Write lists as JSON: in pandas "
            "`frame.to_json('rows.jsonl', orient='records', lines=True)`"
        )
    return None


def _strings_in_a_row(text: str) -> bool:
    """Whether two strings follow each other without a comma, as in an array of NumPy: Python would join them."""
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE):
            continue
        if token.type == before == tokenize.STRING:
            return True
        before = token.type
    return False


def _refuse_other_contents(path: Path) -> None:
    """What a download leaves in place of a file, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path.name} is a pointer of Git LFS, not the file: fetch it with `git lfs pull`.")
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{path.name} is a web page, not the file: download the raw file.")


def _text(path: Path) -> str:
    """The text of a file, compressed or not, without a byte order mark."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}. Compress it again.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8 ({error}). Save it as UTF-8.") from error


def _csv_rows(text: str, name: str, kind: str) -> list[dict[str, Any]]:
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r"sep=(.)\r?", first)
    text = rest if said else text
    header_line = text.partition("\n")[0]
    if said:
        delimiter = said[1]
    elif kind == ".tsv":
        delimiter = "\t"
    else:
        outside = re.sub(r'"[^"]*"', "", header_line)  # a quoted name may hold anything
        delimiter = next((mark for mark in _DELIMITERS if mark in outside), ",")
    rows: list[list[str]] = []
    limit = csv.field_size_limit(2**31 - 1)  # a text may be longer than Python's 131,072 characters
    try:
        rows.extend(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row)
    except csv.Error as error:
        raise ValueError(
            f"{name}, row {max(len(rows), 1)} cannot be read ({error}): is a quote left open there?"
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise ValueError(f"{name} cannot be read as CSV: it is empty.")
    header, body = [cell.strip() for cell in rows[0]], rows[1:]
    doubled = sorted({column for column in header if header.count(column) > 1 or not column})
    if doubled and doubled != [""]:
        raise ValueError(f"{name}: the header has a column without a name or twice: {doubled}.")
    if header.count("") > 1 or (header.count("") == 1 and header[0] != ""):
        raise ValueError(f"{name}: the header has a column without a name.")
    same = second_spellings(header)
    if same:
        raise ValueError(f"{name}: the columns {same[0]} differ only in case or white space. Rename one.")
    for number, row in enumerate(body, start=1):
        if len(row) == 1 < len(header):  # the whole line is quoted, as by a writer that took it for one cell
            row = body[number - 1] = next(csv.reader([row[0]], delimiter=delimiter))
        if len(row) != len(header):
            raise ValueError(
                f"{name}, row {number} has {len(row)} cells but the header has {len(header)} columns; quote cells "
                f"that contain {'a comma' if delimiter == ',' else repr(delimiter)}."
            )
    # A first column without a name is the index that pandas wrote; it says nothing.
    keep = [place for place, column in enumerate(header) if column]
    return [{header[place]: row[place] or None for place in keep} for row in body]


def _json_rows(text: str, name: str, kind: str) -> list[dict[str, Any]]:
    """A list of objects, or an object a line."""
    rows: Any = []
    if text.lstrip()[:1] == "[":
        rows = _parsed(text, name)
    elif text.strip():
        lines = text.split("\n")  # not splitlines(): a string may hold what Unicode counts as the end of a line
        try:
            rows = [_parsed(line, f"{name}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
        except ValueError as error:
            rows = _whole_or_none(text)  # one object over many lines, perhaps
            if rows is None:
                raise error
        if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
            rows = rows[0] if kind == ".json" or _is_of_columns(rows[0]) else rows
    if isinstance(rows, dict):
        keys = ", ".join(map(repr, list(rows)[:4]))
        raise ValueError(
            f"{name} must hold a list of rows, or end with .jsonl if it has a row per line, but is one object with "
            f"{keys}. In pandas, `frame.to_json('rows.jsonl', orient='records', lines=True)` writes rows; else save "
            "the list inside it by itself."
        )
    wrong = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    if wrong:
        raise ValueError(f"{name}: row {wrong[0]} is no JSON object with columns, but {shortened(rows[wrong[0]])}.")
    return rows


def _is_of_columns(value: dict[str, Any]) -> bool:
    """Whether an object holds columns or wraps the rows, as pandas' `to_json` and some exports write them."""
    inner = list(value.values())
    numbered = bool(inner) and all(isinstance(e, dict) and e and all(str(k).isdigit() for k in e) for e in inner)
    return numbered or (len(inner) == 1 and isinstance(inner[0], list))


def _whole_or_none(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose names must differ: Python would take the last one in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


class _Twice(ValueError):
    """A name that an object of JSON has more than once."""


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise ValueError(f"{where} has {shortened(error.args[0])} twice in one object: remove one.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply to be rows.") from error
