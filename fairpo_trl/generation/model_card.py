"""Model card: TRL's, with PEFT's facts kept and FairPO's added."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from trl import DPOConfig

from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.hub.card import (
    BaseModel,
    as_list,
    command_section,
    escaped,
    eval_result,
    fill,
    markdown_table,
    package_version,
)
from fairpo_trl.hub.privacy import is_hub_id, last_part, one_line


# Settings that every card shows; the others only where they differ from their default.
_MAIN_SETTINGS = ("grouping", "privileged_loss", "hinge", "epsilon", "hinge_level", "balancer", "eta_alpha", "timing")
_TRAINING_SETTINGS = ("beta", "learning_rate", "max_length", "seed")
_SHOWN_ELSEWHERE = ("privileged_attributes", "non_privileged_attributes")


def add_fairpo_facts(trainer: Any, win_rates: Mapping[str, float] | None = None) -> None:
    """
    Adds FairPO's and PEFT's facts to the card that TRL has just written to `trainer.args.output_dir`.

    TRL overwrites the card that PEFT wrote: library, pipeline and LoRA tags, licence and results are put (back) here.
    The card never holds a local path or a token.

    Args:
        trainer ([`~fairpo_trl.FairPOTrainer`]):
            The trainer, at any moment: results are left out while there has been no evaluation.
        win_rates (`Mapping[str, float]`, *optional*):
            Attribute -> win rate against the reference, in [0, 1], for a further column.
    """
    folder = Path(trainer.args.output_dir)
    path = folder / "README.md"
    card = ModelCard.load(path, ignore_metadata_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = BaseModel.of(getattr(model.config, "_name_or_path", "") or "")
    method = _peft_method(model)
    datasets = as_list(card.data.get("datasets"))

    facts = _metadata(card.data.to_dict(), trainer, base, method, win_rates or {})
    title = facts["model_name"]
    repository, chats = trainer.hub_model_id or title, bool(trainer.processing_class.chat_template)
    text = "\n\n".join(
        [
            f"# Model Card for {escaped(title)}",
            introduction(base, method, datasets),
            about_fairpo(),
            "## Quick start\n\n" + loading_snippet(repository, base, method, chats),
            "## Attributes and results\n\n" + _results(trainer, win_rates or {}),
            "## FairPO settings\n\n" + _settings(trainer.args),
            *command_section(trainer.accelerator.num_processes),
            _training_procedure(card.text, method),
        ]
    )
    ModelCard(f"---\n{ModelCardData(**facts).to_yaml()}\n---\n\n{text}\n").save(path)


def _peft_method(model: Any) -> str | None:
    """`"lora"`, ... for a PEFT model, else `None`."""
    if not is_peft_model(model):
        return None
    kind = model.active_peft_config.peft_type
    return str(getattr(kind, "value", kind)).lower()


# ---- the parts of the card ----


def _metadata(
    facts: dict[str, Any], trainer: Any, base: BaseModel, method: str | None, win_rates: Mapping[str, float]
) -> dict[str, Any]:
    """The card's metadata: TRL's, mended and completed. `None` leaves a key out."""
    datasets = [name for name in as_list(facts.get("datasets")) if is_hub_id(name)]
    name = facts.get("model_name") or (trainer.hub_model_id or "").rpartition("/")[2]
    facts = {
        **facts,
        **base.licence(),
        "model_name": one_line(name or last_part(trainer.args.output_dir)) or "FairPO model",
        "base_model": base.hub_id,
        "base_model_relation": ("adapter" if method else "finetune") if base.hub_id else None,
        "library_name": "peft" if method else "transformers",
        "pipeline_tag": "text-generation",
        "datasets": datasets or None,
        "tags": sorted({*as_list(facts.get("tags")), *trainer._tag_names, *([method] if method else [])}),
        "eval_results": _eval_results(trainer, win_rates) or None,
    }
    facts.pop("licence", None)  # TRL's placeholder, under a key that the Hub does not know
    facts.pop("model-index", None)  # of a card that was loaded; `eval_results` makes it anew
    return facts


def _eval_results(trainer: Any, win_rates: Mapping[str, float]) -> list[EvalResult]:
    metrics = trainer.group_metrics.get("eval")
    values: list[tuple[str, str, float]] = []
    if metrics is not None:
        for kind, label in (("accuracy", "Pair accuracy"), ("margin", "Margin")):
            values += [(kind, f"{label}: {name}", float(value)) for name, value in metrics.by_group[kind].items()]
            name, value = metrics.worst(kind)
            values.append((f"worst_attribute_{kind}", f"{label}, worst attribute ({name})", value))
    values += [("win_rate", f"Win rate: {name}", float(value)) for name, value in win_rates.items()]
    about = ("text-generation", "Preference pairs", "preference-pairs", "Evaluation pairs by attribute")
    return [eval_result(about, kind, label, value) for kind, label, value in values if math.isfinite(value)]


def introduction(base: BaseModel, method: str | None, datasets: list[str]) -> str:
    """What the model is: of which base, by which PEFT method (`None`: all weights), on which data."""
    kind = {None: "a fine-tuned version", "lora": "a LoRA adapter"}.get(method, f"a PEFT adapter ({method})")
    return fill("language_introduction", kind=kind, base=base, datasets=datasets)


def about_fairpo() -> str:
    """FairPO in two sentences, with the papers."""
    return fill("language_method")


def loading_snippet(
    repository: str, base: BaseModel, method: str | None, has_chat_template: bool, has_tokenizer: bool = True
) -> str:
    """
    The code that loads the model from the Hub and writes a text.

    Args:
        repository (`str`):
            Hub id of the model.
        base (`BaseModel`):
            What an adapter was trained on; one without a Hub id has to be named by whoever loads it.
        method (`str`, *optional*):
            PEFT method; `None` for a full model.
        has_chat_template, has_tokenizer (`bool`):
            Whether the prompt is a conversation, and whether the tokenizer is in the repository; else that of an
            adapter's base is loaded.
    """
    return fill(
        "language_snippet",
        repository=repository,
        base=base,
        method=method,
        has_chat_template=has_chat_template,
        has_tokenizer=has_tokenizer,
    )


def _results(trainer: Any, win_rates: Mapping[str, float]) -> str:
    """One row per attribute: its role, its pairs, the last evaluation and the weight of its group."""
    partition, weights = trainer.partition, trainer.group_weights
    metrics = trainer.group_metrics.get("eval")
    frame: Any = None if metrics is None else metrics.by_group
    group_of = {name: group.name for group in weights.groups for name in group.members}
    values = weights.as_dict()
    header = ["Attribute", "Role", "Train pairs", "Eval pairs", "Accuracy", "Margin", "Inside hinge", "Final weight"]
    rows = []
    for name in (*partition.privileged, *partition.non_privileged):
        seen = frame is not None and name in frame.index
        held_out = frame.loc[name, "pairs"] if seen else trainer._pair_counts.get("eval", {}).get(name)
        row = [
            escaped(name),
            "privileged" if name in partition.privileged else "held",
            *(
                str(count) if count is not None else "–"
                for count in (trainer._pair_counts["train"].get(name), held_out)
            ),
            *(
                f"{round(frame.loc[name, column], 3) + 0.0:.3f}" if seen else "–"
                for column in ("accuracy", "margin", "inside_hinge")
            ),
            f"{values[group_of[name]]:.3f}",
        ]
        if win_rates:
            row.append(f"{win_rates[name]:.3f}" if name in win_rates else "–")
        rows.append(row)
    if win_rates:
        header.append("Win rate")
    notes = [
        "Accuracy: share of pairs whose chosen completion gained on the rejected one, compared with the reference "
        "model. Margin: that gain times beta, in nats. Inside hinge: share of pairs whose DPO loss is at most log 2 + "
        "epsilon."
    ]
    if len(weights.groups) < len(partition.names):
        notes.append("Attributes of one role share one weight.")
    if win_rates:
        notes.append("Win rate: against the reference model's completions, on prompts that were held out.")
    if metrics is None:
        notes.append("No evaluation has been run yet.")
    else:
        name, value = metrics.worst()
        notes.append(
            f"Worst attribute: {escaped(name)}, accuracy {value:.3f}. The numbers are those of the last evaluation."
        )
        if trainer.args.load_best_model_at_end:
            notes.append("The model kept at the end is that of the best checkpoint, which may be an earlier one.")
    return markdown_table(header, rows, numbers=len(header) - 2) + "\n\n" + " ".join(notes)


def _settings(args: FairPOConfig) -> str:
    inherited = {field.name for field in dataclasses.fields(DPOConfig)}
    own = [field for field in dataclasses.fields(FairPOConfig) if field.name not in inherited]
    shown = [
        field.name
        for field in own
        if field.name not in _SHOWN_ELSEWHERE
        and (field.name in _MAIN_SETTINGS or getattr(args, field.name) != field.default)
    ]
    rows = [[f"`{name}`", escaped(getattr(args, name))] for name in (*shown, *_TRAINING_SETTINGS)]
    pairs = args.per_device_train_batch_size * max(1, args.n_gpu) * args.gradient_accumulation_steps * args.world_size
    rows.append(["pairs per optimizer step", str(pairs)])
    return markdown_table(["Setting", "Value"], rows)


def _training_procedure(text: str, method: str | None) -> str:
    """TRL's part from "Training procedure" on (trackers, versions, citations), with the versions it does not know."""
    heading, versions = "## Training procedure", "### Framework versions\n\n"
    _, found, rest = text.partition(heading)
    packages = {"FairPO-TRL": "fairpo-trl"} | ({"PEFT": "peft"} if method else {})
    lines = [
        f"- {name}: {package_version(package)}\n" for name, package in packages.items() if package_version(package)
    ]
    added = "".join(line for line in lines if line not in rest)
    rest = re.sub(r"\n[ \t]*\n(?:[ \t]*\n)+", "\n\n", rest)  # TRL leaves gaps where there is no tracker
    return f"{found}{rest.replace(versions, versions + added, 1)}".strip()
