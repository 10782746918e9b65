"""Which way is better for the metrics of both trainers: transformers only looks whether a name ends in "loss"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from fairpo_trl.core.messages import unknown_names_message


# The part of a name before its first "/", after the prefix of the evaluation: `eval_loss/role/privileged` is a `loss`.
_LOWER = ("loss", "bce", "confused")
_GREATER = (
    *("accuracy", "margin", "inside_hinge", "chosen_change", "map", "ap", "sample_f1", "exact_match"),
    "win_rate_difference",
)
# Of these the chosen side should rise and the rejected one fall.
_SIDES = ("rewards", "logps")
# What transformers adds to every evaluation.
_SPEEDS = ("runtime", "samples_per_second", "steps_per_second")


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
    Sets `greater_is_better` of a configuration, after its own `__post_init__`, for the metrics of this package.
    `given` is what the user set before it; a contradiction is a `ValueError`.
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


def check_best_metric(asked: str | None, names: Iterable[str], evaluations: Sequence[str]) -> None:
    """
    Refuses a metric that is written like one of an evaluation but is none; transformers would miss it at the first
    evaluation. Others are left alone: they may come from a callback.

    Args:
        asked (`str`, *optional*):
            `metric_for_best_model`, with or without `eval_`.
        names (`Iterable[str]`):
            What an evaluation of this run returns, without a prefix.
        evaluations (`Sequence[str]`):
            Names of the evaluation sets where there are several; their metrics begin with them.

    Raises:
        ValueError: Names what was probably meant, and what there is.
    """
    bare = [*names, *_SPEEDS]
    known = [f"{evaluation}_{name}" for evaluation in evaluations for name in bare] or bare
    metric = "" if asked is None else asked.removeprefix("eval_")
    if not metric or metric in known:
        return
    family = metric.partition("/")[0]
    alike = [name for name in known if name.partition("/")[0] == family]
    if metric in bare:  # of which evaluation?
        alike = [f"{evaluation}_{metric}" for evaluation in evaluations]
    near = [] if alike else difflib.get_close_matches(metric, known, cutoff=0.85)
    if alike or near:
        others = [name for name in known if name not in (*alike, *near)]
        told = unknown_names_message("metric", [metric], [*alike, *near, *others])
        raise ValueError(f"`metric_for_best_model`: {told}")
