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

TWENTY = {"max_steps": 20}
HELD = ("positive", "on_topic", "plain", "vivid")

ALONE = {"per_device_train_batch_size": 2}
"""Half of the demo's four pairs a step are privileged: a row that has no others takes two."""

ROWS = [
    Row("dpo_privileged_only", "DPO on privileged pairs", "dpo_privileged_only", {"per_device_train_batch_size": 2},
        main=True, stops=(8, 12, 16, 20), scales=(0.25, 0.5)),
    Row("fairpo_demo", "FairPO-CPO, the demo's setting", main=True, tuned=True, stops=(20,),
        scales=(0.5, 1.0, 1.25, 1.5)),
    Row("fairpo_sft", "FairPO-SFT (SFT for privileged, hinge for held)", "fairpo", {"privileged_loss": "sft"},
        scales=(1.0, 1.5)),
    Row("sft_on_chosen", "SFT on chosen (privileged)", "sft_on_chosen", {"per_device_train_batch_size": 2}, main=True,
        stops=(20,), scales=(1.0, 1.5)),
    Row("swapped", "the demo's setting, positive privileged", "fairpo",
        {"privileged_attributes": ["positive"]}, tuned=True, stops=(20,), scales=(1.0, 1.5)),
    Row("on_topic", "the demo's setting, on topic privileged", "fairpo",
        {"privileged_attributes": ["on_topic"]}, tuned=True, scales=(0.5, 1.0)),
    Row("swapped_dpo", "DPO on privileged pairs, positive privileged", "dpo_privileged_only",
        {"privileged_attributes": ["positive"], **ALONE, **TWENTY}),
    Row("dpo_all", "DPO on all pairs", "fairpo", {**PUBLISHED, **TWENTY, "balancer": "fixed", "hinge": False},
        main=True),
    Row("fairpo_published", "FairPO as published", "fairpo", {**PUBLISHED, **TWENTY}, main=True),
    Row("fairpo_multipliers", "FairPO-DPO, a multiplier per held attribute", "fairpo", {"balancer": "lagrangian",
        "grouping": "attribute", "lagrangian_term": "excess", "eta_alpha": 0.5, "epsilon": 0.05, **TWENTY}, main=True),
    Row("cpo_privileged_only", "CPO on privileged pairs", "privileged_only", {**ALONE, "privileged_loss": "cpo"}),
    Row("rpo_privileged_only", "RPO on privileged pairs", "privileged_only", {**ALONE, "privileged_loss": "rpo"}),
    Row("ipo_privileged_only", "IPO on privileged pairs", "privileged_only", {**ALONE, "privileged_loss": "ipo"}),
    Row("bonbon_privileged_only", "BoNBoN (n = 6) on privileged pairs", "privileged_only",
        {**ALONE, "privileged_loss": "ipo", "bonbon_alpha": 0.005, "beta": 0.0437956}),
    Row("dpop_privileged_only", "DPOP on privileged pairs", "privileged_only",
        {**ALONE, "privileged_loss": "dpop", "dpop_lambda": 5.0}),
    Row("dpo_consistent", "DPO on consistent privileged pairs", "dpo_privileged_only",
        {**ALONE, **TWENTY}, pairs="consistent"),
    Row("held_project", "FairPO-DPO, held gradients projected out", "fairpo",
        {"privileged_loss": "dpo", "held_gradients": "project", **TWENTY}),
    Row("held_conflict_averse", "RACO: conflict-averse steps", "fairpo",
        {"privileged_loss": "dpo", "held_gradients": "conflict_averse", **TWENTY}),
    Row("sft_held", "control: SFT on the chosen texts of the held attributes", "sft_on_chosen",
        {"privileged_attributes": list(HELD), "per_device_train_batch_size": 2}, judged_as=("concise",)),
    Row("sft_random", "control: SFT on random samples", "sft_on_chosen", {"per_device_train_batch_size": 2},
        pairs="random_side"),
    Row("prompted", "control: the reference told to be brief", control="prompted"),
    Row("cooler", "control: the reference at temperature .3", control="temperature_0.3"),
    Row("best_of_4", "control: the shortest of 4 samples", control="best_of_4"),
    Row("dpo_mixture_25", "DPO, weights .25 / .75", "fairpo", {**PUBLISHED, **TWENTY, "balancer": "fixed",
        "hinge": False, "group_prior": {"privileged": 0.25, "non_privileged": 0.75}}),
    Row("dpo_mixture_75", "DPO, weights .75 / .25", "fairpo", {**PUBLISHED, **TWENTY, "balancer": "fixed",
        "hinge": False, "group_prior": {"privileged": 0.75, "non_privileged": 0.25}}),
    Row("group_robust_dpo", "Group Robust DPO (Eq. 3)", "group_robust_dpo", {**PUBLISHED, **TWENTY}),
    Row("fairpo_simpo", "FairPO, SimPO for privileged", "fairpo", {**PUBLISHED, **TWENTY, "privileged_loss": "simpo"}),
    Row("fairpo_no_hinge", "FairPO without hinge", "fairpo", {**PUBLISHED, **TWENTY, "hinge": False}),
    Row("fairpo_fixed", "FairPO, fixed .5 / .5", "fairpo", {**PUBLISHED, **TWENTY, "balancer": "fixed"}),
    Row("fairpo_attributes", "FairPO, one group per attribute", "fairpo",
        {**PUBLISHED, **TWENTY, "grouping": "attribute"}),
    Row("fairpo_lagrangian", "FairPO, one multiplier", "fairpo",
        {**PUBLISHED, **TWENTY, "balancer": "lagrangian", "eta_alpha": 0.5}),
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
            if seed == 0 or row.control is None  # nothing is trained
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
