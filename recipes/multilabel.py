"""What the multi-label recipes share: from splits to features, reference, training, tables and pictures."""

from __future__ import annotations

import copy
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from trl import TrlParser

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer, Partition
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit, print_data_summary
from fairpo_trl.classification.dataset import SplitDataset, compute_logits
from fairpo_trl.classification.evaluation.comparison import compare_with_reference, hinge_satisfaction
from fairpo_trl.classification.evaluation.confusion import confusion_of_privileged
from fairpo_trl.classification.evaluation.group_report import evaluate_groups
from fairpo_trl.classification.features.backbones import Backbone, load_backbone
from fairpo_trl.classification.features.cache import extract_features
from fairpo_trl.classification.methods import Method, apply_method
from fairpo_trl.classification.reference import options_of, train_reference
from fairpo_trl.reporting.label_markdown import write_label_report
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.label_tables import print_label_results
from fairpo_trl.training.publishing import public_command


@dataclass
class LabelArguments:
    """What is trained on which images; the rest is in `MultiLabelFairPOConfig`."""

    data_dir: str | None = field(default=None, metadata={"help": "Folder of the official tree."})
    method: str = field(
        default="fairpo_cpo", metadata={"help": "FairPO or a baseline.", "choices": list(get_args(Method))}
    )
    reweight_factor: float = field(default=3.0, metadata={"help": "Of `--method reweighted`."})
    partition: str = field(
        default="least_frequent",
        metadata={
            "help": "Who is privileged, unless `--privileged_labels` names them.",
            "choices": ["least_frequent", "worst_reference_ap", "random"],
        },
    )
    privileged_share: float = field(default=0.2, metadata={"help": "Share of the labels that is privileged."})
    partition_seed: int = field(default=0, metadata={"help": "Of `--partition random`."})
    backbone: str = field(
        default="timm:vit_base_patch16_224.augreg_in21k",
        metadata={"help": "timm:<name>, hf:<Hub id>, or a local transformers folder."},
    )
    pooling: str | None = field(default=None, metadata={"help": "cls, mean, cls_mean, last4_cls_mean; else its own."})
    backbone_trainable: str = field(
        default="none",
        metadata={"help": "What of the backbone is trained.", "choices": ["none", "last_blocks", "lora"]},
    )
    backbone_blocks: int = field(default=0, metadata={"help": "Number of last blocks trained or adapted."})
    head: str = field(
        default="linear", metadata={"help": "The classifier.", "choices": ["linear", "label_mlp", "shared_mlp"]}
    )
    hidden_size: int = field(default=256, metadata={"help": "Hidden units of the MLP heads."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout of the head."})
    reference: str | None = field(default=None, metadata={"help": "A trained reference; else one is trained first."})
    reference_epochs: float = field(default=100.0, metadata={"help": "Upper bound for the reference."})
    patience: int = field(default=5, metadata={"help": "Epochs without a gain that end the reference's training."})
    anneal_epochs: float = field(
        default=0.0, metadata={"help": "Epochs after the plateau in which the reference's learning rate falls to 0."}
    )
    start: str = field(
        default="reference",
        metadata={"help": "Where the method starts from.", "choices": ["reference", "fresh"]},
    )
    validation_share: float = field(default=0.1, metadata={"help": "Share of train that is validation."})
    cache_dir: str = field(
        default=str(Path.home() / ".cache" / "fairpo_trl" / "features"), metadata={"help": "Feature caches."}
    )
    feature_dtype: str = field(
        default="float16", metadata={"help": "Of the cached features.", "choices": ["float16", "float32"]}
    )
    extraction_batch_size: int = field(default=32, metadata={"help": "Images per forward pass of the extraction."})
    bad_images: str = field(
        default="raise", metadata={"help": "What an unreadable image does.", "choices": ["raise", "skip"]}
    )
    live_images: int = field(
        default=100,
        metadata={"help": "Without --data_dir: images whose features are extracted again, to check the shipped ones."},
    )


def parse_recipe(kind: type[Any], arguments: list[str] | None) -> tuple[Any, MultiLabelFairPOConfig]:
    """YAML with `--config`, every option also on the command line; with neither config nor tree: the shipped set."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--config" not in arguments and "--data_dir" not in arguments:
        shipped = Path(__file__).resolve().parent / "classification" / "openclipart.yaml"
        arguments = ["--config", str(shipped), *arguments]
    return TrlParser((kind, MultiLabelFairPOConfig)).parse_args_and_config(arguments)


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
    if script_args.method == "fairpo":  # options as they are: a contradiction is said before anything is trained
        training_args.refuse_unused()
    train, validation = splits["train"].carve_validation(script_args.validation_share, seed=training_args.seed)
    parts = {"train": train, "validation": validation, "test": splits["test"]}
    if speaks:
        print_data_summary(parts)
    frozen = script_args.backbone_trainable == "none"
    if backbone is None and (train.features is None or not frozen):
        backbone = load_backbone(script_args.backbone, pooling=script_args.pooling)  # type: ignore[arg-type]
    if frozen and train.features is None:
        assert backbone is not None
        backbone.to(training_args.device)
        parts = {name: _features(split, backbone, script_args, speaks) for name, split in parts.items()}
    reference, partition = _reference(parts, script_args, training_args, backbone)
    if speaks:
        counts = _train_counts(parts)
        print(
            f"Privileged ({script_args.partition}): " + ", ".join(f"{p} ({counts[p]})" for p in partition.privileged)
        )

    args = copy.copy(training_args)
    args.privileged_labels = None  # the partition holds them
    unused = apply_method(script_args.method, args, partition, script_args.reweight_factor)  # type: ignore[arg-type]
    if unused and speaks:
        print(f"Not used by {script_args.method}: {', '.join(unused)}.")
    fresh = script_args.start == "fresh"
    model = _new_model(parts["train"], script_args, args, backbone) if fresh else copy.deepcopy(reference)
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
    test = SplitDataset(parts["test"], reference.backbone.transform if reference.backbone else None)
    reference.to(args.device)
    logits = {
        "trained": trainer.predict(parts["test"]).predictions,
        "reference": compute_logits(reference, test, args.per_device_eval_batch_size, args.device).numpy(),
    }
    trainer.reported = evaluate_groups(parts["test"].labels, logits["trained"], partition)
    trainer.comparison = compare_with_reference(
        parts["test"].labels, logits["trained"], logits["reference"], partition, series=parts["test"].series
    )
    trainer.save_model(args.output_dir)
    trainer.create_model_card(dataset=title)
    if speaks:
        results = _results(title, parts, trainer, logits, script_args, started)
        report = write_label_report(results, Path(args.output_dir))
        print_label_results(results)
        print(f"\nReport: {report}   (plots and results.json beside it)")
    if args.push_to_hub:
        trainer.push_to_hub(dataset=title)
    return trainer


def _train_counts(parts: Mapping[str, MultiLabelSplit]) -> dict[str, int]:
    """Positives of each label in the whole train set, of which validation is a part."""
    train, validation = parts["train"].label_counts(), parts["validation"].label_counts()
    return {name: train[name] + validation[name] for name in train}


def _features(
    split: MultiLabelSplit, backbone: Backbone, script_args: LabelArguments, progress: bool
) -> MultiLabelSplit:
    return extract_features(
        split,
        backbone,
        script_args.cache_dir,
        batch_size=script_args.extraction_batch_size,
        dtype=script_args.feature_dtype,  # type: ignore[arg-type]
        bad_images=script_args.bad_images,  # type: ignore[arg-type]
        progress=progress,
    )


def _new_model(
    train: MultiLabelSplit, script_args: LabelArguments, args: MultiLabelFairPOConfig, backbone: Backbone | None
) -> MultiLabelClassifier:
    torch.manual_seed(args.seed)
    frozen = script_args.backbone_trainable == "none"
    size = train.features.shape[1] if train.features is not None else backbone.feature_size  # type: ignore[union-attr]
    model = MultiLabelClassifier(
        MultiLabelClassifierConfig(
            label_names=list(train.label_names),
            feature_size=size,
            head=script_args.head,
            hidden_size=script_args.hidden_size,
            dropout=script_args.dropout,
            standardize=frozen,
            backbone=backbone.description if backbone is not None and frozen else None,
        )
    )
    if frozen:
        model.set_feature_statistics(train.features)
    else:
        assert backbone is not None
        model.attach_backbone(
            copy.deepcopy(backbone),
            trainable=script_args.backbone_trainable,  # type: ignore[arg-type]
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
        else Partition.at_random(train.label_names, script_args.privileged_share, script_args.partition_seed)
        if script_args.partition == "random"
        else Partition.by_least_frequent(counts, script_args.privileged_share)
    )
    saved = os.path.join(args.output_dir, "reference")
    resumed = args.resume_from_checkpoint and os.path.isfile(os.path.join(saved, "config.json"))
    if script_args.reference or resumed:
        # On features the backbone stays apart; it would only weigh on copies of the model.
        attached = None if script_args.backbone_trainable == "none" else backbone
        reference = MultiLabelClassifier.from_pretrained(script_args.reference or saved, backbone=attached)
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
    if script_args.partition == "worst_reference_ap" and not names:
        plain = MultiLabelFairPOConfig(**{**options_of(args, with_method=False), "push_to_hub": False})
        apply_method("bce", plain, partition)
        judge = MultiLabelFairPOTrainer(model=reference, args=plain, train_dataset=train, partition=partition)
        judge.evaluate(validation)
        by_label = judge.evaluations["eval"].by_label["ap"].dropna()
        worst = Partition.by_worst_score(
            {name: by_label.get(name, 1.0) for name in train.label_names}, script_args.privileged_share
        )
        partition = Partition.by_name(train.label_names, worst.privileged)
    return reference, partition


def _results(
    title: str,
    parts: Mapping[str, MultiLabelSplit],
    trainer: MultiLabelFairPOTrainer,
    logits: Mapping[str, np.ndarray],
    script_args: LabelArguments,
    started: float,
) -> LabelResults:
    test, args, partition = parts["test"], trainer.args, trainer.partition
    assert trainer.reported is not None and trainer.comparison is not None
    evaluations = {
        "reference": evaluate_groups(test.labels, logits["reference"], partition),
        "trained": trainer.reported,
    }
    hinge = hinge_satisfaction(test.labels, logits["trained"], logits["reference"], partition, eps=args.epsilon)
    confusion = {
        name: confusion_of_privileged(test.labels, scores, partition).share for name, scores in logits.items()
    }
    history = trainer.state.log_history
    return {
        "title": f"{title}: {script_args.method}, {len(partition.privileged)} privileged labels",
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
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "seeds": [args.seed],
        "seconds": time.time() - started,
        "evaluations": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
        "comparison": trainer.comparison.to_dict(),
        "hinge": {"pairs": hinge.pairs, "labels": hinge.labels, "eps": hinge.eps},
        "confusion": confusion,
        "weights_history": [
            {"step": entry["step"], **{k[7:]: v for k, v in entry.items() if k.startswith("weight/")}}
            for entry in history
            if any(key.startswith("weight/") for key in entry)
        ],
        "notes": ["The sample images are those of the test set whose privileged labels rose most."],
        "samples": _samples(parts["test"], partition, logits, Path(args.output_dir)),
    }


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
