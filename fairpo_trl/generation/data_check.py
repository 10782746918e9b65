"""Looks at the preference pairs before the first step, so that every mistake is one error that names the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

from fairpo_trl.core.names import unknown_names_message
from fairpo_trl.generation.collator import attribute_names


_STREAM_ROWS = 64
"""Rows of a streaming dataset that are looked at before training; the collator checks each batch after that."""

_NAMED_ROWS = 5


def check_rows(
    dataset: Dataset | IterableDataset, split: str, column: str, names: Sequence[str] | None = None
) -> Counter[str]:
    """
    Checks the raw rows of one split and counts its attributes.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Preference pairs, plain or conversational: `chosen`, `rejected`, the attribute column, usually `prompt`.
        split (`str`):
            Name of the split, for messages.
        column (`str`):
            The attribute column.
        names (`Sequence[str]`, *optional*):
            Attributes that may occur; `None` accepts any.

    Returns:
        `Counter[str]`: attribute -> number of pairs (of the first rows, for a streaming dataset).

    Raises:
        ValueError: For vision data, a missing column, a malformed or unknown attribute, an empty completion, or two
            equal completions. The message names the rows and the mend.
    """
    streaming = isinstance(dataset, IterableDataset)
    rows: Iterable[dict[str, Any]] = islice(dataset, _STREAM_ROWS) if streaming else dataset
    columns = dataset.column_names
    if columns is None:  # a stream need not know its columns
        columns = list(next(iter(dataset), {}))
    vision = [name for name in ("image", "images") if name in columns]
    if vision:
        raise ValueError(
            f"The {split} data has the column {vision[0]!r}: FairPOTrainer does not train on vision-language data. "
            "Remove the column to train on the text alone."
        )
    for name in (column, "chosen", "rejected"):
        if name not in columns:
            hint = " or pass `attribute_column=...`" if name == column else ""
            raise ValueError(
                f"The {split} data has no column {name!r}. {unknown_names_message('column', [name], columns)} "
                f"Rename one{hint}."
            )
    if not streaming:  # prompts can be long and are not looked at here
        rows = dataset.select_columns([column, "chosen", "rejected"])

    counts: Counter[str] = Counter()
    malformed, unknown, empty, equal = [], [], [], []
    for index, row in enumerate(rows):
        try:
            row_names = attribute_names(row[column])
        except ValueError as error:
            malformed.append((index, str(error)))
            continue
        counts.update(set(row_names))
        if names is not None:
            unknown += [(index, name) for name in row_names if name not in names]
        chosen, rejected = _text(row["chosen"]), _text(row["rejected"])
        if not (chosen.strip() and rejected.strip()):
            empty.append(index)
        elif chosen == rejected:
            equal.append(index)

    if malformed:
        raise ValueError(
            f"Column {column!r} of the {split} data names no attribute in {_rows([i for i, _ in malformed])}: "
            f"{malformed[0][1]}. Name the attribute of each pair, or remove these rows."
        )
    if unknown:
        message = unknown_names_message("attribute", sorted({name for _, name in unknown}), list(names or ()))
        raise ValueError(
            f"{_rows([i for i, _ in unknown], capital=True)} of the {split} data: {message} Every attribute needs "
            "pairs in the training data and, if `non_privileged_attributes` is given, a place in one of the two lists."
        )
    if empty:
        raise ValueError(
            f"{_rows(empty, capital=True)} of the {split} data have an empty completion; such pairs teach nothing "
            "(loss log 2, no gradient). Remove them."
        )
    if equal:
        raise ValueError(
            f"{_rows(equal, capital=True)} of the {split} data have identical completions, so there is no preference. "
            "Remove them."
        )
    if not counts:
        raise ValueError(f"The {split} data has no rows.")
    return counts


def check_tokens(dataset: Dataset, split: str, max_length: int | None, truncation_mode: str) -> None:
    """
    Checks the tokenised rows: a completion must keep at least one token after truncation.

    TRL drops rows whose prompt fills `max_length` without a word; here they are named instead.

    Raises:
        ValueError: Names the rows, the length and the mend.
    """
    empty, cut = [], []
    for index, row in enumerate(dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])):
        if not (row["chosen_ids"] and row["rejected_ids"]):
            empty.append(index)
        elif max_length is not None and truncation_mode == "keep_start" and len(row["prompt_ids"]) >= max_length:
            cut.append((index, len(row["prompt_ids"])))
    if empty:
        raise ValueError(
            f"{_rows(empty, capital=True)} of the {split} data have a completion without a single token once the chat "
            "template and tokenizer are applied. Remove them, or check the chat template."
        )
    if cut:
        longest = max(length for _, length in cut)
        raise ValueError(
            f"In {_rows([i for i, _ in cut])} of the {split} data the prompt alone fills max_length={max_length} "
            f"(the longest has {longest} tokens), so truncation leaves nothing of the completions. Raise `max_length` "
            "above that, or remove these rows."
        )


def _text(completion: Any) -> str:
    """Plain text of a completion: itself, or the contents of its messages (tool calls and parts as written)."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list):
        return "\n".join(_text(message) for message in completion)
    if isinstance(completion, dict):
        parts = [completion.get("content"), completion.get("text"), completion.get("tool_calls")]
        return "\n".join(part if isinstance(part, str) else _text(part) for part in parts if part)
    return "" if completion is None else str(completion)


def _rows(indices: list[int], capital: bool = False) -> str:
    """Row numbers for a message, such as: rows 3, 7, 9 and 12 more."""
    shown = sorted(set(indices))
    word = ("Row " if capital else "row ") if len(shown) == 1 else ("Rows " if capital else "rows ")
    more = f" and {len(shown) - _NAMED_ROWS} more" if len(shown) > _NAMED_ROWS else ""
    return word + ", ".join(map(str, shown[:_NAMED_ROWS])) + more
