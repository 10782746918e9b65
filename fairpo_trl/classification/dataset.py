"""Rows of a split as whole batches, ready for the model: features or pixels, labels, reference logits, row numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit


class SplitDataset(torch.utils.data.Dataset):
    """
    A [`MultiLabelSplit`] for a `DataLoader`, fetched a batch at a time (pass [`keep_batch`] as the collator).

    A batch has `features` (`[B, D]`, float32) or, for a split without, `pixel_values` (`[B, 3, H, W]`, by
    `transform`), `labels` (`[B, T]`, int8: 1, 0, or -1 for unknown), `row` (`[B]`, the number of the row in the split)
    and, once the trainer has set them for all rows, `reference_logits` (`[B, T]`).

    Raises:
        ValueError: If the split has neither features nor images with a transform.
    """

    def __init__(self, split: MultiLabelSplit, transform: Callable[[Any], torch.Tensor] | None = None) -> None:
        if split.features is None and (split.images is None or transform is None):
            raise ValueError(
                f"The split {split.name!r} has no features, and "
                + ("no images either." if split.images is None else "images need a model with a backbone attached.")
                + " Extract features first (`extract_features`), or attach a backbone to the model."
            )
        self.split, self.transform = split, transform
        self.labels = torch.from_numpy(np.ascontiguousarray(split.labels, dtype=np.int8))
        self.reference_logits: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: value[0] for name, value in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The batch of `rows`: one indexing operation instead of one per row."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        batch = {"labels": self.labels[index], "row": index}
        if self.split.features is not None:
            features = np.asarray(self.split.features[index.numpy()], dtype=np.float32)
            batch["features"] = torch.from_numpy(features)
        else:
            assert self.split.images is not None and self.transform is not None
            batch["pixel_values"] = torch.stack([self.transform(open_image(self.split.images[i])) for i in rows])
        if self.reference_logits is not None:
            batch["reference_logits"] = self.reference_logits[index]
        return batch


def keep_batch(batch: Any) -> dict[str, torch.Tensor]:
    """The collator of [`SplitDataset`], whose batches come whole; rows fetched one by one are stacked."""
    if isinstance(batch, dict):
        return batch
    return {name: torch.stack([row[name] for row in batch]) for name in batch[0]}


def model_inputs(batch: Mapping[str, Any], model: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """What a model reads of a batch, on its device and in its dtype."""
    dtype = next(model.parameters()).dtype
    return {name: batch[name].to(device=device, dtype=dtype) for name in ("features", "pixel_values") if name in batch}


@contextmanager
def in_evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of the model is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def compute_logits(
    model: torch.nn.Module, rows: SplitDataset, batch_size: int, device: torch.device, progress: bool = True
) -> torch.Tensor:
    """
    Logits of all rows, `[N, T]` on the CPU: computed in evaluation mode, in this process alone, by a model that lies
    on `device`. `progress` shows a bar for images, which take their time.
    """
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=keep_batch)
    hidden = not progress or rows.split.features is not None
    with in_evaluation(model):
        bar = tqdm(loader, desc=f"Logits of {rows.split.name}", disable=hidden)
        return torch.cat([model(**model_inputs(batch, model, device)).logits.cpu() for batch in bar])
