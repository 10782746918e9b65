"""Win rates of one model's completions against another's, and bootstrap intervals over prompts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


_CHUNK = 2_000_000
"""Indices drawn at once by the bootstrap: bounds its memory."""


def format_number(value: float, digits: int = 2) -> str:
    """Fixed-point number without the leading zero: `0.731` -> `.73`, `-0.05` -> `-.05`, `1.0` -> `1.00`."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


@dataclass(frozen=True)
class Estimate:
    """
    A mean over prompts with a confidence interval.

    Attributes:
        mean (`float`):
            Mean over prompts.
        low (`float`):
            Lower end of the interval; `None` if there is one prompt only, from which no interval can be had.
        high (`float`):
            Upper end; `None` likewise.
        n (`int`):
            Number of prompts.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        """For example `.73 [.68, .78]`, or `.73` without an interval."""
        if self.low is None or self.high is None:
            return format_number(self.mean)
        return f"{format_number(self.mean)} [{format_number(self.low)}, {format_number(self.high)}]"

    def to_dict(self) -> dict[str, float]:
        """`{mean, low, high, n}`, without `low` and `high` if there is no interval."""
        numbers: dict[str, float] = {"mean": self.mean, "n": self.n}
        if self.low is not None and self.high is not None:
            numbers |= {"low": self.low, "high": self.high}
        return numbers


def win_rate(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """
    Per prompt, the probability that a completion of A scores higher than one of B, ties counting one half.

    All pairs of samples of a prompt are compared, so the two models may have different numbers of samples.

    Args:
        a ([`ArrayLike`]):
            `[prompts, samples of A]` scores, higher is better; `[prompts]` is read as one sample each.
        b ([`ArrayLike`]):
            `[prompts, samples of B]` scores on the same prompts.

    Returns:
        `[prompts]` values within 0 and 1; 0.5 means as good as B.

    Raises:
        ValueError: Numbers of prompts differ, a matrix is empty, or a score is NaN (the message names the prompt).

    Example:
        >>> win_rate([[2.0, 0.0]], [[1.0, 0.0]])
        array([0.625])
    """
    first, second = _scores(a, "a"), _scores(b, "b")
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"a holds scores of {first.shape[0]} prompts, b of {second.shape[0]}: they must be the same.")
    signs = _compare(first[:, :, None], second[:, None, :])
    return 0.5 + 0.5 * signs.mean(axis=(1, 2))


def paired_bootstrap(
    per_prompt: ArrayLike,
    baseline: ArrayLike | None = None,
    *,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """
    Mean over prompts with a percentile bootstrap interval, prompts being resampled.

    Args:
        per_prompt ([`ArrayLike`]):
            `[prompts]` values, for example from [`win_rate`].
        baseline ([`ArrayLike`], *optional*):
            `[prompts]` values of the same prompts, for example the win values of the reference against itself with
            another seed. If given, the estimate is of the mean difference `per_prompt - baseline`, and each resample
            takes the same prompts for both.
        n (`int`, *optional*, defaults to `10000`):
            Number of resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling; the result is deterministic.
        level (`float`, *optional*, defaults to `0.95`):
            Level of the two-sided interval.

    Returns:
        `Estimate`: the estimate; without interval if there is only one prompt. With few prompts (below about 20)
        percentile intervals are too narrow.

    Raises:
        ValueError: Shapes differ, there are no prompts, a value is not finite, or `n` or `level` is out of range.
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"per_prompt must be one value per prompt, at least one; its shape is {values.shape}.")
    if baseline is not None:
        other = np.asarray(baseline, dtype=np.float64)
        if other.shape != values.shape:
            raise ValueError(f"per_prompt has shape {values.shape}, baseline {other.shape}: they must be the same.")
        values = values - other
    _refuse_nan(values[:, None], "per_prompt (or baseline)")
    if np.isinf(values).any():
        raise ValueError(f"per_prompt (or baseline) is infinite at prompt {np.flatnonzero(np.isinf(values))[0]}.")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be at least 1 and level between 0 and 1, got {n} and {level}.")
    prompts = len(values)
    if prompts == 1:
        return Estimate(mean=float(values[0]), low=None, high=None, n=1)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // prompts)
    means = np.concatenate(
        [
            values[rng.integers(0, prompts, size=(min(rows, n - done), prompts))].mean(axis=1)
            for done in range(0, n, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=float(values.mean()), low=float(low), high=float(high), n=prompts)


def _compare(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """+1 where a > b, -1 where a < b, 0 where equal (also for infinities, whose difference is undefined)."""
    return (a > b).astype(np.float64) - (a < b)


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:  # text, or rows of different lengths
        raise ValueError(f"{name} must be a matrix of numbers [prompts, samples]: {error}.") from error
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must have shape [prompts, samples] and not be empty; its shape is {scores.shape}.")
    _refuse_nan(scores, name)
    return scores


def _refuse_nan(values: NDArray[np.float64], name: str) -> None:
    bad = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"{name} is NaN at prompt {shown} (of {len(values)}): score every completion or drop it.")
