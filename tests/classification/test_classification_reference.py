"""A reference that has not come to its plateau measures further training, and is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_classification import COMMON, LABELS, PRIVILEGED, classifier, rows

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.reference import train_reference
from fairpo_trl.core.partition import Partition


def trained(
    out: Path,
    validation: MultiLabelSplit | None = None,
    model: Any = None,
    rate: float = 1e-12,
    **options: Any,
) -> Any:
    args = MultiLabelFairPOConfig(
        output_dir=str(out), privileged_labels=PRIVILEGED, **{**COMMON, "learning_rate": rate}
    )
    held_out = rows(40, seed=3, name="validation") if validation is None else validation
    partition = Partition.by_name(LABELS, PRIVILEGED)
    return train_reference(
        classifier() if model is None else model, args, rows(64), held_out, partition, output_dir=str(out), **options
    )


def test_one_that_was_best_after_its_first_epoch_is_refused_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"best after its first of 3 epochs .*validation has 40 rows, half of the labels at most \d+ positives "
        r"there\. .*--validation_share 0.3.*--patience 20",
    ):
        trained(tmp_path, patience=2)


def test_one_that_is_still_gaining_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"still gaining after 1 epochs .*raise `reference_epochs`"):
        trained(tmp_path, max_epochs=1)


def test_its_best_epoch_is_kept_with_it(tmp_path: Path) -> None:
    model = classifier()
    trainer = trained(tmp_path, model=model, rate=0.5, patience=2, max_epochs=40)
    facts = model.config.training["reference"]
    by_epoch = [entry["eval_map/all"] for entry in trainer.state.log_history if "eval_map/all" in entry]
    assert facts["epochs"] == len(by_epoch) < 40
    assert facts["best_epoch"] == by_epoch.index(max(by_epoch)) + 1 > 1
    assert facts["validation_map"] == pytest.approx(max(by_epoch), abs=1e-4)


def test_where_nothing_is_left_to_learn_the_first_epoch_may_be_the_best(tmp_path: Path) -> None:
    model, validation = classifier(), rows(40, seed=3, name="validation", unknown=0.0)
    with torch.no_grad():
        logits = model(features=torch.from_numpy(validation.features).double()).logits
    validation.labels[:] = (logits > logits.median(dim=0).values).numpy()
    trained(tmp_path, validation, model, patience=1)
    assert model.config.training["reference"] == {"best_epoch": 1, "epochs": 2, "validation_map": 1.0}
