"""Results documents for tests, as the JSON fields that a file holds: change what a test is about, then make them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from PIL import Image


Fields = dict[str, Any]

HOSTILE = (
    "</div></script><script>window.hit=1</script><img src='http://example.org/x.png' onerror='window.hit=1'> & \"q\" "
    "{{1234 * 5678}}"
)


def around(mean: float, half: float = 0.04, n: int = 200) -> Fields:
    """A mean with its interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def rates(difference: float, half: float = 0.04) -> Fields:
    """What one judge found."""
    return {
        "reference_vs_itself": around(0.51, 0.03),
        "trained": around(0.51 + difference),
        "difference": around(difference, half),
    }


def generation_fields(
    name: str = "FairPO-CPO", warmth: float = 0.23, brevity: float = 0.01, plain: float = 0.02
) -> Fields:
    """A run with everything that `Results` knows; the numbers are differences by the first judge."""
    partition = {"warmth": "privileged", "brevity": "non_privileged", "plain words": "non_privileged"}
    attributes = [
        {
            "attribute": attribute,
            "role": partition[attribute],
            "pairs": 120 + i,
            "win_rate": {"scorer": rates(difference), "second_judge": rates(difference + 0.01)},
            "length_controlled": {"scorer": around(0.61 + i / 100, 0.05)},
            "scores": {"scorer": {"reference": around(3.1 + i, 0.2), "trained": around(4.25 + i, 0.2),
                                  "difference": around(1.15, 0.1)}},
            "pair_accuracy": {"trained": 0.71 + i / 100, "reference": 0.57 + i / 100},
            "inside_hinge": 0.83 + i / 100,
            "final_weight": 0.33 + i / 100,
        }
        for i, (attribute, difference) in enumerate(
            {"warmth": warmth, "brevity": brevity, "plain words": plain}.items()
        )
    ]  # fmt: skip
    samples = [
        {"prompt": f"prompt {i}", "reference": f"reference text {i}", "trained": f"trained text {i}",
         "scores": {"warmth": {"reference": 1.5, "trained": 2.25 + i}}
         | ({"brevity": {"reference": 7.5, "trained": 6.0}} if i % 2 else {})}
        for i in range(8)
    ]  # fmt: skip
    regressions = [
        samples[i] | {"prompt": f"lost {attribute} {i}", "attribute": attribute, "judge": "scorer", "change": -3.5 + i}
        for i, attribute in enumerate(["brevity", "plain words", "brevity"])
    ]
    return {
        "title": f"{name} on a small model",
        "name": name,
        "reference_name": "Small-Instruct",
        "command": "python train.py --output /home/someone/runs/x",
        "model": "Small-Instruct",
        "data": "pairs.jsonl",
        "partition": partition,
        "settings": {"beta": 0.1, "balancer": "mirror_ascent"},
        "seeds": [3, 4],
        "hardware": "2 CPU cores",
        "seconds": 1234.5,
        "attributes": attributes,
        "guards": {
            "reference": {"completions": 200, "mean_words": 20.5, "unended_share": 0.25},
            "trained": {"completions": 201, "mean_words": 18.25, "unended_share": 0.5, "mean_token_log_prob": -1.25},
        },
        "weights_history": [
            {"step": s, "privileged": 0.5 + s / 100, "non_privileged": 0.5 - s / 100} for s in (1, 9, 17)
        ],
        "margins_history": [{"step": s, "warmth": s / 50, "brevity": -s / 90} for s in (1, 9)],
        "samples": samples,
        "regressions": regressions,
        "judges": {"scorer": {"kind": "count:words", "calls": 1234, "cached": 56, "failures": 7}},
    }


def bare_generation_fields() -> Fields:
    """A run of which nothing was measured."""
    return {
        "title": "t",
        "partition": {"a": "privileged"},
        "attributes": [{"attribute": "a", "role": "privileged"}],
    }


