"""What `MultiLabelClassifier.predict` takes and gives: images from paths and folders, scores by label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fairpo_trl.classification.data.images import find_images


def image_sources(inputs: Any) -> list[Any]:
    """
    A list of paths, bytes and PIL images from one of them, a folder (all its images, also below, by name), or a list.

    Raises:
        ValueError: For a folder without images.
        FileNotFoundError: For a path that does not exist.
    """
    items = [inputs] if isinstance(inputs, str | os.PathLike | bytes | Image.Image) else list(inputs)
    sources: list[Any] = []
    for item in items:
        if not isinstance(item, str | os.PathLike):
            sources.append(item)
            continue
        path = Path(item)
        if path.is_dir():
            sources += find_images(path)
        elif path.exists():
            sources.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist.")
    return sources


def scored_row(
    name: Any, probabilities: Sequence[float], labels: Sequence[str], thresholds: Sequence[float], top_k: int | None
) -> dict[str, Any]:
    """
    The prediction of one image from one probability and one threshold per label: `input`, `scores` (label ->
    probability; with `top_k` only the best, best first) and `labels`: those from their threshold on, best first.
    """
    scores = dict(zip(labels, probabilities, strict=True))
    best_first = sorted(scores, key=lambda label: -scores[label])
    chosen = {label for label, least in zip(labels, thresholds, strict=True) if scores[label] >= least}
    shown = scores if top_k is None else {label: scores[label] for label in best_first[:top_k]}
    return {"input": name, "scores": shown, "labels": [label for label in best_first if label in chosen]}
