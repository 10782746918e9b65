"""Metrics of a multi-label classifier on a whole split: average precision, sample-F1, accuracy, exact match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairpo_trl.classification.metrics.bootstrap import Floats, Ranking
from fairpo_trl.core.messages import require_known
from fairpo_trl.core.partition import Partition


SampleFilter = Literal["all", "any_label", "group_positive"]
"""Which samples sample-F1 averages over: all, those with any positive label, those with a positive in the group."""


def check_labels_and_scores(
    labels: ArrayLike, scores: ArrayLike, label_names: Sequence[str] | None = None, what: str = "scores"
) -> tuple[NDArray[np.int8], Floats]:
    """
    The two matrices every function here works on, checked: labels as int8 and scores as float64, both `[N, T]`.

    Scores are *unsquashed* (logits). The rank of two images must survive until the metric, and a float32 sigmoid does
    not let it: every logit above 16.7 becomes exactly 1, so images the model told apart become ties, and average
    precision changes (the tests have a case that goes from .833 to .583).

    Args:
        labels (`ArrayLike`):
            Shape `[N, T]`, integer or boolean: 1 present, 0 absent, -1 unknown. Unknown entries count nowhere.
        scores (`ArrayLike`):
            Shape `[N, T]`: logits, all finite, also where the label is unknown.
        label_names, what (*optional*):
            For the messages: the `T` names, and what the scores are called.

    Raises:
        ValueError: If shapes differ or are empty, a label is not 1, 0 or -1, or a score is NaN or infinite; the
            message names row and label.
    """
    y, z = np.asarray(labels), np.asarray(scores)
    if y.ndim != 2 or y.size == 0:
        raise ValueError(f"`labels` must have shape [samples, labels] and not be empty; its shape is {y.shape}.")
    if z.shape != y.shape:
        raise ValueError(f"`{what}` has shape {z.shape}, `labels` {y.shape}: they must be the same.")
    if label_names is not None and len(label_names) != y.shape[1]:
        raise ValueError(f"There are {len(label_names)} label names but `labels` has {y.shape[1]} columns.")
    if y.dtype.kind not in "biu":
        raise ValueError(f"`labels` must be integers 1, 0 or -1 (unknown); its dtype is {y.dtype}.")
    if z.dtype.kind not in "fiu":
        raise ValueError(f"`{what}` must be real numbers; its dtype is {z.dtype}.")
    y = y.astype(np.int64)
    if (wrong := (y < -1) | (y > 1)).any():
        row, label = _first(wrong, label_names)
        raise ValueError(
            f"`labels` must be 1, 0 or -1 (unknown), got {y[np.nonzero(wrong)][0]} at row {row}, label {label}."
        )
    if (wrong := ~np.isfinite(z)).any():
        row, label = _first(wrong, label_names)
        raise ValueError(
            f"`{what}` must be finite, got {z[np.nonzero(wrong)][0]} at row {row}, label {label} "
            f"({wrong.sum()} such scores in all). A model that gives them cannot be ranked: look at its training."
        )
    return y.astype(np.int8), z.astype(np.float64)


def group_columns(partition: Partition) -> dict[str, NDArray[np.bool_]]:
    """`all`, `privileged` and, if there are any, `non_privileged` -> which labels it has, bool `[T]`."""
    roles = np.array([partition.role_of(name) for name in partition.names])
    return {"all": np.ones(len(roles), dtype=bool)} | {g.role: roles == g.role for g in partition.groups("role")}


def check_thresholds(thresholds: ArrayLike | None, count: int) -> Floats:
    """
    One threshold per label, on the scale of the scores; `None` is logit 0, that is probability 0.5, for each.

    Raises:
        ValueError: If it is neither one number nor `[T]` numbers, or one is NaN.
    """
    values = np.asarray(0.0 if thresholds is None else thresholds, dtype=np.float64)
    if values.shape not in ((), (count,)):
        raise ValueError(f"`thresholds` must be one number or one per label ({count}); its shape is {values.shape}.")
    if np.isnan(values).any():
        raise ValueError("`thresholds` holds NaN: use 0 (probability 0.5) for a label that could not be tuned.")
    return np.broadcast_to(values, (count,)).copy()


def average_precision(labels: ArrayLike, scores: ArrayLike) -> Floats:
    """
    Average precision of each label over the samples where it is known.

    `sum_n (R_n - R_(n-1)) P_n` over the *distinct* scores: samples with equal scores enter together, so that their
    order cannot matter. Equal to `sklearn.metrics.average_precision_score`, except that a label without positives is
    NaN here, where sklearn warns and says 0, and so is one without negatives, of which any ranking has 1.

    Args:
        labels, scores:
            As in [`check_labels_and_scores`], which says what raises.

    Returns:
        `np.ndarray` of shape `[T]`, float64: NaN where a label has no positive, or no negative.

    Example:

    ```python
    >>> average_precision([[1], [0], [1]], [[2.0], [1.0], [0.0]]).round(3)
    array([0.833])
    ```
    """
    y, z = check_labels_and_scores(labels, scores)
    once = np.ones((len(y), 1), dtype=np.int32)
    return np.array([Ranking.of(y[:, t], z[:, t]).average_precision(once)[0] for t in range(y.shape[1])])


def mean_average_precision(ap: ArrayLike) -> tuple[float, int]:
    """
    The mean of the labels' average precision (NaN if no label is left), and how many labels it is the mean of.

    Labels without positives or without negatives (NaN) are left out: they have no average precision, and as zeros (or
    ones), which is what sklearn and torchmetrics make of them, they would change the mean by a property of the split.
    """
    values = np.asarray(ap, dtype=np.float64)
    counted = values[~np.isnan(values)]
    return (float(counted.mean()) if len(counted) else float("nan")), len(counted)


def sample_f1(
    labels: NDArray[np.int8],
    predictions: NDArray[np.bool_],
    members: NDArray[np.bool_] | None = None,
    *,
    zero_division: float = 0,
    samples: SampleFilter = "all",
) -> tuple[float, int]:
    """
    Mean over samples of `2 tp / (2 tp + fp + fn)`, counted over the known labels of a group.

    The same predictions give quite different numbers under different conventions, because most samples have no
    positive among rare labels; so both options belong beside the number.

    Args:
        labels, predictions (`np.ndarray`):
            Shape `[N, T]`: 1, 0, or -1 for unknown; and bool.
        members (`np.ndarray`, *optional*):
            Shape `[T]`, bool: the labels of the group; all by default.
        zero_division (`float`, *optional*, defaults to `0`):
            The value of a sample with neither a positive nor a predicted positive in the group: 0, 1, or NaN to leave
            the sample out, as in sklearn.
        samples (`str`, *optional*, defaults to `"all"`):
            `"all"`: every sample with a known label in the group. `"any_label"`: of these, the ones with a positive
            among all `T` labels. `"group_positive"`: the ones with a positive in the group.

    Returns:
        `tuple` of the mean (NaN if no sample is left) and the number of samples it is the mean of.

    Raises:
        ValueError: If `zero_division` or `samples` is none of the values above.
    """
    check_f1_options(zero_division, samples)
    inside = labels if members is None else labels[:, members]
    values = f1_along(1, inside, predictions if members is None else predictions[:, members], zero_division)
    kept = (inside >= 0).any(axis=1) & ~np.isnan(values)
    if samples == "any_label":
        kept &= (labels == 1).any(axis=1)
    elif samples == "group_positive":
        kept &= (inside == 1).any(axis=1)
    return (float(values[kept].mean()) if kept.any() else float("nan")), int(kept.sum())


def f1_along(
    axis: int, labels: NDArray[np.int8], predictions: NDArray[np.bool_], zero_division: float = np.nan
) -> Floats:
    """`2 tp / (2 tp + fp + fn)` over the known entries along an axis; `zero_division` where there is none of them."""
    true_positives = ((labels == 1) & predictions).sum(axis=axis)
    denominator = (labels == 1).sum(axis=axis) + ((labels >= 0) & predictions).sum(axis=axis)  # = 2 tp + fp + fn
    values = np.full(denominator.shape, float(zero_division))
    return np.divide(2.0 * true_positives, denominator, out=values, where=denominator > 0)


def check_f1_options(zero_division: float, samples: str) -> None:
    """Raises `ValueError` unless `zero_division` is 0, 1 or NaN and `samples` is a [`SampleFilter`]."""
    if not (zero_division in (0, 1) or np.isnan(zero_division)):
        raise ValueError(f"`zero_division` must be 0, 1 or NaN, got {zero_division!r}.")
    require_known("value of `samples`", [samples], get_args(SampleFilter))


def element_accuracy(labels: NDArray[np.int8], predictions: NDArray[np.bool_]) -> float:
    """Share of the known entries that are predicted right (1 - Hamming loss); NaN if nothing is known."""
    known = labels >= 0
    total = known.sum()
    return float((((labels == 1) == predictions) & known).sum() / total) if total else float("nan")


def exact_match_ratio(labels: NDArray[np.int8], predictions: NDArray[np.bool_]) -> float:
    """
    Share of the samples with all of their known labels right, among the samples with a known label; NaN without one.

    For rare labels it is high for a model that predicts nothing: read it beside the all-negative predictor.
    """
    known = labels >= 0
    counted = known.any(axis=1)
    right = (((labels == 1) == predictions) | ~known).all(axis=1)
    return float(right[counted].mean()) if counted.any() else float("nan")


def _first(wrong: NDArray[np.bool_], label_names: Sequence[str] | None) -> tuple[int, str]:
    row, column = (int(index[0]) for index in np.nonzero(wrong))
    return row, str(column) if label_names is None else repr(label_names[column])
