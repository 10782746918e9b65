"""FairPO and the baselines it is compared with: one trainer, one code path, a few options each."""

from __future__ import annotations

from typing import Any, Literal, get_args

from datasets import Dataset, IterableDataset

from fairpo_trl.core.messages import require_known
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.preferences.rules import attribute_names


Method = Literal["fairpo", "dpo", "dpo_privileged_only", "group_robust_dpo", "sft_on_chosen", "privileged_only"]


def apply_method(
    method: Method, args: FairPOConfig, train: Dataset | IterableDataset, evaluation: Any = None
) -> tuple[Any, Any]:
    """
    Sets `args` (in place) to one method and returns the data it trains and evaluates on.

    Args:
        method (`str`):
            `"fairpo"`: `args` as they are. `"group_robust_dpo"`: no hinge, one mirror-ascent weight per attribute
            (Eq. 3). `"dpo"`: every attribute privileged, which is plain DPO. `"dpo_privileged_only"`: DPO on the pairs
            of the privileged attributes, the others left out. `"sft_on_chosen"`: maximum likelihood on the chosen
            completions of the same pairs. `"privileged_only"`: `privileged_loss` on the same pairs.
        args (`FairPOConfig`):
            Options of the run; `privileged_attributes` must be set.
        train (`Dataset` or `IterableDataset`):
            Training pairs.
        evaluation (`Dataset`, *optional*):
            Evaluation pairs; attributes without training pairs are left out of it.

    Returns:
        `tuple`: training and evaluation pairs.

    Raises:
        ValueError: For an unknown method, or a streaming dataset where the rows must be selected first.
    """
    require_known("method", [method], get_args(Method))
    if method == "fairpo":
        return train, evaluation
    if method == "group_robust_dpo":
        args.hinge, args.hinge_level, args.grouping, args.balancer = False, "pair", "attribute", "mirror_ascent"
        args.privileged_loss = "dpo"  # the loss of every group
        return train, evaluation

    # What is left has one group, so nothing is balanced.
    args.grouping, args.balancer, args.scaling, args.floor, args.group_prior = "role", "fixed", "none", 0.0, None
    if method != "privileged_only":
        args.privileged_loss = "sft" if method == "sft_on_chosen" else "dpo"
    column, privileged = args.attribute_column, set(args.privileged_attributes or ())
    if not isinstance(train, Dataset):
        raise ValueError(
            f"`--method {method}` selects rows or attributes first and needs a dataset that is not streamed."
        )
    if method == "dpo":
        args.privileged_attributes = sorted({name for value in train[column] for name in attribute_names(value)})
        args.non_privileged_attributes = None
        return train, evaluation

    def is_privileged(value: Any) -> bool:
        return bool(privileged & set(attribute_names(value)))

    def only_privileged(row: dict[str, Any]) -> dict[str, Any]:
        return {column: [name for name in attribute_names(row[column]) if name in privileged]}

    args.non_privileged_attributes = []
    kept = [
        None if data is None else data.filter(is_privileged, input_columns=column).map(only_privileged)
        for data in (train, evaluation)
    ]
    return kept[0], kept[1]
