"""Measures of written label sets: by group and label, with paired bootstrap intervals over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairpo_trl.classification.metrics.bootstrap import percentile_interval
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.core.partition import Partition


Floats = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


class SetMeasures:
    """
    Everything that is measured on some written sets, as ratios of sums over items, so that one resampling of the items
    gives intervals for all of it.

    Args:
        labels (`ArrayLike`):
            Shape `[N, T]`, 0 and 1: the true sets.
        predicted (`ArrayLike`):
            Shape `[S, N, T]`, or `[N, T]` for one seed: the sets as read; a malformed text is an empty set.
        partition ([`~fairpo_trl.Partition`]):
            Its names are the `T` labels, in the order of the columns.

    Raises:
        ValueError: If the shapes do not go together.
    """

    def __init__(self, labels: ArrayLike, predicted: ArrayLike, partition: Partition) -> None:
        true, found = np.asarray(labels) == 1, np.asarray(predicted, dtype=bool)
        found = found[None] if found.ndim == 2 else found
        if found.ndim != 3 or found.shape[1:] != true.shape or true.shape[1] != len(partition.names):
            raise ValueError(
                f"`labels` must have shape [items, {len(partition.names)}] and `predicted` the same, with or without "
                f"seeds before; their shapes are {true.shape} and {np.shape(predicted)}."
            )
        self.partition, self.seeds = partition, len(found)
        hits, wrong, missed = found & true, found & ~true, ~found & true  # [S, N, T]
        self._terms: dict[str, tuple[Floats, Floats]] = {}
        ones = np.ones(found.shape[:2])
        sizes, wanted = found.sum(axis=2), np.broadcast_to(true.sum(axis=1), found.shape[:2])
        self._add("set_f1", 2 * hits.sum(axis=2) / np.maximum(1, sizes + wanted), ones)
        self._add("exact_match", ~(wrong | missed).any(axis=2), ones)
        self._add("size_error", sizes - wanted, ones)
        self._add("absolute_size_error", np.abs(sizes - wanted), ones)
        members = {name: [column] for column, name in enumerate(partition.names)}
        columns = {group.name: [partition.names.index(n) for n in group.members] for group in partition.groups("role")}
        columns["all"] = list(range(len(partition.names)))
        for name, inside in {**{f"label/{n}": c for n, c in members.items()}, **columns}.items():
            tp, fp, fn = (part[:, :, inside].sum(axis=2) for part in (hits, wrong, missed))
            self._add(f"{name}/precision", tp, tp + fp)
            self._add(f"{name}/recall", tp, tp + fn)
            self._add(f"{name}/f1", 2 * tp, 2 * tp + fp + fn)

    def _add(self, name: str, above: NDArray[Any], below: NDArray[Any]) -> None:
        self._terms[name] = (above.astype(np.float64), below.astype(np.float64))

    @property
    def names(self) -> list[str]:
        """`set_f1`, `exact_match`, `size_error`, ...; `<role>/f1`, `all/f1`, `label/<label>/f1` and their parts."""
        return list(self._terms)

    def values(self, name: str, weights: NDArray[Any] | None = None) -> Floats:
        """
        One measure of each seed.

        Args:
            name (`str`):
                One of [`names`].
            weights (`np.ndarray`, *optional*):
                Shape `[R, N]`: how often each item occurs in each resample.

        Returns:
            `np.ndarray` of shape `[S]` or `[S, R]`; NaN where it does not exist: no such label true or written.
        """
        above, below = self._terms[name]  # [S, N]
        if weights is None:
            top, bottom = above.sum(axis=1), below.sum(axis=1)
        else:
            top, bottom = above @ weights.T, below @ weights.T
        return ratio(top, bottom)

    def mean(self, name: str) -> float:
        """One measure, the mean over seeds; NaN where it does not exist for any seed."""
        values = self.values(name)
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def ratio(above: Floats, below: Floats) -> Floats:
    """NaN where it does not exist: no such label true or written."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def resample_items(count: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """How often each of `count` items occurs in each resample, `[resamples, count]`."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def change(trained: SetMeasures, reference: SetMeasures, name: str, weights: NDArray[Any]) -> dict[str, float] | None:
    """
    Trained less reference: mean over seeds with a paired percentile interval over items, and the spread over seeds.

    Args:
        trained, reference ([`SetMeasures`]):
            On the same items; as many seeds, or one reference for all.
        name (`str`):
            The measure.
        weights (`np.ndarray`):
            From [`resample_items`]; the same for everything that is compared.

    Returns:
        `dict` with `mean`, and `low`, `high`, `seed_sd` where they exist; `None` where one side has no value.
    """
    deltas = trained.values(name) - reference.values(name)
    if np.isnan(deltas).any():
        return None
    drawn = (trained.values(name, weights) - reference.values(name, weights)).mean(axis=0)
    low, high = percentile_interval(drawn[None], LEVEL)
    found = {"mean": float(deltas.mean())}
    if not np.isnan(low[0]):
        found |= {"low": float(low[0]), "high": float(high[0])}
    if len(deltas) > 1:
        found["seed_sd"] = float(deltas.std(ddof=1))
    return found


