"""`MultiLabelClassifier`: a head on image features, with or without the backbone that makes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput, cached_file

from fairpo_trl.classification.branch import head_of
from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.dataset import in_evaluation
from fairpo_trl.classification.features.adaptation import Trainable, adapt_backbone, trained_keys
from fairpo_trl.classification.features.backbones import Backbone, load_backbone
from fairpo_trl.classification.features.preprocessing import Transform
from fairpo_trl.classification.features.statistics import mean_and_std
from fairpo_trl.classification.prediction import image_sources, scored_row
from fairpo_trl.core.messages import require_known
from fairpo_trl.core.reduction import all_finite
from fairpo_trl.hashing import sha256_of_tensors


_WEIGHTS = "model.safetensors"
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


@dataclass
class MultiLabelOutput(ModelOutput):
    """
    Output of [`MultiLabelClassifier`].

    Attributes:
        logits (`torch.Tensor`): z, `[B, T]`, float32 or float64; scores are their sigmoids.
    """

    logits: torch.Tensor | None = None


class MultiLabelClassifier(PreTrainedModel):
    """
    Scores T labels on images or their features.

    A frozen backbone is not stored with the model: the configuration names it with the hash of its weights, and it is
    loaded when pixels are to be classified; another one is refused. What *is* trained of a backbone is stored: the
    last blocks as they are, LoRA as its two factors beside the frozen weights (not merged), so that loading gives the
    same bits, the file stays small and training can go on.

    Args:
        config (`MultiLabelClassifierConfig`):
            With at least one label and a feature size.

    Raises:
        ValueError: For an unknown head or a configuration without labels or feature size.

    Example:

    ```python
    >>> config = MultiLabelClassifierConfig(label_names=["cat", "dog"], feature_size=train.features.shape[1])
    >>> model = MultiLabelClassifier(config)
    >>> model.set_feature_statistics(train.features)
    >>> model(features=torch.from_numpy(train.features[:8])).logits.shape
    torch.Size([8, 2])
    ```
    """

    config_class = MultiLabelClassifierConfig
    config: MultiLabelClassifierConfig
    base_model_prefix = ""
    main_input_name = "features"
    # Head and statistics stay in float32 whatever the dtype of the rest.
    _keep_in_fp32_modules_strict = ["head", "feature_mean", "feature_std"]  # noqa: RUF012
    # Trained weights of a backbone are read once the backbone itself is there.
    _keys_to_ignore_on_load_unexpected = [r"^backbone\."]  # noqa: RUF012

    def __init__(self, config: MultiLabelClassifierConfig) -> None:
        super().__init__(config)
        self.head = head_of(config)
        self.register_buffer("feature_mean", torch.zeros(config.feature_size))
        self.register_buffer("feature_std", torch.ones(config.feature_size))
        self.backbone: Backbone | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        return  # heads draw their own weights; loading a file that lacks some raises

    def get_input_embeddings(self) -> None:
        """None: there are no tokens. FSDP asks."""

    # ---- features ----

    def set_feature_statistics(self, features: np.ndarray | torch.Tensor) -> None:
        """
        Stores mean and standard deviation of the training features (sums in float64, in blocks of rows).

        A constant feature gets standard deviation 1: it is centred only.

        Args:
            features (`np.ndarray` or `torch.Tensor`):
                `[N, D]`, of the training split.

        Raises:
            ValueError: If the model does not standardise, the width is wrong, or a value is not finite.
        """
        if not self.config.standardize:
            raise ValueError("This model does not standardise its features: make it with standardize=True.")
        self._check_features(features[:1])
        mean, std = mean_and_std(features)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)
        self.config.statistics_rows = len(features)

    def _check_features(self, features: np.ndarray | torch.Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.config.feature_size:
            made_by = f", as {self.config.backbone['name']} gives them" if self.config.backbone else ""
            raise ValueError(
                f"Features must be [rows, {self.config.feature_size}]{made_by}; got {list(features.shape)}. Extract "
                "them with the backbone and pooling of this model."
            )

    def forward(
        self, features: torch.Tensor | None = None, pixel_values: torch.Tensor | None = None
    ) -> MultiLabelOutput:
        """
        Scores a batch.

        Args:
            features (`torch.Tensor`, *optional*):
                `[B, D]`.
            pixel_values (`torch.Tensor`, *optional*):
                `[B, 3, H, W]` after the backbone's transform, instead of `features`.

        Returns:
            [`MultiLabelOutput`]: logits, `[B, T]`, computed outside of autocast.

        Raises:
            ValueError: If both or none is given, the width is wrong, a feature is NaN or infinite (the row is named),
                the statistics are not set, or pixels are given and the backbone cannot be loaded.
        """
        if (features is None) == (pixel_values is None):
            raise ValueError("Give either `features` or `pixel_values`.")
        if self.config.standardize and not self.config.statistics_rows:
            raise ValueError(
                "The statistics of the features are not set: call set_feature_statistics(train.features), or make the "
                "model with standardize=False."
            )
        if features is None:
            backbone = self.require_backbone()
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.backbone_trainable != "none"):
                features = backbone(pixel_values)
        else:
            self._check_features(features)
            if not all_finite(features):
                bad = (~torch.isfinite(features).all(dim=1)).nonzero().flatten().tolist()
                raise ValueError(f"Features of row {bad[:5]} of the batch are NaN or infinite: extract them again.")
        with torch.autocast(features.device.type, enabled=False):
            z = features.to(self.feature_mean.dtype)
            if self.config.standardize:
                z = (z - self.feature_mean) / self.feature_std
            logits = self.head(z)
        return MultiLabelOutput(logits=logits if logits.dtype == torch.float64 else logits.float())

    # ---- backbone ----

    @property
    def has_backbone(self) -> bool:
        """Whether a backbone is attached now (a described one is loaded when pixels come)."""
        return self.backbone is not None

    @property
    def transform(self) -> Transform:
        """RGB PIL image -> `pixel_values` of one image, `[3, H, W]`."""
        return self.require_backbone().transform

    def require_backbone(self) -> Backbone:
        """The backbone, loaded by its description if it is not there yet."""
        if self.backbone is None:
            if self.config.backbone is None:
                raise ValueError(
                    "This model was trained on features and knows no backbone, so it cannot take images: call "
                    "attach_backbone(load_backbone(...)), or give it features."
                )
            self._attach_described()
        assert self.backbone is not None
        return self.backbone

    def _attach_described(self, backbone: Backbone | None = None) -> None:
        described = self.config.backbone
        assert described is not None
        if backbone is None:
            backbone = load_backbone(
                described["spec"], pooling=described["pooling"], image_size=described["requested_image_size"]
            )
        self.attach_backbone(
            backbone,
            trainable=cast(Trainable, self.config.backbone_trainable),  # the configuration has checked it
            blocks=self.config.backbone_blocks,
            lora_r=self.config.lora_r,
            lora_alpha=self.config.lora_alpha,
        )

    def attach_backbone(
        self,
        backbone: Backbone,
        *,
        trainable: Trainable = "none",
        blocks: int = 0,
        lora_r: int = 8,
        lora_alpha: int = 16,
    ) -> None:
        """
        Puts a backbone under the head, and says what of it is trained.

        Args:
            backbone (`Backbone`):
                From [`load_backbone`]; not attached elsewhere if anything of it is trained.
            trainable (`str`, *optional*, defaults to `"none"`):
                `"none"`: frozen, always in evaluation mode. `"last_blocks"`: the last `blocks` blocks and what comes
                after them (the final norm). `"lora"`: low-rank factors (PEFT) beside every linear layer of the last
                `blocks` blocks.
            blocks (`int`, *optional*, defaults to `0`):
                Number of blocks; with `"lora"`, 0 means all.
            lora_r, lora_alpha (`int`, *optional*, defaults to `8` and `16`):
                Rank and scale (the product is multiplied by `lora_alpha / lora_r`).

        Raises:
            ValueError: If the backbone is not the described one, its features have another width, or it has no such
                blocks.
        """
        described = self.config.backbone
        if described is not None:
            differing = {
                key: (described.get(key), value)
                for key, value in backbone.identity.items()
                if described.get(key) != value
            }
            if differing:
                told = "; ".join(f"{key}: expected {a!r}, got {b!r}" for key, (a, b) in differing.items())
                raise ValueError(f"This is not the backbone the model was trained with ({described['spec']}). {told}.")
        if backbone.feature_size != self.config.feature_size:
            raise ValueError(
                f"{backbone.description['spec']} with pooling={backbone.pooling!r} gives {backbone.feature_size} "
                f"features; this model takes {self.config.feature_size}."
            )
        require_known("trainable", [trainable], get_args(Trainable))
        trained_modules = adapt_backbone(backbone, trainable, blocks, lora_r, lora_alpha)
        self.backbone = backbone.to(self.device)
        self._trained_blocks = trained_modules
        self.config.backbone = backbone.description
        self.config.backbone_trainable, self.config.backbone_blocks = trainable, blocks
        self.config.lora_r, self.config.lora_alpha = lora_r, lora_alpha
        # The frozen part stays out of the file; transformers leaves these keys out of everything it saves.
        kept = {f"backbone.{name}" for name in trained_keys(backbone, trained_modules)}
        self._keys_to_ignore_on_save = {key for key in self.state_dict() if key.startswith("backbone.")} - kept
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but what is frozen of a backbone stays in evaluation mode (stochastic depth, norms)."""
        super().train(mode)
        if self.backbone is not None:
            self.backbone.eval()
            if self.config.backbone_trainable == "last_blocks":
                for block in self._trained_blocks:
                    block.train(mode)
        return self

    # ---- files ----

    def stored_state(self) -> dict[str, torch.Tensor]:
        """What `save_pretrained` writes: head, statistics, and the trained part of a backbone."""
        left_out = self._keys_to_ignore_on_save or ()
        return {name: value for name, value in self.state_dict().items() if name not in left_out}

    def weights_hash(self) -> str:
        """SHA-256 over [`stored_state`]."""
        return sha256_of_tensors(self.stored_state())

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As in `PreTrainedModel`, with every weight under its own name, not the one of older checkpoints."""
        super().save_pretrained(save_directory, **{**kwargs, "save_original_format": False})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
        backbone: Backbone | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Loads a saved model; safetensors only.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A folder or a Hub id.
            backbone (`Backbone`, *optional*):
                Its backbone, where that is loaded already or lies elsewhere than described. Without it a frozen
                backbone is loaded when pixels come, a trained one now.
            args, kwargs:
                As in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If the file lacks weights or they have another shape, or the backbone is another one.
        """
        wants_report = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True
        model, report = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        problems = {key: sorted(map(str, report[key])) for key in ("missing_keys", "mismatched_keys") if report[key]}
        if problems:
            raise ValueError(f"{pretrained_model_name_or_path} is not a complete MultiLabelClassifier: {problems}.")
        if backbone is not None or model.config.backbone_trainable != "none":
            model._attach_described(backbone)
        if model.config.backbone_trainable != "none":
            options = {key: kwargs[key] for key in _HUB_OPTIONS if key in kwargs}
            path = cached_file(pretrained_model_name_or_path, _WEIGHTS, **options)
            with safe_open(path, framework="pt") as file:
                trained = {key: file.get_tensor(key) for key in file.keys() if key.startswith("backbone.")}  # noqa: SIM118
            wanted = {key for key in model.stored_state() if key.startswith("backbone.")}
            if set(trained) != wanted:
                raise ValueError(
                    f"The trained backbone weights of {pretrained_model_name_or_path} do not fit: missing "
                    f"{sorted(wanted - set(trained))[:3]}, unknown {sorted(set(trained) - wanted)[:3]}."
                )
            model.load_state_dict(trained, strict=False)
        return (model, report) if wants_report else model

    # ---- use ----

    def predict(self, inputs: Any, batch_size: int = 32, top_k: int | None = None) -> list[dict[str, Any]]:
        """
        Scores images or features, without gradients and in evaluation mode.

        Args:
            inputs:
                A path, bytes, a PIL image, a folder (all its images, also below, by name), a list of these, or a
                feature array `[N, D]` (NumPy or torch).
            batch_size (`int`, *optional*, defaults to `32`):
                Rows in a forward pass.
            top_k (`int`, *optional*):
                Keep only the highest scores, best first.

        Returns:
            `list[dict]`: for each input `input` (its path, or its position), `scores` (label -> probability) and
            `labels` (those whose score reaches its threshold, best first).

        Raises:
            ValueError: For an unreadable image or a folder without images, or as `forward`.
            FileNotFoundError: For a path that does not exist.
        """
        if batch_size < 1 or (top_k is not None and top_k < 1):
            raise ValueError(f"`batch_size` and `top_k` must be at least 1, got {batch_size} and {top_k}.")
        features = None
        if isinstance(inputs, np.ndarray | torch.Tensor):
            features = torch.as_tensor(np.array(inputs)) if isinstance(inputs, np.ndarray) else inputs
            self._check_features(features)
            names: list[Any] = list(range(len(features)))
            sources: list[Any] = []
        else:
            sources = image_sources(inputs)
            names = [str(source) if isinstance(source, Path) else row for row, source in enumerate(sources)]
        logits = []
        with in_evaluation(self):
            for start in range(0, len(names), batch_size):
                if features is not None:
                    output = self(features=features[start : start + batch_size].to(self.device))
                else:
                    block = [self.transform(open_image(source)) for source in sources[start : start + batch_size]]
                    output = self(pixel_values=torch.stack(block).to(self.device))
                logits.append(output.logits.double().cpu())
        if not logits:
            return []
        labels = self.config.label_names
        thresholds = self.config.thresholds or [0.5] * len(labels)
        return [
            scored_row(name, row, labels, thresholds, top_k)
            for name, row in zip(names, torch.cat(logits).sigmoid().tolist(), strict=True)
        ]


AutoModel.register(MultiLabelClassifierConfig, MultiLabelClassifier, exist_ok=True)
