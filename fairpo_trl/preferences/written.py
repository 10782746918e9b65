"""What tools wrote into texts as Python or JSON writes values, and the other names of speakers."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.tables import structure_of


ROLE_NAMES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "system": "system",
}
"""What other tools call a speaker -> the role that chat templates know."""

READ_THEM = "`fairpo_trl.preferences.read_pairs(rows)` reads them, as the command line does with files"
"""The mend for what the reader of files understands."""

_WRITTEN_MESSAGES = re.compile(r"\s*\[?\s*\{\s*['\"](role|content|from|value|type|text)['\"]\s*:")


def written_messages(text: str) -> list[Any] | None:
    """
    The messages that a text holds as Python or JSON writes them, such as what pandas makes of them in CSV.

    Raises:
        ValueError: If it begins like messages but cannot be read.
    """
    if not _WRITTEN_MESSAGES.match(text):
        return None
    try:
        value = structure_of(text)
    except ValueError:
        if re.match(r"\s*\[\s*\{\s*['\"](role|content|from)['\"]", text):
            raise
        return None
    value = [value] if isinstance(value, dict) else value
    spoken = isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if spoken and value and all({"role", "content"} <= set(e) or {"from", "value"} <= set(e) for e in value):
        return value
    return None


def structure_problem(value: Any, column: str) -> str | None:
    """What is wrong with a prompt or completion whose text is written messages, or whose messages hold no text."""
    if isinstance(value, str):
        try:
            written = written_messages(value) is not None
        except ValueError:
            written = True
        return (
            f"the text of {column!r} is a list of messages as Python or JSON writes it: {shortened(value)}"
            if written
            else None
        )
    parts = [
        part for message in value or () if isinstance(message.get("content"), list) for part in message["content"]
    ]
    wrong = [part for part in parts if not (isinstance(part, Mapping) and isinstance(part.get("text"), str))]
    return f"a message of {column!r} holds the part {shortened(wrong[0])}, which is no text" if wrong else None


def second_role(role: Any) -> str | None:
    """The role that another name of it means, as `user` for `human` and `User`; `None` for all other names."""
    known = ROLE_NAMES.get(role.strip().casefold()) if isinstance(role, str) else None
    return None if known == role else known


def is_literal_row(row: Mapping[str, Any]) -> bool:
    """
    Whether the texts of a row are written as Python writes values (JSON may be what is asked for), or its prompt and
    completions as JSON writes texts. One row may be so by chance, all rows are not.
    """
    texts = [row[name] for name in ("prompt", "chosen", "rejected") if row.get(name) is not None]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return False
    kinds = [_literal_kind(text.strip()) for text in texts]
    return kinds[-2:] == ["python", "python"] or set(kinds) == {"text"}


def _literal_kind(text: str) -> str | None:
    """`"text"` for a text in quotes, `"python"` for a list, object or bytes that is no JSON; `None` for the rest."""
    if not re.match(r"""b?['"].*['"]$|[\[({].*[\])}]$""", text, re.DOTALL):
        return None
    try:
        return "text" if isinstance(json.loads(text), str) else None
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)  # literals only: nothing is called
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return "text" if isinstance(value, str) else "python" if isinstance(value, (bytes, list, tuple, dict)) else None
