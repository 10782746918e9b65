"""FairPO for language models: `FairPOTrainer`, a subclass of TRL's `DPOTrainer`, and `FairPOConfig`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.generation.config import FairPOConfig
    from fairpo_trl.generation.trainer import FairPOTrainer

__all__ = ["FairPOConfig", "FairPOTrainer"]

# Loaded on first use: reading and checking pairs needs no trainer.
__getattr__ = lazily(__name__, {"config": "FairPOConfig", "trainer": "FairPOTrainer"})
