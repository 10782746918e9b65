"""How far a method lies above the curve of a baseline stopped early, at the same privileged gain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.evaluation import Estimate


def above_curve(
    privileged: NDArray[np.float64],
    held: NDArray[np.float64],
    curve_privileged: NDArray[np.float64],
    curve_held: NDArray[np.float64],
    *,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate] | None:
    """
    What a method's held attributes have more than the curve's, interpolated at the method's privileged gain.

    The curve begins at the reference, where every difference is 0, and is linear between its points. Each bootstrap
    resample takes the same prompts for the method and the whole curve and interpolates anew, so the intervals hold the
    uncertainty of the gains too; that of training seeds they do not. A resample whose gain is past the last point is
    compared with the last point.

    Args:
        privileged (`NDArray`): Differences of win values of the privileged attribute, `[prompts]`.
        held (`NDArray`): The same of the held ones, `[attributes, prompts]`.
        curve_privileged (`NDArray`): Of the curve's points, `[points, prompts]`.
        curve_held (`NDArray`): Of the curve's points, `[points, attributes, prompts]`.
        n (`int`, *optional*, defaults to `10_000`): Resamples.
        seed (`int`, *optional*, defaults to `0`): Seed of the resampling.
        level (`float`, *optional*, defaults to `0.95`): Level of the two-sided intervals.

    Returns:
        `dict`: `mean_held` (the mean over attributes) and `worst_held` (the lowest attribute less the curve's lowest);
        `None` if the method's gain is negative or past the curve's last point, where there is nothing to compare with.
    """
    prompts = len(privileged)
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=n)
    weights = np.vstack([np.ones(prompts), drawn]) / prompts  # the first row is the data as they are
    gain, ours = weights @ privileged, weights @ held.T  # [1 + n], [1 + n, attributes]
    gains = np.pad(weights @ curve_privileged.T, ((0, 0), (1, 0)))  # [1 + n, 1 + points], the reference first
    theirs = np.pad(np.einsum("np,kap->nka", weights, curve_held), ((0, 0), (1, 0), (0, 0)))
    if not 0 <= gain[0] <= gains[0].max():
        return None
    order = gains.argsort(axis=1)
    gains = np.take_along_axis(gains, order, axis=1)
    theirs = np.take_along_axis(theirs, order[:, :, None], axis=1)
    at_gain = np.array(
        [
            [np.interp(x, xs, ys) for ys in curves.T]
            for x, xs, curves in zip(gain, gains, theirs, strict=True)
        ]
    )  # fmt: skip
    differences = {
        "mean_held": ours.mean(axis=1) - at_gain.mean(axis=1),
        "worst_held": ours.min(axis=1) - at_gain.min(axis=1),
    }
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: Estimate(float(values[0]), *(float(end) for end in np.quantile(values[1:], ends)), n=prompts)
        for name, values in differences.items()
    }
