"""A method against its reference on one split: changes of average precision with paired intervals, and the hinge."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fairpo_trl.classification.metrics.bootstrap import (
    Ranking,
    bootstrap_average_precision,
    clusters_of,
    percentile_interval,
)
from fairpo_trl.classification.metrics.definitions import (
    average_precision,
    check_labels_and_scores,
    group_columns,
    mean_average_precision,
)
from fairpo_trl.classification.metrics.group_report import frame_to_dict
from fairpo_trl.core.partition import Partition


@dataclass(frozen=True)
class ReferenceComparison:
    """
    The result of [`compare_with_reference`]. All differences are method minus reference: positive is better.

    Attributes:
        by_group (`pd.DataFrame`): Rows `all`, `privileged` and, if there are any, `non_privileged`; columns `labels`,
            `labels_counted` (with a positive), `map_reference`, `map`, `delta`, `low`, `high`, `seed_sd`.
        by_label (`pd.DataFrame`): One row per label: `role`, `positives`, `series_with_positives`, `ap_reference`,
            `ap`, `delta`, `low`, `high`, `seed_sd`, and `resamples_without_positives` (left out of its interval).
        fell (`tuple[str, ...]`): Held labels whose AP fell by more than `eps`, worst first: `delta < -eps`.
        fell_surely (`tuple[str, ...]`): Those of them whose whole interval lies below: `high < -eps`. The intervals
            are per label, so among many labels that did not change a few are expected here by chance.
        seeds, series, resamples (`int`): Runs of the method; clusters that were resampled, and how often.
        eps, level (`float`): As given.
    """

    by_group: pd.DataFrame
    by_label: pd.DataFrame
    fell: tuple[str, ...]
    fell_surely: tuple[str, ...]
    eps: float
    seeds: int
    series: int
    resamples: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; numbers that do not exist (NaN) are `None`."""
        frames = {"by_group": frame_to_dict(self.by_group), "by_label": frame_to_dict(self.by_label)}
        return vars(self) | frames | {"fell": list(self.fell), "fell_surely": list(self.fell_surely)}


