"""The canonical row, what a converter returns, and why published rows are dropped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairpo_trl.core.messages import shortened, unknown_names_message
from fairpo_trl.core.options import is_number
from fairpo_trl.preferences.rules import completion_text


Row = dict[str, Any]
"""One pair: `id`, `prompt`, `chosen`, `rejected` and `attribute`, in TRL's explicit-prompt format."""

Message = dict[str, str]

REASONS = {
    "empty_prompt": "rows without a prompt",
    "empty_response": "responses without text",
    "equal": "pairs with equal scores",
    "identical_responses": "pairs of identical responses",
    "below_margin": "pairs whose scores differ by less than the margin",
    "inconsistent": "pairs whose winner is worse on another attribute",
    "no_attribute": "rows that name no attribute",
    "no_correction": "labelled errors without a correction",
    "no_majority": "comparisons without a majority of the votes",
    "no_preference": "comparisons without a preference",
    "no_score": "responses without a score",
    "over_limit": "pairs beyond the number asked for per prompt",
    "prompts_differ": "rows whose two transcripts do not share their prompt",
    "single_response": "prompts with fewer than two scored responses",
    "unknown_error_type": "error labels of an unknown type",
    "unreadable_selections": "answers whose options or shares cannot be read",
    "unreadable_turns": "rows whose turns cannot be read as a conversation",
}
"""Every reason for which a converter drops something, and what it counts."""


@dataclass(frozen=True)
class Converted:
    """
    Canonical rows, and what was dropped on the way.

    Attributes:
        rows (`list[Row]`):
            The pairs, in the order of the data they came from.
        dropped_by_attribute (`dict[str, Counter[str]]`):
            Attribute -> reason (a key of `REASONS`) -> count; `""` holds what was dropped for every attribute at once.
    """

    rows: list[Row]
    dropped_by_attribute: dict[str, Counter[str]]

    @property
    def dropped(self) -> Counter[str]:
        """Reason -> count, over all attributes."""
        return sum(self.dropped_by_attribute.values(), Counter())

    def summary(self) -> pd.DataFrame:
        """
        What came out.

        Returns:
            `pd.DataFrame`: a line per attribute with `pairs`, `prompts` and a column per reason for dropping; the line
            `""`, if there is one, holds what was dropped for every attribute at once.
        """
        names = dict.fromkeys([*(row["attribute"] for row in self.rows), *self.dropped_by_attribute])
        prompts: dict[str, set[str]] = {name: set() for name in names}
        for row in self.rows:
            prompts[row["attribute"]].add(completion_text(row["prompt"]))
        pairs = Counter(row["attribute"] for row in self.rows)
        reasons = sorted(self.dropped)
        lines = {}
        for name in names:
            dropped = self.dropped_by_attribute.get(name, Counter())
            lines[name] = [pairs[name], len(prompts[name]), *(dropped[reason] for reason in reasons)]
        return pd.DataFrame.from_dict(lines, orient="index", columns=["pairs", "prompts", *reasons])


class Collector:
    """Gathers the rows and the drops of one conversion."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._dropped: dict[str, Counter[str]] = {}

    def keep(self, identity: str, prompt: Sequence[Message], chosen: str, rejected: str, attribute: str) -> None:
        """Adds a conversational pair, or drops it if a response has no text or both are the same."""
        if not (chosen.strip() and rejected.strip()):
            self.drop("empty_response", attribute)
        elif chosen.strip() == rejected.strip():
            self.drop("identical_responses", attribute)
        else:
            self.add(identity, list(prompt), assistant(chosen), assistant(rejected), attribute)

    def add(self, identity: str, prompt: Any, chosen: Any, rejected: Any, attribute: str) -> None:
        """Adds a pair as it is."""
        self._rows.append(
            {"id": identity, "prompt": prompt, "chosen": chosen, "rejected": rejected, "attribute": attribute}
        )

    def drop(self, reason: str, attribute: str = "", count: int = 1) -> None:
        """Counts what is left out, for one attribute or, with `""`, for all at once."""
        assert reason in REASONS, reason
        if count:
            self._dropped.setdefault(attribute, Counter())[reason] += count

    def done(self) -> Converted:
        """What came together."""
        return Converted(self._rows, self._dropped)


def user(text: str) -> list[Message]:
    """A prompt of one user turn."""
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[Message]:
    """A completion of one assistant turn."""
    return [{"role": "assistant", "content": text}]


def conversation(messages: list[Message]) -> list[Message] | None:
    """Messages that alternate and end with the user, perhaps after a system message, each with text; else `None`."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    alternate = turns[::-1] == (["user", "assistant"] * len(turns))[: len(turns)]
    return messages if turns and alternate and all(message["content"].strip() for message in messages) else None


def field(row: Any, column: str, where: str) -> Any:
    """
    The value of one column.

    Raises:
        ValueError: If there is no such column; the message names the row, the column and near matches.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is no row with columns but {shortened(row)}.")
    if column not in row:
        message = unknown_names_message("column", [column], [str(name) for name in row])
        raise ValueError(f"{where} has no column {column!r}, so it is not of the published schema. {message}")
    return row[column]


def text_field(row: Any, column: str, where: str) -> str:
    """The text in one column, `""` for null. Raises `ValueError` if it is missing or no text."""
    value = field(row, column, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}: column {column!r} must hold text, got {shortened(value)}.")
    return value


def list_field(row: Any, column: str, where: str) -> list[Any]:
    """The list in one column, empty for null. Raises `ValueError` if it is missing or no list."""
    value = field(row, column, where)
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: column {column!r} must hold a list, got {shortened(value)}.")
    return list(value)


def number_field(row: Any, column: str, where: str) -> float | None:
    """The number in one column, `None` for null and NaN. Raises `ValueError` if it is missing or no number."""
    value = field(row, column, where)
    number = as_number(value)
    if number is None and value is not None and not (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{where}: column {column!r} must hold a finite number, got {shortened(value)}.")
    return number


def as_number(value: Any) -> float | None:
    """A finite `int` or `float` as `float`; `None` for everything else, truth values included."""
    return float(value) if is_number(value) else None
