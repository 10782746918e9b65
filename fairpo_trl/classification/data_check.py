"""Looks at the splits before the first step: labels, features and leakage."""

from __future__ import annotations

from collections.abc import Mapping

from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits, first_difference, first_few
from fairpo_trl.core.partition import Partition


def check_data(
    config: MultiLabelClassifierConfig,
    train: MultiLabelSplit | None,
    evaluation: MultiLabelSplit | Mapping[str, MultiLabelSplit] | None,
) -> None:
    """
    Checks what a trainer is given: `train`, and the rows of an evaluation or of several by name.

    Raises:
        ValueError: If a split is missing or of another type, has other labels or another width than the model, or
            shares ids or series with another one. The message names the split.
    """
    if train is None:
        raise ValueError("`train_dataset` is required.")
    evaluated = dict(evaluation) if isinstance(evaluation, Mapping) else {"eval": evaluation}
    names = tuple(config.label_names)
    splits = {name: split for name, split in {"train": train, **evaluated}.items() if split is not None}
    for split in splits.values():
        if not isinstance(split, MultiLabelSplit):
            raise ValueError(
                f"Training and evaluation data must be a `MultiLabelSplit`, got {type(split).__name__}: label counts, "
                "reference logits and whole-split metrics need all rows at hand, so streams are refused. "
                "`fairpo_trl.classification.data` reads image trees, tables and `datasets`."
            )
        if tuple(split.label_names) != names:
            raise ValueError(
                f"The split {split.name!r} and the model have other labels, or another order: "
                f"{first_difference(split.label_names, names)}. Columns are matched by position, so bring the split "
                "into the model's order (`select_labels`)."
            )
        if split.features is not None and split.features.shape[1] != config.feature_size:
            raise ValueError(
                f"The split {split.name!r} has {split.features.shape[1]} features a row, the model takes "
                f"{config.feature_size}: extract them with the model's backbone."
            )
    check_splits(splits)


def check_roles(train: MultiLabelSplit, partition: Partition) -> None:
    """
    Refuses privileged labels that training cannot make better.

    Raises:
        ValueError: If nothing is known to be present, or to be absent, for a privileged label; names these labels.
    """
    for what, names in labels_without_contrast(train).items():
        lacking = [name for name in names if name in partition.privileged]
        if lacking:
            value = 1 if what == "positive" else 0
            raise ValueError(
                f"{len(lacking)} privileged labels have no {what} (no row where it is {value}) in the {train.name} "
                f"split: {first_few(lacking)}. Nothing can be learned for them: make other labels privileged, or add "
                "such rows."
            )


def labels_without_contrast(split: MultiLabelSplit) -> dict[str, list[str]]:
    """`"positive"` and `"negative"` -> the labels without one in a split, of which no ranking metric says anything."""
    columns = dict(zip(split.label_names, split.labels.T, strict=True))
    return {
        what: [name for name, column in columns.items() if not (column == value).any()]
        for what, value in (("positive", 1), ("negative", 0))
    }