ROLES = {"owl": "privileged", "harp": "privileged", "cat": "non_privileged", "tree_50%": "non_privileged"}
COUNTS = {"owl": 31, "harp": 25, "cat": 400, "tree_50%": 212}
METRICS = ("map", "sample_f1", "accuracy", "exact_match")


def change_row(mean: float, half: float = 0.01, **more: Any) -> Fields:
    """A row of a comparison, by group or by label."""
    return {"delta": mean, "low": mean - half, "high": mean + half, "seed_sd": None, **more}


def evaluation(shift: float = 0.0) -> Fields:
    """As `GroupEvaluation.to_dict()` writes it."""
    group: Fields = {"labels": 2, "labels_counted": 2, "samples": 100, "samples_f1": 100}
    for metric, value in zip(METRICS, (0.5, 0.4, 0.9, 0.7), strict=True):
        group |= {metric: value + shift, f"{metric}_all_negative": 0.05, f"{metric}_label_prior": 0.06}
    return {
        "by_group": {name: dict(group) for name in ("all", "privileged", "non_privileged")},
        "by_label": {name: {"role": role, "ap": 0.5} for name, role in ROLES.items()},
        "labels_without_positives": ["tree_50%"],
        "zero_division": 0,
        "samples": "all",
    }


def label_fields(folder: Path | None = None) -> Fields:
    """A run of four labels with everything that `LabelResults` knows; a sample's image is written to the folder."""
    changes = {"owl": 0.03, "harp": 0.002, "cat": -0.025}
    by_label = {
        name: {"role": ROLES[name], "positives": 20, "ap_reference": 0.5, "ap": 0.5 + value} | change_row(value)
        for name, value in changes.items()
    }
    nothing = {"delta": None, "low": None, "high": None, "seed_sd": None}
    by_label["tree_50%"] = {"role": "non_privileged", "positives": 0, **nothing}
    if folder is not None:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (64, 40), (200, 30, 30, 128)).save(folder / "samples" / "0.png")
    return {
        "title": "drawings: fairpo_cpo",
        "command": "python coco_fairpo.py --output_dir /home/someone/runs/x",
        "data": {"test": {"images": 1100, "series": 900, "dropped": 3}},
        "partition": dict(ROLES),
        "label_counts": dict(COUNTS),
        "method": "fairpo_cpo",
        "settings": {"beta": 1.0},
        "seeds": [0],
        "seconds": 100.0,
        "evaluations": {"reference": evaluation(), "trained": evaluation(0.016)},
        "comparison": {
            "by_group": {
                "all": change_row(0.002), "privileged": change_row(0.016), "non_privileged": change_row(-0.003)
            },
            "by_label": by_label, "fell": ["cat"], "fell_surely": ["cat"], "eps": 0.01,
            "seeds": 1, "series": 900, "resamples": 1000, "level": 0.95,
        },
        "hinge": {"pairs": 0.62, "labels": 0.5, "eps": 0.01},
        "confusion": {"reference": 0.663, "trained": 0.701},
        "calibration": {
            model: {"privileged": {"ece": ece, "ece_temperature": 0.0123, "brier": 0.0456, "brier_temperature": 0.0455,
                                   "brier_all_negative": 0.05, "brier_label_prior": 0.0499}}
            for model, ece in (("reference", 0.0321), ("trained", 0.0234))
        },
        "weights_history": [{"step": s, "privileged": 0.5, "non_privileged": 0.5} for s in (1, 2)],
        "samples": [
            {"image": "samples/0.png", "id": "birds/owl_1", "true": ["owl"],
             "reference": [["cat", 0.9], ["owl", 0.31]], "trained": [["owl", 0.82], ["cat", 0.7]]},
            {"image": None, "id": "b", "true": [], "reference": [["cat", 0.9]], "trained": [["cat", 0.7]]},
        ],
        "notes": ["The images were chosen by hand."],
    }  # fmt: skip


