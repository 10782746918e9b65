"""One-sided lower confidence bounds of a mean of paired differences, each with what it assumes.

A bound at `level` 0.05 lies above the true mean in at most 5 % of samples. Four kinds:

- `t`: Student's bound. It assumes independent examples and a mean that is nearly normal, which holds for hundreds of
  prompts unless losses are rare and large. So where the smallest possible value is known, one more example of that
  value is added first: without it a violation that consists of rare losses passes in up to 12 % of samples instead of
  5 % (`benchmarks/selection_power.py`).
- `bootstrap`: a percentile of resampled means, with the level corrected for the percentile's narrowness (Hesterberg,
  2015, "What teachers should know about the bootstrap", section 5.3), and with the same additional example.
- `betting`: holds at every number of examples and for every distribution on a known interval (Waudby-Smith and Ramdas,
  2024, "Estimating means of bounded random variables by betting"). It assumes independent examples and the interval,
  and needs about a quarter more examples.
- `bernstein`: the empirical Bernstein bound of the same paper (its theorem 2, with predictable weights). It assumes
  the same and is wider than `betting`; its formula is a sum that can be checked by hand.

What is no mean over examples, such as average precision, has a bootstrap only ([`resampled_bound`]).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit


Bound: TypeAlias = Literal["t", "bootstrap", "betting", "bernstein"]

ASSUMPTIONS: dict[Bound, str] = {
    "t": "Student's t bounds over independent {unit}, approximate as all that rely on nearly normal means",
    "bootstrap": "paired bootstrap bounds over independent {unit}, approximate as every bootstrap",
    "betting": "betting bounds, valid at every number of independent {unit}",
    "bernstein": "empirical Bernstein bounds, valid at every number of independent {unit}",
}
"""What is said of a bound beside a result; `{unit}`: what is independent."""

FINITE: frozenset[Bound] = frozenset({"betting", "bernstein"})
"""Bounds that hold at every number of examples, and need a range."""

_CHUNK = 4_000_000  # numbers of resampling weights held at once
_LARGEST_BET = 0.75  # share of the wealth that a single bet may lose at most
_LARGEST_WEIGHT = 0.5  # of one example in the empirical Bernstein bound; must be below 1


def lower_bounds(
    values: ArrayLike,
    bound: Bound = "t",
    *,
    level: float = 0.05,
    lowest: float | None = -1.0,
    highest: float | None = 1.0,
    seed: int = 0,
    resamples: int = 10_000,
) -> NDArray[np.float64]:
    """
    One-sided lower confidence bounds of the means of columns.

    Args:
        values (`ArrayLike`):
            `[examples]` or `[examples, columns]` differences to the reference.
        bound (`str`, *optional*, defaults to `"t"`):
            `t`, `bootstrap`, `betting` or `bernstein`, see above.
        level (`float`, *optional*, defaults to `0.05`):
            Largest chance of a bound above the true mean, between 0 and 0.5.
        lowest, highest (`float`, *optional*, defaults to `-1.0` and `1.0`):
            Smallest and largest value there can be, as for differences of win rates; `None` if there is none. Only
            `betting` and `bernstein` need the latter.
        seed (`int`, *optional*, defaults to `0`):
            Of the resampling, and of the order in which bets are made.
        resamples (`int`, *optional*, defaults to `10_000`):
            Resamples of the bootstrap.

    Returns:
        `NDArray[np.float64]`: `[columns]` bounds, or a single one for `[examples]`.

    Raises:
        ValueError: If there are fewer than two examples, a value is not finite or out of its range, the bound is
            unknown, the level out of range, or `betting` or `bernstein` is asked for without a range.

    Example:
        >>> float(lower_bounds([0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5]).round(3))
        -0.19
    """
    columns = checked_values(values, lowest, highest)
    if not 0 < level < 0.5:
        raise ValueError(f"`level` must be between 0 and 0.5, got {level}.")
    if bound not in get_args(Bound):
        raise ValueError(f"`bound` must be one of {list(get_args(Bound))}, got {bound!r}.")
    if bound in FINITE:
        if lowest is None or highest is None:
            raise ValueError(
                f"The bound `{bound}` needs the range of the values: give `lowest` and `highest`, or choose the bound "
                "`t` for measures that have no range, as log-probabilities."
            )
        # In an order that does not depend on the values.
        order = np.random.default_rng(seed).permutation(len(columns))
        shares = (columns[order] - lowest) / (highest - lowest)
        found = lowest + (highest - lowest) * (_betting_bounds if bound == "betting" else _bernstein)(shares, level)
    else:
        if lowest is not None:
            columns = np.vstack([columns, np.full((1, columns.shape[1]), lowest)])
        found = _t_bounds(columns, level) if bound == "t" else _bootstrap_bounds(columns, level, seed, resamples)
    return found.reshape(np.shape(values)[1:])


def checked_values(
    values: ArrayLike, lowest: float | None = None, highest: float | None = None
) -> NDArray[np.float64]:
    """
    The values as `[examples, columns]`, finite and within their range.

    Raises:
        ValueError: If they are not; names the first bad example.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The differences must be numbers, one per example: {error}.") from error
    if array.ndim not in (1, 2) or len(array) < 2 or array.size == 0:
        raise ValueError(f"A bound needs at least two examples, one number each; the shape is {array.shape}.")
    columns = array.reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if len(bad):
        raise ValueError(f"The difference of example {bad[0]} is not finite: measure it, or leave the example out.")
    slack = 1e-9  # rounding in means of samples
    low, high = -math.inf if lowest is None else lowest, math.inf if highest is None else highest
    outside = np.flatnonzero(((columns < low - slack) | (columns > high + slack)).any(axis=1))
    if len(outside):
        raise ValueError(
            f"The difference of example {outside[0]} lies outside [{low:g}, {high:g}]: give the true `lowest` and "
            "`highest` of the measure, None where there is no limit."
        )
    return columns.clip(low, high)


