"""
Looks at the preference pairs before the first step, so that every mistake is one error that names the rows, and brings
them into one form: text, explicit prompts, nothing of an earlier run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

from fairpo_trl.generation.collator import ROW_COLUMN
from fairpo_trl.preferences.formats import read_messages
from fairpo_trl.preferences.overlap import find_overlap, prompts_of
from fairpo_trl.preferences.rules import TRAINED_ON, explicit_pair, find_problems
from fairpo_trl.preferences.tokens import TOKENS


# What a trainer adds to its rows: computed again here, by this trainer's tokenizer and reference.
_ADDED = (*TOKENS, "ref_chosen_logps", "ref_rejected_logps", ROW_COLUMN)
_TEXTS = ("prompt", "chosen", "rejected")

STREAM_ROWS = 64
"""Rows of a streaming dataset that are looked at before training; the collator checks each batch after that."""


def prepare_rows(
    dataset: Any, split: str, column: str, names: Sequence[str] | None = None
) -> tuple[Dataset | IterableDataset, Counter[str]]:
    """
    Checks the rows of one split and brings them into the form that is tokenised.

    The contents of messages become text where they are lists of text parts, and implicit prompts (only `chosen` and
    `rejected`, which begin alike) become explicit, as [`explicit_pair`] finds them for every check.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Preference pairs, plain or conversational: `chosen`, `rejected`, the attribute column, usually `prompt`.
        split, column, names:
            As in [`find_problems`].

    Returns:
        `tuple[Dataset | IterableDataset, Counter[str]]`: the rows, and attribute -> pairs (of the first rows of a
        stream).

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
    dataset = dataset.with_format(None)  # a format of arrays or tensors would reach the tokenizer
    columns = list(dataset.column_names or next(iter(dataset), {}))  # a stream need not know its columns
    dataset = dataset.remove_columns([name for name in _ADDED if name in columns])
    columns = [name for name in columns if name not in _ADDED]
    looked_at = [name for name in (column, *TRAINED_ON) if name in columns]
    problems, counts = find_problems(first_rows(dataset, looked_at), columns, split, column, names)
    if problems:
        raise ValueError(problems[0].message)
    texts = [name for name in _TEXTS if name in columns]
    if isinstance(dataset, Dataset):  # columns of text have no messages
        texts = [name for name in texts if getattr(dataset.features[name], "dtype", None) != "string"]
    messages = (message for row in first_rows(dataset, texts) for name in texts for message in row[name] or ())
    if any(isinstance(message, Mapping) and isinstance(message.get("content"), list) for message in messages):
        dataset = dataset.map(_join_parts)
    return (dataset if "prompt" in columns else dataset.map(_with_prompt)), counts


def first_rows(dataset: Dataset | IterableDataset, columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Some columns of all rows, or the first rows of a stream."""
    if not columns:
        return ()
    return (
        islice(dataset, STREAM_ROWS) if isinstance(dataset, IterableDataset) else dataset.select_columns(list(columns))
    )


def _join_parts(row: dict[str, Any]) -> dict[str, Any]:
    """The messages of a row with the text that their parts make up."""
    return {name: read_messages(row[name], name) for name in _TEXTS if isinstance(row.get(name), list)}


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(_TEXTS, explicit_pair(row), strict=True))


def check_overlap(train: Dataset | IterableDataset, evaluation: Mapping[str, Any]) -> None:
    """
    Refuses evaluation pairs whose prompt is in the training data too. A stream cannot be scanned and passes.

    Raises:
        ValueError: Names the split, its rows, a common prompt and the mend. Case and white space make no difference.
    """
    if not isinstance(train, Dataset):
        return
    trained = prompts_of(train)
    for name, part in evaluation.items():
        if isinstance(part, Dataset) and (problem := find_overlap(trained, prompts_of(part), name)):
            raise ValueError(problem.message)
