"""Negative flips: decisions that the reference had right and the new model gets wrong.

An average that stays can hide them, since as many decisions may have been won elsewhere; for whoever relied on one it
is a loss (Yan et al., 2021, "Positive-congruent training", 2011.09161).
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from fairpo_trl.classification.metrics.definitions import check_labels_and_scores, check_thresholds
from fairpo_trl.core.partition import Partition


def decision_flips(
    labels: ArrayLike,
    reference: ArrayLike,
    trained: ArrayLike,
    partition: Partition,
    *,
    thresholds: ArrayLike | None = None,
) -> pd.DataFrame:
    """
    How many decisions of each label changed for the worse and for the better.

    Args:
        labels, partition, thresholds:
            As in [`evaluate_groups`].
        reference, trained (`ArrayLike`):
            `[N, T]` logits of the reference and of the new model.

    Returns:
        `pandas.DataFrame`: index: labels; columns: `role`, `known`, `negative` (the reference was right, the new model
        is wrong), `positive` (the other way) and `negative_present` (negative flips on images that have the label).

    Raises:
        ValueError: If shapes differ, or a label or score is not what it must be.
    """
    y, before = check_labels_and_scores(labels, reference, partition.names)
    _, after = check_labels_and_scores(labels, trained, partition.names)
    limits = check_thresholds(thresholds, y.shape[1])
    known = y >= 0
    was_right = ((before >= limits) == (y == 1)) & known
    is_right = ((after >= limits) == (y == 1)) & known
    negative = was_right & ~is_right
    return pd.DataFrame(
        {
            "role": [partition.role_of(name) for name in partition.names],
            "known": known.sum(axis=0),
            "negative": negative.sum(axis=0),
            "positive": (is_right & ~was_right).sum(axis=0),
            "negative_present": (negative & (y == 1)).sum(axis=0),
        },
        index=pd.Index(partition.names, name="label"),
    )


def flips_table(flips: pd.DataFrame) -> dict[str, Any]:
    """
    The flips of [`decision_flips`] as a further table of a results document: groups, then labels, the worst first.
    """

    def row(name: str, role: str, part: Any) -> list[Any]:
        share = 100 * part["negative"] / part["known"] if part["known"] else None
        counts = [
            {"value": int(part[column]), "unit": "count"} for column in ("negative", "negative_present", "positive")
        ]
        return [name, role, *counts, {"value": share, "unit": "decimal"} if share is not None else "–"]

    columns = ["known", "negative", "positive", "negative_present"]
    words = {"privileged": "privileged", "non_privileged": "held"}
    groups = [
        row(f"all {words[role]} labels", words[role], part[columns].sum())
        for role, part in sorted(flips.groupby("role"), key=lambda item: item[0] != "privileged")
    ]
    worst = flips[flips["negative"] > 0].sort_values("negative", ascending=False, kind="stable")
    labels = [row(str(name), words[part["role"]], part) for name, part in worst.iterrows()]
    return {
        "title": "Negative flips: decisions that the reference had right",
        "header": ["label", "role", "now wrong", "of these,\npresent", "now right", "now wrong, %"],
        "rows": [*groups, *labels],
        "texts": 2,
        "note": "Decisions at probability .5 on known labels of the test images. Now right: decisions that the "
        "reference had wrong. The share is of all known decisions of the label.",
    }
