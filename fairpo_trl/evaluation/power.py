"""How many prompts a margin needs: the power of the one-sided test, from the spread that was seen."""

from __future__ import annotations

import bisect
import functools
import math

from scipy.special import ndtr, stdtrit


MOST_PROMPTS = 1_000_000
"""Above this number of prompts the answer is "none"."""


def chance_to_pass(
    prompts: int,
    spread: float,
    *,
    difference: float = 0.0,
    margin: float = 0.05,
    level: float = 0.05,
    lowest: float | None = -1.0,
) -> float:
    """
    Chance that one held measure passes, by the normal approximation of the bound `t`.

    For several measures that must all pass it is an upper limit.

    Args:
        prompts (`int`):
            Number of prompts, at least 2.
        spread (`float`):
            Standard deviation of the differences over prompts.
        difference (`float`, *optional*, defaults to `0.0`):
            The true mean difference to the reference.
        margin, level (`float`, *optional*, defaults to `0.05`):
            What it may fall by, and the level of the test.
        lowest (`float`, *optional*, defaults to `-1.0`):
            Smallest difference there can be, of which the bound adds one example; `None` if there is none.

    Raises:
        ValueError: If there are fewer than two prompts or the spread is negative.
    """
    if prompts < 2 or not spread >= 0:
        raise ValueError(f"A bound needs two prompts and a spread of at least 0, got {prompts} and {spread}.")
    n, mean, variance = prompts, difference, spread**2
    if lowest is not None:  # the additional example
        mean = (prompts * difference + lowest) / (prompts + 1)
        variance += (difference - lowest) ** 2 / (prompts + 1)
        n = prompts + 1
    error = math.sqrt(variance / n)
    distance = mean + margin
    if error == 0:
        return float(distance > 0)
    return float(ndtr(distance / error - stdtrit(n - 1, 1 - level)))


def prompts_needed(
    spread: float,
    *,
    difference: float = 0.0,
    margin: float = 0.05,
    level: float = 0.05,
    power: float = 0.8,
    lowest: float | None = -1.0,
) -> int | None:
    """
    Fewest prompts with which a held measure passes with the chance `power`.

    Args:
        spread, difference, margin, level, lowest:
            As in [`chance_to_pass`].
        power (`float`, *optional*, defaults to `0.8`):
            Between 0 and 1.

    Returns:
        `int`, *optional*: `None` if the difference itself lies at or below minus the margin (no number of
        prompts helps), or a million would not do.

    Example:
        >>> prompts_needed(0.4, margin=0.05)
        441
    """
    if not 0 < power < 1:
        raise ValueError(f"`power` must be between 0 and 1, got {power}.")
    if difference <= -margin:
        return None

    numbers = range(2, MOST_PROMPTS + 1)
    chance = functools.partial(
        chance_to_pass, spread=spread, difference=difference, margin=margin, level=level, lowest=lowest
    )
    place = bisect.bisect_left(numbers, power, key=chance)  # it rises with the number
    return numbers[place] if place < len(numbers) else None
