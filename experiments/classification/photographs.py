"""
Does FairPO help rare labels on photographs? Every method on features of MS-COCO photographs, against strong opponents.

    python -m experiments.classification.photographs --features FOLDER --search     (tunes on validation, resumable)
    python -m experiments.classification.photographs --features FOLDER              (five seeds, test, resumable)
    ... --partition most_frequent --heads shared_mlp --rows bce_continued fairpo_adjusted     (other privileged labels)

`FOLDER` has `features.npy` and `labels.csv`, a column of 0 and 1 for each label, as `load_features` reads them, with
the splits train, validation and test. The protocol, written before the first run, is in `docs/study.md`. The search
tries every setting with one seed on validation and keeps its choice in `choice.json`; the comparison takes it from
there. Another partition has a choice and tables of its own, named after it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fairpo_trl import Partition
from fairpo_trl.classification.data.tables import load_features
from fairpo_trl.files import write_json

from .compare_tables import write_tables
from .pool import Job, run_jobs
from .runs import REFERENCE, Experiment, Head, Row


EPOCHS = 10
PRIVILEGED = 4
"""Of the labels, the rarest of train unless another partition is asked for."""
PARTITIONS = ("least_frequent", "most_frequent", "random")
SEARCH_SEEDS = (0,)
WEIGHT_DECAYS = (0.03, 0.3, 3.0)
LEARNING_RATES = (1e-3, 3e-4)
ALLOWED_HELD_LOSS = 0.003
"""Of mAP, on validation: a setting that costs the held labels more is only chosen if every one of its row does."""
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "shared_mlp": ("shared MLP (256)", {"head": "shared_mlp", "hidden_size": 256, "dropout": 0.5}),
    "linear": ("linear (the paper's)", {"head": "linear"}),
}
SECTIONS = {
    "reference": [REFERENCE],
    "methods": [
        Row("bce_continued", "BCE continued", "bce_continued"),
        Row("group_dro", "Group DRO", "group_dro"),
        Row("fairpo_dpo", "FairPO-DPO", "fairpo_dpo"),
        Row("fairpo_simpo", "FairPO-SimPO", "fairpo_simpo"),
        Row("fairpo_cpo", "FairPO-CPO", "fairpo_cpo"),
        Row("fairpo_bce", "FairPO, BCE for privileged", "fairpo_cpo", {"privileged_loss": "bce"}),
        Row("fairpo_adjusted", "FairPO, logit adjustment for privileged", "fairpo_cpo",
            {"privileged_loss": "logit_adjustment"}),
        Row("dpo_no_constraint", "DPO for privileged, BCE for held", "fairpo_dpo", {"non_privileged_loss": "bce"}),
        Row("logit_adjustment", "logit adjustment", "logit_adjustment"),
        Row("class_balanced", "class-balanced BCE", "class_balanced"),
        Row("distribution_balanced", "distribution-balanced, focal", "distribution_balanced"),
        Row("decoupled", "decoupled: last layer, every label drawn equally often", "decoupled"),
    ],
    "reweighting": [
        Row(f"reweighted_{factor}", f"re-weighted x{factor}", "reweighted", factor=float(factor))
        for factor in (3, 10, 30)
    ],
    "ablations": [  # everything that the held labels use is frozen
        Row("frozen_bce", "held frozen, BCE", "fairpo_cpo", {"privileged_loss": "bce"}, frozen=True),
        Row("frozen_dpo", "held frozen, DPO", "fairpo_dpo", frozen=True),
        Row("frozen_adjusted", "held frozen, logit adjustment", "fairpo_cpo",
            {"privileged_loss": "logit_adjustment"}, frozen=True),
    ],
}  # fmt: skip
MIXES = (0.5, 1.5, 2.0)
SECTIONS["variants"] = [
    replace(row, name=f"{row.name}_mix{mix:g}", label=f"{row.label}, {mix:g} of the way", mix=mix)
    for row in SECTIONS["methods"]
    if row.name in ("bce_continued", "fairpo_dpo", "logit_adjustment")
    for mix in MIXES
]
"""Between the logits of reference and trained model, and beyond. They cost no training and no setting of their own."""


def head_of(name: str, weight_decay: float) -> Head:
    """A head with a weight decay, which its reference and all methods share."""
    label, model = MODELS[name]
    options = {"learning_rate": 1e-3, "weight_decay": weight_decay, "per_device_train_batch_size": 512}
    return Head(name, f"{label}, Adam, weight decay {weight_decay:g}", model, options)


def settings_of(row: Row) -> Iterator[Row]:
    """A row at every learning rate that is tried."""
    for rate in LEARNING_RATES:
        yield replace(row, name=f"{row.name}_lr{rate:g}", options={**row.options, "learning_rate": rate})


def partition_of(counts: Mapping[str, int], kind: str) -> Partition:
    """`PRIVILEGED` labels: the rarest of train (the paper), the most frequent, or a random draw with seed 0."""
    if kind == "random":
        return Partition.at_random(tuple(counts), PRIVILEGED / len(counts), seed=0)
    if kind == "most_frequent":
        return Partition.by_name(tuple(counts), sorted(counts, key=lambda name: -counts[name])[:PRIVILEGED])
    return Partition.by_least_frequent(counts, PRIVILEGED / len(counts))


def search(
    experiment: Experiment, sections: Mapping[str, Sequence[Row]], names: Sequence[str], kept: Path, workers: int
) -> None:
    """Chooses the weight decay by the reference's mAP, then each row's learning rate, all on validation."""
    choice: dict[str, dict] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in names:
        heads = [head_of(name, decay) for decay in WEIGHT_DECAYS]
        run_jobs(
            [
                Job(f"search-{name}-{head.options['weight_decay']:g}-seed{seed}", experiment, [], head, seed)
                for head in heads
                for seed in SEARCH_SEEDS
            ],
            workers,
        )
        maps = {
            head.options["weight_decay"]: float(
                np.mean([experiment.facts(REFERENCE, head, seed)["validation_map"] for seed in SEARCH_SEEDS])
            )
            for head in heads
        }
        head = head_of(name, max(maps, key=lambda decay: maps[decay]))
        every = [row for rows in sections.values() for row in rows]
        rows = [row for row in every if row is not REFERENCE and row.trained == row]
        tried = [setting for row in rows for setting in settings_of(row)]
        run_jobs([Job(f"search-{name}-seed{seed}", experiment, tried, head, seed) for seed in SEARCH_SEEDS], workers)
        rates = choice.get(name, {}).get("learning_rate", {})  # of rows that were searched before
        rates |= {row.name: best_rate(experiment, row, head) for row in rows}
        choice[name] = {
            "weight_decay": head.options["weight_decay"],
            "reference_validation_map": maps,
            "learning_rate": rates,
            "settings_tried": len(WEIGHT_DECAYS) + len(LEARNING_RATES) * len(rates),
        }
        write_json(kept, choice, indent=2)
        print(json.dumps({name: choice[name]}, indent=2))


def best_rate(experiment: Experiment, row: Row, head: Head) -> float:
    """The rate with the highest privileged gain on validation among those that keep the held labels, if any does."""
    scores = {}
    for rate, setting in zip(LEARNING_RATES, settings_of(row), strict=True):
        changes = [experiment.change_of_map(setting, head, seed, "validation") for seed in SEARCH_SEEDS]
        gain = float(np.mean([change["privileged"] for change in changes]))
        held = float(np.mean([change["non_privileged"] for change in changes]))
        scores[rate] = (held >= -ALLOWED_HELD_LOSS, gain if held >= -ALLOWED_HELD_LOSS else held)
    return max(scores, key=lambda rate: scores[rate])


def main() -> None:
    """Searches, or runs what is missing of the comparison and writes its tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="folder of features.npy and labels.csv")
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-photographs"))
    parser.add_argument("--heads", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--partition", choices=PARTITIONS, default=PARTITIONS[0], help="who is privileged")
    parser.add_argument("--rows", nargs="*", help="only these rows (and the reference)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over images")
    parser.add_argument("--search", action="store_true", help="tune on validation, and write choice.json")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    splits = load_features(args.features, label_columns=read_label_names(args.features))
    counts = splits["train"].label_counts()
    experiment = Experiment(args.output_dir, splits, partition_of(counts, args.partition), EPOCHS)
    suffix = "" if args.partition == PARTITIONS[0] else f"-{args.partition}"
    kept = args.output_dir / f"choice{suffix}.json"
    asked = {
        section: [row for row in rows if row is REFERENCE or not args.rows or row.name in args.rows]
        for section, rows in SECTIONS.items()
    }
    if args.search:
        search(experiment, asked, args.heads, kept, args.workers)
        return
    choice = json.loads(kept.read_text(encoding="utf-8"))
    heads = [head_of(name, choice[name]["weight_decay"]) for name in args.heads]
    sections = {
        head.name: {
            section: [with_rate(row, choice[head.name]["learning_rate"]) for row in rows]
            for section, rows in asked.items()
        }
        for head in heads
    }
    if not args.tables_only:
        run_jobs(
            [
                Job(
                    f"{head.name}-seed{seed}",
                    experiment,
                    [row for rows in sections[head.name].values() for row in rows if row is not REFERENCE],
                    head,
                    seed,
                )
                for seed in args.seeds
                for head in heads
            ],
            args.workers,
        )
    for head in heads:
        folder = args.output_dir / f"{head.name}{suffix}"
        folder.mkdir(exist_ok=True)
        write_tables(
            experiment,
            sections[head.name],
            [head],
            args.seeds,
            args.resamples,
            title=f"MS-COCO photographs, 18 labels, frozen DINOv2-S features, {head.label}",
            command="python -m experiments.classification.photographs --features FOLDER"
            + (f" --partition {args.partition}" if suffix else ""),
            folder=folder,
        )


def with_rate(row: Row, rates: dict[str, float]) -> Row:
    """A row at the learning rate that the search chose."""
    return row if row is REFERENCE else replace(row, options={**row.options, "learning_rate": rates[row.trained.name]})


def read_label_names(folder: Path) -> list[str]:
    """The columns of `labels.csv` but those that are no labels."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        header = file.readline().strip().split(",")
    return [name for name in header if name not in ("id", "path", "split", "series")]


if __name__ == "__main__":
    main()
