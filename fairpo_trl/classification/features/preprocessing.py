"""Image preprocessing as a dictionary of numbers, read from a model's own configuration, and its transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional
from torchvision.transforms.functional import InterpolationMode


Transform = Callable[[Image.Image], torch.Tensor]

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
# Entries of an image processor that do not touch the pixels of an RGB image, and those that are followed.
_NEUTRAL = {
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "return_tensors",
    "data_format", "input_data_format", "device", "disable_grouping", "default_to_square", "image_seq_length",
    "pad_size",
}  # fmt: skip
_FOLLOWED = {
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
}  # fmt: skip


def build_transform(steps: Mapping[str, Any]) -> Transform:
    """
    The transform that preprocessing numbers ask for: RGB PIL image -> float32 tensor `[3, H, W]`.

    Args:
        steps (`Mapping[str, Any]`):
            `resize`: `None`, the shorter side as `int` (aspect ratio kept), or `[height, width]` (squashed); done by
            Pillow, antialiased. `interpolation`: its name. `crop`: `None` or `[height, width]`, central, padded with
            black where the image is smaller. `crop_rounding`: where half a pixel goes, `"nearest"` (torchvision) or
            `"down"` (transformers). `rescale`: factor on 0..255. `mean` and `std`: of the three channels.
    """
    parts: list[Callable[[Any], Any]] = []
    if steps["resize"] is not None:
        parts.append(transforms.Resize(steps["resize"], interpolation=InterpolationMode(steps["interpolation"])))
    if steps["crop"] is not None:
        parts.append((_CropRoundedDown if steps["crop_rounding"] == "down" else transforms.CenterCrop)(steps["crop"]))
    return transforms.Compose([*parts, _Normalise(steps["rescale"], steps["mean"], steps["std"])])


class _CropRoundedDown:
    """The central crop of transformers; a class, because worker processes have to pickle it."""

    def __init__(self, size: list[int]) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.height < height or image.width < width:
            return functional.center_crop(image, self.size)  # pads
        return functional.crop(image, (image.height - height) // 2, (image.width - width) // 2, height, width)


class _Normalise:
    """RGB PIL image -> (x * rescale - mean) / std."""

    def __init__(self, rescale: float, mean: list[float], std: list[float]) -> None:
        self.rescale = rescale
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return (functional.pil_to_tensor(image).float() * self.rescale - self.mean) / self.std


def timm_steps(data: Mapping[str, Any], name: str, image_size: int | None) -> dict[str, Any]:
    """
    The numbers of timm's `resolve_data_config` (`data`), by timm's own rule for evaluation; as [`processor_steps`].

    Raises:
        ValueError: If the configuration asks for something else than a central crop or a squash.
    """
    height, width = data["input_size"][1:] if image_size is None else (image_size, image_size)
    # `crop_pct` is the share of the resized image that the crop keeps.
    before = [int(height / data["crop_pct"]), int(width / data["crop_pct"])]
    square = height == width
    if data["crop_mode"] not in ("center", "squash") or (data["crop_mode"] == "center" and not square):
        raise ValueError(
            f"timm:{name} asks for crop_mode={data['crop_mode']!r} at {height}x{width}; this package knows 'squash', "
            "and 'center' for square inputs."
        )
    return {
        "image_size": [height, width],
        "resize": before[0] if data["crop_mode"] == "center" else before,
        "interpolation": data["interpolation"],
        "crop": [height, width],
        "crop_rounding": "nearest",
        "rescale": 1 / 255,
        "mean": list(data["mean"]),
        "std": list(data["std"]),
    }


def processor_steps(numbers: Mapping[str, Any], name: str, image_size: int | None) -> dict[str, Any]:
    """
    The numbers of a transformers image processor, from its `to_dict()`.

    `image_size` is the side of the square input instead of the configured one; a resize before the crop is scaled with
    it. `name` is that of the model, for messages.

    Raises:
        ValueError: If the processor does something this package does not, or does not bring images to one size.
    """
    strange = {k: v for k, v in numbers.items() if k not in _NEUTRAL | _FOLLOWED and v not in (None, False)}
    if strange:
        raise ValueError(
            f"The image processor of hf:{name} asks for {strange}, which this package does not do. It follows: "
            f"{sorted(_FOLLOWED)}."
        )
    resize: Any = None
    crop: list[int] | None = None
    if numbers.get("do_resize"):
        size = {key: value for key, value in numbers["size"].items() if value is not None}
        if set(size) == {"height", "width"}:
            resize = [size["height"], size["width"]]
        elif set(size) == {"shortest_edge"}:
            resize = size["shortest_edge"]
        else:
            raise ValueError(
                f"The image processor of hf:{name} resizes to {size}; this package knows {{height, width}} and "
                "{shortest_edge}."
            )
        if numbers.get("crop_pct") is not None and isinstance(resize, int):
            # ConvNeXt: below 384 resize beyond the target and crop, from there on squash.
            side = resize
            resize, crop = (int(side / numbers["crop_pct"]), [side, side]) if side < 384 else ([side, side], None)
    if numbers.get("do_center_crop"):
        crop = [numbers["crop_size"]["height"], numbers["crop_size"]["width"]]
    final = crop if crop is not None else resize
    if not isinstance(final, list):
        raise ValueError(f"The image processor of hf:{name} does not bring images to one size: it needs a crop.")
    if image_size is not None:
        factor = image_size / final[0]
        if isinstance(resize, int):
            resize = round(resize * factor)
        elif resize is not None:
            resize = [round(side * factor) for side in resize]
        final = [image_size, image_size]
        crop = final if crop is not None else None
    normalise = bool(numbers.get("do_normalize"))
    return {
        "image_size": final,
        "resize": resize,
        "interpolation": _RESAMPLING[int(numbers["resample"])] if resize is not None else None,
        "crop": crop,
        "crop_rounding": "down",
        "rescale": float(numbers["rescale_factor"]) if numbers.get("do_rescale") else 1.0,
        "mean": list(numbers["image_mean"]) if normalise else [0.0, 0.0, 0.0],
        "std": list(numbers["image_std"]) if normalise else [1.0, 1.0, 1.0],
    }
