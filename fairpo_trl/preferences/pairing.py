"""Which of several scored responses are compared with each other, and the pairs of each attribute that come of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from fairpo_trl.core.options import is_number
from fairpo_trl.preferences.rows import Collector, Converted, user


Pairing = Literal["each", "consistent"]

_ROUNDING = 1e-9
"""Margins such as .3 - .1 miss their decimal value by less than this."""


@dataclass(frozen=True)
class PairingRule:
    """
    How the scored responses to one prompt become pairs.

    Args:
        min_margin, max_pairs:
            As in [`pairs_from_scores`], for each attribute.
        pairing (`str`, *optional*, defaults to `"each"`):
            `"each"` looks at one attribute alone; `"consistent"` keeps the pairs whose winner is not worse on any
            other one (Pareto-consistent pairs, arXiv 2504.11337).
        tolerance (`float`, *optional*, defaults to `0.0`):
            How much worse the winner may be there.
        seed (`int`, *optional*, defaults to `0`):
            Chooses among equal margins.

    Raises:
        ValueError: For a margin, number of pairs, way of pairing or tolerance that makes no sense.
    """

    min_margin: float = 0.0
    max_pairs: int | None = None
    pairing: Pairing = "each"
    tolerance: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        most = self.max_pairs
        if self.pairing not in get_args(Pairing):
            raise ValueError(f"`pairing` must be 'each' or 'consistent', got {self.pairing!r}.")
        if not (is_number(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"The tolerance of a pairing must be 0 or more, got {self.tolerance!r}.")
        if self.tolerance and self.pairing == "each":
            raise ValueError(
                "A tolerance has no effect with pairing='each', which looks at one attribute: set "
                "pairing='consistent' (`--pairing consistent`)."
            )
        if not (is_number(self.min_margin) and self.min_margin >= 0):
            raise ValueError(f"`min_margin` must be 0 or more, got {self.min_margin!r}.")
        if most is not None and not (is_number(most) and most >= 1 and most == int(most)):
            raise ValueError(f"The number of pairs per prompt must be 1 or more, or None for all, got {most!r}.")


def pairs_from_scores(
    scores: Sequence[float | None],
    *,
    min_margin: float = 0.0,
    max_pairs: int | None = 1,
    key: str = "",
    others: Sequence[Sequence[float | None]] = (),
    tolerance: float = 0.0,
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """
    Pairs of responses to one prompt with different scores: the widest margins first, equal margins in random order.

    Args:
        scores (`Sequence[float | None]`):
            Score of each response; `None` where there is none.
        min_margin (`float`, *optional*, defaults to `0.0`):
            Least difference of the two scores. Equal scores never make a pair.
        max_pairs (`int`, *optional*, defaults to `1`):
            How many pairs at most; `None` for all.
        key (`str`, *optional*, defaults to `""`):
            Decides the random order. With a seed, the prompt and the attribute in it, the pairs of one prompt do not
            depend on what other data there is.
        others (`Sequence[Sequence[float | None]]`, *optional*):
            Scores of other attributes: a pair is dropped as `inconsistent` if its winner is worse on one of them by
            more than `tolerance`. A missing score says nothing.
        tolerance (`float`, *optional*, defaults to `0.0`):
            How much worse the winner may be on another attribute, in units of the scores.

    Returns:
        `tuple[list[tuple[int, int]], Counter[str]]`: (position of the better response, of the worse one), and how
        many responses or pairs were dropped for which reason (see `REASONS`).
    """
    dropped = Counter(no_score=sum(score is None for score in scores))
    known = [(position, score) for position, score in enumerate(scores) if score is not None]
    if len(known) < 2:
        dropped["single_response"] += 1
        return [], +dropped
    pairs: list[tuple[float, int, int]] = []
    for (i, first), (j, second) in combinations(known, 2):
        margin = abs(first - second)
        if margin == 0:
            dropped["equal"] += 1
        elif margin < min_margin - _ROUNDING:
            dropped["below_margin"] += 1
        elif not _consistent(*((i, j) if first > second else (j, i)), others, tolerance):
            dropped["inconsistent"] += 1
        else:
            pairs.append((margin, i, j) if first > second else (margin, j, i))
    if max_pairs is not None and len(pairs) > max_pairs:
        random.Random(key).shuffle(pairs)
        pairs.sort(key=lambda pair: -round(pair[0] / _ROUNDING))
        dropped["over_limit"] += len(pairs) - max_pairs
        pairs = pairs[:max_pairs]
    return [(better, worse) for _, better, worse in pairs], +dropped


def pairs_of_prompt(
    scores: Mapping[str, Sequence[float | None]], prompt: str, rule: PairingRule, collected: Collector
) -> Iterator[tuple[str, int, int]]:
    """
    The pairs of every attribute among the responses to one prompt, see [`pairs_from_scores`]; `collected` counts what
    is dropped.

    Args:
        scores (`Mapping[str, Sequence[float | None]]`):
            Attribute -> score of each response.
        prompt (`str`):
            What they answer; with the seed it decides among equal margins.

    Returns:
        `Iterator[tuple[str, int, int]]`: attribute, position of the better response, of the worse one.
    """
    for name, own in scores.items():
        pairs, dropped = pairs_from_scores(
            own,
            min_margin=rule.min_margin,
            max_pairs=rule.max_pairs,
            key=f"{rule.seed}|{name}|{prompt}",
            others=[scores[other] for other in scores if other != name] if rule.pairing == "consistent" else (),
            tolerance=rule.tolerance,
        )
        for reason, count in dropped.items():
            collected.drop(reason, name, count)
        yield from ((name, better, worse) for better, worse in pairs)


def pairs_of_rated(
    rated: Sequence[tuple[str, str, dict[str, float]]], name: str, rule: PairingRule, collected: Collector
) -> Converted:
    """
    Conversational pairs from rated responses, together with what was `collected` so far; their ids begin with `name`.
    Repeated responses to one prompt count once, with their mean score.

    Args:
        rated (`Sequence[tuple[str, str, dict[str, float]]]`):
            Prompt, response and attribute -> score (left out where there is none).
    """
    scores_of: dict[str, dict[str, list[dict[str, float]]]] = {}
    for prompt, response, scores in rated:
        if not response.strip():
            collected.drop("empty_response")
            continue
        scores_of.setdefault(prompt, {}).setdefault(response.strip(), []).append(scores)
    attributes = list(dict.fromkeys(attribute for *_, scores in rated for attribute in scores))
    for number, (prompt, found) in enumerate(scores_of.items()):
        responses = list(found)
        means = {attribute: [_mean(found[text], attribute) for text in responses] for attribute in attributes}
        for attribute, better, worse in pairs_of_prompt(means, prompt, rule, collected):
            identity = f"{name}-{number}-{better}-{worse}"
            collected.keep(identity, user(prompt), responses[better], responses[worse], attribute)
    return collected.done()


def _mean(given: list[dict[str, float]], attribute: str) -> float | None:
    known = [scores[attribute] for scores in given if attribute in scores]
    return sum(known) / len(known) if known else None


def _consistent(better: int, worse: int, others: Sequence[Sequence[float | None]], tolerance: float) -> bool:
    """Whether the winner is not worse on any other attribute, by more than the tolerance."""
    for values in others:
        won, lost = values[better], values[worse]
        if won is not None and lost is not None and won < lost - tolerance - _ROUNDING:
            return False
    return True
