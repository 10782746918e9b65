"""Own pairs, and mixtures of sources with one attribute each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets
from rich.console import Console
from rich.text import Text

from fairpo_trl.core.names import unknown_names_message
from fairpo_trl.preferences.read import Rows, as_dataset, check_columns, columns_of, read_splits
from fairpo_trl.preferences.rules import completion_text, find_problems, row_numbers
from fairpo_trl.preferences.sources import SOURCES


def mix(sources: Mapping[str, str | Path], *, console: Console | None = None) -> DatasetDict:
    """
    One data set from several sources of one attribute each.

    Args:
        sources (`Mapping[str, str | Path]`):
            Attribute -> path of its pairs (`prompt`, `chosen`, `rejected`).
        console (`Console`, *optional*):
            Where to print the counts.

    Returns:
        `DatasetDict`: split -> the pairs of all sources, in the order of `sources`.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        ValueError: If a source names attributes itself, lacks a split that others have, is of another format (text or
            messages), or has unusable rows.
    """
    if len(sources) < 2:
        raise ValueError(f"A mixture takes two sources or more, got {list(sources)}.")
    parts: dict[str, DatasetDict] = {}
    for attribute, path in sources.items():
        if not isinstance(attribute, str) or not attribute.strip():
            raise ValueError(f"Each source of a mixture is named after its attribute, got {attribute!r}.")
        splits = read_splits(existing(path))
        named = {}
        for split, rows in splits.items():
            if "attribute" in columns_of(rows):
                raise ValueError(
                    f"{Path(path).name} has a column 'attribute' already: remove it, or load the file by itself."
                )
            rows = [{**row, "attribute": attribute} for row in rows]
            named[split] = _checked(rows, _what(Path(path), split), "attribute")
        parts[attribute] = DatasetDict(named)
    every = list(dict.fromkeys(split for part in parts.values() for split in part))
    for attribute, part in parts.items():
        lacking = [split for split in every if split not in part]
        if lacking:
            raise ValueError(
                f"The source of {attribute!r} has no split {lacking[0]!r}, which another one has: give every source "
                "the same splits."
            )
    kept = ("prompt", "chosen", "rejected", "attribute")
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
    (console or Console(highlight=False)).print(Text(f"Mixture: {counts_line(mixed, 'attribute')}"))
    return mixed


def own_pairs(path: Path, column: str) -> DatasetDict:
    """
    Own pairs from a file or folder, checked.

    Raises:
        ValueError: If a column is missing or a row is unusable or repeated; the message names the rows.
    """
    splits = read_splits(path)
    for rows in splits.values():
        hint_at_source(columns_of(rows), path.name)
    return DatasetDict({split: _checked(rows, _what(path, split), column) for split, rows in splits.items()})


def hint_at_source(columns: Sequence[str], what: str) -> None:
    """Raises `ValueError` for a file that is of a published schema rather than of pairs."""
    if {"chosen", "rejected"} < set(columns):  # pairs, if not perfect ones; hh-rlhf has these two columns alone
        return
    fitting = [name for name, known in SOURCES.items() if set(known.columns) <= set(columns)]
    if fitting:
        title = SOURCES[fitting[0]].title
        raise ValueError(f"{what} holds no pairs but looks like {title}: pass source={fitting[0]!r}.")
    if {"prompt", "response"} <= set(columns):
        others = [name for name in columns if name not in ("prompt", "response", "id", "split")]
        raise ValueError(f"{what} holds responses, not pairs. Are these ratings? Pass ratings={others}.")


def _what(path: Path, split: str) -> str:
    return path.name if split == "train" else f"{path.name} ({split})"


def _checked(rows: Rows, what: str, column: str) -> Dataset:
    """Own pairs as a `Dataset`, after looking for everything that makes a row unusable."""
    columns = columns_of(rows)
    check_columns(["prompt", "chosen", "rejected", column], columns, f"The {what} data")
    problems, _ = find_problems(({name: row.get(name) for name in columns} for row in rows), columns, what, column)
    if problems:
        raise ValueError(problems[0].message)
    seen: dict[tuple[str, ...], int] = {}
    repeated = []
    for index, row in enumerate(rows):
        texts = tuple(completion_text(row[name]) for name in ("prompt", "chosen", "rejected"))
        first = seen.setdefault((*texts, str(row[column])), index)
        if first != index:
            repeated.append((first, index))
    if repeated:
        first, again = repeated[0]
        raise ValueError(
            f"{row_numbers([index for _, index in repeated], capital=True)} of the {what} data repeat an earlier pair "
            f"(row {again} repeats row {first}). Remove them: a repeated pair weighs twice."
        )
    return as_dataset(rows, f"The {what} data")


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
        counts: dict[str, int] = {}
        for value in rows[column]:
            for name in names_of(value):
                counts[name] = counts.get(name, 0) + 1
        parts.append(f"{split} {len(rows):,} pairs ({listed(counts)})")
    return "; ".join(parts)


def listed(counts: Mapping[str, int]) -> str:
    """Names with their counts, at most eight of them."""
    shown = [f"{name} {count:,}" for name, count in counts.items()]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
