"""FairPO for multi-label image classifiers: a `transformers` Trainer on the same group-robust core as generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
    from fairpo_trl.classification.config import MultiLabelFairPOConfig
    from fairpo_trl.classification.model import MultiLabelClassifier
    from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer

__all__ = [
    "MultiLabelClassifier",
    "MultiLabelClassifierConfig",
    "MultiLabelFairPOConfig",
    "MultiLabelFairPOTrainer",
]

# Names load on first use: the data and the metrics need no trainer.
__getattr__ = lazily(
    __name__,
    {
        "classifier_config": "MultiLabelClassifierConfig",
        "config": "MultiLabelFairPOConfig",
        "model": "MultiLabelClassifier",
        "trainer": "MultiLabelFairPOTrainer",
    },
)
