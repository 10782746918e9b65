"""Records of Argilla (2.x): comparisons, rankings or ratings of responses; the question is the attribute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.converters.annotated import TIES, Annotated, pairs_of_annotated
from fairpo_trl.preferences.rows import Converted, as_number, field


def convert(rows: Iterable[Mapping[str, Any]]) -> Converted:
    """
    Pairs of each question from records as `dataset.records.to_json` writes them.

    A record has `fields` (a prompt: `prompt`, `instruction`, `question` or `input`; every other field that an answer
    names, or all others, are responses) and `responses`: question -> answers of people, each with `value` and perhaps
    `status` (only submitted ones count). An answer names the better field (`"response_1"`) or ranks fields (a list of
    `value` and `rank`); the majority of the people decides. If a record has one response, answers are its ratings, and
    pairs are made of the mean ratings of the records with the same prompt. Suggestions are not read.

    Dropped: records without a prompt (`empty_prompt`), comparisons without a preference (`no_preference`: a tie, or
    nobody answered), pairs with an empty response (`empty_response`) or the same one twice (`identical_responses`),
    and for ratings what `pairs_from_scores` drops.

    Raises:
        ValueError: If a record is of another form, or an answer names no field; names the record.
    """
    return pairs_of_annotated((_read(row, index) for index, row in enumerate(rows)), "argilla")


def _read(row: Mapping[str, Any], index: int) -> Annotated:
    where = f"Record {index} of the Argilla export"
    fields, responses = field(row, "fields", where), field(row, "responses", where)
    if not isinstance(fields, Mapping) or not isinstance(responses, Mapping):
        raise ValueError(f"{where}: `fields` and `responses` must be objects, as `records.to_json` writes them.")
    record = Annotated.of(row.get("id", index), fields, where)
    for question, answers in responses.items() if record.usable else ():
        values = [answer.get("value") for answer in _submitted(answers)]
        if len(record.texts) == 1:
            numbers = map(as_number, values)
            record.ratings[question] = [number for number in numbers if number is not None]
        else:
            place = f"{where}, question {question!r}"
            record.votes[question] = [vote for value in values for vote in _order(value, list(record.texts), place)]
    return record


def _submitted(answers: Any) -> list[Mapping[str, Any]]:
    """The answers of people that count."""
    found = answers if isinstance(answers, list) else []
    return [a for a in found if isinstance(a, Mapping) and a.get("status", "submitted") == "submitted"]


def _order(value: Any, names: list[str], where: str) -> list[tuple[str, str]]:
    """(better, worse) of every two fields that an answer tells apart."""
    if isinstance(value, list):
        ranks = {str(entry.get("value")): entry.get("rank") for entry in value if isinstance(entry, Mapping)}
        unknown = [name for name in ranks if name not in names]
        numbers = {name: number for name, rank in ranks.items() if (number := as_number(rank)) is not None}
        if unknown or len(numbers) < len(ranks):
            raise ValueError(f"{where}: a ranking must give fields and ranks, got {shortened(value)}.")
        pairs = combinations(numbers, 2)
        return [(a, b) if numbers[a] < numbers[b] else (b, a) for a, b in pairs if numbers[a] != numbers[b]]
    text = str(value).strip()
    if text.casefold() in TIES:
        return []
    if text not in names:
        raise ValueError(
            f"{where}: the answer {shortened(value)} names none of the fields {names}. Write the name of the better "
            "field into the answers."
        )
    return [(text, other) for other in names if other != text]
