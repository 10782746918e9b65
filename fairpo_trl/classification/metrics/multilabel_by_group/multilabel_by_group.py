"""Multi-label metrics for all labels and for privileged and non-privileged ones, as a module for `evaluate`."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from fairpo_trl.classification.metrics.definitions import SampleFilter
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.core.partition import Partition


_DESCRIPTION = """\
Mean average precision, sample-F1, element accuracy and exact-match ratio of a multi-label classifier on a whole split,
for all labels and for each role, with the all-negative predictor and the label prior beside every number.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one sequence of logits per sample (not probabilities, not decisions), all of the same length.
    references: one sequence of 1 (present), 0 (absent) or -1 (unknown, counted nowhere) per sample.
    label_names: the names of the labels, in the order of the columns.
    privileged: the privileged ones of them, at least one; all others are non-privileged.
    thresholds: logit from which on a label is predicted, one number or one per label. Default 0, probability 0.5.
    zero_division: value of sample-F1 for a sample with nothing positive and nothing predicted: 0, 1 or NaN (left out).
    samples: samples of sample-F1: "all", "any_label" (with any positive) or "group_positive" (with one in the group).
Returns:
    For each group G of "all", "privileged", "non_privileged" (if there is one) and each metric M of "map",
    "sample_f1", "accuracy", "exact_match": "G_M", "G_M_all_negative" and "G_M_label_prior"; "G_labels_counted", the
    number of labels "G_map" is the mean of; and "labels_without_positives" and "labels_without_negatives",
    the names left out of every mAP.
    A number that does not exist is NaN.
Raises:
    ValueError: a score is NaN or infinite, a reference is not 1, 0 or -1, rows differ in length, or a name is unknown.
Example:
    >>> metric = evaluate.load("fairpo_trl/classification/metrics/multilabel_by_group")
    >>> results = metric.compute(
    ...     predictions=[[2.0, -1.0], [0.5, 0.3], [-1.0, -2.0]],
    ...     references=[[1, 0], [0, 1], [1, 0]],
    ...     label_names=["person", "toaster"],
    ...     privileged=["toaster"],
    ... )
    >>> round(results["non_privileged_map"], 3), results["privileged_map"], results["labels_without_positives"]
    (0.833, 1.0, [])
"""

_CITATION = """\
@misc{mondal2025fairpo,
    title = {FairPO: Robust Preference Optimization for Fair Multi-Label Learning},
    author = {Mondal, Soumen Kumar and Chanda, Prateek and Varmora, Akshit and Ramakrishnan, Ganesh},
    year = {2025},
    eprint = {2505.02433},
    archivePrefix = {arXiv},
}
"""

_METRICS = ("map", "sample_f1", "accuracy", "exact_match")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MultilabelByGroup(evaluate.Metric):
    """See the description above."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[int]],
        label_names: Sequence[str],
        privileged: Sequence[str],
        thresholds: float | Sequence[float] | None = None,
        zero_division: float = 0,
        samples: SampleFilter = "all",
    ) -> dict[str, Any]:
        partition = Partition.by_name(label_names, privileged)
        report = evaluate_groups(
            _matrix(references, "references", len(partition.names), np.int64),
            _matrix(predictions, "predictions", len(partition.names), np.float64),
            partition,
            thresholds=thresholds,
            zero_division=zero_division,
            samples=samples,
        )
        results: dict[str, Any] = {
            "labels_without_positives": list(report.labels_without_positives),
            "labels_without_negatives": list(report.labels_without_negatives),
        }
        for group, row in report.by_group.iterrows():
            results[f"{group}_labels_counted"] = int(row["labels_counted"])
            for metric in _METRICS:
                for suffix in ("", "_all_negative", "_label_prior"):
                    results[f"{group}_{metric}{suffix}"] = float(row[f"{metric}{suffix}"])
        return results


def _matrix(rows: Sequence[Sequence[Any]], name: str, columns: int, dtype: type) -> np.ndarray:
    """The rows as an array; a row of another length, or with a missing value, is named."""
    for index, row in enumerate(rows):
        if len(row) != columns:
            raise ValueError(f"Row {index} of `{name}` has {len(row)} values, but there are {columns} `label_names`.")
        if any(value is None for value in row):
            raise ValueError(f"Row {index} of `{name}` has a missing value: use -1 for an unknown reference.")
    return np.asarray(rows, dtype=dtype)
