"""What makes a pair unusable for training: the rules, and all the rows that break them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from fairpo_trl.core.messages import joined_names, second_spellings, shortened, unknown_names_message
from fairpo_trl.core.options import is_number
from fairpo_trl.preferences.written import READ_THEM, is_literal_row, second_role, structure_problem
from fairpo_trl.tables import number_of, structure_of


WEIGHT_COLUMN = "weight"
"""Optional: how much a pair counts, a finite number of 0 or more."""

TRAINED_ON = ("prompt", "chosen", "rejected", WEIGHT_COLUMN, "tools", "chat_template_kwargs")
"""Columns that training reads, besides the attribute's."""

_NAMED_ROWS = 5
_WRITTEN_LIST = re.compile(r"\s*[\[{](\s*[\]}]|.*['\",:])", re.DOTALL)  # "[safety]" is a name


@dataclass(frozen=True)
class Problem:
    """
    One rule that rows of a split break.

    Attributes:
        rule (`str`): `vision`, `missing_column`, `malformed_attribute`, `unknown_attribute`, `second_spelling`,
            `joined_attributes`, `malformed_text`, `structure_as_text`, `literal_text`, `empty_prompt`,
            `empty_completion`, `mixed_format`, `repeated_prompt`, `identical_completions`, `malformed_weight`,
            `prompt_overlap` or `no_rows`; on tokens those of `fairpo_trl.preferences.tokens`.
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
        ValueError: If it is neither, empty, or the text of a list (`"['helpful', 'polite']"`).
    """
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not names or any(not isinstance(name, str) or not name.strip() for name in names):
        raise ValueError(f"expected a non-empty string or a non-empty list of strings, got {shortened(value)}")
    if not all(map(is_unicode, names)):
        raise ValueError(f"{shortened(value)} holds half of a character (a lone surrogate)")
    if any(_WRITTEN_LIST.match(name) for name in names):
        how = READ_THEM if _is_readable(names) else 'write ["helpful", "polite"] or helpful|polite'
        raise ValueError(f"expected names, got the text of a list, {shortened(value)}; {how}")
    return names


