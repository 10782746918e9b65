"""Which of several scored responses are compared with each other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args

from fairpo_trl.core.options import is_number


Pairing = Literal["each", "consistent"]

_ROUNDING = 1e-9
"""Margins such as .3 - .1 miss their decimal value by less than this."""


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
    scores: Mapping[str, Sequence[float | None]],
    attribute: str,
    *,
    min_margin: float,
    max_pairs: int | None,
    pairing: Pairing,
    tolerance: float,
    key: str,
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """
    The pairs of one attribute among the responses to one prompt (see [`pairs_from_scores`]).

    Args:
        scores (`Mapping[str, Sequence[float | None]]`):
            Attribute -> score of each response.
        attribute (`str`):
            The one that ranks them.
        min_margin, max_pairs, key:
            As in [`pairs_from_scores`].
        pairing (`str`):
            `"each"` looks at this attribute alone; `"consistent"` keeps the pairs whose winner is not worse on any
            other one (Pareto-consistent pairs, arXiv 2504.11337).
        tolerance (`float`):
            How much worse the winner may be there.
    """
    others = [values for name, values in scores.items() if name != attribute] if pairing == "consistent" else ()
    return pairs_from_scores(
        scores[attribute], min_margin=min_margin, max_pairs=max_pairs, key=key, others=others, tolerance=tolerance
    )


def _consistent(better: int, worse: int, others: Sequence[Sequence[float | None]], tolerance: float) -> bool:
    """Whether the winner is not worse on any other attribute, by more than the tolerance."""
    for values in others:
        won, lost = values[better], values[worse]
        if won is not None and lost is not None and won < lost - tolerance - _ROUNDING:
            return False
    return True


def check_pairing(min_margin: float, max_pairs: int | None, pairing: str = "each", tolerance: float = 0.0) -> None:
    """Raises `ValueError` for a margin, number of pairs, way of pairing or tolerance that makes no sense."""
    if pairing not in get_args(Pairing):
        raise ValueError(f"`pairing` must be 'each' or 'consistent', got {pairing!r}.")
    if not (is_number(tolerance) and tolerance >= 0):
        raise ValueError(f"The tolerance of a pairing must be 0 or more, got {tolerance!r}.")
    if tolerance and pairing == "each":
        raise ValueError(
            "A tolerance has no effect with pairing='each', which looks at one attribute: set pairing='consistent' "
            "(`--pairing consistent`)."
        )
    if not (is_number(min_margin) and min_margin >= 0):
        raise ValueError(f"`min_margin` must be 0 or more, got {min_margin!r}.")
    if max_pairs is not None and not (is_number(max_pairs) and max_pairs >= 1 and max_pairs == int(max_pairs)):
        raise ValueError(f"The number of pairs per prompt must be 1 or more, or None for all, got {max_pairs!r}.")
