"""Short ways to build multi-label trainers on small random features, shared by the tests."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from fairpo_trl.classification import MultiLabelClassifier, MultiLabelClassifierConfig
from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.trainer import MultiLabelFairPOTrainer


LABELS = ("anchor", "bridge", "candle", "drum", "engine", "flute")
PRIVILEGED = ["candle", "anchor"]
COMMON = {
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 0.0,
    "num_train_epochs": 1,
    "train_sampling_strategy": "sequential",
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 16,
}


def rows(n: int = 24, seed: int = 0, name: str = "train", width: int = 5, unknown: float = 0.1) -> MultiLabelSplit:
    """`n` rows whose labels depend on their features, some of them unknown."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, width)).astype(np.float32)
    truth = np.random.default_rng(99).normal(size=(width, len(LABELS)))
    labels = (features @ truth + generator.normal(size=(n, len(LABELS))) > 0.5).astype(np.int8)
    labels[generator.random(labels.shape) < unknown] = -1
    return MultiLabelSplit(
        name=name,
        label_names=LABELS,
        labels=labels,
        ids=tuple(f"{name}-{i}" for i in range(n)),
        images=None,
        features=features,
        series=None,
        notes={},
    )


def classifier(seed: int = 0, head: str = "linear", dtype: torch.dtype = torch.float64) -> MultiLabelClassifier:
    """A random classifier, in float64 so that splits of a batch can be compared to 1e-6."""
    torch.manual_seed(seed)
    config = MultiLabelClassifierConfig(
        label_names=list(LABELS), feature_size=5, head=head, hidden_size=4, standardize=False
    )
    return MultiLabelClassifier(config).to(dtype)


def multilabel(out: Any, train: Any = None, model: Any = None, **options: Any) -> MultiLabelFairPOTrainer:
    """A trainer on the random rows; by default it starts away from the reference, so that hinges are active."""
    names = ("eval_dataset", "partition", "callbacks", "ref_model")
    kwargs = {name: options.pop(name) for name in names if name in options}
    if "partition" not in kwargs:
        options.setdefault("privileged_labels", PRIVILEGED)
    return MultiLabelFairPOTrainer(
        model=classifier(seed=1) if model is None else model,
        args=MultiLabelFairPOConfig(output_dir=str(out), **{**COMMON, **options}),
        train_dataset=rows() if train is None else train,
        **{"ref_model": classifier(seed=0), **kwargs},
    )


def parameters(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the trainable parameters."""
    return {n: copy.deepcopy(p.detach()) for n, p in trainer.model.named_parameters() if p.requires_grad}
