"""Cross-validation over series of the openclipart train set, so that settings can be chosen without the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openclipart.load import load_openclipart

from fairpo_trl import Partition
from fairpo_trl.classification.data.split import MultiLabelSplit

from .runs import VALIDATION_SHARE, Experiment


def fold_of_rows(split: MultiLabelSplit, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """
    The fold of each row, `[N]`: no series is cut, and the positives of every label are spread evenly, rarest first.

    Args:
        split (`MultiLabelSplit`):
            With series; without them each row is its own.
        folds (`int`):
            At least 2.
        seed (`int`, *optional*, defaults to `0`):
            Order of equal series.

    Raises:
        ValueError: With fewer than 2 folds, or fewer series than folds.
    """
    series = np.unique(split.series or split.ids, return_inverse=True)[1]
    if not 2 <= folds <= series.max() + 1:
        raise ValueError(f"`folds` must be between 2 and {series.max() + 1}, the number of series; got {folds}.")
    positives = np.zeros((series.max() + 1, len(split.label_names)), dtype=np.int64)  # [series, T]
    np.add.at(positives, series, split.labels == 1)
    rows = np.bincount(series)
    chosen = np.full(len(rows), -1)
    held, size = np.zeros((folds, positives.shape[1]), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(rows))

    def place(waiting: NDArray[np.int64], counts: NDArray[np.int64], label: int | None) -> None:
        for one in waiting[np.argsort(-counts[waiting], kind="stable")]:  # the largest first: small ones even out
            fold = np.lexsort((size, held[:, label] if label is not None else size))[0]
            chosen[one] = fold
            held[fold] += positives[one]
            size[fold] += rows[one]

    for label in np.argsort(positives.sum(axis=0), kind="stable"):
        place(order[(chosen[order] < 0) & (positives[order, label] > 0)], positives[:, label], label)
    place(order[chosen[order] < 0], rows, None)
    return chosen[series]


def load_folds(
    folder: Path, epochs: int, folds: int = 4, share: float = 0.2, whole: MultiLabelSplit | None = None
) -> list[Experiment]:
    """
    One experiment per fold: its `test` is that fold of the train set, its train and validation are cut from the rest.

    The real test set is not among them. Privileged are the rarest labels of the whole train set, as in
    [`load_experiment`].

    Args:
        folder (`Path`):
            Where runs are kept.
        epochs (`int`):
            Further epochs of every method.
        folds (`int`, *optional*, defaults to `4`):
            Number of folds.
        share (`float`, *optional*, defaults to `0.2`):
            Share of the labels that is privileged.
        whole (`MultiLabelSplit`, *optional*):
            The train set, with features; by default that of openclipart.
    """
    whole = load_openclipart()["train"] if whole is None else whole
    fold, partition = fold_of_rows(whole, folds), Partition.by_least_frequent(whole.label_counts(), share)
    experiments = []
    for number in range(folds):
        train, validation = whole.select(fold != number).carve_validation(VALIDATION_SHARE, seed=0)
        parts = {"train": train, "validation": validation, "test": whole.select(fold == number, name="fold")}
        experiments.append(Experiment(folder, parts, partition, epochs))
    return experiments
