"""Preferences by name or path: published data through its converter, own pairs, or ratings; divided by prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset
from rich.console import Console
from rich.text import Text

from fairpo_trl.core.messages import require_known, unknown_names_message
from fairpo_trl.preferences.formats import read_messages
from fairpo_trl.preferences.own import counts_line, existing, own_pairs, print_converted
from fairpo_trl.preferences.ratings import pairs_from_ratings
from fairpo_trl.preferences.read import as_dataset, check_columns, columns_of, read_splits, read_table
from fairpo_trl.preferences.rules import attribute_names, prompt_key
from fairpo_trl.preferences.sources import SOURCES, Source
from fairpo_trl.tables import number_of


Pairs = TypeVar("Pairs", Dataset, list[dict[str, Any]])


def load_preferences(
    name_or_path: str | Path,
    *,
    source: str | None = None,
    attributes: Sequence[str] | None = None,
    attribute_column: str = "attribute",
    attribute_separator: str | None = None,
    ratings: Sequence[str] | None = None,
    test_share: float = 0.0,
    seed: int = 0,
    console: Console | None = None,
    **options: Any,
) -> DatasetDict:
    """
    Loads preferences as canonical rows, and prints what was kept and what was dropped for which reason.

    Args:
        name_or_path (`str` or `Path`):
            A name in `SOURCES` or its Hub id: the published data, from the Hub. A path (`"./ultrafeedback"` for a
            folder of that name): own pairs in any form that [`read_pairs`] knows, an export of Argilla or Label
            Studio, or ratings; with `source`, published data in a file or folder of the same schema.
        source (`str`, *optional*):
            The name in `SOURCES` whose schema the path has.
        attributes (`Sequence[str]`, *optional*):
            Keep only these attributes.
        attribute_column (`str`, *optional*, defaults to `"attribute"`):
            Column of own pairs that names the attribute.
        attribute_separator (`str`, *optional*):
            What joins several attributes in one text; `None` is `"|"`.
        ratings (`Sequence[str]`, *optional*):
            The rating columns: the path then holds ratings (`prompt`, `response` and a number per attribute).
        test_share (`float`, *optional*, defaults to `0.0`):
            Share of the prompts that becomes the split `test`, where there is none.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the pairs, where there is a choice, and the test prompts.
        console (`Console`, *optional*):
            Where to print; a console on the standard output by default.
        options:
            Options of the converter, or of `pairs_from_ratings`: `min_margin`, `max_pairs`, `passages`, ...

    Returns:
        `DatasetDict`: split -> pairs.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If a name, column, option or row is wrong; the message names it.

    Example:

    ```python
    >>> data = load_preferences("ultrafeedback", test_share=0.02, min_margin=1)
    >>> data = load_preferences("ratings.csv", ratings=["helpful", "kind"], max_pairs_per_prompt=2)
    ```
    """
    console = console or Console(highlight=False)
    by_hub_id = {known.hub_id: name for name, known in SOURCES.items() if known.hub_id}
    name = by_hub_id.get(str(name_or_path), str(name_or_path))
    if source is None and isinstance(name_or_path, str) and name in SOURCES:
        if SOURCES[name].hub_id is None:
            raise ValueError(
                f"{SOURCES[name].title} is not on the Hub: download it and pass its path with `--dataset_source "
                f"{name}` (in Python source={name!r})."
            )
        source, path = name, None
    else:
        path = existing(name_or_path)
    if source is not None:
        require_known("source", [source], list(SOURCES))
        if ratings is not None:
            raise ValueError(f"`ratings` are for own data; {SOURCES[source].title} has its own schema.")
        data = _published(SOURCES[source], path, seed, console, options)
    elif ratings is not None:
        assert path is not None
        data = _rated(path, ratings, seed, console, options)
    else:
        if options:
            raise ValueError(f"Own pairs take no {', '.join(map(repr, options))}: these are options of ratings.")
        assert path is not None
        data = own_pairs(read_splits(path), path.name, console, attribute_column, attribute_separator)
        console.print(Text(f"{path.name}: {counts_line(data, attribute_column)}"))
    return select_and_divide(
        data, attributes=attributes, column=attribute_column, test_share=test_share, seed=seed, console=console
    )


def select_and_divide(
    data: DatasetDict, *, attributes: Sequence[str] | None, column: str, test_share: float, seed: int, console: Console
) -> DatasetDict:
    """
    Keeps the pairs of some attributes, and divides `train` by prompt into `train` and `test`; prints the counts.

    Raises:
        ValueError: If an attribute is unknown, or `test_share` is asked for and there is a split `test` or no `train`.
    """
    if attributes is not None:
        data = _only(data, attributes, column)
        console.print(Text(f"Only {', '.join(attributes)}: {counts_line(data, column)}"))
    if test_share:
        if "test" in data:
            raise ValueError("The data has a split 'test' already: leave out `test_share`.")
        if "train" not in data:
            raise ValueError(f"`test_share` divides the split 'train'; the data has only {sorted(data)}.")
        data["train"], data["test"] = split_by_prompt(data["train"], test_share, seed)
        console.print(Text(f"Divided by prompt: {counts_line(data, column)}"))
    return data


def split_by_prompt(rows: Pairs, share: float, seed: int = 0) -> tuple[Pairs, Pairs]:
    """
    Divides pairs into two parts by prompt, never by pair.

    Prompts that differ in nothing but case and white space count as one.

    Args:
        rows (`Dataset` or `list[dict[str, Any]]`):
            Pairs with a `prompt`, plain or conversational.
        share (`float`):
            Share of the prompts that goes to the second part, between 0 and 1; at least one prompt goes to each.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the prompts.

    Returns:
        `tuple`: the two parts, of the type of `rows` and in their order.

    Raises:
        ValueError: If `share` is not between 0 and 1, or there are fewer than two prompts.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share}.")
    prompts: Sequence[Any] = rows["prompt"] if isinstance(rows, Dataset) else [row["prompt"] for row in rows]
    keys = [prompt_key(prompt) for prompt in prompts]
    unique = sorted(set(keys))
    if len(unique) < 2:
        raise ValueError(f"There are {len(unique)} different prompts: to divide by prompt takes two.")
    count = min(max(1, round(share * len(unique))), len(unique) - 1)
    held_out = {unique[i] for i in np.random.default_rng(seed).permutation(len(unique))[:count]}
    first = [index for index, key in enumerate(keys) if key not in held_out]
    second = [index for index, key in enumerate(keys) if key in held_out]
    if isinstance(rows, Dataset):
        return rows.select(first), rows.select(second)
    return [rows[index] for index in first], [rows[index] for index in second]