def _is_readable(names: Sequence[str]) -> bool:
    try:
        return all(isinstance(structure_of(name), (str, list, tuple)) for name in names if _WRITTEN_LIST.match(name))
    except ValueError:
        return False


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
        rows, columns:
            Preference pairs, plain or conversational, and their columns.
        split, column (`str`):
            Name of the split, for messages, and the attribute column.
        names (`Sequence[str]`, *optional*):
            Attributes that may occur; `None` accepts any.

    Returns:
        `tuple[list[Problem], Counter[str]]`: the problems, gravest first, and attribute -> number of pairs.
    """
    problems = _missing_columns(columns, split, column)
    if problems:
        return problems, Counter()

    counts: Counter[str] = Counter()
    rows_of: dict[str, list[int]] = {}  # of attributes given as one string: a list says what it means
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)  # rule -> (row, what is wrong)
    kinds: dict[type, list[int]] = {}
    literal: list[int] | None = []  # every row so far, while all of them are written as literals
    total = 0.0

    def note(rule: str, numbers: Iterable[int], wrong: str) -> None:
        found[rule].extend((number, wrong) for number in numbers)

    for index, row in enumerate(rows):
        value = row.get(column)
        try:
            row_names = attribute_names(value)
        except ValueError as error:
            note("malformed_attribute", [index], str(error))
            continue
        counts.update(set(row_names))
        if isinstance(value, str):
            rows_of.setdefault(value, []).append(index)
        for name in row_names:
            if names is not None and name not in names:
                note("unknown_attribute", [index], name)
        weight = row.get(WEIGHT_COLUMN, 1.0)
        total += weight if is_weight(weight) else 1.0
        broken = _broken_rule(row, columns)
        if broken:
            note(broken[0], [index], broken[1])
        else:
            kinds.setdefault(type(row["chosen"]), []).append(index)
        if literal is not None:
            if is_literal_row(row):
                literal.append(index)
            else:
                literal = None

    if counts and all(number_of(name) is not None for name in counts):
        first = f"{shortened(next(iter(counts)))} is a number, perhaps a score"
        note("malformed_attribute", chain(*rows_of.values()), first)
    for spellings in second_spellings(counts):
        rare = sorted(row for name in spellings[1:] for row in rows_of.get(name, ()))
        note("second_spelling", rare or [0], " and ".join(map(repr, spellings)))
    for name, mark in joined_names(counts):
        note("joined_attributes", rows_of.get(name, ()), f"{name!r} at {mark!r}")
    if literal:
        note("literal_text", literal, shortened(row["chosen"]))
    if len(kinds) > 1:
        few = min(kinds.values(), key=len)
        note("mixed_format", few, "text in some rows, messages in others")

    for rule, sentence in _SENTENCES.items():
        if found[rule]:
            indices = [index for index, _ in found[rule]]
            if rule == "unknown_attribute":
                near = unknown_names_message("attribute", sorted({name for _, name in found[rule]}), list(names or ()))
            else:
                near = found[rule][0][1]
            named = {"Rows": row_numbers(indices, capital=True), "rows": row_numbers(indices)}
            text = sentence.format(**named, split=split, column=column, first=near)
            problems.append(Problem(rule, tuple(sorted(set(indices))), text))
    if counts and total == 0 and names is None:  # an evaluation may weigh as it likes
        text = f"Every {WEIGHT_COLUMN!r} of the {split} data is 0: nothing would be learned."
        problems.append(Problem("malformed_weight", (), text))
    if not counts and not problems:
        problems.append(Problem("no_rows", (), f"The {split} data has no rows."))
    return problems, counts


_SENTENCES = {
    "malformed_attribute": "Column {column!r} of the {split} data names no attribute in {rows}: {first}. Name the "
    "attribute of each pair, or remove these rows.",
    "second_spelling": "{Rows} of the {split} data: the attributes {first} differ only in case, white space or the "
    "form of their letters, but would be two attributes with a role each. Write one spelling everywhere.",
    "joined_attributes": "{Rows} of the {split} data: an attribute looks like several names in one text ({first}). "
    'Write a list of names, such as ["helpful", "polite"]; for a file, `--attribute_separator` (in Python '
    "`load_preferences(..., attribute_separator=...)`) says what joins names, or names what does not occur if it "
    "belongs to them.",
    "unknown_attribute": "{Rows} of the {split} data: {first} Every attribute needs pairs in the training data and, "
    "if `non_privileged_attributes` is given, a place in one of the two lists.",
    "malformed_text": "{Rows} of the {split} data: {first}. Prompts and completions are text, or messages with a role "
    "and a content.",
    "structure_as_text": "{Rows} of the {split} data: {first}. " + READ_THEM + ".",
    "literal_text": "{Rows} of the {split} data, and so all, hold texts as Python or JSON writes values, such as "
    "{first}, and would be trained on with their brackets and quotes. Save the texts themselves: in pandas, for each "
    "column, `frame[name] = frame[name].map(ast.literal_eval)` reads them, then take the text out, and "
    "`frame.to_json('rows.jsonl', orient='records', lines=True)` writes them.",
    "empty_prompt": "{Rows} of the {split} data have no prompt{first}. Remove them.",
    "empty_completion": "{Rows} of the {split} data have an empty completion; such pairs teach nothing (loss log 2, "
    "no gradient). Remove them.",
    "mixed_format": "In {rows} of the {split} data prompt, chosen and rejected are not all text or all messages "
    "({first}). Bring them into one format.",
    "repeated_prompt": "{Rows} of the {split} data: chosen and rejected begin with the prompt, which would be there "
    "twice. "
    + READ_THEM
    + "; or remove the column 'prompt' (`dataset.remove_columns('prompt')`): what both share is the prompt then.",
    "identical_completions": "{Rows} of the {split} data have identical completions, so there is no preference. "
    "Remove them.",
    "malformed_weight": "{Rows} of the {split} data: column 'weight' must hold a finite number of 0 or more, got "
    "{first}. Correct it, or remove the column.",
}
"""Rule -> its sentence, gravest first; `{first}` is what is wrong with the first row."""


def _missing_columns(columns: Sequence[str], split: str, column: str) -> list[Problem]:
    """What is wrong with the columns: images, or one that is not there."""
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
            near = unknown_names_message("column", [name], list(columns))
            text = f"The {split} data has no column {name!r}. {near} {missing_column(name, column)}"
            problems.append(Problem("missing_column", (), text))
    return problems


def missing_column(name: str, column: str) -> str:
    """What to do about a column that is not there."""
    if name != column:
        return "Rename one."
    return (
        "Rename one, or name it with `--attribute_column` (`attribute_column=...`). If no column says what each pair "
        "was chosen for, write a file per attribute and load them with `--mixture helpful=a.jsonl polite=b.jsonl` "
        "(`fairpo_trl.preferences.mix`), or add the column (`dataset.add_column('attribute', ['helpful'] * "
        "len(dataset))`)."
    )


def _broken_rule(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, str] | None:
    """The first rule that the texts or the weight of a row break, and what is wrong."""
    texts = [name for name in ("prompt", "chosen", "rejected") if name in columns]
    for name in texts:
        if problem := text_problem(row.get(name), name):
            return "malformed_text", problem
    for name in texts:
        if problem := structure_problem(row.get(name), name):
            return "structure_as_text", problem
    if "prompt" in texts and not completion_text(row.get("prompt")).strip():
        return "empty_prompt", ""
    if any(not completion_text(row.get(name)).strip() for name in ("chosen", "rejected")):
        return "empty_completion", ""
    if not one_format(row, texts):
        return "mixed_format", "for example a prompt of text with completions of messages"
    if row.get("chosen") == row.get("rejected"):
        return "identical_completions", ""
    prompt, chosen, rejected = explicit_pair(row)
    if not completion_text(prompt).strip():
        return "empty_prompt", ": chosen and rejected share no beginning that could be one"
    if isinstance(prompt, list) and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        return "repeated_prompt", ""
    if not (completion_text(chosen).strip() and completion_text(rejected).strip()):
        return "empty_completion", ""
    if WEIGHT_COLUMN in columns and not is_weight(row.get(WEIGHT_COLUMN)):
        return "malformed_weight", shortened(row.get(WEIGHT_COLUMN))
    return None


def is_weight(value: Any) -> bool:
    """Whether a value is a weight: a finite number of 0 or more, no truth value."""
    return is_number(value) and value >= 0


def explicit_pair(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """
    Prompt, chosen and rejected of a row; without a prompt, what both completions share at their beginning is the
    prompt.

    Messages are divided between messages, text at the last blank before the first difference, so that no word is cut.
    """
    chosen: Any = row.get("chosen")
    rejected: Any = row.get("rejected")
    if row.get("prompt") is not None or type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        return row.get("prompt"), chosen, rejected
    if chosen == rejected:  # an error of its own
        return chosen, chosen, rejected
    pairs = zip(chosen, rejected, strict=False)
    length = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    if isinstance(chosen, str):
        while length > 0 and not chosen[length - 1].isspace():
            length -= 1
        while length > 0 and chosen[length - 1].isspace():  # the blank belongs to the completion
            length -= 1
    return chosen[:length], chosen[length:], rejected[length:]


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may hold halves of characters beyond 16 bits, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    if not is_unicode(completion_text(value)):
        return f"{column!r} holds half of a character (a lone surrogate), which no file and no tokenizer can hold"
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
        if known := second_role(role):
            return (
                f"message {number} of {column!r} has the role {role!r}, which chat templates know as {known!r}; "
                f"{READ_THEM}"
            )
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
