"""hh-rlhf: two transcripts with one common beginning; the subset is the attribute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.rows import Collector, Converted, Message, conversation, text_field


SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")

_LAST = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def convert(rows: Iterable[Mapping[str, Any]], *, subset: str) -> Converted:
    r"""
    Pairs from rows of one subset of `Anthropic/hh-rlhf` (MIT).

    A row has `chosen` and `rejected`: transcripts of turns that begin with "\n\nHuman:" and "\n\nAssistant:". The
    prompt is what comes before the last "\n\nAssistant:", as messages. The published rows do not say which subset
    they are from: it is the folder they lie in, and becomes the attribute. `red-team-attempts` has another schema and
    no preferences.

    The ids of pairs name subset and row.

    Dropped: rows whose two transcripts differ before the last answer (`prompts_differ`), whose turns do not alternate
    from the human to the human, or are empty (`unreadable_turns`), that have no prompt (`empty_prompt`), pairs with an
    empty response (`empty_response`) or the same response twice (`identical_responses`).

    Args:
        subset (`str`):
            Name of the subset, such as `"helpful-base"`.
    """
    if not isinstance(subset, str) or not subset.strip():
        raise ValueError(f"`subset` names the attribute of the rows, for example 'helpful-base'; got {subset!r}.")
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of hh-rlhf"
        chosen_prompt, chosen_mark, chosen = text_field(row, "chosen", where).rpartition(_LAST)
        rejected_prompt, rejected_mark, rejected = text_field(row, "rejected", where).rpartition(_LAST)
        messages = _turns(chosen_prompt)
        if not (chosen_mark and rejected_mark):
            collected.drop("unreadable_turns", subset)
        elif chosen_prompt != rejected_prompt:
            collected.drop("prompts_differ", subset)
        elif not chosen_prompt.strip():
            collected.drop("empty_prompt", subset)
        elif messages is None or _TURN.search(chosen) or _TURN.search(rejected):
            collected.drop("unreadable_turns", subset)
        else:
            collected.keep(f"hh_rlhf-{subset}-{index}", messages, chosen.strip(), rejected.strip(), subset)
    return collected.done()


def _turns(transcript: str) -> list[Message] | None:
    """The turns of a transcript; `None` if it begins otherwise, they do not alternate, or one is empty."""
    before, *rest = _TURN.split(transcript)
    messages = [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    ]
    begins = not before.strip() and rest[:1] == ["Human"]
    return conversation(messages) if begins else None
