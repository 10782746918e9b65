"""TruthfulQA's judgements: whether an answer is true, and whether it is informative."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.pairing import Pairing, PairingRule, pairs_of_rated
from fairpo_trl.preferences.rows import Collector, Converted, number_field, text_field


ATTRIBUTES = ("truthful", "informative")
_QUESTION = re.compile(r"\s*Q:\s*(?P<question>.*?)\s*\n+A:\s*(?P<answer>.*?)\s*\n+(?P<asked>True|Helpful):\s*", re.S)
_ASKED = {"True": "truthful", "Helpful": "informative"}


def convert(
    rows: Iterable[Mapping[str, Any]],
    *,
    min_margin: float = 0.0,
    max_pairs: int | None = 4,
    pairing: Pairing = "each",
    tolerance: float = 0.0,
    seed: int = 0,
) -> Converted:
    r"""
    Pairs of `truthful` and `informative` from the published fine-tuning files of TruthfulQA (Apache-2.0).

    Either the two published files as one (`finetune_truth.jsonl`, `finetune_info.jsonl`: `prompt` is
    "Q: ...\nA: ...\nTrue:" or "...Helpful:", `completion` is " yes" or " no"), or the same judgements joined:
    `prompt`, `response`, `truthful` and `informative` (0 or 1, or a mean of several). Answers to the same question are
    compared; most pairs that differ in both attributes conflict, as "I have no comment" is true and says nothing.

    Dropped: rows without a question (`empty_prompt`) or whose text cannot be read (`unreadable_turns`), and what
    `pairs_from_scores` drops: `equal`, `single_response`, `no_score`, `below_margin`, `over_limit`, `inconsistent`.

    Args:
        min_margin, pairing, tolerance, seed:
            As in [`pairs_from_ratings`]; the margin is that of two judgements.
        max_pairs (`int`, *optional*, defaults to `4`):
            Pairs per question and attribute at most, as there are some twenty answers to a question; `None` for all.
    """
    rule, collected = PairingRule(min_margin, max_pairs, pairing, tolerance, seed), Collector()
    rated: list[tuple[str, str, dict[str, float]]] = []
    for index, row in enumerate(rows):
        where = f"Row {index} of TruthfulQA"
        prompt = text_field(row, "prompt", where)
        if "completion" in row:
            found = _QUESTION.fullmatch(prompt)
            answer = text_field(row, "completion", where).strip().casefold()
            if found is None or answer not in ("yes", "no"):
                collected.drop("unreadable_turns")
                continue
            question, response = found["question"], found["answer"]
            scores = {_ASKED[found["asked"]]: float(answer == "yes")}
        else:
            question, response = prompt, text_field(row, "response", where)
            numbers = {name: number_field(row, name, where) for name in ATTRIBUTES}
            scores = {name: number for name, number in numbers.items() if number is not None}
        if not question.strip():
            collected.drop("empty_prompt")
        else:
            rated.append((question.strip(), response, scores))
    return pairs_of_rated(rated, "truthfulqa", rule, collected)
