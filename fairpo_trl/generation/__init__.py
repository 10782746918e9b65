"""FairPO for language models: `FairPOTrainer`, a subclass of TRL's `DPOTrainer`, and `FairPOConfig`."""

from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.trainer import FairPOTrainer


__all__ = ["FairPOConfig", "FairPOTrainer"]
