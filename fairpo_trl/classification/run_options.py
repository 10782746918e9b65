"""The options of a multi-label run beside those of `MultiLabelFairPOConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fairpo_trl.classification.data.coco import LabelOrder
from fairpo_trl.classification.data.columns import MissingImages
from fairpo_trl.classification.features.adaptation import Trainable
from fairpo_trl.classification.features.backbones import Pooling
from fairpo_trl.classification.features.cache import BadImages, FeatureDtype
from fairpo_trl.classification.heads import HeadKind
from fairpo_trl.classification.methods import Method
from fairpo_trl.classification.metrics.held_precision import HeldBy
from fairpo_trl.core.options import option
from fairpo_trl.evaluation.selection import SCALES, check_points
from fairpo_trl.training.places import OVERWRITE


@dataclass
class LabelArguments:
    """What is trained on which images; the rest is in `MultiLabelFairPOConfig`."""

    data_dir: str | None = option(None, "Folder of the images and annotations.")
    method: Method = option("fairpo_cpo", "FairPO or a baseline.")
    reweight_factor: float = option(3.0, "Of `--method reweighted`.")
    partition: Literal["least_frequent", "worst_reference_ap", "random"] = option(
        "least_frequent", "Who is privileged, unless `--privileged_labels` names them."
    )
    privileged_share: float = option(0.2, "Share of the labels that is privileged.")
    partition_seed: int = option(0, "Of `--partition random`.")
    backbone: str = option(
        "timm:vit_base_patch16_224.augreg_in21k", "timm:<name>, hf:<Hub id>, or a local transformers folder."
    )
    pooling: Pooling | None = option(None, "What stands for an image; by default its own.")
    backbone_trainable: Trainable = option("none", "What of the backbone is trained.")
    backbone_blocks: int = option(0, "Number of last blocks trained or adapted.")
    head: HeadKind = option("linear", "The classifier.")
    hidden_size: int = option(256, "Hidden units of the MLP heads.")
    dropout: float = option(0.0, "Dropout of the head.")
    reference: str | None = option(None, "A trained reference; else one is trained first.")
    reference_epochs: float = option(100.0, "Upper bound for the reference.")
    patience: int = option(5, "Epochs without a gain that end the reference's training.")
    anneal_epochs: float = option(0.0, "Epochs after the plateau in which the reference's learning rate falls to 0.")
    overwrite_output_dir: bool = field(default=False, metadata=OVERWRITE)
    start: Literal["reference", "fresh"] = option("reference", "Where the method starts from.")
    validation_share: float = option(0.1, "Share of train that is validation.")
    cache_dir: str = option(str(Path.home() / ".cache" / "fairpo_trl" / "features"), "Feature caches.")
    feature_dtype: FeatureDtype = option("float16", "Of the cached features.")
    extraction_batch_size: int = option(32, "Images per forward pass of the extraction.")
    bad_images: BadImages = option("raise", "What an unreadable image does.")
    select: bool = option(
        False,
        "Test classifiers from the reference to the trained one on test images, and hand over the boldest "
        "that is shown not to be worse, in `output_dir`/selection.",
    )
    held: HeldBy = option(
        "labels",
        "What must not fall with `select`: the average precision of every held label, or the `mean` over them.",
    )
    margin: float = option(1.0, "Points of average precision that it may fall by.")
    level: float = option(0.05, "Largest chance that a classifier is handed over which breaks a margin.")
    scales: list[float] | None = option(
        None,
        "Classifiers tested with `select`, rising: shares of the way from the reference to the trained "
        f"one. Default: {' '.join(f'{scale:g}' for scale in SCALES)}.",
    )
    aside_share: float = option(
        0.3, "Share of the test images that decides nothing with `select` and reports what is chosen."
    )

    def __post_init__(self) -> None:
        check_points(self.margin, self.level, self.aside_share, SCALES if self.scales is None else self.scales)
        if self.select and self.start == "fresh":
            raise ValueError(
                "`select` tests classifiers between the reference and the trained one, and with `start fresh` nothing "
                "lies between the two: leave one of them out."
            )
        if self.patience < 1:
            raise ValueError(f"`patience` must be at least 1 epoch, got {self.patience}.")
        if self.method == "decoupled" and self.start == "fresh":
            raise ValueError(
                "`method='decoupled'` trains the last layer over what the reference has learned, so that "
                "`start='fresh'` would train it over random numbers: leave `start` out."
            )
        if self.backbone_trainable == "none" and self.backbone_blocks:
            raise ValueError(
                f"`backbone_blocks={self.backbone_blocks}` has no effect on a frozen backbone: set "
                "`backbone_trainable` to last_blocks or lora, or leave it out."
            )


@dataclass
class ClassificationArguments(LabelArguments):
    """The shared options, and how a data set is read."""

    dataset: str = field(
        default="coco",
        metadata={
            "help": "What is read: the official tree of MS-COCO 2014, MS-COCO 2017 or NUS-WIDE in `data_dir`, a table "
            "(CSV, JSON, Parquet), a folder of precomputed features, a folder of Pascal VOC or an export of Label "
            "Studio at `data_dir`, or a `datasets` data set (`dataset_name`).",
            "choices": ["coco", "coco2017", "nus_wide", "table", "features", "voc", "label_studio", "datasets"],
        },
    )
    dataset_name: str | None = option(None, "With `--dataset datasets`: a Hub id or a folder written by save_to_disk.")
    dataset_config: str | None = option(None, "Configuration of a Hub data set.")
    keep_unlabeled: bool | None = option(None, "Keep images without any label; by default all but those of COCO.")
    missing_images: MissingImages | None = option(None, "What a missing image file does; NUS-WIDE's are skipped.")
    label_order: LabelOrder = option("id", "Column order of COCO's labels.")
    image_root: str | None = option(None, "Folder of a table's images; else the table's.")
    image_column: str = option("image", "Column of the images of a `datasets` data set.")
    labels_column: str = option("labels", "Column of the labels of a row.")
    path_column: str = option("path", "Column of a table's paths of images.")
    labels: list[str] | None = option(
        None, "All labels in the order wanted; label numbers are places in it, from 0 on."
    )
    label_columns: list[str] | None = option(
        None, "Instead of `labels_column`: the columns of 0 and 1, one per label; `all` for all others."
    )
    separator: str | None = option(None, "What stands between labels in one cell of text.")
    absent_value: str | None = option(
        None, "A value that means absent in a label column: -1 as in CelebA, or '' for an empty cell."
    )
    unknown_value: str | None = option(None, "A value that means unknown in a label column, besides an empty cell.")
    one_label_per_row: bool = option(False, "Whether a table has a row for each label of an image.")
