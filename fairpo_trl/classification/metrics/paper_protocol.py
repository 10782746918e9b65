"""The per-batch protocol behind the slides' numbers. An extra: it exists only to stand beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fairpo_trl.classification.metrics.definitions import (
    average_precision,
    check_labels_and_scores,
    group_columns,
    mean_average_precision,
)
from fairpo_trl.core.partition import Partition


def paper_protocol_map(
    labels: ArrayLike, scores: ArrayLike, partition: Partition, *, batch_size: int = 32
) -> dict[str, float]:
    """
    Mean over batches of the batch's own mAP, by group. **Not** the mAP of the split, and far above it.

    Within a batch of 32 a rare label mostly has one positive among few rivals, so that its average precision is high;
    the average over batches is no estimate of anything on the split, and changes with the batch size and the order of
    the samples. It follows the published code: in each batch, labels without a positive there are left out of its
    mean; a batch without a positive of any label of the group counts as 0; all batches, also a short last one, weigh
    the same; scores are float32 probabilities.

    Args:
        labels, scores, partition:
            As in [`evaluate_groups`], in the order of evaluation; unknown labels are excluded (that code knows none).
        batch_size (`int`, *optional*, defaults to `32`):
            Samples per batch.

    Raises:
        ValueError: If shapes differ, a label or score is invalid, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    y, z = check_labels_and_scores(labels, scores, partition.names)
    # Its sigmoid, ties included. exp(-z) overflows float32 to inf far below 0, which gives the right 0.
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-z.astype(np.float32)))
    members = group_columns(partition)
    batches: dict[str, list[float]] = {name: [] for name in members}
    for start in range(0, len(y), batch_size):
        rows = slice(start, start + batch_size)
        ap = average_precision(y[rows], probabilities[rows])
        for name, inside in members.items():
            mean, counted = mean_average_precision(ap[inside])
            batches[name].append(mean if counted else 0.0)
    return {name: float(np.mean(values)) for name, values in batches.items()}
