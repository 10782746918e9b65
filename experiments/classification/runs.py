"""The engine of the comparison and the sweep: trains one method on features, and keeps its logits as one file."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from openclipart.load import load_openclipart
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from experiments import points
from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer, Partition
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.branch import freeze_held_labels
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.methods import apply_method, prepare_model
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.classification.reference import options_of, train_reference
from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.training.logs import history_of


VALIDATION_SHARE = 0.15
PATIENCE = 25
"""Epochs without a gain of validation mAP that end the reference's training. With 5 it stopped early by chance: the
validation part has few positives of the rare labels, and BCE continued from there still gained a point."""
ANNEAL = 20
"""Epochs in which the reference's learning rate then falls to 0, as that of every method does."""


@dataclass(frozen=True)
class Head:
    """A head and its optimizer, with what every method shares."""

    name: str
    label: str
    model: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Row(points.Row):
    """One method, and where it starts from."""

    factor: float = 3.0  # of `reweighted`
    fresh: bool = False  # starts from new weights instead of the reference
    frozen: bool = False  # held labels are frozen, privileged ones get a branch
    mix: float = 1.0  # logits are (1 - mix) * reference + mix * trained: for a linear head, those of mixed weights

    @property
    def trained(self) -> Row:
        """The row that is trained; a mix is made of its logits, and named after it."""
        return self if self.mix == 1 else replace(self, name=self.name.removesuffix(f"_mix{self.mix:g}"), mix=1.0)


COMMON: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_strategy": "epoch",
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 1024,
}

HEADS = {
    "shared_mlp": Head(
        "shared_mlp",
        "shared MLP (256), Adam",
        {"head": "shared_mlp", "hidden_size": 256, "dropout": 0.5},
        {"learning_rate": 1e-3},
    ),
    "linear": Head("linear", "linear (the paper's), Adam", {"head": "linear"}, {"learning_rate": 1e-3}),
    "linear_sgd": Head(
        "linear_sgd", "linear, SGD", {"head": "linear"}, {"learning_rate": 1.0, "optim": "sgd", "weight_decay": 0.0}
    ),
}


class Experiment:
    """
    Runs of one data set, one partition and one number of further epochs, kept in one folder.

    Args:
        folder (`Path`):
            Where runs are kept; a run that is there is not repeated.
        splits (`Mapping[str, MultiLabelSplit]`):
            `train`, `validation`, `test`, with features.
        partition (`Partition`):
            Labels and roles.
        epochs (`int`):
            Further epochs of every method, from the reference.
    """

    def __init__(
        self, folder: Path, splits: Mapping[str, MultiLabelSplit], partition: Partition, epochs: int = 20
    ) -> None:
        self.folder, self.splits, self.partition, self.epochs = folder, splits, partition, epochs
        hashes = {name: split.content_hash() for name, split in splits.items()}
        features = {
            name: hashlib.sha256(np.ascontiguousarray(split.features)).hexdigest() for name, split in splits.items()
        }
        self.data_key = hashlib.sha256(json.dumps([hashes, features], sort_keys=True).encode()).hexdigest()

    # ---- files ----

    def path(self, row: Row, head: Head, seed: int) -> Path:
        """File of one run: its name holds a hash of everything it depends on."""
        row = row.trained
        reference = [self.data_key, head.model, head.options, COMMON, PATIENCE, ANNEAL, seed]
        depends: list[Any] = reference
        if row.name != "reference":
            depends = [*reference, row.method, row.options, row.factor, row.fresh, self.epochs]
            depends.append(list(self.partition.privileged))
            if row.frozen:
                depends.append("held frozen")
        return points.Points(self.folder).path(f"{row.name}-{head.name}-seed{seed}", depends, ".safetensors")

    def complete(self, row: Row, head: Head, seed: int) -> bool:
        """Whether the run is there."""
        return self.path(row, head, seed).exists()

    def logits(self, row: Row, head: Head, seed: int, split: str) -> NDArray[np.float32]:
        """Logits of a run on a split, `[N, T]`."""
        if row.mix != 1:
            before, after = (self.logits(part, head, seed, split) for part in (REFERENCE, row.trained))
            return before + row.mix * (after - before)
        path = self.path(row, head, seed)
        try:
            with safe_open(path, "np") as file:
                return file.get_tensor(split)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path.name} is damaged or missing ({error}): delete it and run again.") from error

    def facts(self, row: Row, head: Head, seed: int) -> dict[str, Any]:
        """Seconds, steps, weights over time and settings of a run."""
        with safe_open(self.path(row, head, seed), "np") as file:
            return json.loads(file.metadata()["facts"])

    def change_of_map(self, row: Row, head: Head, seed: int, split: str) -> dict[str, float]:
        """Change of mAP against the reference of the same seed, by group."""
        after, before = (
            evaluate_groups(self.splits[split].labels, self.logits(r, head, seed, split), self.partition).by_group
            for r in (row, REFERENCE)
        )
        return {str(group): float(value) for group, value in (after["map"] - before["map"]).items()}

    def _write(self, path: Path, trainer: MultiLabelFairPOTrainer, facts: dict[str, Any]) -> None:
        tensors = {name: trainer.predict(self.splits[name]).predictions for name in ("validation", "test")}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, {"facts": json.dumps(facts)})
        os.replace(temporary, path)  # a file under its name is always whole

    # ---- work ----

    def reference(self, head: Head, seed: int) -> MultiLabelClassifier:
        """The reference of a head and a seed: trained with BCE to its plateau on validation, once."""
        path = self.path(REFERENCE, head, seed)
        saved = path.with_suffix("")
        if not path.exists() or not saved.is_dir():
            model = self._new_model(head, seed)
            started = time.time()
            with tempfile.TemporaryDirectory() as scratch:
                args = MultiLabelFairPOConfig(output_dir=scratch, seed=seed, **{**COMMON, **head.options})
                trainer = train_reference(
                    model,
                    args,
                    self.splits["train"],
                    self.splits["validation"],
                    self.partition,
                    output_dir=scratch,
                    max_epochs=1000,
                    patience=PATIENCE,
                    anneal_epochs=ANNEAL,
                )
                facts = {
                    "seconds": time.time() - started,
                    "epochs": trainer.state.epoch,
                    "best_step": trainer.state.best_global_step,
                    "validation_map": trainer.state.best_metric,
                }
                shutil.rmtree(saved, ignore_errors=True)
                trainer.save_model(str(saved))
                self._write(path, trainer, facts)
        return MultiLabelClassifier.from_pretrained(saved)

    def run(self, row: Row, head: Head, seed: int) -> None:
        """Trains one row from its reference, and keeps its logits."""
        reference = self.reference(head, seed)
        if row.name == "reference" or self.complete(row, head, seed):
            return
        model = self._new_model(head, seed + 1000) if row.fresh else copy.deepcopy(reference)
        if row.frozen:
            torch.manual_seed(seed + 2000)  # the branch draws its hidden layer
            freeze_held_labels(model, self.partition.privileged)
        prepare_model(row.method, model)
        started = time.time()
        with tempfile.TemporaryDirectory() as scratch:
            shared = {**COMMON, **head.options, "num_train_epochs": self.epochs}
            args = MultiLabelFairPOConfig(output_dir=scratch, seed=seed, **shared)
            apply_method(row.method, args, self.partition, row.factor)
            args = MultiLabelFairPOConfig(**{**options_of(args), **row.options})  # checked as a whole
            trainer = MultiLabelFairPOTrainer(
                model=model,
                ref_model=reference,
                args=args,
                train_dataset=self.splits["train"],
                partition=self.partition,
            )
            trainer.train()
            history = history_of(trainer.state.log_history, "weight/")
            facts = {
                "seconds": time.time() - started,
                "steps": trainer.state.global_step,
                "weights": history,
                "method": row.method,
                "options": row.options,
            }
            self._write(self.path(row, head, seed), trainer, facts)

    def _new_model(self, head: Head, seed: int) -> MultiLabelClassifier:
        torch.manual_seed(seed)
        train = self.splits["train"]
        assert train.features is not None
        model = MultiLabelClassifier(
            MultiLabelClassifierConfig(
                label_names=list(train.label_names), feature_size=train.features.shape[1], **head.model
            )
        )
        model.set_feature_statistics(np.asarray(train.features, dtype=np.float32))
        return model


