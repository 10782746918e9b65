"""Which labels are taken for which: confusion within an image, and retrieval of the images of a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fairpo_trl.classification.metrics.definitions import Floats, check_labels_and_scores
from fairpo_trl.core.partition import Partition


@dataclass(frozen=True)
class Confusion:
    """
    How often a present privileged label is outscored within its own image; the result of [`confusion_of_privileged`].

    Attributes:
        pairs (`int`): Number of (sample, privileged label present there).
        share (`float`): Share of them with at least one confusing negative: a label known to be absent whose score is
            as high or higher (>=, the set S_neg of the privileged loss). NaN if there are no pairs.
        by_label (`pd.DataFrame`): One row per privileged label: `positives`, `share`, and `mean_confusing`, the mean
            number of confusing negatives per positive.
        counts (`pd.DataFrame`): Rows privileged labels, columns all labels: in how many samples with the row's label
            the column's label is a confusing negative.
        opportunities (`pd.DataFrame`): In how many it could have been: the column's label is known to be absent.
    """

    pairs: int
    share: float
    by_label: pd.DataFrame
    counts: pd.DataFrame
    opportunities: pd.DataFrame


def confusion_of_privileged(labels: ArrayLike, scores: ArrayLike, partition: Partition) -> Confusion:
    """
    Confusing negatives of every present privileged label; an unknown label is never one.

    Raises:
        ValueError: If shapes differ or a label or score is invalid.
    """
    y, z = check_labels_and_scores(labels, scores, partition.names)
    counts, opportunities, rows = [], [], []
    for name in partition.privileged:
        column = partition.names.index(name)
        present = np.flatnonzero(y[:, column] == 1)
        absent = y[present] == 0
        confusing = absent & (z[present] >= z[present, column : column + 1])
        counts.append(confusing.sum(axis=0))
        opportunities.append(absent.sum(axis=0))
        rows.append((len(present), int(confusing.any(axis=1).sum()), int(confusing.sum())))
    index = pd.Index(partition.privileged, name="label")
    table = pd.DataFrame(rows, index=index, columns=["positives", "confused", "confusing"], dtype=float)
    pairs = int(table["positives"].sum())
    by_label = pd.DataFrame(
        {
            "positives": table["positives"].astype(int),
            "share": table["confused"] / table["positives"],  # 0 / 0 is NaN
            "mean_confusing": table["confusing"] / table["positives"],
        }
    )
    columns = pd.Index(partition.names, name="confused_with")
    return Confusion(
        pairs=pairs,
        share=float(table["confused"].sum() / pairs) if pairs else float("nan"),
        by_label=by_label,
        counts=pd.DataFrame(counts, index=index, columns=columns),
        opportunities=pd.DataFrame(opportunities, index=index, columns=columns),
    )


def most_confused_pairs(before: Confusion, after: Confusion, k: int = 10) -> pd.DataFrame:
    """
    The `k` label pairs that are confused most often, by the reference (`before`) or the trained model (`after`).

    Returns:
        `pd.DataFrame` with columns `label`, `confused_with`, `opportunities`, `before`, `after`, `change`, ordered by
        the larger of the two counts; pairs that neither model confuses are left out.

    Raises:
        ValueError: If the two are of different splits or partitions, or `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    if not before.opportunities.equals(after.opportunities):
        raise ValueError("`before` and `after` are of different labels or splits: compute both on the same one.")
    table = pd.DataFrame(
        {
            "opportunities": after.opportunities.stack(),
            "before": before.counts.stack(),
            "after": after.counts.stack(),
        }
    )
    table["change"] = table["after"] - table["before"]
    larger = table[["before", "after"]].max(axis=1)
    # Ties by name, so that the order of the columns does not matter.
    ordered = table.assign(larger=larger)[larger > 0].reset_index()
    ordered = ordered.sort_values(["larger", "before", "label", "confused_with"], ascending=[False, False, True, True])
    return ordered.drop(columns="larger").head(k).reset_index(drop=True)


def retrieval(
    labels: ArrayLike, scores: ArrayLike, partition: Partition, *, cutoffs: Sequence[int] = (10, 100)
) -> pd.DataFrame:
    """
    Retrieval of the images of each privileged label: rank all images by its score.

    Images with equal scores have no order of their own, so at a cutoff within a tie the expected number of hits under
    a random order is counted; the order of the samples cannot matter. An image with an unknown label is not ranked.

    Returns:
        `pd.DataFrame` with a row per privileged label: `positives`, `r_precision` (precision at as many images as
        there are positives), and `precision_at_k`, `recall_at_k` of each cutoff. Without positives, all but the
        precisions at a cutoff are NaN.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, or a cutoff is below 1 or above the number of images
            ranked.
    """
    y, z = check_labels_and_scores(labels, scores, partition.names)
    rows = []
    for name in partition.privileged:
        column = partition.names.index(name)
        known = y[:, column] >= 0
        relevant, ranked = y[known, column] == 1, z[known, column]
        if wrong := [k for k in cutoffs if not 1 <= k <= len(ranked)]:
            raise ValueError(f"`cutoffs` {wrong} must lie between 1 and the {len(ranked)} images ranked for {name!r}.")
        total = int(relevant.sum())
        row = {"positives": float(total), "r_precision": _hits(relevant, ranked, total) / total if total else np.nan}
        for k in cutoffs:
            hits = _hits(relevant, ranked, k)
            row[f"precision_at_{k}"] = hits / k
            row[f"recall_at_{k}"] = hits / total if total else np.nan
        rows.append(row)
    table = pd.DataFrame(rows, index=pd.Index(partition.privileged, name="label"))
    return table.astype({"positives": int})


def _hits(relevant: np.ndarray, scores: Floats, k: int) -> float:
    """Expected number of relevant ones among the `k` highest scores, ties broken at random."""
    limit = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, tied = scores > limit, scores == limit
    return float(relevant[above].sum() + (k - above.sum()) * relevant[tied].mean())
