"""Own pairs, read in the forms that other tools write, and mixtures of sources with one attribute each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets
from rich.console import Console
from rich.text import Text

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.preferences.exports import convert_export, listed_counts
from fairpo_trl.preferences.formats import read_pairs
from fairpo_trl.preferences.read import Rows, as_dataset, check_columns, columns_of, read_splits
from fairpo_trl.preferences.rules import (
    WEIGHT_COLUMN,
    completion_text,
    find_problems,
    missing_column,
    row_numbers,
)
from fairpo_trl.preferences.sources import SOURCES


def mix(sources: Mapping[str, str | Path], *, console: Console | None = None) -> DatasetDict:
    """
    One data set from several sources of one attribute each.

    Args:
        sources (`Mapping[str, str | Path]`):
            Attribute -> path of its pairs (`prompt`, `chosen`, `rejected`, perhaps `weight`).
        console (`Console`, *optional*):
            Where to print the counts.

    Returns:
        `DatasetDict`: split -> the pairs of all sources, in the order of `sources`.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        ValueError: If a source names attributes itself, lacks a split that others have, is of another format (text or
            messages), or has unusable rows.
    """
    console = console or Console(highlight=False)
    if len(sources) < 2:
        raise ValueError(f"A mixture takes two sources or more, got {list(sources)}.")
    parts: dict[str, DatasetDict] = {}
    for attribute, path in sources.items():
        if not isinstance(attribute, str) or not attribute.strip():
            raise ValueError(f"Each source of a mixture is named after its attribute, got {attribute!r}.")
        splits = read_splits(existing(path))
        for split, rows in splits.items():
            if "attribute" in columns_of(rows):
                raise ValueError(
                    f"{Path(path).name} has a column 'attribute' already: remove it, or load the file by itself."
                )
            splits[split] = [{**row, "attribute": attribute} for row in rows]
        read = understood(splits, Path(path).name, console)
        parts[attribute] = DatasetDict(
            {split: checked(rows, _what(Path(path), split), "attribute", console) for split, rows in read.items()}
        )
    every = list(dict.fromkeys(split for part in parts.values() for split in part))
    for attribute, part in parts.items():
        lacking = [split for split in every if split not in part]
        if lacking:
            raise ValueError(
                f"The source of {attribute!r} has no split {lacking[0]!r}, which another one has: give every source "
                "the same splits."
            )
    weighted = [
        name for name, part in parts.items() if any(WEIGHT_COLUMN in rows.column_names for rows in part.values())
    ]
    if weighted and len(weighted) < len(parts):
        raise ValueError(
            f"The source of {weighted[0]!r} has a column {WEIGHT_COLUMN!r} and another one has none: give every "
            "source one, or none."
        )
    kept = ["prompt", "chosen", "rejected", "attribute", *([WEIGHT_COLUMN] if weighted else [])]
    features = {name: next(iter(part.values())).select_columns(kept).features for name, part in parts.items()}
    first = next(iter(features))
    for attribute, found in features.items():
        if found != features[first]:
            raise ValueError(
                f"The sources of {first!r} and {attribute!r} have different formats (text in one, messages in the "
                "other?). Bring them into one format."
            )
    mixed = DatasetDict(
        {split: concatenate_datasets([part[split].select_columns(kept) for part in parts.values()]) for split in every}
    )
    console.print(Text(f"Mixture: {counts_line(mixed, 'attribute')}"))
    return mixed


def own_pairs(path: Path, column: str, console: Console, separator: str | None = None) -> DatasetDict:
    """
    Own pairs from a file or folder, read and checked.

    Raises:
        ValueError: If a column is missing or a row is unusable; the message names the rows.
    """
    splits = understood(read_splits(path), path.name, console, column, separator)
    return DatasetDict({split: checked(rows, _what(path, split), column, console) for split, rows in splits.items()})


def understood(
    splits: Mapping[str, Rows],
    what: str,
    console: Console,
    column: str = "attribute",
    separator: str | None = None,
) -> dict[str, Rows]:
    """
    Rows in whatever form they come as canonical rows, not checked yet; prints what was taken for what.

    Raises:
        ValueError: If they are of a published schema, or ratings, or cannot be read; says how to load them.
    """
    read: dict[str, Rows] = {}
    for split, rows in splits.items():
        rows = convert_export(rows, what, console)
        hint_at_source(columns_of(rows), what)
        reading = read_pairs(rows, attribute_column=column, attribute_separator=separator)
        for note in reading.notes:
            console.print(Text(f"{what}, {split}: {note}."))
        if reading.unread:
            console.print(Text(f"{what}, {split}: columns that are not read: {', '.join(reading.unread)}."))
        read[split] = reading.rows
    return read


def hint_at_source(columns: Sequence[str], what: str) -> None:
    """Raises `ValueError` for a file that is of a published schema rather than of pairs."""
    if {"chosen", "rejected"} < set(columns):  # pairs, if not perfect ones; hh-rlhf has these two columns alone
        return
    fitting = [name for name, known in SOURCES.items() if known.fits(columns)]
    if fitting:
        subsets = SOURCES[fitting[0]].subsets
        more = f' --source_options \'{{"subset": "{subsets[0]}"}}\'' if subsets else ""
        raise ValueError(
            f"{what} holds no pairs but looks like {SOURCES[fitting[0]].title}: pass `--dataset_source "
            f"{fitting[0]}{more}` (in Python source={fitting[0]!r}{f', subset={subsets[0]!r}' if subsets else ''})."
            + (f" If these are your own pairs: {missing_column('attribute', 'attribute')}" if subsets else "")
        )
    if {"prompt", "response"} <= set(columns):
        others = [name for name in columns if name not in ("prompt", "response", "id", "split")]
        raise ValueError(
            f"{what} holds responses, not pairs. Are these ratings? Pass `--ratings {' '.join(others)}` (in Python "
            f"ratings={others}), without those that are none."
        )


def _what(path: Path, split: str) -> str:
    return path.name if split == "train" else f"{path.name} ({split})"


def checked(rows: Rows, what: str, column: str, console: Console) -> Dataset:
    """Own pairs as a `Dataset`, after looking for everything that makes a row unusable; repeated pairs are named."""
    columns = columns_of(rows)
    check_columns(
        ["prompt", "chosen", "rejected", column], columns, f"The {what} data", missing_column(column, column)
    )
    problems, _ = find_problems(rows, columns, what, column)
    if problems:
        raise ValueError(problems[0].message)
    repeated = repeated_pairs(rows, column)
    if repeated:
        console.print(
            Text(
                f"{row_numbers(repeated, capital=True)} of the {what} data repeat an earlier pair: they weigh twice.",
                style="yellow",
            )
        )
    return as_dataset(rows, f"The {what} data")


def repeated_pairs(rows: Rows, column: str) -> tuple[int, ...]:
    """Rows with the prompt, responses and attributes of an earlier row."""
    seen: set[tuple[str, ...]] = set()
    repeated = []
    for index, row in enumerate(rows):
        texts = (completion_text(row.get(name)) for name in ("prompt", "chosen", "rejected"))
        key = (*texts, *sorted(names_of(row[column])))
        if key in seen:
            repeated.append(index)
        seen.add(key)
    return tuple(repeated)


def existing(path: str | Path) -> Path:
    """The path. Raises `FileNotFoundError` with near names of published data if nothing is there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(
            f"There is no file or folder {str(path)!r}, and no published data set of this name. "
            f"{unknown_names_message('data set', [str(path)], list(SOURCES))}"
        )
    return found


def names_of(value: Any) -> tuple[str, ...]:
    """The attributes of a checked row: one name or several."""
    return (value,) if isinstance(value, str) else tuple(value)


def counts_line(data: Mapping[str, Dataset], column: str) -> str:
    """Pairs per split and attribute in a line."""
    parts = []
    for split, rows in data.items():
        counts = Counter(name for value in rows[column] for name in names_of(value))
        parts.append(f"{split} {len(rows):,} pairs ({listed_counts(counts)})")
    return "; ".join(parts)
