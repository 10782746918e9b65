"""FairPO for TRL: make chosen attributes better while nothing else gets worse than the reference."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from fairpo_trl.classification.config import MultiLabelFairPOConfig
    from fairpo_trl.classification.model import MultiLabelClassifier
    from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer
    from fairpo_trl.core.group_weights import GroupWeights
    from fairpo_trl.core.partition import Partition
    from fairpo_trl.generation.config import FairPOConfig
    from fairpo_trl.generation.trainer import FairPOTrainer

__version__ = "0.1.0"

# Public names load on first use, so that `import fairpo_trl` costs nothing (torch alone takes seconds).
_MODULE_OF = {
    "FairPOConfig": "fairpo_trl.generation.config",
    "FairPOTrainer": "fairpo_trl.generation.trainer",
    "MultiLabelClassifier": "fairpo_trl.classification.model",
    "MultiLabelFairPOConfig": "fairpo_trl.classification.config",
    "MultiLabelFairPOTrainer": "fairpo_trl.classification.trainer",
    "GroupWeights": "fairpo_trl.core.group_weights",
    "Partition": "fairpo_trl.core.partition",
}

__all__ = [
    "FairPOConfig",
    "FairPOTrainer",
    "GroupWeights",
    "MultiLabelClassifier",
    "MultiLabelFairPOConfig",
    "MultiLabelFairPOTrainer",
    "Partition",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    near = difflib.get_close_matches(name, __all__, n=1)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
