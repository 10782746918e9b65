"""
Privileged labels on a branch of their own: held labels cannot change, because nothing that they use is trained.

The strongest opponent of a hinge: where freezing gains as much for the privileged labels, a hinge has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from fairpo_trl.classification.heads import LAST_LAYER, build_head
from fairpo_trl.core.messages import require_known


if TYPE_CHECKING:
    from fairpo_trl.classification.classifier_config import MultiLabelClassifierConfig
    from fairpo_trl.classification.model import MultiLabelClassifier


class BranchedHead(nn.Module):
    """
    A frozen head for all T labels, and beside it a branch that is added to the logits of P labels.

    Only the branch is trained; the head gets no gradient, and is always in evaluation mode. `columns` are those of the
    branch's labels in the logits, `[P]`.
    """

    columns: torch.Tensor

    def __init__(self, base: nn.Module, branch: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.branch = branch
        self.register_buffer("columns", torch.tensor(list(columns)))

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the frozen head keeps its dropout off: held logits are those of the reference."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[B, D]` -> `[B, T]`."""
        with torch.no_grad():  # whatever a loader has made of requires_grad
            logits = self.base(features)
        return logits.index_add(1, self.columns, self.branch(features).to(logits.dtype))


def head_of(config: MultiLabelClassifierConfig) -> nn.Module:
    """
    The head that a configuration describes, with its branch if there is one.

    Raises:
        ValueError: For an unknown head, a number out of its range, or an unknown label of the branch.
    """
    head = _plain_head(config, len(config.label_names))
    return branched(head, config) if config.branch_labels else head


def branched(head: nn.Module, config: MultiLabelClassifierConfig) -> BranchedHead:
    """
    A head for all labels with a branch of its own kind for `config.branch_labels`, which starts at exactly zero.

    Raises:
        ValueError: If a label is unknown.
    """
    labels, names = list(config.branch_labels or ()), list(config.label_names)
    require_known("label", labels, names)
    branch = _plain_head(config, len(labels))
    # The layer before the logits is 0, the one before it is drawn: the first step moves the last layer, as in LoRA.
    for name, parameter in branch.named_parameters():
        if name.startswith(LAST_LAYER):
            nn.init.zeros_(parameter)
    return BranchedHead(head, branch, [names.index(name) for name in labels])


def _plain_head(config: MultiLabelClassifierConfig, n_labels: int) -> nn.Module:
    kind: Any = config.head  # checked by `build_head`
    return build_head(kind, config.feature_size, n_labels, config.hidden_size, config.dropout)


def freeze_held_labels(model: MultiLabelClassifier, privileged: Sequence[str]) -> None:
    """
    Freezes a classifier and gives its privileged labels a trainable branch beside it, in place.

    Right after, every logit is as before; whatever is trained later, the logits of the held labels stay so to the bit.
    For a linear head this is training the rows of the privileged labels alone.

    Args:
        model (`MultiLabelClassifier`):
            The reference, or a copy of it, on features or over a frozen backbone.
        privileged (`Sequence[str]`):
            Labels on the branch.

    Raises:
        ValueError: If a label is unknown, none is given, a branch is there already, or the backbone is trained too.

    Example:

    ```python
    >>> model = copy.deepcopy(reference)
    >>> freeze_held_labels(model, ["toaster"])
    >>> trainer = MultiLabelFairPOTrainer(model=model, ref_model=reference, args=args, train_dataset=train)
    ```
    """
    config = model.config
    if config.branch_labels:
        raise ValueError(f"This model has a branch already, for {config.branch_labels}: start from its reference.")
    if not privileged:
        raise ValueError("Freezing the held labels leaves nothing to train: name at least one privileged label.")
    if config.backbone_trainable != "none":
        raise ValueError(
            f"The backbone is trained too (backbone_trainable={config.backbone_trainable!r}) and every label uses it: "
            "held labels can only be frozen over a frozen backbone."
        )
    require_known("label", privileged, config.label_names)
    config.branch_labels = list(privileged)
    model.head = branched(model.head, config).to(model.device)
    model.head.train(model.training)
