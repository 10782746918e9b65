"""One model on one split, by group and by label, with what trivial predictors would get beside every number."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fairpo_trl.classification.metrics.definitions import (
    SampleFilter,
    average_precision,
    check_f1_options,
    check_labels_and_scores,
    check_thresholds,
    element_accuracy,
    exact_match_ratio,
    f1_along,
    group_columns,
    mean_average_precision,
    sample_f1,
)
from fairpo_trl.core.messages import require_known
from fairpo_trl.core.partition import Partition, Role


BASELINES = ("all_negative", "label_prior")
"""Predictors that look at no image. `all_negative` predicts nothing; `label_prior` scores each label by its share of
positives in the evaluated split, so it predicts the labels that more than half of the samples have. Both rank all
samples alike, which makes their average precision the prevalence."""

BANDS = ("head", "mid", "tail")


@dataclass(frozen=True)
class MatchedGap:
    """
    How far privileged labels are behind held ones *of similar prevalence*.

    Attributes:
        gap (`float`): Mean over the matched privileged labels of (mean AP of its peers - its AP); NaN without any.
        matched, unmatched (`tuple[str, ...]`): Privileged labels with at least one peer, and those without, of which
            the gap says nothing.
    """

    gap: float
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class GroupEvaluation:
    """
    The result of [`evaluate_groups`].

    Attributes:
        by_group (`pd.DataFrame`): Rows `all`, `privileged` and, if there are any, `non_privileged`. `labels`;
            `labels_counted` (with a positive and a negative: those `map` is the mean of); `samples` (with a known
            label of the group); `samples_f1` (those `sample_f1` is the mean of); then `map`, `sample_f1`, `accuracy`,
            `exact_match`, each followed by its value for the [`BASELINES`] (`map_all_negative`, `map_label_prior`,
            ...).
        by_label (`pd.DataFrame`): One row per label, in the order of the partition: `role`, `known`, `positives`,
            `prevalence` (the AP of any constant score), `threshold`, `ap`, `f1` (NaN if nothing is positive or
            predicted), `accuracy`, `accuracy_all_negative`, `accuracy_label_prior`.
        labels_without_positives, labels_without_negatives (`tuple[str, ...]`): Labels left out of every `map`: nothing
            is present in the split, or nothing absent, so that any ranking would have an AP of 1.
        zero_division (`float`), samples (`str`): Convention and sample filter of `sample_f1`.
    """

    by_group: pd.DataFrame
    by_label: pd.DataFrame
    labels_without_positives: tuple[str, ...]
    zero_division: float
    samples: SampleFilter
    labels_without_negatives: tuple[str, ...] = ()

    def worst(self, k: int = 1, role: Role | None = None) -> pd.DataFrame:
        """The `k` labels (of one role, if given) with the lowest AP, worst first; labels without positives aside."""
        if k < 1:
            raise ValueError(f"`k` must be at least 1, got {k}.")
        return self._ranked(role).sort_values("ap", kind="stable").head(k)

    def bottom_k_ap(self, k: int = 5, role: Role | None = None) -> float:
        """Mean AP of the `k` worst labels (fewer if there are fewer); NaN if no label has a positive."""
        return float(self.worst(k, role)["ap"].mean())

    def gap(self) -> float:
        """mAP of the held labels minus mAP of the privileged ones; NaN if a side has no label with a positive."""
        if "non_privileged" not in self.by_group.index:
            return float("nan")
        return float(self.by_group["map"]["non_privileged"] - self.by_group["map"]["privileged"])

    def matched_gap(self, factor: float = 2.0) -> MatchedGap:
        """
        The gap between labels of similar prevalence, as a [`MatchedGap`].

        Rare labels have a lower AP under any model, since chance is their prevalence; so with the rarest labels
        privileged, [`gap`] mostly measures rarity. Here each privileged label is compared with its *peers*: all held
        labels whose prevalence lies within `factor` of its own, either way.

        Raises:
            ValueError: If `factor` is below 1.
        """
        if not factor >= 1:
            raise ValueError(f"`factor` must be at least 1, got {factor}.")
        held = self._ranked("non_privileged")
        gaps, unmatched = {}, []
        for name, row in self._ranked("privileged").iterrows():
            # The slack keeps a ratio of exactly `factor` inside, whichever way rounding goes.
            ratio = np.exp(np.abs(np.log(held["prevalence"] / row["prevalence"])))
            peers = held["ap"][ratio <= factor * (1 + 1e-12)]
            if len(peers):
                gaps[str(name)] = float(peers.mean() - row["ap"])
            else:
                unmatched.append(str(name))
        gap = float(np.mean(list(gaps.values()))) if gaps else float("nan")
        return MatchedGap(gap, tuple(gaps), tuple(unmatched))

    def bands(self, counts: Mapping[str, int] | None = None) -> pd.DataFrame:
        """
        mAP of frequent, middling and rare labels: the usual long-tail view.

        Labels are ranked by `counts` (name -> positives in train; by default the positives of the evaluated split);
        the first third is `head`, the last third `tail`. Labels with equal counts share a band, the more frequent one.

        Returns:
            `pd.DataFrame` with rows `head`, `mid`, `tail` and columns `labels`, `labels_counted`, `map`, `min_count`,
            `max_count`.

        Raises:
            ValueError: If `counts` misses a label or has an unknown one.
        """
        names = list(self.by_label.index)
        if counts is None:
            counts = dict(zip(names, self.by_label["positives"], strict=True))
        require_known("label in `counts`", counts, names)
        if missing := [name for name in names if name not in counts]:
            raise ValueError(f"`counts` has no number for {missing}.")
        values = np.array([counts[name] for name in names])
        more_frequent = (values[None, :] > values[:, None]).sum(axis=1)
        band = 3 * more_frequent // len(names)
        rows = []
        for index in range(len(BANDS)):
            inside = band == index
            mean, counted = mean_average_precision(self.by_label["ap"].to_numpy()[inside])
            low, high = (values[inside].min(), values[inside].max()) if inside.any() else (np.nan, np.nan)
            rows.append((int(inside.sum()), counted, mean, low, high))
        columns = ["labels", "labels_counted", "map", "min_count", "max_count"]
        return pd.DataFrame(rows, index=pd.Index(BANDS, name="band"), columns=columns)

    def describe(self) -> str:
        """The conventions behind the numbers, in one line to print under a table."""
        without = (*self.labels_without_positives, *self.labels_without_negatives)
        left_out = f"{len(without)} left out: {', '.join(without)}" if without else "none left out"
        kind = "a positive and a negative" if self.labels_without_negatives else "a positive"
        return (
            f"mAP: macro over labels with {kind} in this split ({left_out}). Sample-F1: zero_division="
            f"{self.zero_division}, samples={self.samples!r}. Accuracy and exact match: all samples, known labels."
        )

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.render.notebook import metrics_html

        return metrics_html({"By group": self.by_group, "By label": self.by_label}, self.describe())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; numbers that do not exist (NaN) are `None`."""
        return {
            "by_group": frame_to_dict(self.by_group),
            "by_label": frame_to_dict(self.by_label),
            "labels_without_positives": list(self.labels_without_positives),
            "labels_without_negatives": list(self.labels_without_negatives),
            "zero_division": None if math.isnan(self.zero_division) else self.zero_division,
            "samples": self.samples,
        }

    def _ranked(self, role: Role | None) -> pd.DataFrame:
        table = self.by_label[self.by_label["ap"].notna()]
        return table if role is None else table[table["role"] == role]


