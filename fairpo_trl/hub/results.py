"""Results of a run, of either half, as a section of the card and as the Hub's `model-index`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import EvalResult

from fairpo_trl.hub.card import eval_result
from fairpo_trl.hub.privacy import one_line
from fairpo_trl.reporting.blocks import Pictures
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.generation_report import pairs_block, win_rate_block
from fairpo_trl.reporting.label_report import MEASURES, label_report
from fairpo_trl.reporting.label_results import GROUPS, LabelResults
from fairpo_trl.reporting.numbers import role_text, verdict
from fairpo_trl.reporting.render.markdown import escape, part_markdown
from fairpo_trl.reporting.results import Results


AnyResults: TypeAlias = Results | LabelResults


def read_any_results(path: str | Path, classifier: bool) -> AnyResults:
    """
    Reads the results of one run: `results.json` of `fairpo evaluate`, or of a training recipe; `classifier`: whether
    one is pushed, or a language model.

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
        return LabelResults(**found) if "evaluations" in keys else Results(**found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def evaluation_section(results: AnyResults) -> str:
    """Per attribute, or per group and label, what became of it against the reference, with intervals."""
    if isinstance(results, LabelResults):
        report = label_report(results)
        shown = [part for part in report.parts() if not isinstance(part, Pictures)]
        return "\n\n".join(filter(None, (part_markdown(part, level=3) for part in shown)))
    blocks = [win_rate_block(results), pairs_block(results)]
    parts = [part_markdown(block, level=3) for block in blocks if block is not None]
    if results.data is not None:
        parts.append(f"Data: {escape(results.data)}.")
    return "\n\n".join(parts)


def became_worse(results: AnyResults) -> list[str]:
    """Held attributes or labels that surely fell (the whole interval is below zero), whatever the judge."""
    if isinstance(results, LabelResults):
        return list(results.comparison.fell_surely)
    return [
        entry.attribute
        for entry in results.by_role()
        if entry.role == "non_privileged"
        and any(verdict(rates.difference) == "worse" for rates in entry.win_rate.values())
    ]


def evaluation_results(results: AnyResults | None) -> list[EvalResult]:
    """The same numbers for the `model-index`; an interval stands in a metric's arguments."""
    if results is None:
        return []
    if isinstance(results, LabelResults):
        return _label_index(results)
    named: list[tuple[str, str, Interval]] = []
    for entry in results.by_role():
        attribute = entry.attribute
        for judge, rates in entry.win_rate.items():
            named.append(("win_rate", f"Win rate: {attribute} ({judge})", rates.trained))
            if rates.difference is not None:
                named.append(
                    ("win_rate_difference", f"Win rate less control: {attribute} ({judge})", rates.difference)
                )
        for judge, controlled in entry.length_controlled.items():
            named.append(("length_controlled_win_rate", f"At equal length: {attribute} ({judge})", controlled))
        if entry.pair_accuracy is not None:
            accuracy = Interval(mean=entry.pair_accuracy.trained)
            named.append(("pair_accuracy", f"Held-out pair accuracy: {attribute}", accuracy))
    data = results.data or "held-out prompts"
    about = ("text-generation", "Text generation", "prompts", data)
    return [eval_result(about, metric, name, value.mean, value.ends) for metric, name, value in named]


def _label_index(results: LabelResults) -> list[EvalResult]:
    data = one_line(results.title)
    task = (
        ("image-classification", "Multi-label image classification", "multi-label", data)
        if results.measure == "mAP"
        else ("text-generation", "Label sets as text", "multi-label", data)
    )
    index = []
    trained, changes = results.evaluations.trained.by_group, results.comparison.by_group
    for group in (group for group in GROUPS if group in trained):
        for metric, words in MEASURES[results.measure].columns.items():
            value = trained[group].get(metric)
            if value is not None and math.isfinite(value):
                index.append(eval_result(task, metric, f"{words} ({role_text(group)})", value))
        change = changes[group].change if group in changes else None
        if change is not None:
            name = f"{results.measure} less the reference's ({role_text(group)})"
            index.append(eval_result(task, f"{results.measure.lower()}_difference", name, change.mean, change.ends))
    return index
