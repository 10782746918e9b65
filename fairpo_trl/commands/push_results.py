"""Results of a run, of either half, as a section of the card and as the Hub's `model-index`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from huggingface_hub import EvalResult

from fairpo_trl.hub.privacy import printable
from fairpo_trl.reporting.label_blocks import further_blocks, groups_block, measure_text, moved_block, promises
from fairpo_trl.reporting.label_markdown import block_markdown
from fairpo_trl.reporting.label_results import GROUPS, LabelResults, check_label_results, difference
from fairpo_trl.reporting.markdown import escape, pipe_table
from fairpo_trl.reporting.numbers import interval, pair_cells, role_text, verdict, verdict_text
from fairpo_trl.reporting.results import Interval, Results, by_role, check_results, judges


AnyResults: TypeAlias = Mapping[str, Any]
"""`Results` or `LabelResults`; the latter has `evaluations`."""


def read_any_results(path: str | Path, classifier: bool) -> AnyResults:
    """
    Reads the results of one run.

    Args:
        path (`str` or `Path`):
            `results.json` of `fairpo evaluate`, or of a training recipe.
        classifier (`bool`):
            Whether a classifier is pushed, or a language model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no results, or those of the other half.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`--results`: there is no file {str(path)!r}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    keys = found.keys() if isinstance(found, dict) else set()
    if "methods" in keys:
        raise ValueError(f"{path} is a comparison of many methods: name the results.json of one run with `--results`.")
    if "evaluations" not in keys and "attributes" not in keys:
        raise ValueError(
            f"{path} is not the results of a run (it has neither 'attributes' nor 'evaluations'): name those of "
            "`fairpo evaluate` or of the training with `--results`."
        )
    if ("evaluations" in keys and found.get("measure", "mAP") == "mAP") != classifier:
        kinds = ("a language model", "a classifier")
        raise ValueError(f"{path} holds results of {kinds[not classifier]}, and {kinds[classifier]} is pushed.")
    try:
        if "evaluations" in keys:
            check_label_results(cast(LabelResults, found))
        else:
            check_results(cast(Results, found))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return cast(AnyResults, found)


def evaluation_section(results: AnyResults) -> str:
    """Per attribute, or per group and label, what became of it against the reference, with intervals."""
    if "evaluations" in results:
        labels = cast(LabelResults, results)
        parts = [_plain(block_markdown(groups_block(labels)))]
        parts.append("\n".join(f"- {escape(sentence)}" for sentence in promises(labels)))
        parts += [_plain(block_markdown(block)) for block in (moved_block(labels, None), *further_blocks(labels))]
        return "\n\n".join(parts)
    found = cast(Results, results)
    named = judges(found)
    parts = []
    if named:
        parts.append(
            "Win rate of fresh completions against the reference (.50: as good as it), mean over held-out prompts "
            "[95 % interval]. Difference: less that of the reference against itself with another seed."
        )
        rows = []
        for judge in named:
            for entry in by_role(found):
                rates = entry.get("win_rate", {}).get(judge)
                change = rates.get("difference") if rates else None
                rows.append(
                    [
                        escape(entry["attribute"]),
                        role_text(entry["role"]),
                        escape(judge),
                        interval(rates["trained"] if rates else None),
                        interval(change, signed=True),
                        interval(entry.get("length_controlled", {}).get(judge)),
                        verdict_text(change),
                    ]
                )
        header = ["attribute", "role", "judge", "win rate", "difference", "at equal length", ""]
        parts.append(pipe_table(header, rows, numbers_from=3))
    parts.append(_pairs(found))
    if "data" in found:
        parts.append(f"Data: {escape(found['data'])}.")
    return "\n\n".join(part for part in parts if part)


def became_worse(results: AnyResults) -> list[str]:
    """Held attributes or labels that surely fell (the whole interval is below zero), whatever the judge."""
    if "evaluations" in results:
        return list(results["comparison"]["fell_surely"])
    return [
        entry["attribute"]
        for entry in by_role(cast(Results, results))
        if entry["role"] == "non_privileged"
        and any(verdict(rates.get("difference")) == "worse" for rates in entry.get("win_rate", {}).values())
    ]


def evaluation_results(results: AnyResults | None) -> list[EvalResult]:
    """The same numbers for the `model-index`; an interval stands in a metric's arguments."""
    if results is None:
        return []
    if "evaluations" in results:
        return _label_index(cast(LabelResults, results))
    found = cast(Results, results)
    named: list[tuple[str, str, Interval]] = []
    for entry in by_role(found):
        attribute = entry["attribute"]
        for judge, rates in entry.get("win_rate", {}).items():
            named.append(("win_rate", f"Win rate: {attribute} ({judge})", rates["trained"]))
            if "difference" in rates:
                named.append(
                    ("win_rate_difference", f"Win rate less control: {attribute} ({judge})", rates["difference"])
                )
        for judge, controlled in entry.get("length_controlled", {}).items():
            named.append(("length_controlled_win_rate", f"At equal length: {attribute} ({judge})", controlled))
        if "pair_accuracy" in entry:
            named.append(
                ("pair_accuracy", f"Held-out pair accuracy: {attribute}", {"mean": entry["pair_accuracy"]["trained"]})
            )
    return [
        _eval_result("text-generation", "Text generation", "prompts", found.get("data", "held-out prompts"), *values)
        for values in named
    ]


def _pairs(results: Results) -> str:
    """Held-out pairs, where any attribute has such numbers."""
    measured = ("pairs", "pair_accuracy", "inside_hinge", "final_weight")
    if not any(part in entry for entry in results["attributes"] for part in measured):
        return ""
    rows = [[escape(e["attribute"]), role_text(e["role"]), *pair_cells(e)] for e in by_role(results)]
    header = ["attribute", "role", "held-out pairs", "accuracy, reference", "trained", "inside hinge", "final weight"]
    return pipe_table(header, rows, numbers_from=2)


def _label_index(results: LabelResults) -> list[EvalResult]:
    data = printable(results["title"])
    measure = measure_text(results)
    task = (
        ("image-classification", "Multi-label image classification", "multi-label", data)
        if measure.group == "mAP"
        else ("text-generation", "Label sets as text", "multi-label", data)
    )
    index = []
    trained, changes = results["evaluations"]["trained"]["by_group"], results["comparison"]["by_group"]
    for group in (group for group in GROUPS if group in trained):
        for metric, words in measure.columns.items():
            value = trained[group].get(metric)
            if value is not None and math.isfinite(value):
                index.append(_eval_result(*task, metric, f"{words} ({role_text(group)})", {"mean": value}))
        if (change := difference(changes.get(group, {}))) is not None:
            index.append(
                _eval_result(
                    *task,
                    f"{measure.group.lower()}_difference",
                    f"{measure.group} less the reference's ({role_text(group)})",
                    change,
                )
            )
    return index


def _eval_result(
    task: str, task_name: str, kind: str, data: str, metric: str, name: str, value: Interval
) -> EvalResult:
    has_interval = "low" in value and "high" in value
    return EvalResult(
        task_type=task,
        task_name=task_name,
        dataset_type=kind,
        dataset_name=printable(data),
        metric_type=metric,
        metric_name=printable(name),
        metric_value=round(value["mean"], 6) + 0.0,  # no -0.0
        metric_args={"low": round(value["low"], 6), "high": round(value["high"], 6)} if has_interval else None,
    )


def _plain(block: str) -> str:
    """A block below a heading of its own level."""
    return block.replace("## ", "### ", 1) if block.startswith("## ") else block
