"""
How far a model goes from the reference for what it gains: the comparison's gains against a divergence.

    python -m experiments.generation.divergence --output_dir fairpo-comparison

On the texts that a model wrote for the comparison, their log-probability under it less that under the reference, in
nats a text. Were they drawn at temperature 1, this would estimate the KL divergence of the two; at .7, as here, it is
that on typical texts, and can fall a little below 0 for a model that hardly moved. Adapters that are not kept any more
are trained again. Numbers go to `divergence.json`, one picture to `divergence.png`; what is there is not computed
again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from peft import PeftModel
from peft.helpers import rescale_adapter_scale

from fairpo_trl.evaluation import Completion, paired_bootstrap
from fairpo_trl.evaluation.guards import mean_token_log_prob

from .compare import ROWS
from .measure import At, Measurer, Row


matplotlib.use("Agg")
import matplotlib.pyplot as plt


CURVES = {"dpo_privileged_only": "#c62828", "sft_on_chosen": "#757575", "fairpo_demo": "#00796b"}
"""Rows and their colours."""


def divergence(measurer: Measurer, row: Row, seed: int, at: At, prompts: int) -> dict[str, float] | None:
    """Nats a text, the mean over the first prompts with an interval over them; `None` without a measured point."""
    point = measurer.read(row, seed, at)
    if point is None:
        return None
    adapter = measurer.adapter(row, seed, at.step)
    if not adapter.is_dir():
        measurer.train(row, seed)
    model, tokenizer = measurer.base()
    model = PeftModel.from_pretrained(model, str(adapter))
    asked = measurer.prompts[:prompts]
    texts = [[Completion(text, tuple(ids), ended)] for (text, ids, ended), *_ in point["completions"][:prompts]]
    lengths = np.array([len(own.token_ids) + own.ended for (own,) in texts])
    with rescale_adapter_scale(model, at.scale):
        own = mean_token_log_prob(model, tokenizer, asked, texts)[:, 0]
    with model.disable_adapter():
        reference = mean_token_log_prob(model, tokenizer, asked, texts)[:, 0]
    return paired_bootstrap((own - reference) * lengths).to_dict()


def draw(found: dict[str, Any], gains: list[dict[str, Any]], output: Path) -> None:
    """Each row as a curve from the reference: across the divergence, up the gain of the same seed."""
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(7.2, 4.0), dpi=160)
        axes.plot(0, 0, "k*", ms=12)
        for name, colour in CURVES.items():
            label = next(row.label for row in ROWS if row.name == name)
            points = [(0.0, 0.0)]
            for line in gains:
                key = f"{line['row']} {line['step']} x{line['scale']:g}"
                if line["row"] == name and key in found:
                    points.append((found[key]["mean"], line["privileged_by_seed"][line["seeds"].index(found["seed"])]))
            xs, ys = zip(*sorted(points, key=lambda point: point[1]), strict=True)
            axes.plot(xs, ys, "o-", color=colour, ms=4, lw=1.2, label=label)
        axes.set_xlabel("log-prob of its own texts under it less that under the reference (nats a text)")
        axes.set_ylabel("gain of the privileged attribute")
        axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(output)
        plt.close(figure)


def main() -> None:
    """Computes what is missing, then draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-comparison"), help="that of the comparison")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    parser.add_argument("--prompts", type=int, default=100, help="test prompts whose first text counts")
    args = parser.parse_args()
    measurer = Measurer(args.output_dir, "test", 2)
    kept = args.output_dir / "divergence.json"
    found: dict[str, Any] = measurer.points.read(kept) if kept.exists() else {}
    if found and (found["seed"], found["prompts"]) != (args.seed, args.prompts):
        raise ValueError(f"{kept.name} holds other prompts or another seed: move it away.")
    found |= {"seed": args.seed, "prompts": args.prompts}
    for row in (row for row in ROWS if row.name in CURVES):
        for at in measurer.measured(row):
            key = f"{row.name} {at.step} x{at.scale:g}"
            value = None if key in found else divergence(measurer, row, args.seed, at, args.prompts)
            if value is not None:
                found[key] = value
                measurer.points.write(kept, found)
                print(f"{key}: {value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]", flush=True)
    draw(found, measurer.points.read(args.output_dir / "comparison.json"), args.output_dir / "divergence.png")


if __name__ == "__main__":
    main()
