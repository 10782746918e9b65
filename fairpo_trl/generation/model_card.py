"""Model card: TRL's, with PEFT's facts kept and FairPO's added."""

from __future__ import annotations

from typing import Any


def add_fairpo_facts(trainer: Any) -> None:
    """Placeholder until written below."""
