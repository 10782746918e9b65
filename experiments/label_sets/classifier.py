"""The other half on the same items: a linear classifier on MiniLM vectors, with BCE and with FairPO."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import numpy as np
import torch
from demo.encoder import embed
from numpy.typing import NDArray

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer, Partition
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.methods import apply_method
from fairpo_trl.classification.metrics.definitions import sample_f1
from fairpo_trl.classification.reference import train_reference
from fairpo_trl.label_sets.items import LabelledTexts


OPTIONS: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "per_device_train_batch_size": 64,
    "learning_rate": 5e-3,
}
VALIDATION_SHARE = 0.15
EPOCHS = 20
"""Further epochs of FairPO, from the reference."""


def classifier_sets(
    train: LabelledTexts, test: LabelledTexts, partition: Partition, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """
    The sets that the classifiers choose for the test items: `classifier_bce` and `classifier_fairpo` (CPO), `[N, T]`.

    One threshold for all labels is chosen on validation items, which are carved from the training items, by sample-F1.
    """
    parts: dict[str, MultiLabelSplit] = {}
    parts["train"], parts["validation"] = train.split.with_features(embed(list(train.texts))).carve_validation(
        VALIDATION_SHARE, seed=seed
    )
    parts["test"] = test.split.with_features(embed(list(test.texts)))
    torch.manual_seed(seed)
    features = np.asarray(parts["train"].features)
    reference = MultiLabelClassifier(
        MultiLabelClassifierConfig(
            label_names=list(partition.names), feature_size=features.shape[1], head="linear", standardize=True
        )
    )
    reference.set_feature_statistics(features)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        args = MultiLabelFairPOConfig(output_dir=scratch, seed=seed, **OPTIONS)
        trainer = train_reference(
            reference,
            args,
            parts["train"],
            parts["validation"],
            partition,
            output_dir=scratch,
            max_epochs=500,
            patience=20,
            anneal_epochs=10,
        )
        found["classifier_bce"] = _choose(trainer, parts)
        args = MultiLabelFairPOConfig(output_dir=scratch, seed=seed, num_train_epochs=EPOCHS, **OPTIONS)
        apply_method("fairpo_cpo", args, partition)
        trainer = MultiLabelFairPOTrainer(
            model=copy.deepcopy(reference),
            ref_model=reference,
            args=args,
            train_dataset=parts["train"],
            partition=partition,
        )
        trainer.train()
        found["classifier_fairpo"] = _choose(trainer, parts)
    return found


def _choose(trainer: MultiLabelFairPOTrainer, parts: dict[str, MultiLabelSplit]) -> NDArray[np.bool_]:
    """Labels whose logit reaches the threshold with the best sample-F1 on validation."""
    validation, test = (trainer.predict(parts[name]).predictions for name in ("validation", "test"))
    thresholds = np.linspace(-4, 2, 61)
    scores = [sample_f1(parts["validation"].labels, validation >= threshold)[0] for threshold in thresholds]
    return test >= thresholds[int(np.argmax(scores))]
