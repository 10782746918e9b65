"""Own pairs, in the forms and exports that other tools write, and mixtures of sources with one attribute each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets
from rich.console import Console
from rich.text import Text

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.preferences.converters import argilla, label_studio
from fairpo_trl.preferences.formats import read_pairs
from fairpo_trl.preferences.read import Rows, as_dataset, check_columns, columns_of, read_splits
from fairpo_trl.preferences.rows import REASONS, Converted
from fairpo_trl.preferences.rules import (
    WEIGHT_COLUMN,
    attribute_names,
    completion_text,
    find_problems,
    missing_column,
    row_numbers,
)
from fairpo_trl.preferences.sources import SOURCES


_EXPORTS = {
    "Argilla": (("fields", "responses"), argilla.convert),
    "Label Studio": (("data", "annotations"), label_studio.convert),
}
"""Tool -> columns of its records, and what makes pairs of them."""


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
        parts[attribute] = own_pairs(splits, Path(path).name, console)
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


def own_pairs(
    splits: Mapping[str, Rows], what: str, console: Console, column: str = "attribute", separator: str | None = None
) -> DatasetDict:
    """
    Own pairs as [`understood`] reads them, checked.

    Raises:
        ValueError: If a column is missing or a row is unusable; the message names the rows.
    """
    read = understood(splits, what, console, column, separator)
    names = {split: what if split == "train" else f"{what} ({split})" for split in read}
    return DatasetDict({split: _checked(rows, names[split], column, console) for split, rows in read.items()})


def understood(
    splits: Mapping[str, Rows], what: str, console: Console, column: str = "attribute", separator: str | None = None
) -> dict[str, Rows]:
    """
    Rows in whatever form they come as canonical rows, not checked yet; prints what was taken for what.

    Raises:
        ValueError: If they are of a published schema, or ratings, or cannot be read; says how to load them.
    """
    read: dict[str, Rows] = {}
    for split, rows in splits.items():
        rows = convert_export(rows, what, console)
        _hint_at_source(columns_of(rows), what)
        reading = read_pairs(rows, attribute_column=column, attribute_separator=separator)
        for note in reading.notes:
            console.print(Text(f"{what}, {split}: {note}."))
        if reading.unread:
            console.print(Text(f"{what}, {split}: columns that are not read: {', '.join(reading.unread)}."))
        read[split] = reading.rows
    return read


def _hint_at_source(columns: Sequence[str], what: str) -> None:
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


def _checked(rows: Rows, what: str, column: str, console: Console) -> Dataset:
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
        named = row_numbers(repeated, capital=True)
        console.print(Text(f"{named} of the {what} data repeat an earlier pair: they weigh twice.", style="yellow"))
    return as_dataset(rows, f"The {what} data")


def repeated_pairs(rows: Rows, column: str) -> tuple[int, ...]:
    """Rows with the prompt, responses and attributes of an earlier row."""
    seen: set[tuple[str, ...]] = set()
    repeated = []
    for index, row in enumerate(rows):
        texts = (completion_text(row.get(name)) for name in ("prompt", "chosen", "rejected"))
        key = (*texts, *sorted(attribute_names(row[column])))
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


def counts_line(data: Mapping[str, Dataset], column: str) -> str:
    """Pairs per split and attribute in a line."""
    parts = []
    for split, rows in data.items():
        counts = Counter(name for value in rows[column] for name in attribute_names(value))
        parts.append(f"{split} {len(rows):,} pairs ({listed_counts(counts)})")
    return "; ".join(parts)


def convert_export(rows: Rows, what: str, console: Console) -> Rows:
    """
    The pairs of an annotation tool's export, with a line of what came out; any other rows as they are.

    Raises:
        ValueError: If records cannot be read, or give no pair.
    """
    columns = columns_of(rows)
    for tool, (needed, convert) in _EXPORTS.items():
        if set(needed) <= set(columns):
            converted = convert(rows)
            print_converted(converted, f"{what}, an export of {tool}", console)
            if not converted.rows:
                raise ValueError(
                    f"{what}: none of the {len(rows)} records of {tool} gives a pair; the counts above say why."
                )
            return converted.rows
    return rows


def print_converted(converted: Converted, title: str, console: Console) -> None:
    """Says what was kept, and what was dropped for which reason."""
    kept = listed_counts(Counter(row["attribute"] for row in converted.rows))
    console.print(Text(f"{title}: {len(converted.rows):,} pairs ({kept})"))
    for reason, count in converted.dropped.most_common():
        console.print(Text(f"  dropped {count:,} {REASONS[reason]} ({reason})"))


def listed_counts(counts: Mapping[str, int]) -> str:
    """Names with their counts, at most eight of them."""
    shown = [f"{name} {count:,}" for name, count in counts.items()]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
