"""From the logits of all runs to one comparison: metrics, paired intervals over series, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from fairpo_trl.classification.metrics.comparison import (
    ReferenceComparison,
    compare_with_reference,
    hinge_satisfaction,
)
from fairpo_trl.classification.metrics.confusion import confusion_of_privileged, most_confused_pairs
from fairpo_trl.classification.metrics.group_report import BASELINES, GroupEvaluation, evaluate_groups
from fairpo_trl.classification.metrics.paper_protocol import paper_protocol_map
from fairpo_trl.reporting import LabelComparison, print_results, write_report
from fairpo_trl.reporting.documents import hardware

from .runs import REFERENCE, Experiment, Head, Row


METRICS = ("map", "sample_f1", "accuracy", "exact_match")
HINGE_EPS = 0.01
"""Slack of the hinge satisfaction, in nats: the default of the training loss."""
ALLOWED_FALL = 0.01
"""Fall of average precision that a held label is allowed before it counts as fallen: one point."""


def write_tables(
    experiment: Experiment,
    sections: Mapping[str, Sequence[Row]],
    heads: Sequence[Head],
    seeds: Sequence[int],
    resamples: int,
    title: str = "openclipart, frozen DINOv2-S features: FairPO and its baselines",
    command: str = 'make table ARGS="--resamples {resamples}"',
    folder: Path | None = None,
) -> LabelComparison:
    """
    Prints the comparison of the runs there are and writes `comparison.{json,md,csv,tex}` and the pictures.

    Rows without a complete run are left out; a row with fewer seeds than others says so.
    """
    test, partition = experiment.splits["test"], experiment.partition
    counts = experiment.splits["train"].label_counts()
    jobs = [
        (section, row, head, done)
        for head in heads
        for section, rows in sections.items()
        for row in rows
        if (done := [seed for seed in seeds if experiment.complete(row, head, seed)])
    ]
    if not jobs:
        raise ValueError(f"{experiment.folder.name!r} has no complete run: run the comparison without --tables_only.")
    methods, per_label = [], {}
    for section, row, head, done in tqdm(jobs, desc="Bootstrap over series"):
        method, by_label = _measure(experiment, section, row, head, done, counts, resamples)
        methods.append(method)
        if by_label is not None:
            per_label[f"{row.name}, {head.name}"] = by_label
    first = evaluate_groups(test.labels, experiment.logits(REFERENCE, heads[0], jobs[0][3][0], "test"), partition)
    found: dict[str, Any] = {
        "title": title,
        "command": command.format(resamples=resamples),
        "data": {
            name: {"images": len(split), "series": len(set(split.series or split.ids))}
            for name, split in experiment.splits.items()
        },
        "partition": {name: partition.role_of(name) for name in partition.names},
        "label_counts": counts,
        "heads": {head.name: head.label for head in heads},
        "trivial": _trivial(first),
        "methods": methods,
        "per_label": per_label,
        "allowed_fall": ALLOWED_FALL,
        "confused_pairs": _confused_pairs(experiment, heads[0], jobs),
        "settings": {"epochs": experiment.epochs, "resamples": resamples},
        "hardware": hardware(),
        "seconds": float(sum(method["seconds"] * method["seeds"] for method in methods)),
        "notes": _notes(methods),
    }
    comparison = LabelComparison(**found)
    write_report(comparison, folder or experiment.folder)
    print_results(comparison)
    return comparison


def _measure(
    experiment: Experiment,
    section: str,
    row: Row,
    head: Head,
    seeds: Sequence[int],
    counts: Mapping[str, int],
    resamples: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """One row: means over seeds, differences from the reference and from continued BCE, seed by seed paired."""
    test, partition = experiment.splits["test"], experiment.partition
    runs = np.stack([experiment.logits(row, head, seed, "test") for seed in seeds])
    evaluations = [evaluate_groups(test.labels, scores, partition) for scores in runs]
    paper = [paper_protocol_map(test.labels, scores, partition) for scores in runs]
    bands = np.stack([evaluation.bands(counts)["map"].to_numpy() for evaluation in evaluations]).mean(axis=0)
    facts = [experiment.facts(row, head, seed) for seed in seeds]
    method: dict[str, Any] = {
        "name": row.name,
        "label": row.label,
        "section": section,
        "head": head.name,
        "seeds": len(seeds),
        "seconds": float(np.mean([fact["seconds"] for fact in facts])),
        "groups": {
            group: {metric: float(np.mean([e.by_group[metric][group] for e in evaluations])) for metric in METRICS}
            | {"paper_map": float(np.mean([p[group] for p in paper]))}
            for group in evaluations[0].by_group.index
        },
        "confusion": float(
            np.mean([confusion_of_privileged(test.labels, scores, partition).share for scores in runs])
        ),
        "bands": dict(zip(("head", "mid", "tail"), bands.tolist(), strict=True)),
    }
    if section == "reweighting":
        method["factor"] = row.factor
    if len(seeds) > 1:
        method["seed_sd"] = {
            group: {
                metric: float(np.std([e.by_group[metric][group] for e in evaluations], ddof=1)) for metric in METRICS
            }
            for group in evaluations[0].by_group.index
        }
    if row.name == REFERENCE.name:
        return method, None
    against = _against(experiment, REFERENCE, head, seeds, runs, resamples)
    method["delta_reference"] = deltas(against)
    method["fell"], method["fell_surely"] = list(against.fell), list(against.fell_surely)
    continued = Row("bce_continued", "BCE continued", "bce_continued")
    if row.name != "bce_continued" and all(experiment.complete(continued, head, seed) for seed in seeds):
        method["delta_continued"] = deltas(_against(experiment, continued, head, seeds, runs, resamples))
    references = [experiment.logits(REFERENCE, head, seed, "test") for seed in seeds]
    hinges = [
        hinge_satisfaction(test.labels, scores, reference, partition, eps=HINGE_EPS)
        for scores, reference in zip(runs, references, strict=True)
    ]
    method["hinge"] = {
        "pairs": float(np.mean([hinge.pairs for hinge in hinges])),
        "labels": float(np.mean([hinge.labels for hinge in hinges])),
    }
    by_label = against.by_label.rename(columns={"delta": "mean"})[["mean", "low", "high"]].dropna()
    return method, by_label.to_dict("index")


def _against(
    experiment: Experiment,
    other: Row,
    head: Head,
    seeds: Sequence[int],
    runs: NDArray[np.float32],
    resamples: int,
) -> ReferenceComparison:
    test = experiment.splits["test"]
    base = np.stack([experiment.logits(other, head, seed, "test") for seed in seeds])
    return compare_with_reference(
        test.labels, runs, base, experiment.partition, series=test.series, eps=ALLOWED_FALL, resamples=resamples
    )


def deltas(comparison: ReferenceComparison) -> dict[str, dict[str, float]]:
    """Group -> mean, interval over series, and spread over seeds, of the change of mAP."""
    return {
        str(group): {
            "mean": float(row["delta"]),
            "low": float(row["low"]),
            "high": float(row["high"]),
            **({"seed_sd": float(row["seed_sd"])} if row["seed_sd"] == row["seed_sd"] else {}),
        }
        for group, row in comparison.by_group.iterrows()
    }


def _trivial(evaluation: GroupEvaluation) -> dict[str, dict[str, dict[str, float]]]:
    return {
        baseline: {
            str(group): {metric: float(row[f"{metric}_{baseline}"]) for metric in METRICS}
            for group, row in evaluation.by_group.iterrows()
        }
        for baseline in BASELINES
    }


def _confused_pairs(experiment: Experiment, head: Head, jobs: Sequence[Any]) -> dict[str, Any]:
    """The pairs of labels confused most before and after FairPO-CPO, first seed."""
    row = next((row for _, row, of, _ in jobs if row.name == "fairpo_cpo" and of == head), None)
    if row is None:
        return {}
    seed = next(done[0] for _, r, of, done in jobs if r is row and of == head)
    test, partition = experiment.splits["test"], experiment.partition
    before, after = (
        confusion_of_privileged(test.labels, experiment.logits(r, head, seed, "test"), partition)
        for r in (REFERENCE, row)
    )
    pairs = most_confused_pairs(before, after, k=10)
    return {
        "method": f"{row.label}, {head.label}, seed {seed}",
        "pairs": [{str(k): v for k, v in record.items()} for record in pairs.to_dict("records")],
    }


def _notes(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know, said by the numbers themselves."""
    notes = []
    for method in methods:
        if method["name"] == "bce_continued":
            gain = method["delta_reference"]["all"]["mean"]
            verdict = "the reference was converged" if gain <= 0.005 else "the reference was NOT converged"
            notes.append(
                f"{method['head']}: continued BCE changes the mAP of all labels by {100 * gain:+.2f} points: "
                f"{verdict} (at most +0.5)."
            )
    fewest, most = min(m["seeds"] for m in methods), max(m["seeds"] for m in methods)
    if fewest != most:
        notes.append(f"Rows have {fewest} to {most} seeds.")
    return notes