def betting_wealth(
    values: NDArray[np.float64], mean: NDArray[np.float64] | float, level: float
) -> NDArray[np.float64]:
    """
    Largest wealth, `[columns]`, of a gambler who begins with 1 and bets, at a size for `level`, that the mean of
    `values` is greater than `mean`.

    Values are `[examples, columns]` within 0 and 1, in an order that does not depend on them. If the true mean is at
    most `mean`, the wealth is a nonnegative supermartingale and reaches `1 / level` with at most the chance `level`
    (Ville's inequality).
    """
    bets = np.minimum(_predicted(values, level)[1], _LARGEST_BET / np.maximum(mean, 1e-12))
    log_wealth = np.log1p(bets * (values - mean)).cumsum(axis=0)
    return np.exp(np.minimum(log_wealth.max(axis=0), 700.0))


def resampled_bound(drawn: ArrayLike, examples: int, level: float = 0.05) -> float:
    """
    One-sided lower bound of something that is no mean, from its values in bootstrap resamples.

    The percentile is taken at a corrected level, as for the bound `bootstrap`; a worst example is up to the caller,
    who knows what one is. The bound is approximate, the more so the fewer examples carry the number
    (`benchmarks/classifier_level.py` has the level for average precision).

    Args:
        drawn (`ArrayLike`):
            `[resamples]` values; NaN where a resample has none, which is left out.
        examples (`int`):
            How many independent examples carry it, at least 2.
        level (`float`, *optional*, defaults to `0.05`):
            Largest chance of a bound above the true value.

    Raises:
        ValueError: If there are fewer than two examples, or no resample has a value.
    """
    values = np.asarray(drawn, dtype=np.float64)
    values = values[~np.isnan(values)]
    if examples < 2 or not len(values):
        raise ValueError(f"A bound needs two examples and a resample with a value, got {examples} and {len(values)}.")
    return float(np.quantile(values, _percentile(examples, level)))


@dataclass(frozen=True)
class Resampled:
    """
    A difference that is no mean over examples, such as one of average precisions; only the bound `bootstrap` has it.

    Attributes:
        value (`float`): The candidate's value less the reference's on all examples.
        drawn (`ArrayLike`): `[resamples]`: the same in bootstrap resamples of the examples; NaN where a resample has
            no value.
        examples (`int`): How many independent examples carry it, such as series with a positive.

    A held measure of it with a `lowest` says that one example of that value was added before resampling, as the other
    bounds do.
    """

    value: float
    drawn: ArrayLike
    examples: int


