"""The end of the demo: what both models write on held-out prompts, as tables, plots and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft.helpers import rescale_adapter_scale

from fairpo_trl import FairPOTrainer, Partition
from fairpo_trl.evaluation import Completion, WinRateTable, sample_completions
from fairpo_trl.generation.data import load_pairs
from fairpo_trl.reporting import Results, print_results, write_report
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.training.logs import history_of

from . import evaluation, scorers
from .prompts import load_prompts
from .selection import BATCH, Written


SETTINGS = ("balancer", "grouping", "epsilon", "eta_alpha", "beta", "learning_rate", "max_steps", "privileged_loss")
PROMPTS, SAMPLES, PAIRS = 120, 2, 10
"""Held-out prompts, completions of each, and held-out pairs of each attribute: what fits into a few CPU minutes."""


def report_demo(
    trainer: FairPOTrainer,
    privileged: Sequence[str],
    method: str,
    origin: str,
    started: float,
    written: Written | None = None,
) -> Results:
    """
    Measures the trained model against its reference and shows the result.

    Writes `results.json`, `report.md` and the plots to the output folder of the run, and prints the tables.

    Args:
        trainer (`FairPOTrainer`):
            After training; its model is a PEFT model whose base is the reference.
        privileged (`Sequence[str]`):
            Attributes that should have got better, as the user named them (a baseline may train with other roles).
        method (`str`):
            Name of the method, for the title.
        origin (`str`):
            Where the model came from.
        started (`float`):
            `time.time()` when the demo began.
        written (`Written`, *optional*):
            What the test let both models write on prompts that decided nothing; else they write now.
    """
    partition = Partition.by_name(list(scorers.SCORERS), privileged)
    model, tokenizer, args = trainer.model, trainer.processing_class, trainer.args
    if written is None:
        written = _write(
            model, tokenizer, [row["prompt"] for row in load_prompts() if row["split"] == "test"][:PROMPTS]
        )
    prompts = written.prompts
    reference, again, trained = (
        evaluation.judge(prompts, completions) for completions in (written.reference, written.again, written.trained)
    )
    rates = WinRateTable(evaluation.win_rates(partition, trained, reference, again)).to_records()
    pairs = evaluation.first_of_each(load_pairs(str(evaluation.PAIRS_FILE))["test"], PAIRS)
    with nullcontext() if written.scale == 1 else rescale_adapter_scale(model, written.scale):
        pair_results = evaluation.pair_metrics(model, tokenizer, pairs, args.beta, args.epsilon)
    weights = trainer.group_weights
    weight_of = {name: weights.as_dict()[group.name] for group in weights.groups for name in group.members}
    history = trainer.state.log_history
    found: dict[str, Any] = {
        "title": f"SmolLM2-135M, {method}: {', '.join(privileged)} privileged"
        + ("" if written.scale == 1 else f", adapter x {written.scale:g}"),
        "command": "python recipes/generation_fairpo.py" + ("" if method == "fairpo" else f" --method {method}"),
        "model": origin,
        "data": "recipes/demo/data/pairs.jsonl",
        "partition": {name: partition.role_of(name) for name in partition.names},
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "seeds": [args.seed],
        "hardware": hardware(),
        "attributes": [
            {
                "attribute": name,
                "role": partition.role_of(name),
                "pairs": int(pair_results[name]["pairs"]),
                "win_rate": rates[name],
                "pair_accuracy": {"trained": pair_results[name]["accuracy"]},
                "inside_hinge": pair_results[name]["inside_hinge"],
                **({"final_weight": weight_of[name]} if name in weight_of else {}),
            }
            for name in (*partition.privileged, *partition.non_privileged)
        ],
        "guards": {
            "reference": evaluation.guards(model, tokenizer, prompts, reference),
            "trained": evaluation.guards(model, tokenizer, prompts, trained),
        },
        "weights_history": history_of(history, "weight/"),
        "margins_history": history_of(history, "margin/attribute/"),
        "samples": [
            {
                "prompt": scorers.user_text(prompts[i]),
                "reference": again.completions[i][0].text,
                "trained": trained.completions[i][0].text,
            }
            for i in range(0, len(prompts), len(prompts) // 3)
        ],
        "seconds": time.time() - started,
    }  # fmt: skip
    results = Results(**found)
    report = write_report(results, Path(args.output_dir))
    print_results(results)
    minutes = found["seconds"] / 60
    print(f"\nReport: {report}   (report.html, plots and results.json beside it; {minutes:.1f} minutes in all)")
    return results


def _write(model: Any, tokenizer: Any, prompts: list[Any]) -> Written:
    """What both models write; the trained one shares its random numbers with the reference's second writing."""

    def write(seed: int, desc: str) -> list[list[Completion]]:
        return sample_completions(
            model, tokenizer, prompts, samples_per_prompt=SAMPLES, seed=seed, batch_size=BATCH, desc=desc
        )

    with model.disable_adapter():
        reference = write(evaluation.REFERENCE_SEED, "Reference writes (1/2)")
        again = write(evaluation.FRESH_SEED, "Reference writes (2/2)")
    return Written(prompts, reference, again, write(evaluation.FRESH_SEED, "Trained model writes"))
