"""
Chooses the setting of the classification demo by cross-validation over series of a train set.

    python -m experiments.classification.demo_search                       (minutes on a core, resumable)
    ... --features FOLDER --shares 0.2 --kinds least_frequent              (another set, for example of `icons`)
    ... --test demo_adjusted_mix0.5 --shares 0.2 --kinds least_frequent    (one setting, on test, all --seeds)

Who is privileged, with which loss and how much of the way to it, under the shared MLP and the hinge for held labels.
Without `--test` the test set is not looked at. The criterion, written in `docs/study.md` before the first run: of the
settings that cost the held labels at most `ALLOWED_HELD_LOSS` of mAP, the one whose privileged gain is largest in its
own standard errors. `demo_search.md` has all of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from openclipart.load import load_openclipart

from experiments.pages import write_page
from fairpo_trl import Partition
from fairpo_trl.classification.data.tables import load_features
from fairpo_trl.classification.metrics.comparison import compare_with_reference
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.reporting.numbers import points
from fairpo_trl.reporting.render.markdown import pipe_table

from .compare import MAIN_HEAD
from .folds import load_folds
from .pool import Job, run_jobs
from .runs import HEADS, REFERENCE, VALIDATION_SHARE, Experiment, Head, Row, worst_of_reference


ALLOWED_HELD_LOSS = 0.003
SHARES = {"least_frequent": (0.2, 0.3, 0.4, 0.5), "worst_reference_ap": (0.2, 0.4)}
ADJUSTED = {"privileged_loss": "logit_adjustment"}
ROWS = [
    Row("demo_adjusted", "logit adjustment", "fairpo_cpo", ADJUSTED),
    Row("demo_adjusted_half", "logit adjustment, tau .5", "fairpo_cpo", ADJUSTED | {"logit_adjustment_tau": 0.5}),
    Row("demo_adjusted_slow", "logit adjustment, rate .0003", "fairpo_cpo", ADJUSTED | {"learning_rate": 3e-4}),
    Row("demo_cpo", "CPO", "fairpo_cpo"),
    Row("demo_simpo", "SimPO", "fairpo_simpo"),
    Row("demo_dpo", "DPO", "fairpo_dpo"),
]
CONTROL = Row("demo_bce", "BCE continued", "bce_continued")
"""What further training alone does; only if `--rows` names it."""
MIXES = (0.25, 0.5, 0.75)
SETTINGS = ROWS + [
    replace(row, name=f"{row.name}_mix{mix:g}", label=f"{row.label}, {mix:g} of the way", mix=mix)
    for mix in MIXES
    for row in ROWS
]
"""With the logits part of the way from the reference, which cost no training."""


def partitioned(fold: Experiment, number: int, kind: str, share: float) -> Experiment:
    """A fold with other privileged labels; references are shared, and the seed of a fold is its number."""
    counts = fold.splits["train"].label_counts()  # a fold may hold every drawing of a label
    learned = [name for name in fold.partition.privileged if counts[name]]
    chosen = Partition.by_name(fold.partition.names, learned)
    if kind == "worst_reference_ap":
        chosen = worst_of_reference(fold, HEADS[MAIN_HEAD], number, share)
    return Experiment(fold.folder, fold.splits, chosen, fold.epochs)


def measure(folds: Sequence[Experiment], row: Row, head: Head, resamples: int) -> dict[str, float]:
    """Mean change of mAP over folds with its standard error, from a bootstrap over the series of each fold."""
    found = []
    for seed, fold in enumerate(folds):
        split = fold.splits["test"]
        after, before = (fold.logits(r, head, seed, "test") for r in (row, REFERENCE))
        comparison = compare_with_reference(
            split.labels, after, before, fold.partition, series=split.series, resamples=resamples
        )
        found.append(comparison.by_group.loc[["privileged", "non_privileged"]])
    numbers: dict[str, float] = {}
    for name, group in (("privileged", "privileged"), ("held", "non_privileged")):
        rows = pd.DataFrame([frame.loc[group] for frame in found])
        errors = (rows["high"] - rows["low"]).to_numpy(dtype=float) / (2 * 1.96)
        numbers[name] = float(rows["delta"].mean())
        numbers[f"{name}_se"] = float(np.sqrt((errors**2).sum()) / len(rows))
    return numbers


def choose(table: pd.DataFrame) -> pd.Series:
    """The setting with the largest privileged gain in standard errors, of those that keep the held labels."""
    kept = table[table["held"] >= -ALLOWED_HELD_LOSS]
    if kept.empty:
        raise ValueError("No setting keeps the held labels on the folds: add safer ones.")
    return kept.loc[(kept["privileged"] / kept["privileged_se"]).idxmax()]


def on_test(experiment: Experiment, row: Row, head: Head, seeds: Sequence[int], resamples: int) -> str:
    """One setting on test: the mean change of mAP over seeds with its 95 % interval over series, in words."""
    run_jobs([Job(f"test-seed{seed}", experiment, [row.trained], head, seed) for seed in seeds], 1)
    split = experiment.splits["test"]
    after, before = ([experiment.logits(r, head, seed, "test") for seed in seeds] for r in (row, REFERENCE))
    found = compare_with_reference(
        split.labels, after, before, experiment.partition, series=split.series, resamples=resamples
    ).by_group
    held, privileged = (found.loc[group] for group in ("non_privileged", "privileged"))
    return f"{row.label}, {len(seeds)} seeds, {len(split)} test images: " + ", ".join(
        f"{name} {points(group['delta'])} [{points(group['low'])}, {points(group['high'])}]"
        for name, group in (("privileged", privileged), ("held", held))
    )


def main() -> None:
    """Runs what is missing on the folds, chooses, and writes the table; or runs one setting on test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-demo-search"))
    parser.add_argument("--features", type=Path, help="folder of features.npy and labels.jsonl (default: openclipart)")
    parser.add_argument("--kinds", nargs="*", choices=list(SHARES), default=list(SHARES), help="who is privileged")
    parser.add_argument("--shares", nargs="*", type=float, help="only these shares of the labels")
    parser.add_argument("--rows", nargs="*", help="only these losses, with every part of the way to them")
    parser.add_argument("--test", choices=[row.name for row in SETTINGS], help="run this setting on test instead")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4], help="with --test")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap over series of a fold")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    splits = load_openclipart() if args.features is None else load_features(args.features)
    head, records, names = HEADS[MAIN_HEAD], list[dict[str, Any]](), [row.name for row in ROWS]
    settings = [row for row in [*SETTINGS, CONTROL] if row.trained.name in (args.rows or names)]
    if args.test:
        train, validation = splits["train"].carve_validation(VALIDATION_SHARE, seed=0)
        parts = {"train": train, "validation": validation, "test": splits["test"]}
        rarest = Partition.by_least_frequent(splits["train"].label_counts(), args.shares[0] if args.shares else 0.2)
        row = next(row for row in SETTINGS if row.name == args.test)
        experiment = Experiment(args.output_dir, parts, rarest, args.epochs)
        if args.kinds == ["worst_reference_ap"]:  # by the reference of seed 0, for every seed
            run_jobs([Job("reference", experiment, [], head, 0)], 1)
            experiment = partitioned(experiment, 0, args.kinds[0], args.shares[0])
        print(on_test(experiment, row, head, args.seeds, args.resamples))
        return
    # The references come first: partitions share them, and one kind of partition asks them.
    first = load_folds(args.output_dir, args.epochs, args.folds, whole=splits["train"])
    run_jobs([Job(f"reference-fold{k}", fold, [], head, k) for k, fold in enumerate(first)], args.workers)
    for kind in args.kinds:
        for share in (share for share in SHARES[kind] if not args.shares or share in args.shares):
            folds = [
                partitioned(fold, number, kind, share)
                for number, fold in enumerate(
                    load_folds(args.output_dir, args.epochs, args.folds, share, splits["train"])
                )
            ]
            trained = [row for row in settings if row.mix == 1]
            run_jobs(
                [Job(f"{kind}-{share:g}-fold{k}", fold, trained, head, k) for k, fold in enumerate(folds)],
                args.workers,
            )
            records += [
                {"partition": kind, "share": share, "loss": row.label, **measure(folds, row, head, args.resamples)}
                for row in settings
            ]
    table = pd.DataFrame(records)
    print(write_table(table, args.output_dir, args.folds, args.features))


