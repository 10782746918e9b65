"""Pretrained image encoders from timm or transformers, with the preprocessing their own configuration asks for."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from fairpo_trl.classification.features.preprocessing import build_transform, processor_steps, timm_steps
from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.hashing import sha256_of_tensors
from fairpo_trl.loading import explained


Pooling = Literal["cls", "mean", "cls_mean", "last4_cls_mean", "pooled"]


class Backbone(nn.Module):
    """
    An image encoder that turns a batch of pixels into one feature vector per image; made by [`load_backbone`].

    Attributes:
        network (`nn.Module`): The timm or transformers model, in evaluation mode and without gradients.
        transform: RGB PIL image -> float32 tensor `[3, H, W]`; deterministic, no augmentation.
        pooling (`str`), feature_size (`int`): How tokens become one vector, and D, the width of the features.
        weights_hash (`str`): SHA-256 over the weights as they were loaded.
        description (`dict`): JSON-ready: what is needed to load the same backbone again, and to tell another one.
    """

    def __init__(
        self, network: nn.Module, spec: str, pooling: Pooling | None, steps: dict[str, Any], image_size: int | None
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()
        self.transform = build_transform(steps)
        self.weights_hash = sha256_of_tensors(network.state_dict())
        probe = torch.zeros(1, 3, *steps["image_size"])
        with torch.no_grad():
            self.prefix, possible = self._inspect(probe)
        if pooling is None:
            pooling = next(kind for kind in ("cls", "pooled", "mean") if kind in possible)
        if pooling not in possible:
            raise ValueError(f"{spec} cannot give pooling={pooling!r}. It can give: {', '.join(sorted(possible))}.")
        self.pooling = pooling
        with torch.no_grad():
            self.feature_size = self(probe).shape[-1]
        library, _, name = spec.partition(":")
        folder = Path(name.removeprefix("local-dir:"))
        self.description: dict[str, Any] = {
            "library": library,
            "spec": spec,
            "name": folder.name if folder.is_dir() else name,
            "pooling": pooling,
            "feature_size": self.feature_size,
            "requested_image_size": image_size,
            **steps,
            "weights_hash": self.weights_hash,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """`description` without where the weights lie: what decides the features, weights hash included."""
        return {k: v for k, v in self.description.items() if k not in ("spec", "name", "requested_image_size")}

    @abstractmethod
    def _inspect(self, probe: torch.Tensor) -> tuple[int, set[str]]:
        """Number of tokens before the patches, and the poolings this network can give."""

    @abstractmethod
    def _layers(self, pixel_values: torch.Tensor, count: int) -> list[torch.Tensor]:
        """Tokens of the last `count` layers after the final norm, each `[B, prefix + patches, D]`."""

    @abstractmethod
    def _pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The model's own pooled output, `[B, D]`."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes a batch of images after `transform`: `[B, 3, H, W]` -> features, `[B, D]`."""
        if self.pooling == "pooled":
            return self._pooled(pixel_values)
        layers = self._layers(pixel_values, 4 if self.pooling == "last4_cls_mean" else 1)
        parts = [] if self.pooling == "mean" else [layer[:, 0] for layer in layers]
        if self.pooling != "cls":
            parts.append(layers[-1][:, self.prefix :].mean(dim=1))
        return torch.cat(parts, dim=-1)

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """
        The transformer blocks (or stages) of the network from first to last, as (name, module).

        Raises:
            ValueError: If the network has no single sequence of blocks (a ResNet, for example).
        """
        sequences = [
            (name, module)
            for name, module in self.network.named_modules()
            if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
            if len({type(child) for child in module}) == 1
        ]
        depth = min((name.count(".") for name, _ in sequences), default=0)
        outermost = [(name, module) for name, module in sequences if name.count(".") == depth]
        if len(outermost) != 1:
            raise ValueError(
                f"{self.description['spec']} has no single sequence of blocks (found "
                f"{[name for name, _ in outermost]}), so its last blocks cannot be told: keep it frozen, or use a "
                "vision transformer."
            )
        ((name, module),) = outermost
        return [(f"{name}.{index}", child) for index, child in enumerate(module)]


class TimmBackbone(Backbone):
    """A timm model without its classifier."""

    def _inspect(self, probe: torch.Tensor) -> tuple[int, set[str]]:
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        network: Any = self.network
        # Models that norm after averaging have no normed tokens; their own pooled output is the one to take.
        if not isinstance(network, VisionTransformer | Eva) or isinstance(network.norm, nn.Identity):
            return 0, {"pooled"}
        with_class = {"cls", "cls_mean"} | ({"last4_cls_mean"} if len(network.blocks) >= 4 else set())
        return network.num_prefix_tokens, {"pooled", "mean"} | (with_class if network.cls_token is not None else set())

    def _layers(self, pixel_values: torch.Tensor, count: int) -> list[torch.Tensor]:
        network: Any = self.network
        layers = network.forward_intermediates(
            pixel_values, count, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        return [torch.cat([layer[1], layer[0]], dim=1) if isinstance(layer, tuple) else layer for layer in layers]

    def _pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values)


