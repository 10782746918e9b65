"""
Compares FairPO with its baselines and ablations on the demo's model, data and batches.

    make compare-generation                                   # everything; hours on 2 CPU cores, resumable
    make compare-generation ARGS="--rows fairpo_demo --seeds 0"

Every measured point is one JSON file under `--output_dir`; what is there is not computed again, so the command can be
stopped and repeated. All points share the reference's completions and the random numbers of sampling. The table goes
to `comparison.md`, `comparison.json` and `comparison.png`; `--tables_only` makes them from the points there are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from experiments.workers import Job, run_all

from .measure import Measurer, Row


# Published FairPO: Algorithm 2 with two groups, the hinge of each pair, no scaling, no floor.
PUBLISHED = {
    "balancer": "mirror_ascent",
    "grouping": "role",
    "eta_alpha": 0.05,
    "epsilon": 0.05,
    "hinge_level": "pair",
}

ROWS = [
    Row("dpo_privileged_only", "DPO on privileged pairs", "dpo_privileged_only", {"per_device_train_batch_size": 2},
        main=True, stops=(8, 12, 16)),
    Row("dpo_all", "DPO on all pairs", "fairpo", {**PUBLISHED, "balancer": "fixed", "hinge": False}, main=True),
    Row("fairpo_published", "FairPO as published", "fairpo", PUBLISHED, main=True),
    Row("fairpo_demo", "FairPO-CPO, the demo's setting", main=True, tuned=True),
    Row("fairpo_multipliers", "FairPO-DPO, a multiplier per held attribute", "fairpo", {"balancer": "lagrangian",
        "grouping": "attribute", "lagrangian_term": "excess", "eta_alpha": 0.5, "epsilon": 0.05}, main=True),
    Row("sft_on_chosen", "SFT on chosen (privileged)", "sft_on_chosen", {"per_device_train_batch_size": 2}),
    Row("dpo_mixture_25", "DPO, weights .25 / .75", "fairpo", {**PUBLISHED, "balancer": "fixed", "hinge": False,
        "group_prior": {"privileged": 0.25, "non_privileged": 0.75}}),
    Row("dpo_mixture_75", "DPO, weights .75 / .25", "fairpo", {**PUBLISHED, "balancer": "fixed", "hinge": False,
        "group_prior": {"privileged": 0.75, "non_privileged": 0.25}}),
    Row("group_robust_dpo", "Group Robust DPO (Eq. 3)", "group_robust_dpo", PUBLISHED),
    Row("fairpo_simpo", "FairPO, SimPO for privileged", "fairpo", {**PUBLISHED, "privileged_loss": "simpo"}),
    Row("fairpo_no_hinge", "FairPO without hinge", "fairpo", {**PUBLISHED, "hinge": False}),
    Row("fairpo_fixed", "FairPO, fixed .5 / .5", "fairpo", {**PUBLISHED, "balancer": "fixed"}),
    Row("fairpo_attributes", "FairPO, one group per attribute", "fairpo", {**PUBLISHED, "grouping": "attribute"}),
    Row("fairpo_lagrangian", "FairPO, one multiplier", "fairpo",
        {**PUBLISHED, "balancer": "lagrangian", "eta_alpha": 0.5}),
    Row("swapped", "the demo's setting, positive privileged", "fairpo",
        {"privileged_attributes": ["positive"]}, tuned=True),
]  # fmt: skip


def main() -> None:
    """Runs what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-comparison"))
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="only these rows")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds (default: 0 1 2 for main rows, else 0)")
    parser.add_argument("--split", default="test", choices=["test", "validation"], help="held-out prompts")
    parser.add_argument("--samples", type=int, default=2, help="completions per prompt")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from .tables import write_tables

    measurer = Measurer(args.output_dir, args.split, args.samples)
    if not args.tables_only:
        measurer.write_references()
        chosen = [
            (row, seed)
            for row in ROWS
            for seed in (args.seeds if args.seeds is not None else ((0, 1, 2) if row.main else (0,)))
            if not args.rows or row.name in args.rows
        ]
        chosen.sort(key=lambda run: (not run[0].main, run[1]))  # what matters most first: main rows, seed by seed
        jobs = [
            Job(
                f"{row.name} seed {seed}",
                measurer.output_dir(row, seed).with_suffix(".log"),
                measurer.run,
                (row, seed),
            )
            for row, seed in chosen
            if not measurer.complete(row, seed)
        ]
        run_all(jobs, args.workers, "runs")
    write_tables(measurer, ROWS, sorted({0, 1, 2, *(args.seeds or ())}))


if __name__ == "__main__":
    main()
