"""Records of an annotation tool -> pairs: what Argilla and Label Studio have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairpo_trl.preferences.pairing import PairingRule, pairs_of_rated
from fairpo_trl.preferences.rows import Collector, Converted, Message, user


PROMPT_FIELDS = ("prompt", "instruction", "question", "input")
"""Fields of a record that may be its prompt; the first that is filled."""

TIES = ("tie", "equal", "both", "neither", "none")
"""Answers that prefer nothing."""


@dataclass
class Annotated:
    """
    What people said of the responses of one record.

    Attributes:
        identity (`str`): Of the record.
        prompt (`list[dict[str, str]]`): Messages; empty if there is no prompt.
        texts (`dict[str, str]`): Field -> response.
        votes (`dict[str, list[tuple[str, str]]]`): Attribute -> (better field, worse field), once for each person who
            said so; an attribute that was asked for and without a preference has an empty list.
        ratings (`dict[str, list[float]]`): Attribute -> numbers for the only response.
    """

    identity: str
    prompt: list[Message]
    texts: dict[str, str]
    votes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ratings: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, identity: Any, fields: Mapping[str, Any], where: str) -> Annotated:
        """
        A record of which nobody has said anything yet.

        Of its `fields`, one of [`PROMPT_FIELDS`] is the prompt, text or messages, and the other texts are responses;
        `where` names the record in errors.

        Raises:
            ValueError: If a single response, which is to be rated, has a prompt of several messages.
        """
        prompt = next((found for name in PROMPT_FIELDS if (found := _messages(fields.get(name)))), [])
        texts = {name: value for name, value in fields.items() if name not in PROMPT_FIELDS and isinstance(value, str)}
        if len(texts) == 1 and len(prompt) > 1:
            raise ValueError(
                f"{where}: responses with ratings need a prompt of one turn, and this one has {len(prompt)}: put the "
                "two responses of a prompt into one record and compare them."
            )
        return cls(str(identity), prompt, texts)

    @property
    def usable(self) -> bool:
        """Whether there is a prompt and something that was written after it."""
        return bool(self.prompt and self.texts)


def pairs_of_annotated(records: Iterable[Annotated], name: str) -> Converted:
    """
    The pairs of each attribute, with ids that begin with `name`: the majority decides comparisons, the means decide
    ratings.

    Dropped: records without a prompt or responses (`empty_prompt`), comparisons without a preference
    (`no_preference`), and what [`Collector.keep`] and `pairs_of_rated` drop.
    """
    collected = Collector()
    rated: list[tuple[str, str, dict[str, float]]] = []
    for record in records:
        if not record.usable:
            collected.drop("empty_prompt")
            continue
        if len(record.texts) == 1:
            (response,) = record.texts.values()
            means = {key: sum(given) / len(given) for key, given in record.ratings.items() if given}
            rated.append((record.prompt[0]["content"], response, means))
            continue
        for attribute, votes in record.votes.items():
            wins = Counter(votes)
            clear = [(better, worse) for (better, worse), count in wins.items() if count > wins[worse, better]]
            if not clear:
                collected.drop("no_preference", attribute)
            for better, worse in clear:
                identity = f"{name}-{record.identity}-{better}-{worse}"
                collected.keep(identity, record.prompt, record.texts[better], record.texts[worse], attribute)
    return pairs_of_rated(rated, name, PairingRule(), collected)


def _messages(value: Any) -> list[Message]:
    if isinstance(value, str) and value.strip():
        return user(value)
    if isinstance(value, list) and value and all(isinstance(m, Mapping) and "content" in m for m in value):
        return [dict(message) for message in value]
    return []
