"""The card of a multi-label classifier: who is privileged, what became of each group and label, how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fairpo_trl.classification.metrics.comparison import ReferenceComparison
from fairpo_trl.classification.metrics.group_report import GroupEvaluation
from fairpo_trl.hub.card import PAPER, command_section, escaped, eval_result, fill, markdown_table, package_version
from fairpo_trl.hub.privacy import is_hub_id, last_part, one_line
from fairpo_trl.reporting.numbers import role_text


_SETTINGS = (
    *("privileged_loss", "non_privileged_loss", "balancer", "grouping", "timing", "eta_alpha", "epsilon", "beta"),
    *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "optim", "seed"),
)
_METRICS = {"map": "mAP", "sample_f1": "sample F1", "accuracy": "accuracy", "exact_match": "exact match"}


def write_model_card(
    trainer: Any,
    evaluation: GroupEvaluation | None = None,
    comparison: ReferenceComparison | None = None,
    *,
    data: str | None = None,
    licence: str | None = None,
) -> None:
    """
    Writes `README.md` into `trainer.args.output_dir`; it never holds a local path or a token.

    Args:
        trainer ([`~fairpo_trl.MultiLabelFairPOTrainer`]):
            After training.
        evaluation (`GroupEvaluation`), comparison (`ReferenceComparison`, *optional*):
            On the reported split (else the trainer's last one, if any), and against the reference with intervals.
        data, licence (`str`, *optional*):
            What it was trained on (a Hub id or a name), and the licence of the weights, as the Hub spells it.
    """
    folder, config = Path(trainer.args.output_dir), trainer.accelerator.unwrap_model(trainer.model).config
    evaluation = evaluation or trainer.evaluations.get("eval")
    name = one_line((trainer.hub_model_id or "").rpartition("/")[2] or last_part(str(folder))) or "FairPO classifier"
    spec = str((config.backbone or {}).get("spec", ""))
    source = spec.partition(":")[2]
    base = source if is_hub_id(source) and "/" in source else None
    facts = ModelCardData(
        model_name=name,
        license=licence,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=sorted({"fairpo", "group-robust", "multi-label", "image-classification"}),
        base_model=base,
        datasets=[data] if data and is_hub_id(data) and "/" in data else None,
        eval_results=_eval_results(evaluation, data) or None,
    )
    text = "\n\n".join(
        [
            f"# Model Card for {escaped(name)}",
            introduction(config, data),
            "## Quick start\n\n" + loading_snippet(trainer.hub_model_id or name, config),
            "## Results\n\n" + _results(trainer, evaluation, comparison),
            "## Labels\n\n" + _labels(trainer, evaluation, comparison),
            "## Settings\n\n" + _settings(trainer, config),
            *command_section(trainer.accelerator.num_processes),
            _versions(),
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    ModelCard(f"---\n{facts.to_yaml()}\n---\n\n{text}\n").save(folder / "README.md")


def _eval_results(evaluation: GroupEvaluation | None, data: str | None) -> list[EvalResult]:
    if evaluation is None:
        return []
    about = ("image-classification", "Multi-label image classification", "multi-label", data or "evaluation split")
    return [
        eval_result(about, metric, f"{label} ({role_text(group)})", value)
        for metric, label in _METRICS.items()
        for group, value in evaluation.by_group[metric].items()
        if math.isfinite(value)
    ]


def introduction(config: Any, data: str | None) -> str:
    """What the classifier is: how many labels, on which features, on which data."""
    return fill("classifier_introduction", config=config, data=data)


def loading_snippet(repository: str, config: Any) -> str:
    """
    The code that loads the classifier from the Hub and scores a picture, or features where it knows no backbone.

    A backbone from a local folder has to be loaded by whoever uses it.
    """
    library, _, source = str((config.backbone or {}).get("spec", "")).partition(":")
    spec = None
    if source and not is_hub_id(source):
        spec = f"{library}:local-dir" if source.startswith("local-dir:") else library
        spec += f":{last_part(source)}"
    return fill("classifier_snippet", repository=repository, config=config, local_spec=spec)


def _results(trainer: Any, evaluation: GroupEvaluation | None, comparison: ReferenceComparison | None) -> str:
    if evaluation is None:
        return "No evaluation has been run yet."
    weights = trainer.group_weights
    header = ["Group", "Labels", *_METRICS.values(), "Trivial mAP / exact match", "Final weight"]
    rows = []
    for group, row in evaluation.by_group.iterrows():
        weight = weights.as_dict().get(str(group))
        rows.append(
            [
                role_text(str(group)),
                str(int(row["labels"])),
                *(_number(row[metric]) for metric in _METRICS),
                f"{_number(row['map_all_negative'])} / {_number(row['exact_match_all_negative'])}",
                "–" if weight is None else f"{weight:.3f}",
            ]
        )
    parts = [
        markdown_table(header, rows, numbers=len(header) - 1),
        "Whole split; mAP over labels with a positive. Trivial: a model that predicts nothing.",
    ]
    if comparison is not None:
        deltas = comparison.by_group
        told = ", ".join(f"{role_text(str(group))} {_change(row, digits=2)}" for group, row in deltas.iterrows())
        parts.append(
            f"Change of mAP against the reference, in points, with 95 % intervals over {comparison.series} series of "
            f"images: {told}. Held labels that fell by more than {100 * comparison.eps:g} point: "
            f"{', '.join(map(escaped, comparison.fell)) or 'none'}."
        )
    return "\n\n".join(parts)


def _labels(trainer: Any, evaluation: GroupEvaluation | None, comparison: ReferenceComparison | None) -> str:
    partition = trainer.partition
    header = ["Label", "Role", "Test positives", "AP", "Change against the reference"]
    rows = []
    for name in (*partition.privileged, *partition.non_privileged):
        seen = evaluation.by_label.loc[name] if evaluation is not None else None
        change = "–"
        if comparison is not None and math.isfinite(comparison.by_label.loc[name, "delta"]):
            change = _change(comparison.by_label.loc[name], digits=1)
        rows.append(
            [
                escaped(name),
                role_text(partition.role_of(name)),
                "–" if seen is None else str(int(seen["positives"])),
                "–" if seen is None else _number(seen["ap"]),
                change,
            ]
        )
    return markdown_table(header, rows, numbers=3)


def _settings(trainer: Any, config: Any) -> str:
    rows = [[f"`{name}`", escaped(str(getattr(trainer.args, name)))] for name in _SETTINGS]
    rows.append(["head", escaped(config.head)])
    if told := describe_reference(config.training):
        rows.append(["reference", escaped(told)])
    if config.backbone:
        rows.append(["backbone", escaped(last_part(str(config.backbone.get("name", ""))))])
        rows.append(["backbone weights (SHA-256)", str(config.backbone.get("weights_hash", ""))[:16]])
    return markdown_table(["Setting", "Value"], rows)


def describe_reference(training: Mapping[str, Any] | None) -> str | None:
    """
    How the reference of a classifier was trained (`config.training`), in a sentence; `None` if [`train_reference`] did
    not.
    """
    facts = (training or {}).get("reference")
    if facts is None:
        return None
    return (
        f"The reference was best after epoch {facts['best_epoch']} of {facts['epochs']} (validation mAP "
        f"{facts['validation_map']:.4f})."
    )


def _versions() -> str:
    packages = {"FairPO-TRL": "fairpo-trl", "Transformers": "transformers", "PyTorch": "torch", "timm": "timm"}
    found = {name: package_version(package) for name, package in packages.items()}
    lines = [f"- {name}: {version}" for name, version in found.items() if version]
    return "## Versions and citation\n\n" + "\n".join(lines) + f"\n\n```bibtex\n{PAPER['citation']}\n```"


def _change(row: Any, digits: int) -> str:
    """A change with its interval, in points of AP."""
    delta, low, high = (f"{100 * row[column]:+.{digits}f}" for column in ("delta", "low", "high"))
    return f"{delta} [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
