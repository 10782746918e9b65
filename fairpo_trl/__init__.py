"""FairPO for TRL: make chosen attributes better while nothing else gets worse than the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.classification.config import MultiLabelFairPOConfig
    from fairpo_trl.classification.model import MultiLabelClassifier
    from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer
    from fairpo_trl.core.group_weights import GroupWeights
    from fairpo_trl.core.partition import Partition
    from fairpo_trl.generation.config import FairPOConfig
    from fairpo_trl.generation.trainer import FairPOTrainer

__version__ = "0.2.0"

__all__ = [
    "FairPOConfig",
    "FairPOTrainer",
    "GroupWeights",
    "MultiLabelClassifier",
    "MultiLabelFairPOConfig",
    "MultiLabelFairPOTrainer",
    "Partition",
]

# Public names load on first use, so that `import fairpo_trl` costs nothing (torch alone takes seconds).
__getattr__ = lazily(
    __name__,
    {
        "classification.config": "MultiLabelFairPOConfig",
        "classification.model": "MultiLabelClassifier",
        "classification.trainer": "MultiLabelFairPOTrainer",
        "core.group_weights": "GroupWeights",
        "core.partition": "Partition",
        "generation.config": "FairPOConfig",
        "generation.trainer": "FairPOTrainer",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
