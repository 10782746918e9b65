"""Average precision as a held measure: a classifier's difference to its reference, with bootstrap resamples of series.

Average precision is no mean over images, so its bound is a bootstrap percentile. A candidate that loses few positives
wholly would pass it too often, since many samples would not show it. So, as in the other bounds, one example of the
worst value is added first: to a label that is held by itself a positive which the reference ranks above all images and
the candidate below all; to the mean over labels a series of typical weight whose positives are lost in the same way.
Without it a violation of the mean passes in 13 % of samples instead of 5 % (`benchmarks/classifier_level.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.classification.metrics.bootstrap import (
    Floats,
    Ranking,
    bootstrap_average_precision,
    clusters_of,
)
from fairpo_trl.classification.metrics.comparison import mean_over_labels
from fairpo_trl.classification.metrics.definitions import average_precision, check_labels_and_scores
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.selection import Candidate, Held, Resampled


HeldBy: TypeAlias = Literal["labels", "mean"]
GROUP = "mAP of held labels"
"""What the mean over held labels is called."""

LEAST_SERIES = 2
"""Fewer series with a positive (or with a negative) show nothing of a label."""


def testable_columns(
    partition: Partition, known: Sequence[bool] | NDArray[np.bool_], lacking: str
) -> tuple[dict[str, list[int]], list[str]]:
    """
    The columns of each role of which something can be shown, and the held labels of which nothing can.

    Raises:
        ValueError: If a role has no such column; `lacking` says what its labels lack, from "No held label" on.
    """
    columns: dict[str, list[int]] = {"privileged": [], "non_privileged": []}
    for t in np.flatnonzero(known).tolist():
        columns[partition.role_of(partition.names[t])].append(t)
    for role, which in (("privileged", "privileged"), ("non_privileged", "held")):
        if not columns[role]:
            raise ValueError(f"No {which} label {lacking}")
    untested = [name for t, name in enumerate(partition.names) if not known[t] and name in partition.non_privileged]
    return columns, untested


class HeldPrecision:
    """
    Candidates against one reference, on one part of the data; all numbers are points of average precision.

    Args:
        labels, reference (`np.ndarray`):
            `[N, T]`: 1, 0, or -1 for unknown; and logits of the reference.
        partition ([`~fairpo_trl.Partition`]):
            Its names are the labels; the mean over privileged ones is the gain.
        series (`Sequence[Hashable]`, *optional*):
            The series of each image; by default each is its own.
        held (`str`, *optional*, defaults to `"labels"`):
            `labels`: every held label is a measure, and all must pass. `mean`: the mean over them is the only one.
        margin (`float`, *optional*, defaults to `1.0`):
            Points that a measure may fall by.
        resamples, seed (`int`, *optional*, defaults to `1000` and `0`):
            Of the bootstrap.

    Raises:
        ValueError: If labels or logits are invalid, there are fewer than two series, or nothing can be measured of the
            privileged or of the held labels.
    """

    def __init__(
        self,
        labels: NDArray[np.int8],
        reference: NDArray[np.floating],
        partition: Partition,
        *,
        series: Sequence[Hashable] | None = None,
        held: HeldBy = "labels",
        margin: float = 1.0,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self._names, self._by, self._margin = partition.names, held, margin
        self._labels, self._reference = check_labels_and_scores(labels, reference, partition.names, "reference")
        self._clusters = clusters_of(series, len(self._labels))
        self._resamples, self._seed = resamples, seed
        positives, negatives = (
            [len(np.unique(self._clusters[self._labels[:, t] == value])) for t in range(len(self._names))]
            for value in (1, 0)
        )
        known = [p >= LEAST_SERIES and n >= LEAST_SERIES for p, n in zip(positives, negatives, strict=True)]
        self._series = positives
        lacking = "has positives and negatives in two series of these images: nothing can be tested. Give more images."
        self._columns, self.untested = testable_columns(partition, known, lacking)
        """Held labels of which nothing can be shown here."""

    def candidate(self, name: str, logits: NDArray[np.floating]) -> Candidate:
        """
        One candidate's gain and held measures, from its `[N, T]` logits on the same images.

        Raises:
            ValueError: If a logit is not finite or the shape is another one.
        """
        _, scores = check_labels_and_scores(self._labels, logits, self._names)
        drawn = self._draw(scores, best=False) - self._drawn_reference
        deltas = 100 * (average_precision(self._labels, scores) - average_precision(self._labels, self._reference))
        held = {}
        columns = self._columns["non_privileged"]
        if self._by == "labels":
            for t in columns:
                values = Resampled(float(deltas[t]), drawn[t], self._series[t])
                held[self._names[t]] = Held(values, self._margin, lowest=-100.0, highest=100.0)
        else:
            mean = self._mean(deltas, drawn, columns)
            worst = -100 * self._typical_weight(columns)
            times = np.random.default_rng(self._seed).binomial(
                mean.examples + 1, 1 / (mean.examples + 1), drawn.shape[1]
            )
            mean = replace(mean, drawn=np.asarray(mean.drawn) + worst * times)
            # Of one of n + 1 series the mean has this share.
            held[GROUP] = Held(mean, self._margin, lowest=worst * (mean.examples + 1), highest=None)
        gain = self._mean(deltas, drawn, self._columns["privileged"])
        return Candidate(name, gain, held, gain_lowest=None, gain_highest=None)

    def _mean(self, deltas: Floats, drawn: Floats, columns: Sequence[int]) -> Resampled:
        some = (self._labels[:, columns] == 1).any(axis=1)
        series = len(np.unique(self._clusters[some]))
        return Resampled(float(deltas[columns].mean()), mean_over_labels(drawn[columns]), series)

    def _typical_weight(self, columns: Sequence[int]) -> float:
        """What share of a mean over labels a series carries: the mean over series, each counted by its share."""
        positive = (self._labels[:, columns] == 1).astype(np.float64)
        shares = (positive / positive.sum(axis=0)).mean(axis=1)
        of_series = np.bincount(self._clusters, weights=shares)
        return float((of_series**2).sum())  # they add up to 1

    @functools.cached_property
    def _drawn_reference(self) -> Floats:
        return self._draw(self._reference, best=True)

    def _draw(self, scores: Floats, best: bool) -> Floats:
        """`[T, resamples]` average precision in points, with the added positive where labels are held one by one."""
        labels, clusters = self._labels, self._clusters
        if self._by == "labels":
            row = np.full(len(self._names), -1, dtype=labels.dtype)  # unknown: counts nowhere
            row[self._columns["non_privileged"]] = 1
            labels = np.vstack([labels, row])
            clusters = np.append(clusters, clusters.max() + 1)
            scores = np.vstack([scores, scores.max(axis=0) + 1 if best else scores.min(axis=0) - 1])
        rankings = [Ranking.of(labels[:, t], scores[:, t]) for t in range(len(self._names))]
        return 100 * bootstrap_average_precision(rankings, clusters, resamples=self._resamples, seed=self._seed)