REFERENCE = Row("reference", "reference (BCE)", "bce")


def load_experiment(
    folder: Path, epochs: int, partition: str = "least_frequent", share: float = 0.2, seed: int = 0
) -> Experiment:
    """
    The shipped set with its stored features, a validation part carved from train, and a partition.

    Args:
        folder (`Path`):
            Where runs are kept.
        epochs (`int`):
            Further epochs of every method.
        partition (`str`, *optional*, defaults to `"least_frequent"`):
            `"least_frequent"` in train (the paper), `"worst_reference_ap"` on validation, `"random"`, or `"by_name"`:
            every fifth label in alphabetical order, which knows nothing of frequency or score.
        share (`float`, *optional*, defaults to `0.2`):
            Share of the labels that is privileged.
        seed (`int`, *optional*, defaults to `0`):
            Of the random partition, and of the reference that is asked for its worst labels.
    """
    splits = load_openclipart()
    train, validation = splits["train"].carve_validation(VALIDATION_SHARE, seed=0)
    parts = {"train": train, "validation": validation, "test": splits["test"]}
    names, counts = train.label_names, splits["train"].label_counts()  # validation is part of the train set
    chosen = Partition.by_least_frequent(counts, share)
    if partition == "random":
        chosen = Partition.at_random(names, share, seed)
    elif partition == "by_name":
        chosen = Partition.by_name(names, sorted(names)[:: round(1 / share)])
    elif partition == "worst_reference_ap":
        chosen = worst_of_reference(Experiment(folder, parts, chosen, epochs), HEADS["shared_mlp"], seed, share)
    elif partition != "least_frequent":
        raise ValueError(
            unknown_names_message(
                "partition", [partition], ("least_frequent", "worst_reference_ap", "random", "by_name")
            )
        )
    return Experiment(folder, parts, chosen, epochs)


def worst_of_reference(experiment: Experiment, head: Head, seed: int, share: float) -> Partition:
    """
    The labels of lowest average precision on validation under a reference, which is trained if it is not there.

    A label without a positive in train is none of them: nothing could be learned.

    Args:
        experiment (`Experiment`):
            With any partition: a reference has none.
        head (`Head`):
            Of the reference.
        seed (`int`):
            Of the reference.
        share (`float`):
            Share of the labels that is privileged.
    """
    experiment.reference(head, seed)
    validation = experiment.splits["validation"]
    scores = experiment.logits(REFERENCE, head, seed, "validation")
    ap = evaluate_groups(validation.labels, scores, experiment.partition).by_label["ap"].dropna()
    counts = experiment.splits["train"].label_counts()  # a fold may hold every drawing of a label
    worst = Partition.by_worst_score({str(name): float(value) for name, value in ap.items() if counts[name]}, share)
    return Partition.by_name(validation.label_names, worst.privileged)
