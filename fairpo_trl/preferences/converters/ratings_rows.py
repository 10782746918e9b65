"""Responses with scores, from published files or exports -> pairs of each attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairpo_trl.preferences.pairing import Pairing, check_pairing, pairs_of_prompt
from fairpo_trl.preferences.rows import Collector, Converted, user


def pairs_of_rated(
    rated: Sequence[tuple[str, str, dict[str, float]]],
    name: str,
    collected: Collector,
    *,
    min_margin: float = 0.0,
    max_pairs: int | None = None,
    pairing: Pairing = "each",
    tolerance: float = 0.0,
    seed: int = 0,
) -> Converted:
    """
    Conversational pairs from rated responses.

    Args:
        rated (`Sequence[tuple[str, str, dict[str, float]]]`):
            Prompt, response and attribute -> score (left out where there is none).
        name (`str`):
            Begins the ids of the pairs.
        collected (`Collector`):
            What was kept and dropped so far.
        min_margin, max_pairs, pairing, tolerance, seed:
            As in [`~fairpo_trl.preferences.pairing.pairs_of_prompt`].

    Returns:
        `Converted`: the pairs of all attributes; repeated responses to one prompt count once, with their mean score.
    """
    check_pairing(min_margin, max_pairs, pairing, tolerance)
    scores_of: dict[str, dict[str, list[dict[str, float]]]] = {}
    for prompt, response, scores in rated:
        if not response.strip():
            collected.drop("empty_response")
            continue
        scores_of.setdefault(prompt, {}).setdefault(response.strip(), []).append(scores)
    attributes = list(dict.fromkeys(attribute for *_, scores in rated for attribute in scores))
    for number, (prompt, found) in enumerate(scores_of.items()):
        responses = list(found)
        means = {name: [_mean(found[text], name) for text in responses] for name in attributes}
        for attribute in attributes:
            pairs, dropped = pairs_of_prompt(
                means,
                attribute,
                min_margin=min_margin,
                max_pairs=max_pairs,
                pairing=pairing,
                tolerance=tolerance,
                key=f"{seed}|{attribute}|{prompt}",
            )
            collected.drop_all(dropped, attribute)
            for better, worse in pairs:
                identity = f"{name}-{number}-{better}-{worse}"
                collected.keep(identity, user(prompt), responses[better], responses[worse], attribute)
    return collected.done()


def _mean(given: list[dict[str, Any]], attribute: str) -> float | None:
    known = [scores[attribute] for scores in given if attribute in scores]
    return sum(known) / len(known) if known else None
