"""Win rate at equal length: judges like long texts, and training changes the length."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from fairpo_trl.evaluation.win_rates import Estimate, as_matrix


LEAST_PROMPTS = 20
"""With fewer prompts no curve is fitted."""

LEAST_SHARE = 0.05
"""Of the comparisons at least this share must lie on either side of equal length (or at it): no extrapolation."""

# As C of scikit-learn: with 200 prompts the slope shrinks by less than a percent, but never runs to infinity.
_RIDGE = 10.0
_MOST_STEPS, _LONGEST_STEP = 60, 2.0
_CHUNK = 1_000_000  # numbers computed at once: bounds the memory


def length_controlled_win_rate(
    outcomes: ArrayLike,
    length_differences: ArrayLike,
    *,
    n: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate | None:
    """
    Win rate that a logistic curve of the length difference predicts for texts of equal length.

    The idea is that of length-controlled AlpacaEval (Dubois et al., 2024): the outcome is regressed on the difference
    of the two lengths, divided by its standard deviation but not centred, and the curve is read where the difference
    is 0. A tie counts as half a win and half a loss, every prompt counts once, and the interval is a percentile
    bootstrap over prompts, the curve being fitted anew in each resample.

    Args:
        outcomes ([`ArrayLike`]):
            `[prompts, comparisons]`: 1 won, 0.5 tied, 0 lost; `[prompts]` is read as one comparison each.
        length_differences ([`ArrayLike`]):
            The length of the model's text less that of the reference's, in any unit, same shape.
        n (`int`, *optional*, defaults to `500`):
            Number of resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.
        level (`float`, *optional*, defaults to `0.95`):
            Level of the two-sided interval.

    Returns:
        `Estimate | None`: the estimate, or `None` where the question has no answer in these data: fewer than 20
        prompts, only wins or only losses, lengths that do not differ, an outcome that the length alone decides (as for
        a judge that counts words), or nearly all texts of one model longer than those of the other.

    Raises:
        ValueError: Shapes differ, an outcome is outside 0 to 1, or a value is not finite.
    """
    wins, differences = as_matrix(outcomes, "outcomes"), as_matrix(length_differences, "length_differences")
    if not (np.isfinite(wins).all() and np.isfinite(differences).all()):
        raise ValueError("outcomes and length_differences must be finite: leave failed comparisons out.")
    if wins.shape != differences.shape:
        raise ValueError(f"outcomes have shape {wins.shape}, length_differences {differences.shape}: make them equal.")
    if wins.min() < 0 or wins.max() > 1:
        raise ValueError("outcomes must lie within 0 and 1.")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"`n` must be at least 1 and `level` between 0 and 1, got {n} and {level}.")
    if _degenerate(wins, differences):
        return None
    prompts = len(wins)
    lengths = differences / differences.std()
    rng = np.random.default_rng(seed)
    counts = np.stack([np.bincount(rng.integers(0, prompts, prompts), minlength=prompts) for _ in range(n)])
    rows = max(1, _CHUNK // wins.size)
    drawn = [_at_equal_length(wins, lengths, counts[start : start + rows]) for start in range(0, n, rows)]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    (mean,) = _at_equal_length(wins, lengths, np.ones((1, prompts), dtype=np.int64))
    return Estimate(mean=float(mean), low=float(low), high=float(high), n=prompts)


def _at_equal_length(
    wins: NDArray[np.float64], lengths: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """
    The curves' values at 0, `[resamples]`, prompts counting `[resamples, prompts]` times.

    Newton's method on all resamples at once: one call of scikit-learn's takes milliseconds before it computes, and
    here are hundreds of fits with two parameters. Where only wins were drawn the intercept runs to its limit.
    """
    comparisons = wins.shape[1]
    weights = np.repeat(counts, comparisons, axis=1) / comparisons  # [resamples, prompts * comparisons]
    won, x = wins.ravel(), lengths.ravel()
    intercept, slope = np.zeros(len(counts)), np.zeros(len(counts))
    for _ in range(_MOST_STEPS):
        chance = expit(intercept[:, None] + slope[:, None] * x)
        error, curvature = weights * (chance - won), weights * chance * (1 - chance)
        gradient = error.sum(axis=1), error @ x + slope / _RIDGE
        # A tiny curvature keeps the 2 x 2 system solvable where every chance is 0 or 1.
        aa, ab, bb = curvature.sum(axis=1) + 1e-9, curvature @ x, curvature @ x**2 + 1 / _RIDGE
        determinant = aa * bb - ab**2
        steps = np.stack([bb * gradient[0] - ab * gradient[1], aa * gradient[1] - ab * gradient[0]]) / determinant
        steps = steps.clip(-_LONGEST_STEP, _LONGEST_STEP)  # a full step can overshoot where wins are nearly decided
        intercept, slope = intercept - steps[0], slope - steps[1]
        if np.abs(steps).max() < 1e-9:
            break
    return expit(intercept)


def _degenerate(wins: NDArray[np.float64], differences: NDArray[np.float64]) -> bool:
    if len(wins) < LEAST_PROMPTS or not wins.any() or (wins == 1).all() or differences.std() == 0:
        return True
    won, lost = differences[wins > 0], differences[wins < 1]  # a tie is on both sides
    decided = won.min() >= lost.max() or lost.min() >= won.max()
    return decided or min((differences <= 0).mean(), (differences >= 0).mean()) < LEAST_SHARE
