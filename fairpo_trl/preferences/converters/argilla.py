"""Records of Argilla (2.x): comparisons, rankings or ratings of responses; the question is the attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.converters.ratings_rows import pairs_of_rated
from fairpo_trl.preferences.rows import Collector, Converted, as_number, field


_PROMPTS = ("prompt", "instruction", "question", "input")


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

    Args:
        rows (`Iterable[Mapping[str, Any]]`):
            The records.

    Returns:
        `Converted`: the pairs.

    Raises:
        ValueError: If a record is of another form, or an answer names no field; names the record.
    """
    collected = Collector()
    rated: list[tuple[str, str, dict[str, float]]] = []
    for index, row in enumerate(rows):
        where = f"Record {index} of the Argilla export"
        fields, responses = field(row, "fields", where), field(row, "responses", where)
        if not isinstance(fields, Mapping) or not isinstance(responses, Mapping):
            raise ValueError(f"{where}: `fields` and `responses` must be objects, as `records.to_json` writes them.")
        prompt = next((fields[name] for name in _PROMPTS if fields.get(name)), None)
        texts = {name: value for name, value in fields.items() if name not in _PROMPTS and isinstance(value, str)}
        messages = _prompt(prompt)
        if messages is None or not texts:
            collected.drop("empty_prompt")
            continue
        if len(texts) == 1:
            (response,) = texts.values()
            scores = {name: _mean(answers, where) for name, answers in responses.items()}
            rated.append((str(prompt), response, {name: s for name, s in scores.items() if s is not None}))
            continue
        for question, answers in responses.items():
            wins: Counter[tuple[str, str]] = Counter()
            for answer in _submitted(answers):
                for better, worse in _order(answer.get("value"), list(texts), f"{where}, question {question!r}"):
                    wins[better, worse] += 1
            clear = [(a, b) for (a, b), count in wins.items() if count > wins[b, a]]
            if not clear:
                collected.drop("no_preference", question)
            for better, worse in clear:
                identity = f"argilla-{row.get('id', index)}-{better}-{worse}"
                collected.keep(identity, messages, texts[better], texts[worse], question)
    return pairs_of_rated(rated, "argilla", collected)


def _prompt(value: Any) -> list[dict[str, str]] | None:
    if isinstance(value, str) and value.strip():
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and all(isinstance(m, Mapping) and "content" in m for m in value):
        return [dict(message) for message in value]
    return None


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
    if text.casefold() in ("tie", "none", "equal", "both", "neither"):
        return []
    if text not in names:
        raise ValueError(
            f"{where}: the answer {shortened(value)} names none of the fields {names}. Write the name of the better "
            "field into the answers."
        )
    return [(text, other) for other in names if other != text]


def _mean(answers: Any, where: str) -> float | None:
    """The mean rating of one question; `None` where nobody answered with a number."""
    numbers = [as_number(answer.get("value")) for answer in _submitted(answers)]
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None
