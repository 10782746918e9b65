"""What makes a pair unusable for training: the rules, and all the rows that break them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairpo_trl.core.names import shortened, unknown_names_message


_NAMED_ROWS = 5


@dataclass(frozen=True)
class Problem:
    """
    One rule that rows of a split break.

    Attributes:
        rule (`str`): `vision`, `missing_column`, `malformed_attribute`, `unknown_attribute`, `malformed_text`,
            `empty_prompt`, `empty_completion`, `mixed_format`, `identical_completions` or `no_rows`.
        rows (`tuple[int, ...]`): The rows, counted from 0; empty if the whole split is meant.
        message (`str`): A sentence that names rows and mend.
    """

    rule: str
    rows: tuple[int, ...]
    message: str


def attribute_names(value: Any) -> tuple[str, ...]:
    """
    The attributes of one row: a string is one attribute, a list or tuple of strings several.

    Raises:
        ValueError: If it is neither, or empty.
    """
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not names or any(not isinstance(name, str) or not name.strip() for name in names):
        raise ValueError(f"expected a non-empty string or a non-empty list of strings, got {shortened(value)}")
    return names


def find_problems(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    split: str,
    column: str,
    names: Sequence[str] | None = None,
) -> tuple[list[Problem], Counter[str]]:
    """
    Looks for every row that the trainer would refuse.

    Args:
        rows (`Iterable[Mapping[str, Any]]`):
            Preference pairs, plain or conversational.
        columns (`Sequence[str]`):
            The columns of the rows.
        split (`str`):
            Name of the split, for messages.
        column (`str`):
            The attribute column.
        names (`Sequence[str]`, *optional*):
            Attributes that may occur; `None` accepts any.

    Returns:
        `tuple[list[Problem], Counter[str]]`: the problems, gravest first, and attribute -> number of pairs.
    """
    problems = [
        Problem(
            "vision",
            (),
            f"The {split} data has the column {name!r}: FairPOTrainer does not train on vision-language data. "
            "Remove the column to train on the text alone.",
        )
        for name in ("image", "images")
        if name in columns
    ]
    for name in (column, "chosen", "rejected"):
        if name not in columns:
            hint = " or pass `attribute_column=...`" if name == column else ""
            near = unknown_names_message("column", [name], list(columns))
            problems.append(
                Problem("missing_column", (), f"The {split} data has no column {name!r}. {near} Rename one{hint}.")
            )
    if problems:
        return problems, Counter()

    counts: Counter[str] = Counter()
    malformed: list[tuple[int, str]] = []
    unknown: list[tuple[int, str]] = []
    empty: list[int] = []
    identical: list[int] = []
    unread: list[tuple[int, str]] = []
    promptless: list[int] = []
    mixed: list[int] = []
    texts = [name for name in ("prompt", "chosen", "rejected") if name in columns]
    for index, row in enumerate(rows):
        try:
            row_names = attribute_names(row.get(column))
        except ValueError as error:
            malformed.append((index, str(error)))
            continue
        counts.update(set(row_names))
        if names is not None:
            unknown += [(index, name) for name in row_names if name not in names]
        problem = next((found for name in texts if (found := text_problem(row.get(name), name))), None)
        if problem:
            unread.append((index, problem))
            continue
        chosen, rejected = completion_text(row.get("chosen")), completion_text(row.get("rejected"))
        if "prompt" in texts and not completion_text(row.get("prompt")).strip():
            promptless.append(index)
        elif not (chosen.strip() and rejected.strip()):
            empty.append(index)
        elif not one_format(row, texts):
            mixed.append(index)
        elif chosen == rejected:
            identical.append(index)

    if malformed:
        indices = [index for index, _ in malformed]
        message = (
            f"Column {column!r} of the {split} data names no attribute in {row_numbers(indices)}: {malformed[0][1]}. "
            "Name the attribute of each pair, or remove these rows."
        )
        problems.append(Problem("malformed_attribute", tuple(indices), message))
    if unknown:
        indices = [index for index, _ in unknown]
        near = unknown_names_message("attribute", sorted({name for _, name in unknown}), list(names or ()))
        message = (
            f"{row_numbers(indices, capital=True)} of the {split} data: {near} Every attribute needs pairs in the "
            "training data and, if `non_privileged_attributes` is given, a place in one of the two lists."
        )
        problems.append(Problem("unknown_attribute", tuple(indices), message))
    if unread:
        indices = [index for index, _ in unread]
        message = (
            f"{row_numbers(indices, capital=True)} of the {split} data: {unread[0][1]}. Prompts and completions are "
            "text, or messages with a role and a content."
        )
        problems.append(Problem("malformed_text", tuple(indices), message))
    if promptless:
        message = f"{row_numbers(promptless, capital=True)} of the {split} data have no prompt. Remove them."
        problems.append(Problem("empty_prompt", tuple(promptless), message))
    if empty:
        message = (
            f"{row_numbers(empty, capital=True)} of the {split} data have an empty completion; such pairs teach "
            "nothing (loss log 2, no gradient). Remove them."
        )
        problems.append(Problem("empty_completion", tuple(empty), message))
    if mixed:
        message = (
            f"In {row_numbers(mixed)} of the {split} data prompt, chosen and rejected are not all text or all "
            "messages. Bring them into one format."
        )
        problems.append(Problem("mixed_format", tuple(mixed), message))
    if identical:
        message = (
            f"{row_numbers(identical, capital=True)} of the {split} data have identical completions, so there is no "
            "preference. Remove them."
        )
        problems.append(Problem("identical_completions", tuple(identical), message))
    if not counts and not problems:
        problems.append(Problem("no_rows", (), f"The {split} data has no rows."))
    return problems, counts


def completion_text(value: Any) -> str:
    """The text of a prompt or completion: itself, or the contents of its messages (tool calls, parts as written)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(completion_text(message) for message in value)
    if isinstance(value, dict):
        parts = [value.get("content"), value.get("text"), value.get("tool_calls")]
        return "\n".join(part if isinstance(part, str) else completion_text(part) for part in parts if part)
    return "" if value is None else str(value)


