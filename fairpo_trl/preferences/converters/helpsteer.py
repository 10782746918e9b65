"""HelpSteer2 (five rated attributes per response) and HelpSteer3 (one preference per domain and language)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Literal

from fairpo_trl.core.messages import require_known
from fairpo_trl.preferences.pairing import PairingRule, pairs_of_prompt
from fairpo_trl.preferences.rows import (
    Collector,
    Converted,
    Message,
    conversation,
    field,
    list_field,
    number_field,
    text_field,
)


ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

_TURN = re.compile(r"\n<extra_id_1>(Assistant|User)\n")


def convert_helpsteer2(
    rows: Iterable[Mapping[str, Any]], *, min_margin: float = 0.0, max_pairs: int | None = 1, seed: int = 0
) -> Converted:
    r"""
    Pairs of each attribute from rows of `nvidia/HelpSteer2` (CC-BY-4.0).

    A row has `prompt`, `response` and five integers from 0 to 4: `helpfulness`, `correctness`, `coherence`,
    `complexity`, `verbosity`. Consecutive rows with the same prompt belong together (published: two). A prompt of
    several turns is written `{user}\n<extra_id_1>Assistant\n{assistant}\n<extra_id_1>User\n{user}` and becomes
    messages. The higher score is chosen; more complex or more verbose is not better for every purpose, so choose the
    attributes.

    The ids of pairs name the rows of the chosen and the rejected response.

    Dropped: prompts with one scored response (`single_response`), responses without a score (`no_score`), pairs with
    equal scores (`equal`), below the margin (`below_margin`) or beyond the number asked for (`over_limit`), responses
    without text (`empty_response`), the same response twice (`identical_responses`), and per row those without a
    prompt (`empty_prompt`) or with turns that cannot be read (`unreadable_turns`).

    Args:
        rows (`Iterable[Mapping[str, Any]]`):
            Published rows in their published order.
        min_margin, max_pairs, seed:
            As in [`pairs_from_scores`], per prompt and attribute; the seed chooses among equal margins.

    Raises:
        ValueError: If a row is of another schema (the preference configuration of the same data set, for example).
    """
    rule = PairingRule(min_margin, max_pairs, seed=seed)
    collected = Collector()

    def read(numbered: tuple[int, Mapping[str, Any]]) -> tuple[int, str, str, list[float | None]]:
        index, row = numbered
        where = f"Row {index} of HelpSteer2"
        scores = [number_field(row, attribute, where) for attribute in ATTRIBUTES]
        return index, text_field(row, "prompt", where), text_field(row, "response", where), scores

    for prompt, grouped in groupby(map(read, enumerate(rows)), key=lambda entry: entry[1]):
        group = list(grouped)
        messages = _turns(prompt)
        if not prompt.strip() or messages is None:
            collected.drop("unreadable_turns" if prompt.strip() else "empty_prompt", count=len(group))
            continue
        scores = {name: [row[3][column] for row in group] for column, name in enumerate(ATTRIBUTES)}
        for attribute, better, worse in pairs_of_prompt(scores, prompt, rule, collected):
            identity = f"helpsteer2-{group[better][0]}-{group[worse][0]}"
            collected.keep(identity, messages, group[better][2], group[worse][2], attribute)
    return collected.done()


def convert_helpsteer3(
    rows: Iterable[Mapping[str, Any]], *, attribute: Literal["domain", "language"] = "domain"
) -> Converted:
    """
    Pairs from rows of the configuration `preference` of `nvidia/HelpSteer3` (CC-BY-4.0).

    A row has `domain`, `language`, `context` (messages, the last one of the user), `response1`, `response2` and
    `overall_preference` from -3 (response 1 much better) to 3 (response 2 much better).

    The ids of pairs name the row.

    Dropped: rows without a preference (`no_preference`: 0 or null), without a prompt (`empty_prompt`), whose context
    does not alternate and end with the user (`unreadable_turns`), that name no domain or language (`no_attribute`);
    pairs with an empty response (`empty_response`) or the same response twice (`identical_responses`).

    Args:
        attribute (`str`, *optional*, defaults to `"domain"`):
            Which column is the attribute: `"domain"` (general, code, stem, multilingual) or `"language"`.
    """
    require_known("attribute column of HelpSteer3", [attribute], ["domain", "language"])
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of HelpSteer3"
        name = text_field(row, attribute, where)
        context = list_field(row, "context", where)
        responses = text_field(row, "response1", where), text_field(row, "response2", where)
        preference = number_field(row, "overall_preference", where)
        if preference is not None and abs(preference) > 3:
            raise ValueError(f"{where}: `overall_preference` must be from -3 to 3, got {preference:g}.")
        messages = _context(context, where)
        if not name.strip():
            collected.drop("no_attribute")
        elif messages is None:
            collected.drop("unreadable_turns" if context else "empty_prompt", name)
        elif not preference:
            collected.drop("no_preference", name)
        else:
            chosen, rejected = responses if preference < 0 else responses[::-1]
            collected.keep(f"helpsteer3-{index}", messages, chosen, rejected, name)
    return collected.done()


def _context(context: list[Any], where: str) -> list[Message] | None:
    """Messages of a HelpSteer3 prompt; raises `ValueError` if an entry is no message with `role` and `content`."""
    messages = []
    for number, message in enumerate(context):
        named = f"{where}, message {number}"
        role, content = field(message, "role", named), text_field(message, "content", named)
        messages.append({"role": role, "content": content})
    return conversation(messages)


def _turns(prompt: str) -> list[Message] | None:
    """The turns of a HelpSteer2 prompt; `None` if they do not alternate, are empty or do not end with the user."""
    first, *rest = _TURN.split(prompt)
    messages = [{"role": "user", "content": first}]
    messages += [
        {"role": role.lower(), "content": content} for role, content in zip(rest[::2], rest[1::2], strict=True)
    ]
    return None if any("<extra_id_1>" in message["content"] for message in messages) else conversation(messages)
