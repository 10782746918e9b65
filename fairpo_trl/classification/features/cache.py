"""Exact caches of what does not change during training: features of a frozen backbone, logits of a reference."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from fairpo_trl.classification.data.images import UnreadableImageError, open_image
from fairpo_trl.classification.data.split import ImageSource, MultiLabelSplit
from fairpo_trl.classification.dataset import in_evaluation
from fairpo_trl.classification.features.backbones import Backbone
from fairpo_trl.classification.features.preprocessing import Transform
from fairpo_trl.classification.features.shards import Batches, Compute, ComputedBatch, ShardStore
from fairpo_trl.hashing import sha256, sha256_of_array, sha256_of_file, sha256_of_json


if TYPE_CHECKING:
    from fairpo_trl.classification.model import MultiLabelClassifier


FeatureDtype = Literal["float16", "float32"]
BadImages = Literal["raise", "skip"]


def extract_features(
    split: MultiLabelSplit,
    backbone: Backbone,
    cache_dir: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    dtype: FeatureDtype = "float32",
    num_workers: int = 0,
    bad_images: BadImages = "raise",
    progress: bool = True,
    recompute_damaged: bool = False,
) -> MultiLabelSplit:
    """
    The features of every image of a split, computed once and then read from disk.

    A frozen backbone without augmentation gives each image one feature vector, so the cache is exact: in `float32` it
    equals a bare loop of `backbone(torch.stack([backbone.transform(image), ...]))` over batches of `batch_size`, bit
    for bit on the same device. Batches of another size may differ in the last bits (about 1e-6 relative), because
    matrix libraries sum in another order for other shapes.

    It lies in `<cache_dir>/<split name>-<key>`. The key is decided by the backbone's weights and preprocessing, the
    ids and the content of the images (each file is read once for it) and `dtype`. Labels are not part of it.

    Stopped at any moment, the next call continues with the shards that are missing. Any number of processes may call
    it at the same time (ranks of a distributed run, or commands started by hand) and share the work; each returns
    when all is there.

    Args:
        split (`MultiLabelSplit`):
            A split with images.
        backbone (`Backbone`):
            On the device that is to compute; used in evaluation mode.
        cache_dir (`str` or `os.PathLike`):
            The folder of all caches.
        batch_size (`int`, *optional*, defaults to `32`):
            Images in a forward pass. A complete cache serves any batch size; an unfinished one is continued only with
            its own.
        dtype (`str`, *optional*, defaults to `"float32"`):
            `"float16"` halves the file and rounds each value to 11 bits; values beyond 65,504 raise.
        num_workers (`int`, *optional*, defaults to `0`):
            Processes that open and preprocess images.
        bad_images (`str`, *optional*, defaults to `"raise"`):
            `"raise"`: an unreadable image is an error that names it. `"skip"`: its row is dropped and counted in
            `notes["unreadable_images"]`.
        progress (`bool`, *optional*, defaults to `True`):
            Shows a bar with images per second (on the first rank only).
        recompute_damaged (`bool`, *optional*, defaults to `False`):
            Computes shards again whose content no longer has its recorded hash, instead of raising.

    Returns:
        `MultiLabelSplit`: the split without unreadable images, with `features` as a read-only memory map `[N, D]`.

    Raises:
        ValueError: For a split without images, an unreadable image (`bad_images="raise"`), features that are not
            finite or do not fit `dtype`, damaged shards, a folder of another key, or an option out of its range.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"`dtype` must be 'float16' or 'float32', got {dtype!r}.")
    if bad_images not in ("raise", "skip"):
        raise ValueError(f"`bad_images` must be 'raise' or 'skip', got {bad_images!r}.")
    images = _images_of(split)
    key = {"backbone": backbone.identity, "images": images_hash(split)}
    size: dict[str, Any] = {"rows": len(images), "width": backbone.feature_size, "dtype": dtype}
    store = ShardStore(cache_dir, split.name, key, **size, batch_size=batch_size)

    def encode(pixels: torch.Tensor, rows: list[int]) -> np.ndarray:
        values = backbone(pixels).float().cpu().numpy()
        with np.errstate(over="ignore"):  # told below
            stored = values.astype(dtype)
        wrong = ~np.isfinite(stored).all(axis=1)
        if wrong.any():
            row = rows[int(wrong.argmax())]
            why = (
                "are not finite" if not np.isfinite(values[wrong]).all() else "do not fit float16: use dtype='float32'"
            )
            raise ValueError(f"The features of {split.ids[row]!r} (row {row} of {split.name}) {why}.")
        return stored

    with _Bar(split, store, f"Features of {split.name}", progress) as bar, in_evaluation(backbone):
        compute = _over_images(split, backbone, encode, bar, num_workers, bad_images)
        stored = store.get(compute, recompute_damaged=recompute_damaged)
    if stored.bad and bad_images == "raise":
        row, why = next(iter(stored.bad.items()))
        raise _unreadable(split, row, why, more=len(stored.bad) - 1)
    if not len(stored.kept):
        raise ValueError(f"No image of {split.name} could be read; the first: {next(iter(stored.bad.values()))}")
    if not stored.bad:
        return split.with_features(stored.values)
    kept = split.select(stored.kept)
    kept = dataclasses.replace(kept, notes={**kept.notes, "unreadable_images": len(stored.bad)})
    return kept.with_features(stored.values)


