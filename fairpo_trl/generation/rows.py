"""Preference rows in one form before they are tokenised: text, explicit prompts, nothing of an earlier run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

from fairpo_trl.generation.collator import ROW_COLUMN
from fairpo_trl.generation.data_check import STREAM_ROWS, check_rows
from fairpo_trl.generation.token_check import TOKENS
from fairpo_trl.preferences.rules import explicit_pair


# What a trainer adds to its rows: computed again here, by this trainer's tokenizer and reference.
_ADDED = (*TOKENS, "ref_chosen_logps", "ref_rejected_logps", ROW_COLUMN)
_TEXTS = ("prompt", "chosen", "rejected")


def prepare_rows(
    dataset: Any, split: str, column: str, names: Sequence[str] | None = None
) -> tuple[Dataset | IterableDataset, Counter[str]]:
    """
    Checks the rows of one split and brings them into the form that is tokenised.

    The contents of messages become text where they are lists of text parts, and implicit prompts (only `chosen` and
    `rejected`, which begin alike) become explicit, as [`explicit_pair`] finds them for every check.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Preference pairs.
        split, column, names:
            As in [`check_rows`].

    Returns:
        `tuple[Dataset | IterableDataset, Counter[str]]`: the rows, and attribute -> pairs (of the first rows of a
        stream).

    Raises:
        ValueError: As [`check_rows`].
    """
    if isinstance(dataset, Dataset | IterableDataset):
        dataset = dataset.with_format(None)  # a format of arrays or tensors would reach the tokenizer
        columns = list(dataset.column_names or next(iter(dataset), {}))
        dataset = dataset.remove_columns([name for name in _ADDED if name in columns])
    counts = check_rows(dataset, split, column, names)
    if _has_parts(dataset, [name for name in _TEXTS if name in columns]):
        dataset = dataset.map(_join_parts)
    return (dataset if "prompt" in columns else dataset.map(_with_prompt)), counts


def _has_parts(dataset: Dataset | IterableDataset, columns: list[str]) -> bool:
    if isinstance(dataset, IterableDataset):
        rows: Any = islice(dataset, STREAM_ROWS)
    else:  # columns of text have no messages
        columns = [name for name in columns if getattr(dataset.features[name], "dtype", None) != "string"]
        rows = dataset.select_columns(columns) if columns else ()
    return any(_is_of_parts(message) for row in rows for name in columns for message in row[name] or ())


def _is_of_parts(message: Any) -> bool:
    return isinstance(message, Mapping) and isinstance(message.get("content"), list)


def _join_parts(row: dict[str, Any]) -> dict[str, Any]:
    """The messages of a row with the text that their parts make up."""
    return {
        name: [
            {**message, "content": "".join(part["text"] for part in message["content"])}
            if _is_of_parts(message)
            else message
            for message in row[name]
        ]
        for name in _TEXTS
        if isinstance(row.get(name), list)
    }


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(_TEXTS, explicit_pair(row), strict=True))
