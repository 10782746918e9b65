"""Win rate at equal length: judges like long texts, and training changes the length."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from fairpo_trl.evaluation.win_rate import Estimate


LEAST_PROMPTS = 20
"""With fewer prompts no curve is fitted."""

LEAST_SHARE = 0.05
"""Of the comparisons at least this share must lie on either side of equal length (or at it): no extrapolation."""

_RIDGE = 10.0  # sklearn's C: with 200 prompts the slope shrinks by less than a percent, but never runs to infinity


def length_controlled_win_rate(
    outcomes: ArrayLike,
    length_differences: ArrayLike,
    *,
    n: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate | None:
    """Win rate that a logistic curve of the length difference predicts for texts of equal length.

    The idea is that of length-controlled AlpacaEval (Dubois et al., 2024): the outcome is regressed on the difference
    of the two lengths, divided by its standard deviation but not centred, and the curve is read where the difference
    is 0. A tie counts as half a win and half a loss, every prompt counts once, and the interval is a percentile
    bootstrap over prompts, the curve being fitted anew in each resample.

    Args:
        outcomes: `[prompts, comparisons]`: 1 won, 0.5 tied, 0 lost; `[prompts]` is read as one comparison each.
        length_differences: The length of the model's text less that of the reference's, in any unit, same shape.
        n: Number of resamples.
        seed: Seed of the resampling.
        level: Level of the two-sided interval.

    Returns:
        The estimate, or `None` where the question has no answer in these data: fewer than 20 prompts, only wins or
        only losses, lengths that do not differ, an outcome that the length alone decides (as for a judge that counts
        words), or nearly all texts of one model longer than those of the other.

    Raises:
        ValueError: Shapes differ, an outcome is outside 0 to 1, or a value is not finite.
    """
    wins, differences = _matrix(outcomes, "outcomes"), _matrix(length_differences, "length_differences")
    if wins.shape != differences.shape:
        raise ValueError(f"outcomes have shape {wins.shape}, length_differences {differences.shape}: make them equal.")
    if wins.min() < 0 or wins.max() > 1:
        raise ValueError("outcomes must lie within 0 and 1.")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"`n` must be at least 1 and `level` between 0 and 1, got {n} and {level}.")
    if _degenerate(wins, differences):
        return None
    prompts, comparisons = wins.shape
    # Every comparison as two rows, won and lost, with the outcome as weight; those of weight 0 change nothing.
    weights = np.concatenate([wins.ravel(), 1 - wins.ravel()]) / comparisons
    lengths = np.tile(differences.ravel() / differences.std(), 2)
    won = np.repeat([1, 0], wins.size)
    prompt = np.tile(np.repeat(np.arange(prompts), comparisons), 2)
    kept = weights > 0
    rows = lengths[kept, None], won[kept], weights[kept], prompt[kept]
    rng = np.random.default_rng(seed)
    resamples = [np.bincount(rng.integers(0, prompts, prompts), minlength=prompts) for _ in range(n)]
    low, high = np.quantile(
        [_at_equal_length(*rows, counts) for counts in resamples], [(1 - level) / 2, (1 + level) / 2]
    )
    mean = _at_equal_length(*rows, np.ones(prompts, dtype=np.int64))
    return Estimate(mean=mean, low=float(low), high=float(high), n=prompts)


def _at_equal_length(
    lengths: NDArray[np.float64],
    won: NDArray[np.int64],
    weights: NDArray[np.float64],
    prompt: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> float:
    """The fitted curve at 0, each prompt counting `counts` times."""
    drawn = counts[prompt] > 0
    if (won[drawn] == won[drawn][0]).all():
        return float(won[drawn][0])  # the curve's limit
    curve = LogisticRegression(C=_RIDGE, solver="newton-cholesky")
    curve.fit(lengths[drawn], won[drawn], sample_weight=(weights * counts[prompt])[drawn])
    return float(1 / (1 + np.exp(-curve.intercept_[0])))


def _degenerate(wins: NDArray[np.float64], differences: NDArray[np.float64]) -> bool:
    if len(wins) < LEAST_PROMPTS or not wins.any() or (wins == 1).all() or differences.std() == 0:
        return True
    won, lost = differences[wins > 0], differences[wins < 1]  # a tie is on both sides
    decided = won.min() >= lost.max() or lost.min() >= won.max()
    return decided or min((differences <= 0).mean(), (differences >= 0).mean()) < LEAST_SHARE


def _matrix(values: ArrayLike, name: str) -> NDArray[np.float64]:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{name} must have shape [prompts, comparisons] and not be empty, got {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite: leave failed comparisons out.")
    return matrix
