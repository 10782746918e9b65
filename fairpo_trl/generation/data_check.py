"""Looks at the preference pairs before the first step, so that every mistake is one error that names the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

from fairpo_trl.preferences.overlap import find_overlap, prompts_of
from fairpo_trl.preferences.rules import TRAINED_ON, find_problems


STREAM_ROWS = 64
"""Rows of a streaming dataset that are looked at before training; the collator checks each batch after that."""


def check_rows(
    dataset: Dataset | IterableDataset, split: str, column: str, names: Sequence[str] | None = None
) -> Counter[str]:
    """
    Checks the raw rows of one split and counts its attributes.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Preference pairs, plain or conversational: `chosen`, `rejected`, the attribute column, usually `prompt`.
        split, column, names:
            As in [`find_problems`].

    Returns:
        `Counter[str]`: attribute -> number of pairs (of the first rows, for a streaming dataset).

    Raises:
        ValueError: For what is no `Dataset`, vision data, a missing column, a malformed or unknown attribute, a prompt
            or completion that is neither text nor messages, an empty one, or two equal completions. The message names
            the rows and the mend.
    """
    if not isinstance(dataset, Dataset | IterableDataset):
        several = f" It has the splits {list(dataset)}: pass one of them." if isinstance(dataset, Mapping) else ""
        raise ValueError(
            f"The {split} data must be a `datasets.Dataset` or `IterableDataset`, got {type(dataset).__name__}."
            + (several or " `Dataset.from_list(rows)` makes one from rows.")
        )
    streaming = isinstance(dataset, IterableDataset)
    rows: Iterable[dict[str, Any]] = islice(dataset, STREAM_ROWS) if streaming else dataset
    columns = dataset.column_names
    if columns is None:  # a stream need not know its columns
        columns = list(next(iter(dataset), {}))
    looked_at = [name for name in (column, *TRAINED_ON) if name in columns]
    if not streaming:
        rows = dataset.select_columns(looked_at)

    problems, counts = find_problems(rows, columns, split, column, names)
    if problems:
        raise ValueError(problems[0].message)
    return counts


def check_overlap(train: Dataset | IterableDataset, evaluation: Mapping[str, Any]) -> None:
    """
    Refuses evaluation pairs whose prompt is in the training data too. A stream cannot be scanned and passes.

    Args:
        train (`Dataset` or `IterableDataset`):
            The training pairs.
        evaluation (`Mapping[str, Dataset | IterableDataset | None]`):
            Name -> pairs of an evaluation split.

    Raises:
        ValueError: Names the split, its rows, a common prompt and the mend. Case and white space make no difference.
    """
    if not isinstance(train, Dataset):
        return
    trained = prompts_of(train)
    for name, part in evaluation.items():
        if isinstance(part, Dataset) and (problem := find_overlap(trained, prompts_of(part), name)):
            raise ValueError(problem.message)
