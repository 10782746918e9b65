"""Classifier heads: from one feature vector per image to one logit per label."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import nn

from fairpo_trl.core.messages import require_known


HeadKind = Literal["linear", "label_mlp", "shared_mlp"]

LAST_LAYER = ("out.", "weight_out", "bias_out")
"""How the names of the parameters that make logits begin, in every head; those of a linear head are all of them."""


class LinearHead(nn.Module):
    """z_t = w_t . x + b_t (the paper); `dropout` is the share of the features dropped in training."""

    def __init__(self, feature_size: int, n_labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(feature_size, n_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[B, D]` -> `[B, T]`."""
        return self.out(self.dropout(features))


class LabelMLPHead(nn.Module):
    """
    A two-layer network of its own for each label, all labels in one batched matrix product.

    Labels share no parameter, so the gradient of one label's loss does not touch another label's score. With H =
    `hidden_size` units of each label, of which `dropout` are dropped in training, there are T * D * H weights: 80
    labels at D = 768, H = 64 are 3.9 M.
    """

    def __init__(self, feature_size: int, n_labels: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        # Drawn as torch draws its linear layers: uniform within 1 / sqrt(inputs).
        first, second = 1 / math.sqrt(feature_size), 1 / math.sqrt(hidden_size)
        self.weight_in = nn.Parameter(torch.empty(n_labels, feature_size, hidden_size).uniform_(-first, first))
        self.bias_in = nn.Parameter(torch.empty(n_labels, 1, hidden_size).uniform_(-first, first))
        self.weight_out = nn.Parameter(torch.empty(n_labels, hidden_size, 1).uniform_(-second, second))
        self.bias_out = nn.Parameter(torch.empty(n_labels).uniform_(-second, second))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[B, D]` -> `[B, T]`."""
        repeated = features.expand(len(self.weight_in), -1, -1)  # [T, B, D], without a copy
        hidden = nn.functional.gelu(torch.baddbmm(self.bias_in, repeated, self.weight_in))  # [T, B, H]
        return torch.bmm(self.dropout(hidden), self.weight_out).squeeze(-1).T + self.bias_out


class SharedMLPHead(nn.Module):
    """One hidden layer shared by all labels, of which `dropout` is dropped in training, then a linear layer."""

    def __init__(self, feature_size: int, n_labels: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, n_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[B, D]` -> `[B, T]`."""
        return self.out(self.dropout(nn.functional.gelu(self.hidden(features))))


def build_head(head: HeadKind, feature_size: int, n_labels: int, hidden_size: int, dropout: float) -> nn.Module:
    """
    The head of a kind, with `feature_size` D, `n_labels` T and `hidden_size` H (a linear head has none).

    Raises:
        ValueError: For an unknown head, or a number out of its range: sizes from 1 on, `dropout` in [0, 1).
    """
    require_known("head", [head], get_args(HeadKind))
    if feature_size < 1 or n_labels < 1 or hidden_size < 1:
        raise ValueError(
            f"A head needs at least one feature, label and hidden unit; got feature_size={feature_size}, "
            f"{n_labels} labels, hidden_size={hidden_size}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")
    if head == "linear":
        return LinearHead(feature_size, n_labels, dropout)
    return (LabelMLPHead if head == "label_mlp" else SharedMLPHead)(feature_size, n_labels, hidden_size, dropout)
