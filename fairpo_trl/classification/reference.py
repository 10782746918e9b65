"""The reference: a classifier trained with BCE to its plateau on validation, from which FairPO starts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features.cache import rows_hash
from fairpo_trl.classification.methods import apply_method
from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer
from fairpo_trl.core.partition import Partition
from fairpo_trl.files import write_json
from fairpo_trl.training.settings import EXAMPLES, RunSettings, as_json, compare_settings


_OF_TRAINING = (
    *("seed", "data_seed", "learning_rate", "weight_decay", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("max_grad_norm", "bf16", "fp16", "train_sampling_strategy", "dataloader_drop_last"),
)
_PERFECT = 0.999
"""Validation mAP from which a first epoch may be the best one: there is nothing left to learn."""


def options_of(args: MultiLabelFairPOConfig, *, with_method: bool = True) -> dict[str, Any]:
    """
    What `args` sets differently from the defaults, as keyword arguments of a new configuration.

    `with_method`: whether losses, partition and group weights are among them, or only how the training loop runs.
    """
    of_the_loop = {field.name for field in dataclasses.fields(TrainingArguments)} | {"timing"}
    values = {}
    for field in dataclasses.fields(args):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        chosen = field.init and (with_method or field.name in of_the_loop)
        if chosen and getattr(args, field.name) != default:
            values[field.name] = getattr(args, field.name)
    return values


def train_reference(
    model: MultiLabelClassifier,
    args: MultiLabelFairPOConfig,
    train: MultiLabelSplit,
    validation: MultiLabelSplit,
    partition: Partition,
    *,
    output_dir: str,
    max_epochs: float = 100,
    patience: int = 5,
    anneal_epochs: float = 0.0,
    callbacks: list[Any] | None = None,
) -> MultiLabelFairPOTrainer:
    """
    Trains with BCE until the validation mAP has not risen for `patience` epochs, keeps the best epoch, and anneals.

    The best epoch, how many were trained and the validation mAP are kept in `model.config.training["reference"]`.

    Every gain of FairPO is measured against the reference. One that is not at its plateau makes any further training
    look like a gain, whatever its loss: compare with `bce_continued` as well.

    Args:
        model (`MultiLabelClassifier`):
            Trained in place.
        args (`MultiLabelFairPOConfig`):
            Batch size, learning rate, optimizer, seed, ...; its losses and group weights are not used.
        train, validation (`MultiLabelSplit`):
            Validation is carved from train; the reported split is never seen here.
        partition (`Partition`):
            Labels and roles, for the metrics.
        output_dir (`str`):
            For checkpoints.
        max_epochs (`float`, *optional*, defaults to `100`):
            Upper bound.
        patience (`int`, *optional*, defaults to `5`):
            Epochs without a gain. With few positives per label in validation its mAP is noisy: take 20 or more.
        anneal_epochs (`float`, *optional*, defaults to `0.0`):
            Epochs after the plateau in which the learning rate falls to 0. Methods that start from the reference fall
            to 0 themselves; without this their gain is in part that of any training that ends with small steps.
        callbacks (`list`, *optional*):
            Further callbacks.

    Returns:
        `MultiLabelFairPOTrainer`: its model is the reference; `state.best_metric` is the validation mAP.

    Raises:
        ValueError: If the plateau has not come within `max_epochs`, or the first epoch was the best one: nothing was
            learned that validation could see.
    """
    loop = {
        **options_of(args, with_method=False),
        "output_dir": output_dir,
        "max_steps": -1,
        "push_to_hub": False,
        "resume_from_checkpoint": None,
    }
    to_plateau = MultiLabelFairPOConfig(
        **{
            **loop,
            "num_train_epochs": max_epochs,
            "lr_scheduler_type": "constant",
            "eval_strategy": IntervalStrategy.EPOCH,
            "save_strategy": SaveStrategy.BEST,  # every checkpoint writes the whole log again
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_map/all",
            "greater_is_better": True,
        }
    )
    stop = EarlyStoppingCallback(early_stopping_patience=patience)
    trainer = _train_bce(model, to_plateau, train, validation, partition, [stop, *(callbacks or ())])
    if trainer.state.epoch is not None and trainer.state.epoch >= max_epochs:
        raise ValueError(
            f"The reference was still gaining after {max_epochs:g} epochs (validation mAP "
            f"{trainer.state.best_metric:.4f}): raise `reference_epochs` or the learning rate. Deltas against a "
            "reference that is not at its plateau measure further training, not the method."
        )
    by_epoch = [entry["eval_map/all"] for entry in trainer.state.log_history if "eval_map/all" in entry]
    best = max(by_epoch)
    best_epoch = by_epoch.index(best) + 1
    if best_epoch == 1 and best < _PERFECT:
        positives = sorted(validation.label_counts().values())
        raise ValueError(
            f"The reference was best after its first of {len(by_epoch)} epochs (validation mAP {best:.4f}), so it has "
            f"not come to a plateau: validation has {len(validation)} rows, half of the labels at most "
            f"{positives[(len(positives) - 1) // 2]} positives there. Use more rows for validation "
            f"(`--validation_share 0.3`), more patience (`--patience {max(20, 4 * patience)}`), or another learning "
            "rate; or train a reference by other means and name it (`--reference`, in Python `ref_model`)."
        )
    model.config.training = {
        **(model.config.training or {}),
        "reference": {"best_epoch": best_epoch, "epochs": len(by_epoch), "validation_map": round(best, 4)},
    }
    if anneal_epochs == 0:
        return trainer
    anneal = MultiLabelFairPOConfig(
        **{
            **loop,
            "num_train_epochs": anneal_epochs,
            "lr_scheduler_type": "linear",
            "save_strategy": SaveStrategy.NO,
            "eval_strategy": IntervalStrategy.NO,
            "load_best_model_at_end": False,
        }
    )
    annealed = _train_bce(model, anneal, train, validation, partition, list(callbacks or ()))
    annealed.state.best_metric = annealed.evaluate()["eval_map/all"]
    annealed.state.epoch = (trainer.state.epoch or 0.0) + anneal_epochs
    return annealed


class KeptReference:
    """
    The reference of a run on disk, with what it depends on: a resumed run takes it up only if that is still the same.

    `options`: what else it depends on, besides the arguments of the run and the rows it is trained and judged on.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        args: MultiLabelFairPOConfig,
        train: MultiLabelSplit,
        validation: MultiLabelSplit,
        options: Mapping[str, Any],
    ) -> None:
        self._folder, self._path = folder, Path(folder) / "fairpo_reference.json"
        self._facts = {
            "training rows": rows_hash(train),
            "validation rows": rows_hash(validation),
            EXAMPLES: args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            **{name: getattr(args, name) for name in _OF_TRAINING},
            **options,
        }

    def is_there(self) -> bool:
        """
        Whether it was trained to its end.

        Raises:
            ValueError: If it was trained on other rows, or with other options; names them.
        """
        if not (self._path.is_file() and (self._path.parent / "config.json").is_file()):
            return False
        then = json.loads(self._path.read_text(encoding="utf-8"))
        compare_settings(
            f"The reference in {str(self._folder)!r}",
            RunSettings(then, {}),
            RunSettings(as_json(self._facts), {}),
            False,
        )
        return True

    def written(self, main: bool) -> None:
        """Says that the model is there; `main`: whether this process writes."""
        if main:
            write_json(self._path, as_json(self._facts), indent=2)


def _train_bce(
    model: MultiLabelClassifier,
    args: MultiLabelFairPOConfig,
    train: MultiLabelSplit,
    validation: MultiLabelSplit,
    partition: Partition,
    callbacks: list[Any],
) -> MultiLabelFairPOTrainer:
    apply_method("bce", args, partition)
    trainer = MultiLabelFairPOTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        partition=partition,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer
