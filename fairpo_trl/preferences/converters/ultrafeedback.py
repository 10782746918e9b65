"""UltraFeedback: up to four responses to a prompt, each rated by GPT-4 on four aspects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.pairing import PairingRule, pairs_of_prompt
from fairpo_trl.preferences.rows import Collector, Converted, as_number, field, list_field, text_field, user


ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def convert(
    rows: Iterable[Mapping[str, Any]], *, min_margin: float = 0.0, max_pairs: int | None = 1, seed: int = 0
) -> Converted:
    """
    Pairs of each aspect from rows of `openbmb/UltraFeedback` (MIT).

    A row has `instruction` and `completions`, a list of `{"response": str, "annotations": {aspect: {"Rating": str}}}`
    with ratings "1" to "5" or "N/A". The other columns are not read: the overall score is no aspect, and the system
    prompt that a response was made with differs between the responses to one prompt. Rows whose `source` is
    `truthful_qa` overlap that benchmark: filter them out if you evaluate on it.

    The ids of pairs name the row and the positions of the two responses in it.

    Dropped: responses without a rating for the aspect (`no_score`: "N/A", or no number) or without text
    (`empty_response`), aspects with fewer than two rated responses (`single_response`), pairs with equal ratings
    (`equal`), below the margin (`below_margin`) or beyond the number asked for (`over_limit`), pairs of the same text
    (`identical_responses`), rows without a prompt (`empty_prompt`).

    Args:
        min_margin, max_pairs, seed:
            As in [`pairs_from_scores`], per prompt and aspect; the seed chooses among equal margins.
    """
    rule = PairingRule(min_margin, max_pairs, seed=seed)
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of UltraFeedback"
        prompt = text_field(row, "instruction", where)
        completions = list_field(row, "completions", where)
        responses = [text_field(c, "response", f"{where}, completion {k}") for k, c in enumerate(completions)]
        if not prompt.strip():
            collected.drop("empty_prompt")
            continue
        written = [k for k, response in enumerate(responses) if response.strip()]
        collected.drop("empty_response", count=len(responses) - len(written))
        ratings = {
            aspect: [_rating(completions[k], aspect, f"{where}, completion {k}") for k in written]
            for aspect in ASPECTS
        }
        for aspect, better, worse in pairs_of_prompt(ratings, prompt, rule, collected):
            chosen, rejected = written[better], written[worse]
            identity = f"ultrafeedback-{index}-{chosen}-{rejected}"
            collected.keep(identity, user(prompt), responses[chosen], responses[rejected], aspect)
    return collected.done()


def _rating(completion: Mapping[str, Any], aspect: str, where: str) -> float | None:
    """The rating of one completion for one aspect, `None` where there is none that can be read."""
    annotations = field(completion, "annotations", where)
    annotation = field(annotations, aspect, f"{where}, annotations") if annotations is not None else None
    if annotation is None:
        return None
    rating = field(annotation, "Rating", f"{where}, annotation {aspect!r}")
    if not isinstance(rating, str):
        return as_number(rating)
    try:
        return as_number(float(rating))
    except ValueError:  # "N/A", or text of the model that rated
        return None