class TransformersBackbone(Backbone):
    """A vision model of transformers."""

    def _run(self, pixel_values: torch.Tensor, **options: Any) -> Any:
        network: Any = self.network
        if "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
            # Does nothing at the size the model was trained at.
            options["interpolate_pos_encoding"] = True
        return network(pixel_values=pixel_values, **options)

    def _inspect(self, probe: torch.Tensor) -> tuple[int, set[str]]:
        network: Any = self.network
        output = self._run(probe, output_hidden_states=True)
        possible = {"pooled"} if output.get("pooler_output") is not None else set()
        tokens, config = output.last_hidden_state, network.config.to_dict()
        if tokens.dim() != 3 or not isinstance(config.get("patch_size"), int):
            return 0, possible
        patches = (probe.shape[-2] // config["patch_size"]) * (probe.shape[-1] // config["patch_size"])
        # A hierarchical network merges patches, so it ends with fewer tokens and has no class token.
        prefix = max(tokens.shape[1] - patches, 0)
        possible |= {"mean"} | ({"cls", "cls_mean"} if prefix else set())
        hidden = output.get("hidden_states")
        four = prefix and "layernorm" in dict(network.named_children()) and hidden is not None and len(hidden) > 4
        # The final norm is applied to earlier layers too, so it has to be the one behind the last.
        if four and torch.equal(network.layernorm(hidden[-1]), tokens):
            possible.add("last4_cls_mean")
        return prefix, possible

    def _layers(self, pixel_values: torch.Tensor, count: int) -> list[torch.Tensor]:
        network: Any = self.network
        if count == 1:
            return [self._run(pixel_values).last_hidden_state]
        output = self._run(pixel_values, output_hidden_states=True)
        return [*map(network.layernorm, output.hidden_states[-count:-1]), output.last_hidden_state]

    def _pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self._run(pixel_values).pooler_output.flatten(1)


def load_backbone(spec: str, *, pooling: Pooling | None = None, image_size: int | None = None) -> Backbone:
    """
    Loads a pretrained image encoder, frozen, in float32.

    Preprocessing is the model's own: timm's `resolve_data_config`, or the image processor saved beside a transformers
    model. Images are resized by Pillow (antialiased), cropped, scaled and normalised; `description` says how.

    Args:
        spec (`str`):
            `"timm:<name>"` (any timm model with pretrained weights, also `timm:local-dir:<folder>`) or
            `"hf:<Hub id or folder>"` (a vision model of transformers; safetensors weights only, no remote code).
        pooling (`str`, *optional*):
            How tokens become one vector. `"cls"`: the class token. `"mean"`: mean of the patch tokens (prefix tokens
            excluded). `"cls_mean"`: both, 2 D wide. `"last4_cls_mean"`: class tokens of the last four layers and the
            patch mean of the last, each after the final norm, 5 D wide (the linear probe of DINOv2). `"pooled"`: the
            model's own pooled output. `None`: `"cls"` where there is a class token, else `"pooled"`, else `"mean"`.
        image_size (`int`, *optional*):
            Side of the square input instead of the configured one, for networks that allow it. The resize before a
            crop is changed by the same factor.

    Raises:
        ValueError: For an unknown kind of spec, a pooling the model cannot give (the possible ones are listed),
            incomplete weights, or a preprocessing step this package does not know.

    Example:

    ```python
    >>> load_backbone("hf:facebook/dinov2-small", pooling="last4_cls_mean").feature_size
    1920
    ```
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise ValueError(unknown_names_message("pooling", [pooling], get_args(Pooling)))
    library, _, name = spec.partition(":")
    if library not in ("timm", "hf") or not name:
        raise ValueError(
            f"A backbone is named 'timm:<name>' or 'hf:<Hub id or folder>', got {spec!r}. For example "
            "'timm:vit_base_patch16_224.augreg_in21k_ft_in1k' or 'hf:facebook/dinov2-small'."
        )
    folder = Path(name.removeprefix("local-dir:"))
    if folder.is_absolute() and not folder.is_dir():
        raise FileNotFoundError(
            f"The backbone {spec!r} is not there: {folder} is no folder. Load it from where it lies now; a model "
            "takes it by attach_backbone(...) or from_pretrained(..., backbone=...)."
        )
    if library == "timm":
        return _load_timm(name, spec, pooling, image_size)
    return _load_transformers(name, spec, pooling, image_size)


def _load_timm(name: str, spec: str, pooling: Pooling | None, image_size: int | None) -> Backbone:
    import timm
    from timm.data import resolve_data_config

    source, _, path = name.partition(":")
    if source == "local-dir" and not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"{path} has no config.json: 'timm:local-dir:' wants a folder that timm has saved.")
    with explained(name, "backbone"):
        network = timm.create_model(name, pretrained=True, num_classes=0)
    steps = timm_steps(resolve_data_config({}, model=network), name, image_size)
    if image_size is not None and "set_input_size" in dir(network):
        # Convolutional networks take any size; those with position embeddings have to be told.
        network.set_input_size(img_size=(image_size, image_size))
    return TimmBackbone(network, spec, pooling, steps, image_size)


def _load_transformers(name: str, spec: str, pooling: Pooling | None, image_size: int | None) -> Backbone:
    from transformers import AutoImageProcessor, AutoModel

    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
        raise FileNotFoundError(
            f"{name} has no preprocessor_config.json, so the preprocessing its weights want is unknown: save the "
            "model's image processor into the folder."
        )
    with explained(name, "backbone"):
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        network, report = AutoModel.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    steps = processor_steps(processor.to_dict(), name, image_size)
    missing = sorted(report["missing_keys"])
    children = dict(network.named_children())
    if "vision_model" in children:  # the image half of a model of images and text
        network = children["vision_model"]
        missing = [key for key in missing if key.startswith("vision_model.")]
    elif missing and all(key.startswith("pooler.") for key in missing):
        # Many ViT checkpoints lack a pooler; a random one must be neither used nor hashed.
        network.pooler = None
        missing = []
    if missing:
        raise ValueError(
            f"The weights of {spec} lack {missing[:5]} ({len(missing)} in all): use a complete checkpoint."
        )
    return TransformersBackbone(network, spec, pooling, steps, image_size)
