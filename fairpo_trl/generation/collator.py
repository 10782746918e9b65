"""Batches that keep the attribute: TRL's collator, plus a mask of attributes per pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fairpo_trl.core.messages import require_known, shortened
from fairpo_trl.generation.packing import pair_spans
from fairpo_trl.preferences.rules import WEIGHT_COLUMN, attribute_names, is_weight


ROW_COLUMN = "fairpo_row"
"""Number of a pair in its dataset; the trainer adds it, so that an error while training can name the pair."""

PAIR_WEIGHTS = "pair_weights"
"""How much each pair of a batch counts in the mean loss of its groups."""

_NAMED_PAIRS = 4


def describe_pairs(
    batch: Mapping[str, Any],
    names: Sequence[str],
    decode: Callable[[list[int]], str],
    chosen: torch.Tensor | None = None,
) -> str:
    """
    Names the pairs of a batch in the words of an error: row of the data, attributes and how the prompt begins.

    `names` are the columns of the attribute mask, `decode` is the tokenizer's; `chosen`, bool `[B]` on the CPU, says
    which pairs, all by default.
    """
    mask = batch["attribute_mask"].cpu()
    pairs = list(range(len(mask))) if chosen is None else chosen.nonzero().flatten().tolist()
    shown = []
    for pair in pairs[:_NAMED_PAIRS]:
        attributes = [name for name, has in zip(names, mask[pair].tolist(), strict=True) if has]
        row = f"row {int(batch[ROW_COLUMN][pair])} " if ROW_COLUMN in batch else ""  # a stream has no row numbers
        is_prompt = batch["attention_mask"][pair].bool() & ~batch["completion_mask"][pair].bool()
        start = decode(batch["input_ids"][pair][is_prompt][:12].tolist())
        shown.append(f"{row}(attribute {' and '.join(map(repr, attributes)) or 'none'}, prompt {start!r}...)")
    more = f" and {len(pairs) - _NAMED_PAIRS} more" if len(pairs) > _NAMED_PAIRS else ""
    return ", ".join(shown) + more


def _weight(example: Mapping[str, Any]) -> float:
    """The weight of a pair; of a stream it is seen only now."""
    weight = example[WEIGHT_COLUMN]
    if not is_weight(weight):
        raise ValueError(
            f"The column {WEIGHT_COLUMN!r} must hold a finite number of 0 or more for each pair, got "
            f"{shortened(weight)}."
        )
    return float(weight)


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
        `dict[str, Any]`: the batch of `collator`, `attribute_mask`, bool `[B, len(names)]`, the lengths `pair_spans`
        that a packed layout needs (plain numbers, on the CPU), and, if the examples have them, `fairpo_row` and
        `pair_weights`, `[B]`.
    """

    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    names: Sequence[str]
    column: str

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples`, with `attribute_mask`."""
        mask = torch.zeros(len(examples), len(self.names), dtype=torch.bool)
        for row, example in enumerate(examples):
            for name in attribute_names(example[self.column]):
                require_known(f"attribute in column {self.column!r}", [name], self.names)
                mask[row, self.names.index(name)] = True
        ours = (self.column, ROW_COLUMN, WEIGHT_COLUMN)
        batch = self.collator([{k: v for k, v in example.items() if k not in ours} for example in examples])
        # Only streaming data can still bring such pairs here; they would train silently at loss log 2.
        tokens, mask_of_completion = batch["input_ids"], batch["completion_mask"]  # [2B, T], chosen before rejected
        left = mask_of_completion[:, 1:].any(dim=1).view(2, -1).all(dim=0)  # [B]
        same = [(half == other).all(dim=1) for half, other in (tokens.chunk(2), mask_of_completion.chunk(2))]
        differ = ~(same[0] & same[1])  # [B]
        for fine, fault in (
            (left, "keeps no token of a completion: it is empty, or the prompt fills `max_length`"),
            (differ, "has identical completions: the same tokens, or the same ones within `max_length`"),
        ):
            if not fine.all():
                pair = examples[int((~fine).nonzero()[0])]
                raise ValueError(f"A pair of {pair[self.column]!r} {fault}. Remove it, or raise `max_length`.")
        if ROW_COLUMN in examples[0]:
            batch[ROW_COLUMN] = torch.tensor([example[ROW_COLUMN] for example in examples])
        if WEIGHT_COLUMN in examples[0]:
            batch[PAIR_WEIGHTS] = torch.tensor([_weight(example) for example in examples], dtype=torch.float32)
        return {**batch, "attribute_mask": mask, "pair_spans": pair_spans(batch)}
