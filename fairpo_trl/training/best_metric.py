"""Which way is better for the metrics of both trainers: transformers only looks whether a name ends in "loss"."""

from __future__ import annotations

from typing import Any


# The part of a name before its first "/", after the prefix of the evaluation: `eval_loss/role/privileged` is a `loss`.
_LOWER = ("loss", "bce", "confused")
_GREATER = ("accuracy", "margin", "inside_hinge", "chosen_change", "map", "ap", "sample_f1", "exact_match")
# Of these the chosen side should rise and the rejected one fall.
_SIDES = ("rewards", "logps")


def greater_is_better(metric: str) -> bool | None:
    """
    Whether higher values of a metric are better.

    Args:
        metric (`str`):
            A name as evaluations return it, with or without its prefix: `"eval_loss/role/privileged"`,
            `"accuracy/attribute/concise"`, `"eval_test_map/privileged"`.

    Returns:
        `bool` or `None`: `None` for a name that no trainer here writes.
    """
    family, _, rest = metric.partition("/")

    def is_one_of(names: tuple[str, ...]) -> bool:
        return any(family == name or family.endswith(f"_{name}") for name in names)

    if is_one_of(_SIDES):
        return rest.split("/")[0] != "rejected"
    if is_one_of(_LOWER):
        return False
    return True if is_one_of(_GREATER) else None


def settle_best_metric(args: Any, given: bool | None) -> None:
    """
    Sets `greater_is_better` of a configuration for the metrics of this package.

    Args:
        args (`TrainingArguments`):
            The configuration, after its own `__post_init__`.
        given (`bool`, *optional*):
            What the user set, before it.

    Raises:
        ValueError: If that contradicts the metric.
    """
    known = None if args.metric_for_best_model is None else greater_is_better(args.metric_for_best_model)
    if known is None:
        return
    if given is not None and given != known:
        raise ValueError(
            f"`greater_is_better={given}` would keep the worst checkpoint: of `metric_for_best_model="
            f"{args.metric_for_best_model!r}` {'higher' if known else 'lower'} values are better. Leave "
            "`greater_is_better` out."
        )
    args.greater_is_better = known
