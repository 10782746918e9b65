"""Bootstrap of average precision over clusters of near-duplicate samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


_CELLS = 1_000_000
"""Weights (samples x resamples) that are worked on at once: bounds memory and stays near the processor's cache."""

_FEW = 64
"""Negatives up to which a resample may have none: with more of them that happens once in exp(64) draws."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """
    One label of one model, sorted once; every resample only changes the weights of the samples.

    Attributes:
        order (`np.ndarray`): Rows with a known label, from the highest score down to the last tied with the
            lowest-scored positive: what lies below cannot change average precision.
        starts (`np.ndarray`): Shape `[G]`: where in `order` the stretches begin that end with a group of tied scores
            holding a positive.
        positives (`np.ndarray`): Rows of the positives, in the order of their groups.
        positive_starts (`np.ndarray`): Shape `[G]`: where in `positives` each group begins.
        few_negatives (`np.ndarray`, *optional*): Rows of the negatives, if a resample may have none of them.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    positives: NDArray[np.intp]
    positive_starts: NDArray[np.intp]
    few_negatives: NDArray[np.intp] | None = None

    @classmethod
    def of(cls, labels: NDArray[np.int8], scores: Floats) -> Ranking:
        """The ranking of one label: labels `[N]` (1, 0, or -1 for unknown) and scores `[N]`."""
        rows = np.flatnonzero(labels >= 0)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        ranked, relevant = scores[rows], labels[rows] == 1
        # Equal scores have one rank: precision is only read behind the last of them. Ties without a positive add
        # nothing to the area, so they are counted together with the next tie that has one.
        tie = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])]) if len(rows) else np.zeros(0, dtype=int)
        hit_ties, positive_starts = np.unique(tie[relevant], return_index=True)
        ends = np.searchsorted(tie, hit_ties, side="right")  # one past the last sample of each such tie
        last = ends[-1] if len(ends) else 0
        negatives = np.flatnonzero(labels == 0)
        few = negatives if len(negatives) < _FEW else None
        starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)
        return cls(rows[:last], starts, rows[relevant], positive_starts, few)

    def average_precision(self, weights: NDArray[np.int32]) -> Floats:
        """
        Average precision in every resample, `[R]`; NaN where one has no positive, or no negative.

        `weights`, `[N, R]`, say how often each sample occurs in each resample.
        """
        if not len(self.positives) or (self.few_negatives is not None and not len(self.few_negatives)):
            return np.full(weights.shape[1], np.nan)
        # By tie with a positive and resample, [G, R]: samples down to its end, its positives, positives down to there.
        seen = np.cumsum(np.add.reduceat(weights[self.order], self.starts, axis=0), axis=0)
        gained = np.add.reduceat(weights[self.positives], self.positive_starts, axis=0)
        hits = np.cumsum(gained, axis=0)
        precision = np.divide(hits, seen, out=np.zeros(seen.shape), where=seen > 0)
        total = hits[-1]
        # A resample may lack every sample down to a tie: 0 of 0 is no precision, and nothing is gained there.
        area = np.einsum("gr,gr->r", gained.astype(np.float64), precision)
        exists = total > 0
        if self.few_negatives is not None:
            exists &= weights[self.few_negatives].any(axis=0)
        return np.divide(area, total, out=np.full(len(total), np.nan), where=exists)


def clusters_of(series: Sequence[Hashable] | None, count: int) -> NDArray[np.intp]:
    """
    The cluster index of each sample: shape `[count]`, numbered in the order of appearance.

    Raises:
        ValueError: If `series` does not name one series per sample, or there are fewer than two series.
    """
    names: Sequence[Hashable] = range(count) if series is None else series
    if len(names) != count:
        raise ValueError(f"`series` names {len(names)} samples, the labels have {count}.")
    index: dict[Hashable, int] = {}
    clusters = np.array([index.setdefault(name, len(index)) for name in names], dtype=np.intp)
    if len(index) < 2:
        raise ValueError("There is one series only, so nothing can be resampled: no interval can be had.")
    return clusters


def bootstrap_average_precision(
    rankings: Sequence[Ranking], clusters: NDArray[np.intp], *, resamples: int, seed: int
) -> Floats:
    """
    Average precision of several rankings of the same samples in the same resamples (which is what pairs them):
    `[rankings, resamples]`.

    Whole clusters are drawn with replacement, as many as there are; the same `seed` draws the same.

    Args:
        rankings (`Sequence[Ranking]`):
            One per model and label.
        clusters (`np.ndarray`):
            Shape `[N]`, from [`clusters_of`].
    """
    rng = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    out = np.empty((len(rankings), resamples))
    step = max(1, _CELLS // len(clusters))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        # One draw per resample, so that the result does not depend on `step`.
        draws = [np.bincount(rng.integers(0, count, size=count), minlength=count) for _ in range(size)]
        weights = np.ascontiguousarray(np.stack(draws).astype(np.int32).T[clusters])  # [N, size]
        for row, ranking in enumerate(rankings):
            out[row, start : start + size] = ranking.average_precision(weights)
    return out


def percentile_interval(values: Floats, level: float) -> tuple[Floats, Floats]:
    """Both ends of the percentile interval over the last axis, without resamples that are NaN; NaN where all are."""
    low = np.full(values.shape[:-1], np.nan)
    high = low.copy()
    some = ~np.isnan(values).all(axis=-1)
    if some.any():
        low[some], high[some] = np.nanquantile(values[some], [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return low, high
