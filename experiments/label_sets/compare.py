"""
Compares FairPO with its baselines where a language model writes the label set of an item.

    make compare-labels                       # three seeds; hours on 2 CPU cores, resumable
    make compare-labels ARGS="--seeds 0"      # one seed
    make compare-labels ARGS="--search"       # the learning rates, on other items than the test's

Every point is one JSON file under `--output_dir` with the texts that were written; what is there is not computed
again, so the command can be stopped and repeated. All methods of a seed start from the same reference, and those on
pairs share its pairs. The tables go to `comparison.md`; `--tables_only` makes them from the points there are.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from label_generation_fairpo import DEFAULT_CONFIG

from experiments.workers import Job, run_all
from fairpo_trl.commands.errors import exit_clearly

from .measure import REFERENCE, Row, SetComparison


ROWS = [
    Row("sft_continued", "SFT continued", "sft", {"learning_rate": 2e-4}),
    Row("sft_oversampled", "SFT, rare x4", "sft", {"learning_rate": 2e-4}, factor=4),
    # The rates that the search chose; FairPO-CPO's is the one of the YAML file.
    Row("dpo", "DPO, all pairs", "dpo", {"learning_rate": 2e-5}),
    Row("dpo_privileged_only", "DPO, privileged pairs", "dpo_privileged_only", {"learning_rate": 2e-5}),
    Row("fairpo_dpo", "FairPO-DPO", "fairpo", {"learning_rate": 5e-5, "privileged_loss": "dpo"}),
    Row("fairpo", "FairPO-CPO", "fairpo", constrained=True),
    Row("classifier_bce", "MiniLM + linear, BCE", "classifier"),
    Row("classifier_fairpo", "MiniLM + linear, FairPO-CPO", "classifier"),
]


RATES = (2e-5, 5e-5, 1e-4)
SEARCH = {
    label: [
        Row(f"{name}_{rate:g}", f"{label}, {rate:g}", method, {"learning_rate": rate, **options}) for rate in RATES
    ]
    for name, label, method, options in (
        ("dpo", "DPO, all pairs", "dpo", {}),
        ("dpo_privileged_only", "DPO, privileged pairs", "dpo_privileged_only", {}),
        ("fairpo", "FairPO-DPO", "fairpo", {"privileged_loss": "dpo"}),
        ("fairpo_cpo", "FairPO-CPO", "fairpo", {"privileged_loss": "cpo"}),
    )
}
"""The rows that `--search` compares; one of each list is chosen."""


def main(arguments: list[str]) -> None:
    """Runs what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-label-sets-comparison"))
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="options of the recipe")
    parser.add_argument("--dataset_name", help="a file of `text` and `labels`; by default the debtags")
    parser.add_argument("--model_name_or_path", help="by default the demo's model")
    parser.add_argument("--seeds", nargs="*", type=int, help="by default 0, 1, 2; of the search 0")
    parser.add_argument("--search", action="store_true", help="compare learning rates on validation items")
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="only these rows (and SFT)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args(arguments)
    if args.search and (args.dataset_name or args.rows):
        parser.error("--search has its own items and rows: leave out --dataset_name and --rows")
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from label_sets.debtags import debtags_file, validation_file

    from .tables import write_tables

    data = args.dataset_name or (validation_file() if args.search else debtags_file())
    seeds = args.seeds if args.seeds is not None else [0] if args.search else [0, 1, 2]
    rows = [row for family in SEARCH.values() for row in family] if args.search else ROWS
    comparison = SetComparison(args.output_dir, args.config, data, args.model_name_or_path)
    if not args.tables_only:
        wanted = [row for row in rows if not args.rows or row.name in args.rows]
        for seed in seeds:  # one after the other: a stopped command leaves whole seeds
            _run_seed(comparison, wanted, seed, args.workers)
    write_tables(comparison, [REFERENCE, *rows], seeds, SEARCH if args.search else {})


def _run_seed(comparison: SetComparison, rows: Sequence[Row], seed: int, workers: int) -> None:
    todo = [row for row in rows if not comparison.complete(row, seed)]
    texts = [row for row in todo if row.method != "classifier"]
    if not comparison.prepared(seed) or (texts and not comparison.reference_path(seed).exists()):
        run_all([_job(comparison, REFERENCE, seed)], 1, "reference")  # alone, with all threads of this process
    # One run of the classifier writes both of its rows. The longest runs come first.
    jobs = [*[row for row in todo if row.method == "classifier"][:1], *reversed(texts)]
    run_all([_job(comparison, row, seed) for row in jobs], workers, "runs")


def _job(comparison: SetComparison, row: Row, seed: int) -> Job:
    log = comparison.folder / "runs" / f"{row.name}-seed{seed}.log"
    return Job(f"{row.name} seed {seed}", log, comparison.run, (row, seed))


if __name__ == "__main__":
    exit_clearly(main, sys.argv[1:])
