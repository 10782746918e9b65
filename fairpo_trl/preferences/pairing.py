"""Which of several scored responses are compared with each other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from fairpo_trl.core.options import is_number


_ROUNDING = 1e-9
"""Margins such as .3 - .1 miss their decimal value by less than this."""


def pairs_from_scores(
    scores: Sequence[float | None], *, min_margin: float = 0.0, max_pairs: int | None = 1, key: str = ""
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
        else:
            pairs.append((margin, i, j) if first > second else (margin, j, i))
    if max_pairs is not None and len(pairs) > max_pairs:
        random.Random(key).shuffle(pairs)
        pairs.sort(key=lambda pair: -round(pair[0] / _ROUNDING))
        dropped["over_limit"] += len(pairs) - max_pairs
        pairs = pairs[:max_pairs]
    return [(better, worse) for _, better, worse in pairs], +dropped


def check_pairing(min_margin: float, max_pairs: int | None) -> None:
    """Raises `ValueError` for a margin or number of pairs that makes no sense."""
    if not (is_number(min_margin) and min_margin >= 0):
        raise ValueError(f"`min_margin` must be 0 or more, got {min_margin!r}.")
    if max_pairs is not None and not (is_number(max_pairs) and max_pairs >= 1 and max_pairs == int(max_pairs)):
        raise ValueError(f"The number of pairs per prompt must be 1 or more, or None for all, got {max_pairs!r}.")
