"""One multi-label run: from splits to features, reference, training, tables and pictures."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit, print_data_summary
from fairpo_trl.classification.data_check import labels_without_contrast
from fairpo_trl.classification.dataset import SplitDataset, compute_logits
from fairpo_trl.classification.features.backbones import Backbone, load_backbone
from fairpo_trl.classification.features.cache import extract_features
from fairpo_trl.classification.methods import apply_method, prepare_model
from fairpo_trl.classification.metrics.calibration import calibrate
from fairpo_trl.classification.metrics.comparison import compare_with_reference, hinge_satisfaction
from fairpo_trl.classification.metrics.confusion import confusion_of_privileged
from fairpo_trl.classification.metrics.flips import decision_flips, flips_table
from fairpo_trl.classification.metrics.group_report import evaluate_groups, frame_to_dict
from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.classification.model_card import describe_reference
from fairpo_trl.classification.reference import KeptReference, options_of, train_reference
from fairpo_trl.classification.run_options import LabelArguments
from fairpo_trl.classification.select import SELECTION, select_after_training, selection_table
from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer
from fairpo_trl.core.partition import Partition
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.reporting import LabelResults, print_results, write_report
from fairpo_trl.reporting.documents import ROLES, hardware
from fairpo_trl.reporting.numbers import role_text
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.training.engines import PLAIN, engine_of
from fairpo_trl.training.logs import history_of
from fairpo_trl.training.places import check_model, check_output_dir


_OF_REFERENCE = (
    *("head", "hidden_size", "dropout", "reference_epochs", "patience", "anneal_epochs"),
    *("backbone_trainable", "backbone_blocks"),
)
"""Options that the reference depends on, besides its data, its backbone and how it is trained."""


def run(
    splits: Mapping[str, MultiLabelSplit],
    script_args: LabelArguments,
    training_args: MultiLabelFairPOConfig,
    title: str,
    backbone: Backbone | None = None,
) -> MultiLabelFairPOTrainer:
    """
    Trains reference and method, reports on `test`, saves and, if asked, pushes.

    Args:
        splits (`Mapping[str, MultiLabelSplit]`):
            `train` and `test`, with features or images.
        script_args, training_args:
            As parsed.
        title (`str`):
            Names the data in every table, plot and file.
        backbone (`Backbone`, *optional*):
            One that is loaded already; else `script_args.backbone` is, where images have no features yet.
    """
    started, speaks = time.time(), training_args.process_index == 0
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise ValueError(
            f"{title} has no split {missing[0]!r}, only {sorted(splits)}: divide the rows with a column `split` that "
            "says train or test."
        )
    if speaks:
        check_output_dir(
            training_args.output_dir, training_args.resume_from_checkpoint, script_args.overwrite_output_dir
        )
    if script_args.reference:
        check_model(script_args.reference, "reference")
    if script_args.method == "fairpo":  # options as they are: a contradiction is said before anything is trained
        training_args.refuse_unused()
    train, validation = splits["train"].carve_validation(script_args.validation_share, seed=training_args.seed)
    parts = {"train": train, "validation": validation, "test": splits["test"]}
    if speaks:
        print_data_summary(parts)
    frozen = script_args.backbone_trainable == "none"
    if backbone is None and (train.features is None or not frozen):
        backbone = load_backbone(script_args.backbone, pooling=script_args.pooling)
    if frozen and train.features is None:
        assert backbone is not None
        backbone.to(training_args.device)
        options: dict[str, Any] = {"batch_size": script_args.extraction_batch_size, "dtype": script_args.feature_dtype}
        options |= {"bad_images": script_args.bad_images, "progress": speaks}
        cache = script_args.cache_dir
        parts = {name: extract_features(split, backbone, cache, **options) for name, split in parts.items()}
    reference, partition = _reference(parts, script_args, training_args, backbone)
    if speaks:
        print(describe_reference(reference.config.training) or "The reference was trained elsewhere.")
        counts = _train_counts(parts)
        print(
            f"Privileged ({script_args.partition}): " + ", ".join(f"{p} ({counts[p]})" for p in partition.privileged)
        )

    args = copy.copy(training_args)
    args.privileged_labels = None  # the partition holds them
    unused = apply_method(script_args.method, args, partition, script_args.reweight_factor)
    if unused and speaks:
        print(f"Not used by {script_args.method}: {', '.join(unused)}.")
    fresh = script_args.start == "fresh"
    model = _new_model(parts["train"], script_args, args, backbone) if fresh else copy.deepcopy(reference)
    prepare_model(script_args.method, model)
    trainer = MultiLabelFairPOTrainer(
        model=model,
        ref_model=reference,
        args=args,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        partition=partition,
    )
    if speaks:
        print(f"{script_args.method}, from the {script_args.start}", flush=True)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    reference.to(args.device)
    transform = reference.backbone.transform if reference.backbone else None
    seen, logits = (
        {
            "reference": compute_logits(
                reference, SplitDataset(part, transform), args.per_device_eval_batch_size, args.device
            ).numpy(),
            "trained": trainer.predict(part).predictions,
        }
        for part in (parts["validation"], parts["test"])
    )
    test = parts["test"]
    reported: dict[str, Any] = {
        "dataset": title,
        "evaluation": evaluate_groups(test.labels, logits["trained"], partition),
        "comparison": compare_with_reference(
            test.labels, logits["trained"], logits["reference"], partition, series=test.series
        ),
    }
    trainer.save_model(args.output_dir)
    trainer.create_model_card(**reported)
    if speaks:
        selection = None
        if script_args.select:
            selection = select_after_training(trainer, reference, test, script_args, title)
        results = _results(reported, parts, trainer, seen, logits, script_args, started, selection)
        report = write_report(results, Path(args.output_dir))
        print_results(results)
        if selection is not None:
            print(f"\n{selection.statement}")
        print(f"\nReport: {report}   (report.html, plots and results.json beside it)")
    if args.push_to_hub:
        trainer.push_to_hub(**reported)
    return trainer


def _train_counts(parts: Mapping[str, MultiLabelSplit]) -> dict[str, int]:
    """Positives of each label in the whole train set, of which validation is a part."""
    train, validation = parts["train"].label_counts(), parts["validation"].label_counts()
    return {name: train[name] + validation[name] for name in train}


def _feature_size(train: MultiLabelSplit, backbone: Backbone | None) -> int:
    if train.features is not None:
        return train.features.shape[1]
    assert backbone is not None  # without features there are images
    return backbone.feature_size


def _check_head(script_args: LabelArguments, config: MultiLabelClassifierConfig) -> None:
    """Raises `ValueError` for an option of the head that was set otherwise than the given reference has it."""
    for option in (field for field in fields(script_args) if field.name in ("head", "hidden_size", "dropout")):
        asked, there = getattr(script_args, option.name), getattr(config, option.name)
        if asked not in (option.default, there):
            raise ValueError(
                f"`{option.name}={asked}` has no effect: training starts from the reference "
                f"{str(script_args.reference)!r}, which has {option.name}={there}. Leave it out, leave out "
                "`reference` to train one with it, or set `start=fresh`."
            )


def _new_model(
    train: MultiLabelSplit, script_args: LabelArguments, args: MultiLabelFairPOConfig, backbone: Backbone | None
) -> MultiLabelClassifier:
    torch.manual_seed(args.seed)
    frozen = script_args.backbone_trainable == "none"
    model = MultiLabelClassifier(
        MultiLabelClassifierConfig(
            label_names=list(train.label_names),
            feature_size=_feature_size(train, backbone),
            head=script_args.head,
            hidden_size=script_args.hidden_size,
            dropout=script_args.dropout,
            standardize=frozen,
            backbone=backbone.description if backbone is not None and frozen else None,
        )
    )
    if frozen:
        assert train.features is not None
        model.set_feature_statistics(train.features)
    else:
        assert backbone is not None
        model.attach_backbone(
            copy.deepcopy(backbone),
            trainable=script_args.backbone_trainable,
            blocks=script_args.backbone_blocks,
        )
    return model


def _reference(
    parts: Mapping[str, MultiLabelSplit],
    script_args: LabelArguments,
    args: MultiLabelFairPOConfig,
    backbone: Backbone | None,
) -> tuple[MultiLabelClassifier, Partition]:
    """The reference, loaded or trained to its plateau, and the partition (which may depend on the reference)."""
    train, validation = parts["train"], parts["validation"]
    counts, names = _train_counts(parts), args.privileged_labels
    partition = (
        Partition.by_name(train.label_names, names)
        if names
        else _at_random(counts, script_args)
        if script_args.partition == "random"
        else Partition.by_least_frequent(counts, script_args.privileged_share)
    )
    saved = os.path.join(args.output_dir, "reference")
    options = {name: getattr(script_args, name) for name in _OF_REFERENCE}
    kept = KeptReference(saved, args, train, validation, options | {"backbone": backbone and backbone.identity})
    resumed = args.resume_from_checkpoint and not script_args.reference and kept.is_there()
    # On features the backbone stays apart; it would only weigh on copies of the model.
    attached = None if script_args.backbone_trainable == "none" else backbone
    if script_args.reference or resumed:
        reference = MultiLabelClassifier.from_pretrained(script_args.reference or saved, backbone=attached)
        if script_args.reference and script_args.start == "reference":
            _check_head(script_args, reference.config)
    else:
        reference = _new_model(train, script_args, args, backbone)
        if args.process_index == 0:
            print(f"The reference: BCE until validation has not gained for {script_args.patience} epochs", flush=True)
        trainer = train_reference(
            reference,
            args,
            train,
            validation,
            partition,
            output_dir=os.path.join(args.output_dir, "reference-checkpoints"),
            max_epochs=script_args.reference_epochs,
            patience=script_args.patience,
            anneal_epochs=script_args.anneal_epochs,
        )
        trainer.save_model(saved)
        kept.written(args.should_save)
        if engine_of(trainer.accelerator) != PLAIN:  # it has laid out the model in its own way
            reference = MultiLabelClassifier.from_pretrained(saved, backbone=copy.deepcopy(attached))
    if script_args.partition == "worst_reference_ap" and not names:
        plain = MultiLabelFairPOConfig(**{**options_of(args, with_method=False), "push_to_hub": False})
        apply_method("bce", plain, partition)
        judge = MultiLabelFairPOTrainer(model=reference, args=plain, train_dataset=train, partition=partition)
        judge.evaluate(validation)
        by_label = judge.evaluations["eval"].by_label["ap"].dropna()
        worst = Partition.by_worst_score(
            {name: by_label.get(name, 1.0 if counts[name] else 2.0) for name in train.label_names},
            script_args.privileged_share,
        )
        partition = Partition.by_name(train.label_names, worst.privileged)
    return reference, partition


def _at_random(counts: Mapping[str, int], script_args: LabelArguments) -> Partition:
    """A random share of the labels, of those that have a positive to learn from."""
    seen = [name for name, count in counts.items() if count]
    share = min(1.0, script_args.privileged_share * len(counts) / max(1, len(seen)))
    drawn = Partition.at_random(seen, share, script_args.partition_seed)
    return Partition.by_name(tuple(counts), drawn.privileged)


def _results(
    reported: Mapping[str, Any],
    parts: Mapping[str, MultiLabelSplit],
    trainer: MultiLabelFairPOTrainer,
    seen: Mapping[str, np.ndarray],
    logits: Mapping[str, np.ndarray],
    script_args: LabelArguments,
    started: float,
    selection: SelectionResults | None,
) -> LabelResults:
    """Everything the report needs; `seen` are the logits on validation, `logits` those on test."""
    test, args, partition = parts["test"], trainer.args, trainer.partition
    evaluations = {
        "reference": evaluate_groups(test.labels, logits["reference"], partition),
        "trained": reported["evaluation"],
    }
    hinge = hinge_satisfaction(test.labels, logits["trained"], logits["reference"], partition, eps=args.epsilon)
    confusion = {
        name: confusion_of_privileged(test.labels, scores, partition).share for name, scores in logits.items()
    }
    calibration, notes = {}, ["The sample images are those of the test set whose privileged labels rose most."]
    told = describe_reference(trainer.accelerator.unwrap_model(trainer.model).config.training)
    notes += [told] if told else []
    for what, names in labels_without_contrast(test).items():
        for role in ROLES:
            if lacking := [name for name in names if partition.role_of(name) == role]:
                notes.append(
                    f"{len(lacking)} {role_text(role)} labels have no {what} in test, so that no average precision "
                    f"says anything about them: {', '.join(lacking[:8])}{', ...' if len(lacking) > 8 else ''}."
                )
    for name, scores in logits.items():
        table, why = calibrate(parts["validation"].labels, seen[name], test.labels, scores, partition)
        calibration[name] = frame_to_dict(table)
        notes += [f"No temperature for the {name} model: {why}"] if why else []
    results: dict[str, Any] = {
        "title": f"{reported['dataset']}: {script_args.method}, {len(partition.privileged)} privileged labels",
        "command": public_command(sys.argv),
        "data": {
            name: {"images": len(split), "series": len(set(split.series or split.ids)), **dict(split.notes)}
            for name, split in parts.items()
        },
        "partition": {name: partition.role_of(name) for name in partition.names},
        "label_counts": _train_counts(parts),
        "method": script_args.method,
        "settings": {
            name: getattr(args, name)
            for name in ("privileged_loss", "non_privileged_loss", "balancer", "epsilon", "beta", "eta_alpha")
        }
        | {"head": script_args.head, "learning_rate": args.learning_rate, "epochs": args.num_train_epochs},
        "hardware": hardware(),
        "seeds": [args.seed],
        "seconds": time.time() - started,
        "evaluations": {name: value.to_dict() for name, value in evaluations.items()},
        "comparison": reported["comparison"].to_dict(),
        "hinge": {"pairs": hinge.pairs, "labels": hinge.labels, "eps": hinge.eps},
        "confusion": confusion,
        "weights_history": history_of(trainer.state.log_history, "weight/"),
        "calibration": calibration,
        "notes": notes,
        "samples": _samples(parts["test"], partition, logits, Path(args.output_dir)),
        "tables": [
            *([selection_table(selection, SELECTION)] if selection else []),
            flips_table(decision_flips(test.labels, logits["reference"], logits["trained"], partition)),
        ],
    }
    return LabelResults(**results)


def _samples(
    test: MultiLabelSplit, partition: Partition, logits: Mapping[str, np.ndarray], folder: Path, count: int = 6
) -> list[dict[str, Any]]:
    """Test images with a privileged label whose scores moved most: true labels and both models' top labels."""
    columns = [partition.names.index(name) for name in partition.privileged]
    present = test.labels[:, columns] == 1
    moved = np.where(present, logits["trained"][:, columns] - logits["reference"][:, columns], -np.inf).max(axis=1)
    rows = [int(row) for row in np.argsort(-moved, kind="stable")[:count] if np.isfinite(moved[row])]
    samples = []
    for number, row in enumerate(rows):
        image = None
        if test.images is not None:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            image = f"samples/{number}.png"
            open_image(test.images[row]).save(folder / image)
        top = {
            name: [
                [partition.names[column], float(1 / (1 + np.exp(-scores[row, column])))]
                for column in np.argsort(-scores[row], kind="stable")[:4]
            ]
            for name, scores in logits.items()
        }
        true = [partition.names[column] for column in np.flatnonzero(test.labels[row] == 1)]
        samples.append({"image": image, "id": test.ids[row], "true": true, **top})
    return samples