def compare_with_reference(
    labels: ArrayLike,
    scores: ArrayLike | Sequence[ArrayLike],
    reference: ArrayLike | Sequence[ArrayLike],
    partition: Partition,
    *,
    series: Sequence[Hashable] | None = None,
    eps: float = 0.01,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ReferenceComparison:
    """
    Change of average precision against the reference: per label and per group, with paired bootstrap intervals.

    Whole series are resampled, since near-duplicates are no independent evidence, and both models are scored on the
    same resamples. With several seeds the quantity is the mean over seeds of the difference; its interval says how it
    would vary with other images, and `seed_sd`, the standard deviation over the seeds, how it varies with the run. The
    two are different uncertainties and are not mixed.

    Args:
        labels, partition:
            As in [`evaluate_groups`].
        scores (`ArrayLike` or `Sequence[ArrayLike]`):
            Shape `[N, T]`, or `[S, N, T]` for `S` seeds of one method: logits.
        reference (`ArrayLike` or `Sequence[ArrayLike]`):
            Shape `[N, T]`, or `[S, N, T]` if every seed had its own reference: logits.
        series (`Sequence[Hashable]`, *optional*):
            The series of each sample. By default each sample is its own.
        eps (`float`, *optional*, defaults to `0.01`):
            The fall of AP that a held label is allowed: 0.01 is one point.
        resamples, seed (`int`, *optional*, defaults to `1000` and `0`):
            Number of resamples, and their seed.
        level (`float`, *optional*, defaults to `0.95`):
            Level of the two-sided percentile intervals.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, there are fewer than two series, or an option is
            out of range.
    """
    if resamples < 1 or not 0 < level < 1 or not eps >= 0:
        raise ValueError(
            "`resamples` must be at least 1, `level` between 0 and 1 and `eps` at least 0; got "
            f"resamples={resamples}, level={level}, eps={eps}."
        )
    methods, references = np.asarray(scores), np.asarray(reference)
    methods = methods[None] if methods.ndim == 2 else methods
    references = references[None] if references.ndim == 2 else references
    if methods.ndim != 3 or references.ndim != 3 or len(references) not in (1, len(methods)) or not len(methods):
        raise ValueError(
            "`scores` and `reference` must have shape [N, T] or [seeds, N, T], with one reference for all seeds or "
            f"one for each; with the seeds first their shapes are {methods.shape} and {references.shape}."
        )
    names = partition.names
    checked = [check_labels_and_scores(labels, matrix, names) for matrix in methods]
    y = checked[0][0]
    runs = [z for _, z in checked]
    bases = [check_labels_and_scores(labels, matrix, names, "reference")[1] for matrix in references]
    clusters = clusters_of(series, len(y))

    models = [*runs, *bases]
    rankings = [Ranking.of(y[:, t], z[:, t]) for z in models for t in range(len(names))]
    drawn = bootstrap_average_precision(rankings, clusters, resamples=resamples, seed=seed)
    drawn = drawn.reshape(len(models), len(names), resamples)
    drawn_delta = drawn[: len(runs)].mean(axis=0) - drawn[len(runs) :].mean(axis=0)  # [T, resamples]
    ap = np.stack([average_precision(y, z) for z in models])
    deltas = ap[: len(runs)] - ap[len(runs) :]  # [seeds, T]; a single reference serves every seed

    positive = y == 1
    low, high = percentile_interval(drawn_delta, level)
    by_label = pd.DataFrame(
        {
            "role": [partition.role_of(name) for name in names],
            "positives": positive.sum(axis=0),
            "series_with_positives": [len(np.unique(clusters[positive[:, t]])) for t in range(len(names))],
            "ap_reference": ap[len(runs) :].mean(axis=0),
            "ap": ap[: len(runs)].mean(axis=0),
            "delta": deltas.mean(axis=0),
            "low": low,
            "high": high,
            "seed_sd": _seed_sd(deltas),
            "resamples_without_positives": np.isnan(drawn_delta).sum(axis=1),
        },
        index=pd.Index(names, name="label"),
    )
    members, rows = group_columns(partition), []
    for inside in members.values():
        low_map, high_map = percentile_interval(mean_over_labels(drawn_delta[inside])[None], level)
        seed_deltas = np.array([mean_average_precision(row[inside])[0] for row in deltas])
        rows.append(
            {
                "labels": int(inside.sum()),
                "labels_counted": int((~np.isnan(by_label["ap"][inside])).sum()),
                "map_reference": mean_average_precision(by_label["ap_reference"][inside])[0],
                "map": mean_average_precision(by_label["ap"][inside])[0],
                "delta": float(seed_deltas.mean()),
                "low": float(low_map[0]),
                "high": float(high_map[0]),
                "seed_sd": float(_seed_sd(seed_deltas[:, None])[0]),
            }
        )
    held = by_label[by_label["role"] == "non_privileged"].sort_values("delta", kind="stable")
    return ReferenceComparison(
        by_group=pd.DataFrame(rows, index=pd.Index(list(members), name="group")),
        by_label=by_label,
        fell=tuple(held.index[held["delta"] < -eps]),
        fell_surely=tuple(held.index[(held["delta"] < -eps) & (held["high"] < -eps)]),
        eps=eps,
        seeds=len(runs),
        series=int(clusters.max()) + 1,
        resamples=resamples,
        level=level,
    )


@dataclass(frozen=True)
class HingeSatisfaction:
    """
    Whether the held labels kept the method's promise; the result of [`hinge_satisfaction`]. NaN: there are none.

    Attributes:
        pairs (`float`): Share of the known (sample, held label) pairs whose BCE is at most the reference's + `eps`
            (the hinge of the paper is 0 there).
        labels (`float`): Share of the held labels whose *mean* BCE is at most the reference's + `eps`: the goal.
        by_label (`pd.DataFrame`): One row per held label: `known`, `bce_reference`, `bce`, `excess` (their
            difference), `pairs_satisfied`, `satisfied`. Without known samples a label is not counted in `labels`.
        eps (`float`): As given.
    """

    pairs: float
    labels: float
    by_label: pd.DataFrame
    eps: float


def hinge_satisfaction(
    labels: ArrayLike, scores: ArrayLike, reference: ArrayLike, partition: Partition, *, eps: float = 0.0
) -> HingeSatisfaction:
    """
    Share of the held pairs and labels whose binary cross-entropy is not above the reference's by more than `eps`.

    With `eps = 0` a model that equals its reference up to rounding fails about half of its pairs: compute both with
    the same code and batch size, or allow a small `eps`.

    Args:
        labels, scores, partition:
            As in [`evaluate_groups`].
        reference (`ArrayLike`):
            Shape `[N, T]`: logits of the reference.
        eps (`float`, *optional*, defaults to `0.0`):
            The allowed excess, in nats, as in the training loss.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, or `eps` is negative.
    """
    if not eps >= 0:
        raise ValueError(f"`eps` must be at least 0, got {eps}.")
    y, z = check_labels_and_scores(labels, scores, partition.names)
    _, base = check_labels_and_scores(labels, reference, partition.names, "reference")
    held = [index for index, name in enumerate(partition.names) if name in partition.non_privileged]
    y, z, base = y[:, held], z[:, held], base[:, held]
    known = y >= 0
    loss, loss_reference = binary_cross_entropy(y, z), binary_cross_entropy(y, base)
    satisfied = (loss <= loss_reference + eps) & known
    count = known.sum(axis=0)
    absent = np.full(len(held), np.nan)

    def mean_of_label(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.divide((values * known).sum(axis=0), count, out=absent.copy(), where=count > 0)

    mean, mean_reference = mean_of_label(loss), mean_of_label(loss_reference)
    kept = mean <= mean_reference + eps
    by_label = pd.DataFrame(
        {
            "known": count,
            "bce_reference": mean_reference,
            "bce": mean,
            "excess": mean - mean_reference,
            "pairs_satisfied": mean_of_label(satisfied),
            "satisfied": kept,
        },
        index=pd.Index(partition.non_privileged, name="label"),
    )
    return HingeSatisfaction(
        pairs=float(satisfied.sum() / known.sum()) if known.any() else float("nan"),
        labels=float(kept[count > 0].mean()) if known.any() else float("nan"),
        by_label=by_label,
        eps=eps,
    )


def binary_cross_entropy(labels: NDArray[np.int8], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per entry, from logits: `log(1 + exp(z)) - y z`. Entries with an unknown label hold no meaning; mask them."""
    return np.logaddexp(0.0, np.where(labels == 1, -scores, scores))


def _seed_sd(deltas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over seeds (first axis, n - 1); NaN for one seed."""
    return deltas.std(axis=0, ddof=1) if len(deltas) > 1 else np.full(deltas.shape[1], np.nan)


def mean_over_labels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where nothing is left."""
    some = ~np.isnan(values)
    count = some.sum(axis=0)
    total = np.where(some, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