def write_table(table: pd.DataFrame, folder: Path, folds: int, features: Path | None = None) -> str:
    """Writes `demo_search.{md,csv}`; returns the choice in words."""
    table.to_csv(folder / "demo_search.csv", index=False, float_format="%.6g")
    chosen = choose(table)
    answer = (
        f"Of {len(table)} settings the choice is {chosen['loss']} with the share {chosen['share']:g} of the labels "
        f"privileged ({chosen['partition']}): {points(chosen['privileged'])} points of their mAP, "
        f"{chosen['privileged'] / chosen['privileged_se']:.1f} standard errors, at {points(chosen['held'])} of the "
        "held ones'."
    )
    cells = [
        [
            row["partition"],
            f"{row['share']:g}",
            row["loss"],
            f"{points(row['privileged'])} ±{100 * row['privileged_se']:.2f}",
            f"{points(row['held'])} ±{100 * row['held_se']:.2f}",
            f"{row['privileged'] / row['privileged_se']:.1f}",
        ]
        for _, row in table.sort_values("privileged", ascending=False).iterrows()
    ]
    header = ["partition", "share", "privileged loss", "privileged", "held", "standard errors"]
    about = {
        "command": "`python -m experiments.classification.demo_search" + (" --features FOLDER`" if features else "`"),
        "data": f"{features.name if features else 'openclipart'}, {folds} folds of the train set",
        "hardware": hardware(),
    }
    note = "Changes of mAP in points, mean over folds, ± standard error from a bootstrap over the series of each fold."
    parts = [answer, pipe_table(header, cells, numbers_from=3), note]
    write_page(folder / "demo_search.md", "The demo's setting, chosen on folds of the train set", about, parts)
    return answer


if __name__ == "__main__":
    main()
