"""The forms in which pairs come from other tools, read as canonical rows: prompt, chosen, rejected, attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.read import Rows, columns_of
from fairpo_trl.preferences.rules import TRAINED_ON, completion_text, explicit_pair
from fairpo_trl.preferences.written import ROLE_NAMES, second_role, written_messages
from fairpo_trl.tables import structure_of


ATTRIBUTE_COLUMNS = ("channel", "source")
"""Where the attribute is looked for if the column asked for is not there (ms-swift has `channel`)."""

_MOST_ATTRIBUTES = 64  # a column `source` with more values than this names web pages, not attributes
_ROLES = {**ROLE_NAMES, "model": "assistant"}  # as a role of its own, templates of Gemma know it
_TURNS = ("conversations", "messages")
_RESPONSES = (("chosen", "chosen_response"), ("rejected", "rejected_response"))


@dataclass(frozen=True)
class Reading:
    """
    Pairs as they were understood.

    Attributes:
        rows (`Rows`): Canonical rows; the very same object if there was nothing to read.
        notes (`tuple[str, ...]`): A sentence for each thing that was taken for another.
        unread (`tuple[str, ...]`): Columns that training does not look at.
    """

    rows: Rows
    notes: tuple[str, ...]
    unread: tuple[str, ...]


def read_pairs(rows: Rows, *, attribute_column: str = "attribute", attribute_separator: str | None = None) -> Reading:
    """
    Reads pairs in any of the known forms as canonical rows; says what it took for what, and checks nothing else.

    - Messages that a text holds as Python or JSON writes them (pandas, CSV) become messages, lists of attributes
      lists.
    - Turns `from`/`value` (ShareGPT, LLaMA-Factory) become `role`/`content`, and a role `human` or `gpt` becomes
      `user` or `assistant`; one turn becomes a list of one; a content of text parts becomes their text.
    - `conversations` or `messages` with `chosen` and `rejected`, or with `rejected_response` (ms-swift; the last
      answer is then chosen), become a prompt of messages, with the column `system` before it.
    - `instruction` (and `input`, `history`, `system`) or `question` with two responses become messages.
    - Without a prompt, what both responses share at the beginning is the prompt; if both repeat the prompt, it is
      taken out of them.
    - If the attribute column is missing, `channel` or `source` is the attribute (at most 64 names).
    - `helpful|polite` in one text names two attributes; `attribute_separator` says what else joins them.

    Args:
        rows (`Rows`):
            A `Dataset` or a list of rows.
        attribute_column (`str`, *optional*, defaults to `"attribute"`):
            Names the attribute of a pair, or lists several.
        attribute_separator (`str`, *optional*):
            What joins several names in one text. `None` is `"|"`; a mark that does not occur says that all others
            belong to the names.

    Returns:
        `Reading`: the rows and what was noticed.

    Raises:
        ValueError: If something that looks like written messages cannot be read, or a turn has an unknown speaker;
            names the row.
    """
    if attribute_separator == "":
        raise ValueError('`attribute_separator` must not be empty; write the mark that joins names, such as "|".')
    columns = columns_of(rows)
    notes: Counter[str] = Counter()
    attribute = attribute_column
    if attribute not in columns:
        attribute = _other_attribute(rows, columns, notes) or attribute
    read = [
        _read(row, index, attribute, attribute_column, attribute_separator, notes) for index, row in enumerate(rows)
    ]
    kinds = {type(row.get(attribute_column)) for row in read}
    if {str, list} <= kinds:  # one type in a column
        notes["Some attributes are lists, so that all are read as lists"] = len(read)
        for row in read:
            if isinstance(row.get(attribute_column), str):
                row[attribute_column] = [row[attribute_column]]
    known = {*TRAINED_ON, attribute_column, "id", "split"}
    if not notes and attribute_separator is None:
        return Reading(rows, (), tuple(name for name in columns if name not in known))
    every = list(dict.fromkeys(name for row in read for name in row))
    sentences = tuple(f"{sentence} ({count:,} rows)" for sentence, count in notes.items())
    return Reading(read, sentences, tuple(name for name in every if name not in known))


def _other_attribute(rows: Rows, columns: Sequence[str], notes: Counter[str]) -> str | None:
    """The column that is taken for the missing attribute."""
    for name in ATTRIBUTE_COLUMNS:
        if name in columns:
            values = {str(row.get(name)) for row in rows}
            if len(values) <= _MOST_ATTRIBUTES and all(isinstance(row.get(name), str) for row in rows):
                notes[f"The column {name!r} is the attribute"] += len(rows)
                return name
    return None


def _read(
    row: Mapping[str, Any], index: int, attribute: str, named: str, separator: str | None, notes: Counter[str]
) -> dict[str, Any]:
    """One row in canonical form."""
    read = dict(row)
    if attribute != named:
        read[named] = read.pop(attribute)
    if named in read:
        read[named] = _attributes(read[named], separator, notes)
    for name in ("prompt", "chosen", "rejected", *_TURNS):
        if name in read:
            read[name] = _messages(read[name], f"Row {index}, column {name!r}", notes)
    for name, other in _RESPONSES:
        if read.get(name) is None and isinstance(read.get(other), (str, list, dict)):
            notes[f"{other!r} is read as {name!r}"] += 1
            read[name] = _messages(read.pop(other), f"Row {index}, column {other!r}", notes)
    _take_turns(read, notes)
    _take_instruction(read, notes)
    if not all(isinstance(read.get(name), (str, list)) for name in ("chosen", "rejected")):
        return read
    prompt = read.get("prompt")
    if prompt is None and type(read["chosen"]) is type(read["rejected"]):
        notes["The prompt is what chosen and rejected share at the beginning"] += 1
        read["prompt"], read["chosen"], read["rejected"] = explicit_pair({**read, "prompt": None})
    elif isinstance(read["chosen"], list) and isinstance(read["rejected"], list):
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        both = (read["chosen"], read["rejected"])
        if isinstance(prompt, list) and prompt and all(_repeats(prompt, messages) for messages in both):
            notes["The prompt, which chosen and rejected repeat, is taken out of them"] += 1
            read["prompt"], read["chosen"], read["rejected"] = explicit_pair({**read, "prompt": None})
    return read


def _repeats(prompt: list[Any], messages: list[Any]) -> bool:
    """Whether messages begin with the prompt, perhaps after a system message."""
    if not all(isinstance(message, Mapping) for message in (*prompt, *messages)):
        return False  # no messages, which is said with the row when the texts are checked
    begins = messages[1:] if messages and messages[0].get("role") == "system" != prompt[0].get("role") else messages
    text = [(message.get("role"), completion_text(message).strip()) for message in begins[: len(prompt)]]
    return len(begins) > len(prompt) and text == [(m.get("role"), completion_text(m).strip()) for m in prompt]


def _attributes(value: Any, separator: str | None, notes: Counter[str]) -> Any:
    """One name, or a list of several."""
    if not isinstance(value, str):
        return value
    try:
        written = structure_of(value)
    except ValueError:  # said with the row when the attributes are checked
        return value
    if isinstance(written, (list, tuple)):
        notes["A list of attributes, written as text, is read as a list"] += 1
        return list(written)
    names = [name.strip() for name in value.split(separator or "|")]
    if len(names) > 1:
        notes[f"Several attributes, joined by {separator or '|'!r}, are read as a list"] += 1
        return names
    # Where the user has said what joins names, nothing else does: a list of one is taken as it is.
    return names if separator is not None and value.strip() else value


def _messages(value: Any, where: str, notes: Counter[str]) -> Any:
    """Text as it is; messages with roles and text."""
    if isinstance(value, str):
        try:
            written = written_messages(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}.") from error
        if written is None:
            return value
        notes["Messages, written as text, are read as messages"] += 1
        value = written
    if isinstance(value, dict) and ({"role", "content"} <= set(value) or {"from", "value"} <= set(value)):
        value = [value]
    if not (isinstance(value, list) and value and all(isinstance(message, dict) for message in value)):
        return value
    return [_message(message, where, notes) for message in value]


def read_messages(value: Any, where: str) -> Any:
    """Messages that a text holds, turns and parts of text as messages; other values stay, see [`read_pairs`]."""
    return _messages(value, where, Counter())


def _message(message: dict[str, Any], where: str, notes: Counter[str]) -> dict[str, Any]:
    if "from" in message and "role" not in message:
        speaker = str(message["from"]).strip().casefold()
        if speaker not in _ROLES:
            raise ValueError(
                f"{where}: a turn is from {shortened(message['from'])}; known are {', '.join(sorted(_ROLES))}. "
                "Conversations with tools are read as messages with `role` and `tool_calls` only."
            )
        notes["Turns with 'from' and 'value' are read as messages"] += 1
        message = {"role": _ROLES[speaker], "content": message.get("value")}
    if role := second_role(message.get("role")):
        notes[f"The role {message['role']!r} is read as {role!r}"] += 1
        message = {**message, "role": role}
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content):
        notes["Parts of text are read as one text"] += 1
        message = {**message, "content": "".join(part["text"] for part in content)}
    return message


def _take_turns(read: dict[str, Any], notes: Counter[str]) -> None:
    """`conversations` or `messages` as the prompt, with `system` before it."""
    if read.get("prompt") is not None:
        return
    name = next((name for name in _TURNS if isinstance(read.get(name), list) and read[name]), None)
    if name is None or (name == "messages" and isinstance(read.get("chosen"), list) and len(read["chosen"]) > 1):
        return  # `messages` beside whole transcripts repeats the chosen one
    turns = list(read.pop(name))
    if read.get("chosen") is None and turns[-1].get("role") == "assistant" and read.get("rejected") is not None:
        read["chosen"] = [turns.pop()]
    elif turns[-1].get("role") == "assistant":
        return
    system = read.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0].get("role") != "system":
        turns = [{"role": "system", "content": read.pop("system")}, *turns]
    read["prompt"] = turns
    _answer(read)
    notes[f"{name!r} is read as the prompt"] += 1


def _take_instruction(read: dict[str, Any], notes: Counter[str]) -> None:
    """`instruction` or `question`, with `input`, `history` and `system`, as a prompt of messages."""
    name = next((name for name in ("instruction", "question") if isinstance(read.get(name), str)), None)
    if read.get("prompt") is not None or name is None or read.get("chosen") is None or read.get("rejected") is None:
        return
    text = read.pop(name)
    extra = read.pop("input", None) if name == "instruction" else None
    turns = [{"role": "user", "content": f"{text}\n{extra}" if isinstance(extra, str) and extra.strip() else text}]
    for earlier in reversed(read.pop("history", None) or []):
        turns = [{"role": "user", "content": earlier[0]}, {"role": "assistant", "content": earlier[1]}, *turns]
    system = read.pop("system", None)
    if isinstance(system, str) and system.strip():
        turns = [{"role": "system", "content": system}, *turns]
    read["prompt"] = turns
    _answer(read)
    notes[f"{name!r} is read as the prompt"] += 1


def _answer(read: dict[str, Any]) -> None:
    """Completions of text after a prompt of messages are the assistant's."""
    for name in ("chosen", "rejected"):
        if isinstance(read[name], str):
            read[name] = [{"role": "assistant", "content": read[name]}]