def label_set_fields() -> Fields:
    """A run that is measured by F1 of label sets, which have no scores, with one further table."""
    fields = label_fields()
    for name in ("samples", "calibration"):
        del fields[name]
    for evaluated in fields["evaluations"].values():
        for row in evaluated["by_group"].values():
            row |= dict.fromkeys(row, None) | {"precision": 0.8, "recall": 0.6, "f1": 0.7, "sample_f1": 0.5}
    for row in fields["comparison"]["by_label"].values():
        row.pop("ap_reference", None), row.pop("ap", None)
        row |= {"f1_reference": 0.25, "f1": 0.75}
    change = {"mean": -0.02, "low": -0.03, "high": -0.01}
    table = {
        "title": "What was read",
        "header": ["method", "malformed", "size error", "change"],
        "rows": [["free <b>", {"value": 0.043, "unit": "percent"}, "+0.10", {"change": change}]],
        "note": "Note",
    }
    return fields | {
        "measure": "F1", "hinge": {"pairs": None, "labels": None},
        "confusion": {"reference": None, "trained": None}, "tables": [table],
    }  # fmt: skip


def method_fields(
    name: str, section: str, head: str = "mlp", gain: float | None = None, held: float = 0.0, **more: Any
) -> Fields:
    """One row of a comparison; `gain` and `held` are its changes against the reference."""
    groups = {
        group: dict.fromkeys(METRICS, 0.5) | {"paper_map": 0.88} for group in ("all", "privileged", "non_privileged")
    }
    row: Fields = {"name": name, "label": name, "section": section, "head": head, "seeds": 5, "groups": groups}
    row |= {"confusion": 0.66, "bands": {"head": 0.7, "mid": 0.6, "tail": 0.5}}
    if gain is not None:
        row["delta_reference"] = {
            group: {"mean": x, "low": x - 0.008, "high": x + 0.009, "seed_sd": 0.002}
            for group, x in {"privileged": gain, "non_privileged": held}.items()
        }
        row |= {"fell": ["cat"], "fell_surely": [], "hinge": {"pairs": 0.6, "labels": 0.5}}
    return row | more


def comparison_fields() -> Fields:
    """Methods of two heads, of which the second has a reference alone."""
    against = {"privileged": {"mean": 0.007, "low": -0.001, "high": 0.015}}
    methods = [
        method_fields("reference", "reference", label="reference (BCE)"),
        method_fields("bce_continued", "methods", gain=0.0123, held=0.008),
        method_fields("fairpo_cpo", "methods", gain=0.02, held=0.004, delta_continued=against, label="FairPO-CPO"),
        method_fields("reweighted_10", "reweighting", gain=0.028, held=0.004, label="re-weighted x10", factor=10.0),
        method_fields("reweighted_3", "reweighting", gain=0.02, held=0.007, label="re-weighted x3", seeds=3),
        method_fields("no_fallback", "ablations", gain=-0.3, held=-0.2, label="without BCE fallback"),
        method_fields("reference", "reference", head="linear"),
    ]
    return {
        "title": "openclipart: every method",
        "data": {"test": {"images": 1100, "series": 900}},
        "partition": dict(ROLES),
        "label_counts": dict(COUNTS),
        "heads": {"mlp": "shared MLP", "linear": "linear"},
        "trivial": {"all_negative": {"privileged": dict.fromkeys(METRICS, 0.02)}},
        "methods": methods,
        "per_label": {"fairpo_cpo, mlp": {name: {"mean": -0.01, "low": -0.02, "high": 0.005} for name in ROLES}},
        "confused_pairs": {"pairs": [{"label": "owl", "confused_with": "cat", "before": 9, "after": 7}]},
        "notes": ["Continued BCE gains nothing."],
    }


def renamed(fields: Fields, old: str, new: str) -> Fields:
    """The fields with a name changed wherever it stands, as key or value."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {change(key): change(child) for key, child in value.items()}
        if isinstance(value, list):
            return [change(child) for child in value]
        return new if value == old else copy.copy(value)

    return change(fields)
