"""Load the clip-art set openclipart with the features that ship beside it: no network, no backbone, a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits
from fairpo_trl.classification.features.backbones import Backbone
from fairpo_trl.classification.features.cache import images_hash


DATA_DIR = Path(__file__).with_name("data")
PARQUET = DATA_DIR / "openclipart.parquet"
FEATURES = DATA_DIR / "features-dinov2-s.safetensors"

RELATIVE_TOLERANCE = 4e-3
"""
Largest allowed distance of a live feature vector from the stored one, relative to its length.

Rounding to float16 alone gives 2.3e-4 at most (measured on 124 images); the rest is room for other versions of torch
and other devices in float32. What must not pass does not: on 24 images bfloat16 gave 0.005 to 0.016, a bilinear resize
0.018 to 0.098, another mean 0.2 and more, no resize before the crop 0.34 and more.
"""


def load_openclipart(
    features: bool = True, *, parquet: Path = PARQUET, features_file: Path = FEATURES
) -> dict[str, MultiLabelSplit]:
    """
    The clip-art set: 50 labels, a train and a test split that share no series of near-duplicates.

    Args:
        features (`bool`, *optional*, defaults to `True`):
            Attach the stored DINOv2-S features (float16). `False` gives the images alone, for another backbone.
        parquet (`pathlib.Path`, *optional*):
            The images and labels; by default the file shipped here.
        features_file (`pathlib.Path`, *optional*):
            The features; by default the file shipped here.

    Returns:
        `dict[str, MultiLabelSplit]`: `"train"` and `"test"`, with images (WebP bytes), series, and features.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The features were made from other images or another order of them.
    """
    if not parquet.is_file():
        raise FileNotFoundError(
            f"{parquet} is missing. Build it: PYTHONPATH=recipes python -m openclipart.build_images --help"
        )
    table = pq.read_table(parquet)
    names = tuple(json.loads(table.schema.metadata[b"label_names"]))
    column = {name: number for number, name in enumerate(names)}
    rows = table.select(["id", "image", "labels", "split", "series"]).to_pylist()
    splits = {}
    for split in ("train", "test"):
        chosen = [row for row in rows if row["split"] == split]
        labels = np.zeros((len(chosen), len(names)), dtype=np.int8)
        for number, row in enumerate(chosen):
            labels[number, [column[name] for name in row["labels"]]] = 1
        splits[split] = MultiLabelSplit(
            name=split,
            label_names=names,
            labels=labels,
            ids=tuple(row["id"] for row in chosen),
            images=[row["image"]["bytes"] for row in chosen],
            series=tuple(row["series"] for row in chosen),
            notes={"source": "openclipart 0.18, public domain", "series": len({row["series"] for row in chosen})},
        )
    check_splits(splits)
    if not features:
        return splits
    stored, metadata = read_features(features_file)
    for split, data in splits.items():
        if images_hash(data) != metadata[f"images_hash_{split}"]:
            raise ValueError(
                f"{features_file.name} was made from other images than those of {parquet.name} (split {split!r}). "
                "Make it anew: PYTHONPATH=recipes python -m openclipart.build_features"
            )
        splits[split] = data.with_features(stored[split])
    return splits


def read_features(features_file: Path = FEATURES) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The stored features per split, `[N, D]` float16, and the metadata that says what they were made from."""
    if not features_file.is_file():
        raise FileNotFoundError(
            f"{features_file} is missing. Make it: PYTHONPATH=recipes python -m openclipart.build_features, or load "
            "the images alone with load_openclipart(features=False)."
        )
    with safe_open(features_file, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def check_features(backbone: Backbone, n: int = 100, seed: int = 0) -> float:
    """
    Compute the features of `n` random images again and compare them with the stored ones.

    Args:
        backbone (`Backbone`):
            `load_backbone("hf:" + dinov2_path()[0], pooling="cls_mean")`, on any device.
        n (`int`, *optional*, defaults to `100`):
            How many images, of both splits together.
        seed (`int`, *optional*, defaults to `0`):
            Which ones.

    Returns:
        `float`: the largest distance of a live vector from the stored one, relative to the length of the live one.

    Raises:
        ValueError: Another pooling or preprocessing than that of the file, or a distance above `RELATIVE_TOLERANCE`.
    """
    import torch

    stored, metadata = read_features()
    made_with = json.loads(metadata["backbone"])
    # The weights may come from elsewhere (the Hub's copy): then the numbers below decide.
    for field in made_with:
        if field not in ("library", "weights_hash") and backbone.identity.get(field) != made_with[field]:
            raise ValueError(
                f"The backbone's {field} is {backbone.identity.get(field)!r}, the stored features were made with "
                f"{made_with[field]!r}."
            )
    splits = load_openclipart()
    images = {split: data.images or [] for split, data in splits.items()}
    places = [(split, row) for split in splits for row in range(len(splits[split]))]
    chosen = np.random.default_rng(seed).choice(len(places), size=min(n, len(places)), replace=False)
    device = next(backbone.parameters()).device
    worst, where = 0.0, ""
    for number in sorted(chosen.tolist()):
        split, row = places[number]
        pixels = backbone.transform(open_image(images[split][row]))
        with torch.no_grad():
            live = backbone(pixels[None].to(device))[0].float().cpu().numpy()
        distance = float(np.linalg.norm(live - stored[split][row].astype(np.float32)) / np.linalg.norm(live))
        if distance > worst:
            worst, where = distance, splits[split].ids[row]
    if worst > RELATIVE_TOLERANCE:
        raise ValueError(
            f"The stored features are not those of this backbone: {where!r} differs by {worst:.2g} of its length "
            f"(allowed: {RELATIVE_TOLERANCE:.2g}). Make them anew: PYTHONPATH=recipes python -m "
            "openclipart.build_features"
        )
    return worst