def evaluate_groups(
    labels: ArrayLike,
    scores: ArrayLike,
    partition: Partition,
    *,
    thresholds: ArrayLike | None = None,
    zero_division: float = 0,
    samples: SampleFilter = "all",
) -> GroupEvaluation:
    """
    Every metric of a multi-label classifier on a whole split, for all labels and for each role.

    Args:
        labels (`ArrayLike`):
            Shape `[N, T]`, integer: 1 present, 0 absent, -1 unknown (counts nowhere).
        scores (`ArrayLike`):
            Shape `[N, T]`: logits, not probabilities (see [`check_labels_and_scores`]).
        partition (`Partition`):
            Its names are the `T` label names, in the order of the columns.
        thresholds (`ArrayLike`, *optional*):
            One logit per label, from which on (>=) it is predicted; one number for all. Default 0, probability 0.5.
            Tune them on validation data, never on the split evaluated here.
        zero_division, samples (*optional*, default to `0` and `"all"`):
            Of sample-F1 alone, see [`sample_f1`].

    Raises:
        ValueError: If shapes differ, a label is not 1, 0 or -1, a score is NaN or infinite, or an option is invalid.
    """
    check_f1_options(zero_division, samples)
    y, z = check_labels_and_scores(labels, scores, partition.names)
    limits = check_thresholds(thresholds, y.shape[1])
    if z.min() >= 0 and z.max() <= 1:
        warnings.warn(
            "All scores lie between 0 and 1, as probabilities do; logits are expected. A threshold of 0 then predicts "
            "every label, and rounding may have made ties.",
            UserWarning,
            stacklevel=2,
        )
    known, positives = (y >= 0).sum(axis=0), (y == 1).sum(axis=0)
    prevalence = np.divide(positives, known, out=np.full(len(known), np.nan), where=known > 0)
    constant_ap = np.where((positives > 0) & (positives < known), prevalence, np.nan)
    ap = average_precision(y, z)
    predictions = {
        "": z >= limits,
        "_all_negative": np.zeros(y.shape, dtype=bool),
        "_label_prior": np.broadcast_to(prevalence > 0.5, y.shape),
    }
    members, rows = group_columns(partition), []
    for inside in members.values():
        group_map, counted = mean_average_precision(ap[inside])
        row: dict[str, float] = {
            "labels": int(inside.sum()),
            "labels_counted": counted,
            "samples": int((y[:, inside] >= 0).any(axis=1).sum()),
            "samples_f1": sample_f1(y, predictions[""], inside, zero_division=zero_division, samples=samples)[1],
        }
        for suffix in predictions:
            row[f"map{suffix}"] = mean_average_precision(constant_ap[inside])[0] if suffix else group_map
        for suffix, predicted in predictions.items():
            f1 = sample_f1(y, predicted, inside, zero_division=zero_division, samples=samples)
            row[f"sample_f1{suffix}"] = f1[0]
        for suffix, predicted in predictions.items():
            row[f"accuracy{suffix}"] = element_accuracy(y[:, inside], predicted[:, inside])
        for suffix, predicted in predictions.items():
            row[f"exact_match{suffix}"] = exact_match_ratio(y[:, inside], predicted[:, inside])
        rows.append(row)
    by_label: dict[str, Any] = {"role": [partition.role_of(name) for name in partition.names]}
    by_label |= {"known": known, "positives": positives, "prevalence": prevalence, "threshold": limits, "ap": ap}
    by_label |= {"f1": f1_along(0, y, predictions[""])}
    for suffix, predicted in predictions.items():
        by_label[f"accuracy{suffix}"] = [element_accuracy(y[:, [t]], predicted[:, [t]]) for t in range(len(known))]
    return GroupEvaluation(
        by_group=pd.DataFrame(rows, index=pd.Index(list(members), name="group")),
        by_label=pd.DataFrame(by_label, index=pd.Index(partition.names, name="label")),
        labels_without_positives=tuple(np.array(partition.names)[positives == 0].tolist()),
        labels_without_negatives=tuple(np.array(partition.names)[(positives > 0) & (positives == known)].tolist()),
        zero_division=zero_division,
        samples=samples,
    )


def frame_to_dict(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """`{row: {column: value}}` of plain Python numbers and strings, with `None` for NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict(orient="index")