def skewness(values: ArrayLike) -> float:
    """Skewness, 0 where all values are equal. Cochran's rule: a mean is nearly normal from 25 skewness^2 examples."""
    x = np.asarray(values, dtype=np.float64)
    spread = x.std()
    return float(((x - x.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


@dataclass(frozen=True)
class Measured:
    """A mean, or what is none, with its bound and what its power depends on."""

    mean: float
    bound: float
    spread: float  # of one example
    examples: int
    normal: bool


def measured(
    values: ArrayLike | Resampled, lowest: float | None, highest: float | None, bound: Bound, level: float, seed: int
) -> Measured:
    """
    Mean, bound and spread of differences, or of what is no mean over examples; arguments as in [`lower_bounds`].

    Raises:
        ValueError: As [`lower_bounds`]; or if what is no mean is to have another bound than `bootstrap`.
    """
    if not isinstance(values, Resampled):
        x = checked_values(values, lowest, highest)[:, 0]
        found = float(lower_bounds(x, bound, level=level, lowest=lowest, highest=highest, seed=seed))
        normal = len(x) >= 25 * skewness(x) ** 2
        return Measured(float(x.mean()), found, float(x.std(ddof=1)), len(x), normal)
    if bound != "bootstrap":
        raise ValueError(f"It is no mean over examples: only the bound `bootstrap` has it, not `{bound}`.")
    drawn = np.asarray(values.drawn, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if not np.isfinite(values.value) or not np.isfinite(drawn).all():
        raise ValueError("A number is not finite: measure it, or leave the measure out.")
    n, mean = values.examples, float(values.value)
    variance = float(drawn.var()) * n
    if lowest is not None:  # that of the examples without the added one
        variance = max(0.0, (float(drawn.var()) * (n + 1) - (mean - lowest) ** 2 * n / (n + 1) ** 2) * (n + 1) / n)
    return Measured(mean, resampled_bound(drawn, n, level), variance**0.5, n, abs(skewness(drawn)) <= 0.2)


def _t_bounds(columns: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    n = len(columns)
    return columns.mean(axis=0) - stdtrit(n - 1, 1 - level) * columns.std(axis=0, ddof=1) / math.sqrt(n)


def _bootstrap_bounds(columns: NDArray[np.float64], level: float, seed: int, resamples: int) -> NDArray[np.float64]:
    n = len(columns)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    means = np.vstack(
        [
            rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - done)) @ columns / n
            for done in range(0, resamples, rows)
        ]
    )  # [resamples, columns]: the same examples for all columns
    return np.quantile(means, _percentile(n, level), axis=0)


def _percentile(n: int, level: float) -> float:
    """A percentile has the normal's quantile and the variance over n; right are t's quantile and n - 1."""
    return float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 1 - level)))


def _predicted(values: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Before each example its mean as earlier ones have it, and how much to stake on it at the variance they have."""
    n, columns = values.shape
    seen = np.arange(1, n + 1)[:, None]
    means = (0.5 + values.cumsum(axis=0)) / (seen + 1)
    variances = (0.25 + ((values - means) ** 2).cumsum(axis=0)) / (seen + 1)
    # Nothing may depend on the example itself: shifted by one.
    before = np.vstack([np.full((1, columns), 0.5), means[:-1]])
    variance = np.vstack([np.full((1, columns), 0.25), variances[:-1]])
    return before, np.sqrt(2 * math.log(1 / level) / (n * variance))


def _bernstein(values: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """
    Largest of the bounds after each example, which hold together, for values within 0 and 1.

        (sum_i w_i x_i - log(1 / level) - sum_i (x_i - m_i)^2 (-log(1 - w_i) - w_i)) / sum_i w_i
    """
    before, stakes = _predicted(values, level)
    weights = np.minimum(stakes, _LARGEST_WEIGHT)
    costs = (values - before) ** 2 * (-np.log1p(-weights) - weights)
    bounds = ((weights * values - costs).cumsum(axis=0) + math.log(level)) / weights.cumsum(axis=0)
    return bounds.max(axis=0).clip(0)


def _betting_bounds(values: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """The smallest mean that is not bet away, by bisection: the wealth falls as the mean rises."""
    low, high = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for _ in range(40):
        middle = (low + high) / 2
        refuted = betting_wealth(values, middle, level) >= 1 / level
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low
