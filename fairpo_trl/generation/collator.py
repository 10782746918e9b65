"""Batches that keep the attribute: TRL's collator, plus a mask of attributes per pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fairpo_trl.core.names import unknown_names_message


def attribute_names(value: Any) -> tuple[str, ...]:
    """
    The attributes of one row: a string is one attribute, a list or tuple of strings several.

    Raises:
        ValueError: If it is neither, or empty.
    """
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not names or any(not isinstance(name, str) or not name.strip() for name in names):
        raise ValueError(f"expected a non-empty string or a non-empty list of strings, got {value!r}")
    return names


@dataclass
class AttributeCollator:
    """
    Wraps a preference collator (TRL's builds its batch from fixed keys and would drop the attribute).

    Args:
        collator (`Callable`):
            Makes the batch from the examples without their attribute.
        names (`Sequence[str]`):
            All attributes; their order is that of the mask's columns.
        column (`str`):
            Column of the examples that holds the attribute(s).

    Returns (when called):
        `dict[str, Any]`: the batch of `collator`, and `attribute_mask`, bool `[B, len(names)]`.
    """

    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    names: Sequence[str]
    column: str

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples`, with `attribute_mask`."""
        mask = torch.zeros(len(examples), len(self.names), dtype=torch.bool)
        for row, example in enumerate(examples):
            for name in attribute_names(example[self.column]):
                if name not in self.names:  # streaming data: known only now
                    raise ValueError(unknown_names_message(f"attribute in column {self.column!r}", [name], self.names))
                mask[row, self.names.index(name)] = True
            # Only streaming data can still bring this here; it would train silently at loss log 2.
            if "chosen_ids" in example and not (example["chosen_ids"] and example["rejected_ids"]):
                raise ValueError(
                    f"A pair of attribute {example[self.column]!r} has an empty completion: remove it from the stream."
                )
        batch = self.collator([{k: v for k, v in example.items() if k != self.column} for example in examples])
        return {**batch, "attribute_mask": mask}
