"""One global batch on several processes, in one or more micro-batches."""

from __future__ import annotations

from typing import Any


def splits_of(case: dict[str, Any], world: int) -> dict[str, dict[str, int]]:
    """What is added to a name -> batch size of one process and number of micro-batches, for the same global batch."""
    whole = case["per_device_train_batch_size"]
    if not case.get("splits"):
        return {"": {"per_device_train_batch_size": whole // world}}
    return {
        f" / {count}": {"per_device_train_batch_size": whole // world // count, "gradient_accumulation_steps": count}
        for count in (1, 2, 4, 8)
        if count * world <= whole
    }