def evaluation_dict(labels: ArrayLike, predicted: ArrayLike, partition: Partition) -> dict[str, Any]:
    """
    The evaluation of a multi-label classifier, for sets: F1, accuracy and exact match by group and label, with the
    trivial baselines, and precision, recall and F1 over all entries of a group. A set has no scores, so average
    precision does not exist and is `None` everywhere.
    """
    scores = np.where(np.asarray(predicted, dtype=bool), 1.0, -1.0)
    found = evaluate_groups(labels, scores, partition).to_dict()
    for row in (*found["by_group"].values(), *found["by_label"].values()):
        for column in row:
            if column == "ap" or column == "map" or column.startswith("map_"):
                row[column] = None
    measures = SetMeasures(labels, predicted, partition)
    for group, row in found["by_group"].items():
        row |= {name: _number(measures.mean(f"{group}/{name}")) for name in ("precision", "recall", "f1")}
    return found


def comparison_dict(
    labels: ArrayLike,
    trained: ArrayLike,
    reference: ArrayLike,
    partition: Partition,
    *,
    allowed_fall: float = 0.01,
) -> dict[str, Any]:
    """
    Change of F1 by group and label, as the results of a run keep it.

    Args:
        labels, trained, reference, partition:
            As in [`SetMeasures`]: the true sets, and the sets as read of both models.
        allowed_fall (`float`, *optional*, defaults to `0.01`):
            A held label whose F1 falls by more is named in `fell`; in `fell_surely` if its whole interval does.

    Returns:
        `dict`: `by_group`, `by_label`, `fell` and `fell_surely` (worst first), how it was measured; `None` where there
            is no F1.
    """
    after, before = SetMeasures(labels, trained, partition), SetMeasures(labels, reference, partition)
    weights = resample_items(len(np.asarray(labels)))

    def row(name: str) -> dict[str, float | None]:
        found = change(after, before, f"{name}/f1", weights) or {}
        return {
            "f1_reference": _number(before.mean(f"{name}/f1")),
            "f1": _number(after.mean(f"{name}/f1")),
            "delta": found.get("mean"),
            **{end: found.get(end) for end in ("low", "high", "seed_sd")},
        }

    positives = (np.asarray(labels) == 1).sum(axis=0)
    counted = dict(zip(partition.names, positives.tolist(), strict=True))
    groups: Mapping[str, Sequence[str]] = {"all": partition.names} | {g.name: g.members for g in partition.groups()}
    by_label = {
        name: {"role": partition.role_of(name), "positives": counted[name], **row(f"label/{name}")}
        for name in partition.names
    }

    def below(end: str) -> list[str]:
        values = {name: by_label[name] for name in partition.non_privileged if by_label[name][end] is not None}
        fell = [name for name, row in values.items() if row[end] < -allowed_fall]
        return sorted(fell, key=lambda name: by_label[name]["delta"])

    return {
        "by_group": {
            name: {"labels": len(members), "labels_counted": sum(counted[m] > 0 for m in members), **row(name)}
            for name, members in groups.items()
        },
        "by_label": by_label,
        "fell": below("delta"),
        "fell_surely": below("high"),
        "eps": allowed_fall,
        "seeds": after.seeds,
        "series": len(np.asarray(labels)),
        "resamples": RESAMPLES,
        "level": LEVEL,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
