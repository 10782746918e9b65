"""FairPO for multi-label image classifiers: a `transformers` Trainer on the same group-robust core as generation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
    from fairpo_trl.classification.config import MultiLabelFairPOConfig
    from fairpo_trl.classification.model import MultiLabelClassifier
    from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer

# Names load on first use: the data and the metrics need no trainer.
_MODULE_OF = {
    "MultiLabelClassifier": "fairpo_trl.classification.model",
    "MultiLabelClassifierConfig": "fairpo_trl.classification.classifier_config",
    "MultiLabelFairPOConfig": "fairpo_trl.classification.config",
    "MultiLabelFairPOTrainer": "fairpo_trl.classification.trainer",
}

__all__ = [
    "MultiLabelClassifier",
    "MultiLabelClassifierConfig",
    "MultiLabelFairPOConfig",
    "MultiLabelFairPOTrainer",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
