"""Calibration per group before and after a temperature, and decision thresholds tuned per label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from fairpo_trl.classification.metrics.definitions import Floats, check_labels_and_scores, group_columns
from fairpo_trl.core.partition import Partition


ECE_BINS = 15
"""Bins of equal mass: by rank, so that each holds the same number of predictions, equal predictions in one bin."""

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 1e-3, 1e3


def fit_temperature(labels: ArrayLike, scores: ArrayLike) -> float:
    """
    The one temperature that makes `sigmoid(scores / temperature)` the most likely on validation data: above 1 if the
    model is too sure of itself, below 1 if it is too careful.

    The mean cross-entropy is convex in the inverse temperature, so the minimum is the root of its derivative. Dividing
    by a temperature changes no ranking, and no prediction at threshold 0.

    Args:
        labels, scores:
            As in [`evaluate_groups`]; validation data, not the reported split.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, nothing is known, or no temperature between 0.001
            and 1000 is best: labels and scores are unrelated, or every label is on the right side of logit 0.
    """
    y, z = check_labels_and_scores(labels, scores)
    known = y >= 0
    if not known.any():
        raise ValueError("No label is known, so there is nothing to fit a temperature on.")
    target, logits = (y[known] == 1).astype(np.float64), z[known]

    def slope(log_temperature: float) -> float:
        return float(np.mean((expit(logits / math.exp(log_temperature)) - target) * logits))

    low, high = math.log(_MIN_TEMPERATURE), math.log(_MAX_TEMPERATURE)
    if slope(high) >= 0:
        raise ValueError("No temperature helps: the logits say no more about these labels than a constant 0 would.")
    if slope(low) <= 0:
        raise ValueError(
            "No temperature is best: every label is on the right side of logit 0. Use more data to fit on."
        )
    return math.exp(brentq(slope, low, high, xtol=1e-12))


def expected_calibration_error(labels: NDArray[np.int8], scores: Floats, temperature: float = 1.0) -> float:
    """
    Expected calibration error over all known entries, pooled, in [`ECE_BINS`] bins of equal mass; NaN without any.

    Entries are ranked by score and cut into bins of equal numbers (equal scores share a bin); the error is the mean
    over entries of |mean probability - share of positives| of their bin. Equal mass, since with bins of equal width
    nearly all predictions of a multi-label model fall into the first one.

    Args:
        labels, scores (`np.ndarray`): Shape `[N, labels]`: 1, 0, or -1 for unknown, and logits.
        temperature (`float`, *optional*, defaults to `1.0`): Divides the logits.
    """
    known = labels >= 0
    target, logits = labels[known] == 1, scores[known]
    if not len(logits):
        return float("nan")
    order = np.argsort(logits, kind="stable")
    target, logits = target[order], logits[order]
    new = np.append(True, logits[1:] != logits[:-1])
    lower = np.maximum.accumulate(np.where(new, np.arange(len(logits)), 0))  # number of strictly smaller scores
    bins = ECE_BINS * lower // len(logits)
    gaps = np.bincount(bins, weights=expit(logits / temperature) - target, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(logits))


def brier_score(labels: NDArray[np.int8], scores: Floats, temperature: float = 1.0) -> float:
    """Mean squared difference of probability and label, over the entries of [`expected_calibration_error`]."""
    known = labels >= 0
    if not known.any():
        return float("nan")
    return float(np.mean((expit(scores[known] / temperature) - (labels[known] == 1)) ** 2))


def calibrate(
    validation_labels: ArrayLike,
    validation_scores: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    partition: Partition,
) -> tuple[pd.DataFrame, str]:
    """
    [`calibration_by_group`] of a split, with the temperature that is best on validation (`[M, T]`).

    Returns:
        `tuple[pd.DataFrame, str]`: the table, and a sentence for the reader if validation has no best temperature (few
        rows, all on the right side); the columns that need one are NaN then.
    """
    try:
        temperature, why = fit_temperature(validation_labels, validation_scores), ""
    except ValueError as error:
        temperature, why = None, str(error)
    return calibration_by_group(labels, scores, partition, temperature=temperature), why


def calibration_by_group(
    labels: ArrayLike, scores: ArrayLike, partition: Partition, *, temperature: float | None
) -> pd.DataFrame:
    """
    Calibration of a split per group, before and after a temperature.

    Args:
        labels, scores, partition:
            As in [`evaluate_groups`].
        temperature (`float` or `None`):
            From [`fit_temperature`] on *validation* data; `None` leaves the columns that need one NaN.

    Returns:
        `pd.DataFrame` with rows `all`, `privileged` and, if there are any, `non_privileged`, and columns `ece`,
        `ece_temperature`, `brier`, `brier_temperature`, and `brier_all_negative` and `brier_label_prior`, those of
        probability 0 and of each label's prevalence in this split.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, or the temperature is not positive.
    """
    if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"`temperature` must be positive and finite, got {temperature}.")
    y, z = check_labels_and_scores(labels, scores, partition.names)
    known = y >= 0
    count = known.sum(axis=0)
    prevalence = np.divide((y == 1).sum(axis=0), count, out=np.zeros(len(count)), where=count > 0)
    divisor = float("nan") if temperature is None else temperature
    members, rows = group_columns(partition), []
    for inside in members.values():
        group_labels, group_scores = y[:, inside], z[:, inside]
        weight, rate = count[inside], prevalence[inside]
        total = weight.sum()
        rows.append(
            {
                "ece": expected_calibration_error(group_labels, group_scores),
                "ece_temperature": expected_calibration_error(group_labels, group_scores, divisor),
                "brier": brier_score(group_labels, group_scores),
                "brier_temperature": brier_score(group_labels, group_scores, divisor),
                "brier_all_negative": float(weight @ rate / total) if total else float("nan"),
                "brier_label_prior": float(weight @ (rate * (1 - rate)) / total) if total else float("nan"),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(list(members), name="group"))


@dataclass(frozen=True)
class TunedThresholds:
    """
    Thresholds from [`tune_thresholds`].

    Attributes:
        values (`np.ndarray`): Shape `[T]`: a label is predicted from this logit on (>=). Pass it to
            [`evaluate_groups`].
        f1 (`np.ndarray`): Shape `[T]`: the F1 reached on the data tuned on, which is optimistic; NaN where not tuned.
        untuned (`tuple[str, ...]`): Labels without positives there: no threshold has an F1, and they keep 0
            (probability 0.5).
    """

    values: Floats
    f1: Floats
    untuned: tuple[str, ...]


def tune_thresholds(labels: ArrayLike, scores: ArrayLike, partition: Partition) -> TunedThresholds:
    """
    For each label the threshold with the highest F1 on validation data, not on the reported split.

    The threshold lies half-way between the last score predicted and the next one; of equally good ones the highest is
    taken. With few positives it overfits: compare `f1` with the F1 on the evaluated split.

    Raises:
        ValueError: If shapes differ or a label or score is invalid.
    """
    y, z = check_labels_and_scores(labels, scores, partition.names)
    values, f1 = np.zeros(y.shape[1]), np.full(y.shape[1], np.nan)
    untuned = []
    for column, name in enumerate(partition.names):
        known = y[:, column] >= 0
        relevant, logits = y[known, column] == 1, z[known, column]
        positives = relevant.sum()
        if positives == 0:
            untuned.append(name)
            continue
        order = np.argsort(-logits, kind="stable")
        ranked = logits[order]
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # thresholds cannot cut through a tie
        scored = 2 * np.cumsum(relevant[order])[last] / (last + 1 + positives)
        best = int(np.argmax(scored))
        lowest = ranked[last[best]]
        following = ranked[last[best] + 1] if last[best] + 1 < len(ranked) else lowest
        middle = following + (lowest - following) / 2
        values[column] = middle if middle > following else lowest
        f1[column] = scored[best]
    return TunedThresholds(values, f1, tuple(untuned))
