"""FairPO for multi-label image classifiers: a `transformers` Trainer on the same group-robust core as generation."""

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.model import MultiLabelClassifier, MultiLabelClassifierConfig
from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer


__all__ = [
    "MultiLabelClassifier",
    "MultiLabelClassifierConfig",
    "MultiLabelFairPOConfig",
    "MultiLabelFairPOTrainer",
]