def text_problem(value: Any, column: str) -> str | None:
    """What is wrong with a prompt or completion that is neither text nor messages; nothing at all counts as text."""
    if value is None or isinstance(value, str):
        return None
    if not isinstance(value, list):
        return f"{column!r} is neither text nor a list of messages, but {shortened(value)}"
    for number, message in enumerate(value):
        if not isinstance(message, Mapping):
            return f"message {number} of {column!r} must have a role and a content, got {shortened(message)}"
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role.strip():
            near = unknown_names_message("key", ["role"], list(message)) if "role" not in message else ""
            return f"message {number} of {column!r} has no role ({near or shortened(role)})"
        if not isinstance(content, str | list) and not message.get("tool_calls"):
            near = unknown_names_message("key", ["content"], list(message)) if "content" not in message else ""
            return f"message {number} of {column!r} has no content ({near or shortened(content)})"
    return None


def one_format(row: Mapping[str, Any], names: Sequence[str] = ("prompt", "chosen", "rejected")) -> bool:
    """Whether prompt, chosen and rejected are all text or all messages."""
    return {type(row.get(name)) for name in names} in ({str}, {list})


def prompt_key(prompt: Any) -> str:
    """The text by which prompts are told apart: case and white space do not count."""
    return " ".join(completion_text(prompt).casefold().split())


def row_numbers(indices: Iterable[int], capital: bool = False) -> str:
    """Row numbers for a message, such as: rows 3, 7, 9 and 12 more."""
    shown = sorted(set(indices))
    word = ("Row " if capital else "row ") if len(shown) == 1 else ("Rows " if capital else "rows ")
    more = f" and {len(shown) - _NAMED_ROWS} more" if len(shown) > _NAMED_ROWS else ""
    return word + ", ".join(map(str, shown[:_NAMED_ROWS])) + more
