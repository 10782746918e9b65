"""The configuration of a `MultiLabelClassifier`, and its registration with transformers."""

from __future__ import annotations

from typing import Any, get_args

from transformers import AutoConfig, PreTrainedConfig

from fairpo_trl.classification.features.adaptation import Trainable
from fairpo_trl.core.messages import require_known
from fairpo_trl.core.partition import Partition


class MultiLabelClassifierConfig(PreTrainedConfig):
    r"""
    What a [`MultiLabelClassifier`] is, beside its weights.

    Args:
        label_names (`list[str]`, *optional*):
            T names; the order of the logits.
        feature_size (`int`, *optional*, defaults to `0`):
            D, the width of the features.
        head (`str`, *optional*, defaults to `"linear"`):
            `"linear"` (the paper), `"label_mlp"` (a network per label) or `"shared_mlp"`.
        hidden_size (`int`, *optional*, defaults to `64`):
            Hidden units of the MLP heads.
        dropout (`float`, *optional*, defaults to `0.0`):
            Of the features (linear) or hidden units (MLPs), in training.
        standardize (`bool`, *optional*, defaults to `True`):
            Whether features are brought to mean 0 and variance 1 before the head, with the statistics of the training
            features ([`MultiLabelClassifier.set_feature_statistics`]). A linear head stays linear; its steps no longer
            depend on the scale of the backbone's features.
        statistics_rows (`int`, *optional*, defaults to `0`):
            Number of rows the statistics come from; 0: they are not set.
        backbone (`dict`, *optional*):
            `description` of the backbone that made the features.
        backbone_trainable (`str`, *optional*, defaults to `"none"`):
            `"none"`, `"last_blocks"` or `"lora"`: which of its weights lie in the file.
        backbone_blocks (`int`, *optional*, defaults to `0`):
            How many of the last blocks are trained or adapted; 0 with `"lora"`: all.
        lora_r, lora_alpha (`int`, *optional*, defaults to `8` and `16`):
            Rank and scale of LoRA.
        branch_labels (`list[str]`, *optional*):
            Labels with a trained branch beside a frozen head ([`freeze_held_labels`]).
        thresholds (`list[float]`, *optional*):
            Score from which a label is chosen, one per label; `None` is 0.5 for each.
        partition (`dict`, *optional*):
            `Partition.to_dict()`: which labels are privileged.
        training (`dict`, *optional*):
            Facts about the training, JSON-ready.

    Raises:
        ValueError: If label names repeat, or thresholds or partition do not fit the labels.
    """

    model_type = "fairpo_multilabel"

    label_names: list[str] | tuple[str, ...] = ()
    feature_size: int = 0
    head: str = "linear"
    hidden_size: int = 64
    dropout: float | int = 0.0
    standardize: bool = True
    statistics_rows: int = 0
    backbone: dict[str, Any] | None = None
    backbone_trainable: str = "none"
    backbone_blocks: int = 0
    lora_r: int = 8
    lora_alpha: int = 16
    branch_labels: list[str] | tuple[str, ...] | None = None
    thresholds: list[float] | tuple[float, ...] | None = None
    partition: dict[str, Any] | None = None
    training: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.label_names = list(self.label_names)
        repeated = sorted({name for name in self.label_names if self.label_names.count(name) > 1})
        if repeated:
            raise ValueError(f"Each label may occur once, but these occur more often: {repeated}.")
        require_known("trainable", [self.backbone_trainable], get_args(Trainable))
        if self.thresholds is not None and len(self.thresholds) != len(self.label_names):
            raise ValueError(f"{len(self.thresholds)} thresholds were given for {len(self.label_names)} labels.")
        if self.partition is not None:
            names = Partition.from_dict(self.partition).names
            if list(names) != self.label_names:
                raise ValueError("The names of `partition` are not `label_names` in the same order.")
        if self.label_names:
            kwargs.pop("num_labels", None)
            self.id2label = dict(enumerate(self.label_names))
            self.label2id = {name: index for index, name in enumerate(self.label_names)}
            self.problem_type = "multi_label_classification"
        super().__post_init__(**kwargs)


AutoConfig.register(MultiLabelClassifierConfig.model_type, MultiLabelClassifierConfig, exist_ok=True)