def cache_logits(
    model: MultiLabelClassifier,
    split: MultiLabelSplit,
    cache_dir: str | os.PathLike[str],
    *,
    batch_size: int = 1024,
    num_workers: int = 0,
    progress: bool = True,
    recompute_damaged: bool = False,
) -> np.ndarray:
    """
    The logits of a model (the reference) on every row of a split, computed once and then read from disk: a read-only
    memory map, float32, `[N, T]`.

    As [`extract_features`]; the key is decided by the model's weights and head and by the content of the features (or
    the images and the backbone's preprocessing, for a split without features). Unreadable images raise.

    Raises:
        ValueError: As [`extract_features`], or if the model's labels are not those of the split.
    """
    if tuple(model.config.label_names) != tuple(split.label_names):
        raise ValueError(
            f"The model's labels are not those of {split.name} (or in another order): the model has "
            f"{list(model.config.label_names)[:5]}..., the split {list(split.label_names)[:5]}..."
        )
    key: dict[str, Any] = {"model": model.weights_hash(), "head": model.config.head, "use": "logits"}
    backbone = None
    if split.features is not None:
        key["features"] = sha256_of_array(split.features)
    else:
        backbone = model.require_backbone()
        key |= {"images": images_hash(split), "backbone": backbone.identity}
    size: dict[str, Any] = {"rows": len(split), "width": len(split.label_names), "dtype": "float32"}
    store = ShardStore(cache_dir, f"{split.name}-logits", key, **size, batch_size=batch_size)

    def from_pixels(pixels: torch.Tensor, rows: list[int]) -> np.ndarray:
        return model(pixel_values=pixels).logits.float().cpu().numpy()

    with _Bar(split, store, f"Logits of {split.name}", progress) as bar, in_evaluation(model):

        def over_features(batches: Batches) -> Iterator[ComputedBatch]:
            assert split.features is not None
            for rows in batches:
                block = torch.from_numpy(np.array(split.features[rows[0] : rows[-1] + 1]))
                logits = model(features=block.to(model.device)).logits
                bar.update(len(rows))
                yield ComputedBatch(logits.float().cpu().numpy(), {})

        compute: Compute = over_features
        if backbone is not None:
            compute = _over_images(split, backbone, from_pixels, bar, num_workers, "raise")
        return store.get(compute, recompute_damaged=recompute_damaged).values


def rows_hash(split: MultiLabelSplit) -> str:
    """SHA-256 over the ids and labels of a split, and its features or else the content of its images."""
    inputs = images_hash(split) if split.features is None else sha256_of_array(split.features)
    return sha256_of_json([split.content_hash(), inputs])


def images_hash(split: MultiLabelSplit) -> str:
    """SHA-256 over the ids of a split and the content of its images, whether files, bytes or PIL images."""
    images = _images_of(split)
    with ThreadPoolExecutor(8) as pool:  # reading and hashing files releases the interpreter
        contents = pool.map(lambda row: _content(images[row]), range(len(images)))
        return sha256(f"{name}\0{content}\n".encode() for name, content in zip(split.ids, contents, strict=True))


def _content(image: ImageSource) -> str:
    if isinstance(image, bytes):
        return sha256([image])
    if isinstance(image, os.PathLike):
        try:
            return sha256_of_file(image)
        except OSError:
            return "missing"  # an unreadable image, for `bad_images` to decide
    palette = image.getpalette("RGB") if image.mode == "P" else None
    return f"{image.mode} {image.size} {sha256([image.tobytes(), bytes(palette or ())])}"


def _images_of(split: MultiLabelSplit) -> Sequence[ImageSource]:
    if split.images is None:
        raise ValueError(f"The split {split.name!r} has no images: there is nothing to extract features from.")
    return split.images


def _unreadable(split: MultiLabelSplit, row: int, why: str, more: int = 0) -> ValueError:
    return ValueError(
        f"Image {split.ids[row]!r} (row {row} of {split.name}){f' and {more} more' if more else ''} cannot be read: "
        f"{why} Mend or remove it, or pass bad_images='skip' to drop such rows and count them."
    )


class _Bar(tqdm):
    """Rows done and rows per second; on the first rank only."""

    def __init__(self, split: MultiLabelSplit, store: ShardStore, text: str, progress: bool) -> None:
        missing = store.missing_rows()
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        first = not distributed or torch.distributed.get_rank() == 0
        unit = " images" if split.features is None else " rows"
        hidden = not (progress and first and missing)
        super().__init__(total=len(split.ids), initial=len(split.ids) - missing, desc=text, unit=unit, disable=hidden)


class _Images(Dataset[tuple[int, torch.Tensor | None, str]]):
    """Row -> (row, preprocessed image, "") or (row, None, why it cannot be read)."""

    def __init__(self, images: Sequence[ImageSource], transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, row: int) -> tuple[int, torch.Tensor | None, str]:
        try:
            image = open_image(self.images[row])
        except UnreadableImageError as error:
            return row, None, str(error)
        return row, self.transform(image), ""


def _over_images(
    split: MultiLabelSplit,
    backbone: Backbone,
    encode: Callable[[torch.Tensor, list[int]], np.ndarray],
    bar: tqdm,
    num_workers: int,
    bad_images: BadImages,
) -> Compute:
    """The `compute` of a [`ShardStore`] that opens images, stacks the readable ones of a batch and encodes them."""
    device = next(backbone.parameters()).device

    def compute(batches: Batches) -> Iterator[ComputedBatch]:
        loader = DataLoader(
            _Images(_images_of(split), backbone.transform),
            batch_sampler=batches,  # any iterable of lists; iterated once
            collate_fn=list,
            num_workers=num_workers,
        )
        for items in loader:
            bad = {row: why for row, pixels, why in items if pixels is None}
            if bad and bad_images == "raise":
                raise _unreadable(split, *next(iter(bad.items())))
            good = [(row, pixels) for row, pixels, _ in items if pixels is not None]
            values = np.zeros((0, backbone.feature_size), dtype=np.float32)
            if good:
                values = encode(torch.stack([p for _, p in good]).to(device), [row for row, _ in good])
            bar.update(len(items))
            yield ComputedBatch(values, bad)

    return compute
