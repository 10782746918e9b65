"""What a run depends on: kept in every checkpoint, and compared before a run goes on from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import TrainingArguments


# Options of transformers that change which examples a step sees, or what an optimizer's state means.
_MEANING = {"seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last", "optim", "max_length"}
# Options of transformers that change how training goes on, but not what it is about.
_NOTED = {
    *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs", "max_steps"),
    *("optim_args", "bf16", "fp16", "metric_for_best_model", "greater_is_better", "load_best_model_at_end"),
}
# Options of the trainers that change neither; the partition, the rows and the reference are compared themselves.
_INDIFFERENT = {
    *("model_init_kwargs", "trust_remote_code", "dataset_num_proc", "pad_token", "padding_free", "pad_to_multiple_of"),
    *("precompute_ref_log_probs", "precompute_ref_batch_size", "activation_offloading", "allow_prompt_overlap"),
    *("attribute_column", "privileged_attributes", "non_privileged_attributes", "privileged_labels"),
    *("packing", "skip_idle_pairs", "reference_cache_dir"),  # of the speed: they round differently at most
}
_KEPT_BY_THE_OPTIMIZER = {"learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}
# Of `accelerator_config`: what changes which examples a step sees, with its defaults.
_LOADER = {"split_batches": False, "use_seedable_sampler": True}
_OF_TRANSFORMERS = {field.name for field in dataclasses.fields(TrainingArguments)}

EXAMPLES = "examples in one optimizer step"
REFERENCE = "reference"
ADAPTER = "adapter"
ENGINE = "engine"
_HINTS = {
    EXAMPLES: "per_device_train_batch_size x gradient_accumulation_steps x processes: keep the product",
    REFERENCE: "hash of its weights",
    ENGINE: "the optimizer's state has another form there",
}


class RunSettings(NamedTuple):
    """
    Settings of a run, JSON-ready.

    Attributes:
        meaning (`dict[str, Any]`): What a resumed run must share: losses, group weights, order of the data, batch
            size, reference, adapter, engine.
        others (`dict[str, Any]`): What may differ; it is said.
    """

    meaning: dict[str, Any]
    others: dict[str, Any]


def settings_of(args: Any, facts: Mapping[str, Any]) -> RunSettings:
    """
    What of a configuration a resumed run is compared with.

    Args:
        args (`TrainingArguments`):
            Of either trainer. Each of its own options counts as meaning, unless it is known not to.
        facts (`Mapping[str, Any]`):
            Further settings that must not change, by name.
    """
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}
    loader = {name: getattr(args.accelerator_config, name) for name in _LOADER}
    facts = {**facts, "accelerator_config": None if loader == _LOADER else loader}
    own = {name for name in values if name not in _OF_TRANSFORMERS} - _INDIFFERENT - _NOTED
    meaning = {name: value for name, value in values.items() if name in own | _MEANING}
    others = {name: value for name, value in values.items() if name in _NOTED}
    return RunSettings(as_json({**meaning, **facts}), as_json(others))


def compare_settings(name: str, then: RunSettings, now: RunSettings, engine_keeps: bool) -> str | None:
    """
    Compares the settings that a checkpoint (`name`, for the messages) was written with to those of the run that would
    go on from it. `engine_keeps`: the optimizer's own settings come with its state and so stay those of the
    checkpoint.

    Returns:
        `str` or `None`: a line that says which other settings differ.

    Raises:
        ValueError: Names the settings that change what the run means, and what to do instead.
    """
    changed = [
        _change(option, then.meaning.get(option), now.meaning.get(option))
        for option in sorted({*then.meaning, *now.meaning})
        if then.meaning.get(option) != now.meaning.get(option)
    ]
    if changed:
        raise ValueError(
            f"{name} was written under other settings, and training would not go on but become another: "
            f"{'; '.join(changed)}. Resume with the settings of the checkpoint, or start anew in another output "
            "folder, from its model if you like."
        )
    noted = []
    for option in sorted({*then.others, *now.others}):
        before, after = then.others.get(option), now.others.get(option)
        if before != after:
            kept = (
                " (the optimizer keeps the checkpoint's)" if option in _KEPT_BY_THE_OPTIMIZER and engine_keeps else ""
            )
            noted.append(f"{option} {before!r} -> {after!r}{kept}")
    return f"{name} was written with other settings, which may change: {', '.join(noted)}." if noted else None


def _change(option: str, before: Any, after: Any) -> str:
    if isinstance(before, str) and isinstance(after, str) and len(before) == len(after) == 64:  # hashes
        before, after = before[:12], after[:12]
    hint = f" ({_HINTS[option]})" if option in _HINTS else ""
    return f"{option} {before!r} -> {after!r}{hint}"


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it reads back from a file: tuples are lists, enumerations their values, anything else its text."""
    return json.loads(
        json.dumps(values, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    )