def _published(
    source: Source, path: Path | None, seed: int, console: Console, options: Mapping[str, Any]
) -> DatasetDict:
    """Published rows, from the Hub or a path, through the converter."""
    known = [name for name in inspect.signature(source.convert).parameters if name != "rows"]
    require_known(f"option of {source.title}", options, known or ["none"])
    if "seed" in known:
        options = {**options, "seed": seed}
    if not source.subsets:
        return _converted(source, path, options, console)
    subsets = [options["subset"]] if "subset" in options else list(source.subsets)
    parts = []
    for subset in subsets:
        inside = path / subset if path is not None and path.is_dir() and (path / subset).is_dir() else path
        if inside == path and path is not None and "subset" not in options:
            raise ValueError(
                f"The rows of {source.title} do not say which subset they are from: for {path.name} pass "
                f'`--source_options \'{{"subset": "{source.subsets[0]}"}}\'` (in Python '
                f"subset={source.subsets[0]!r}), or name a folder with the folders {', '.join(source.subsets)}."
            )
        parts.append(_converted(source, inside, {**options, "subset": subset}, console))
    every = list(dict.fromkeys(split for part in parts for split in part))
    return DatasetDict({s: concatenate_datasets([part[s] for part in parts if s in part]) for s in every})


def _converted(source: Source, path: Path | None, options: Mapping[str, Any], console: Console) -> DatasetDict:
    """Converts every split, from the Hub or a path, and says what came out."""
    folder = options.get("subset") if source.subsets else None
    splits: dict[str, Any] = (
        dict(load_dataset(source.hub_id, name=source.config, data_dir=folder)) if path is None else read_splits(path)
    )
    for split, rows in splits.items():
        what = f"{split} of {path.name if path is not None else source.hub_id}"
        if not source.fits(columns_of(rows)):
            check_columns(source.columns, columns_of(rows), f"As {source.title}, {what}")
        converted = source.convert(rows, **options)
        subset = f", {options['subset']}" if "subset" in options else ""
        print_converted(converted, f"{source.title} ({source.licence}{subset}), {split}", console)
        if not converted.rows:
            raise ValueError(f"{what}: none of the {len(rows)} rows gives a pair; the counts above say why.")
        splits[split] = Dataset.from_list(converted.rows)
    return DatasetDict(splits)


def _rated(path: Path, ratings: Sequence[str], seed: int, console: Console, options: Mapping[str, Any]) -> DatasetDict:
    """Pairs from a table of ratings, divided by its column `split` if it has one."""
    known = ["min_margin", "ties", "missing", "max_pairs_per_prompt", "pairing", "tolerance"]
    require_known("option of ratings", options, known)
    table = read_table(path)
    unread = [name for name in table.columns if name not in ("prompt", "response", "id", "split", *ratings)]
    if unread:
        console.print(Text(f"{path.name}: columns that are not read: {', '.join(map(str, unread))}."))
    for name in ("prompt", "response"):
        if name in table.columns:  # a missing one is named with the others
            table[name] = [
                read_messages(value, f"{path.name}, row {row}, column {name!r}")
                for row, value in enumerate(table[name].tolist())
            ]
    for name in set(ratings) & set(table.columns):  # one cell that is no number must not make text of the others
        table[name] = [_number_or_cell(cell) for cell in table[name].tolist()]
    divided = dict(tuple(table.groupby("split", sort=False))) if "split" in table.columns else {"train": table}
    splits = {}
    for split, part in divided.items():
        converted = pairs_from_ratings(part, ratings, seed=seed, **options)
        print_converted(converted, f"{path.name}, {split}", console)
        splits[str(split)] = as_dataset(converted.rows, path.name)
    return DatasetDict(splits)


def _only(data: DatasetDict, attributes: Sequence[str], column: str) -> DatasetDict:
    """The pairs of some attributes."""
    known = list(
        dict.fromkeys(name for rows in data.values() for value in rows[column] for name in attribute_names(value))
    )
    unknown = [name for name in attributes if name not in known]
    if unknown or isinstance(attributes, str) or not attributes:
        raise ValueError(unknown_names_message("attribute", unknown or [str(attributes)], known))
    wanted = set(attributes)
    return data.filter(lambda value: wanted.issuperset(attribute_names(value)), input_columns=column)


def _number_or_cell(cell: Any) -> Any:
    """The number that a cell of text is, or the cell."""
    number = number_of(cell) if isinstance(cell, str) else None
    return cell if number is None else number
