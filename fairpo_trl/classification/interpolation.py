"""The classifiers between a reference and a trained one, and beyond: head and adapted backbone, each a plain model.

Every stored weight lies the share `scale` of the way from the reference's to the trained one's. Two exceptions keep
the path a line: LoRA factors, whose *product* is what a layer adds, so that both pairs of factors are put beside each
other (twice the rank, and the sum of the two products); and a branch beside a frozen head, of which the last layer is
scaled, so that its logits are.
"""

from __future__ import annotations

import copy
import re

import torch

from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.evaluation.paths import between, check_scale, differing_tensors


_FACTOR = re.compile(r"\.lora_([AB])\.")
_LAST_OF_BRANCH = re.compile(r"^head\.branch\.(out\.|weight_out$|bias_out$)")


def interpolate_classifier(
    reference: MultiLabelClassifier, trained: MultiLabelClassifier, scale: float
) -> MultiLabelClassifier:
    """
    The classifier whose weights lie the share `scale` of the way from a reference to one that was trained from it: 0
    is the reference, 1 the trained one. It is a new one, in evaluation mode, saved and loaded as any other.

    The trained one has the same head and the same adapted part of the backbone, or a branch beside the reference's
    head ([`~fairpo_trl.classification.branch.freeze_held_labels`]).

    Raises:
        ValueError: If the scale is negative, or the two have other labels, statistics of features or weights.
    """
    check_scale(scale)
    if list(reference.config.label_names) != list(trained.config.label_names):
        raise ValueError("The two classifiers have other labels: there is no path between them.")
    model = copy.deepcopy(trained).eval()
    first, last = reference.stored_state(), trained.stored_state()
    if branch := trained.config.branch_labels and not reference.config.branch_labels:
        first = {f"head.base.{name[5:]}" if name.startswith("head.") else name: t for name, t in first.items()}
    own = {name for name in last if branch and name.startswith(("head.branch.", "head.columns"))}
    if differing := differing_tensors(first, {name: tensor for name, tensor in last.items() if name not in own}):
        raise ValueError(
            f"The two classifiers differ in {differing[0]!r} ({len(differing)} tensors in all): there is no path "
            "between models of different shapes. Name the classifier that was trained from."
        )
    factors = {name for name in last if _FACTOR.search(name)}
    tensors = {}
    for name in last.keys() - factors:
        if name in own:
            tensors[name] = last[name] * scale if _LAST_OF_BRANCH.match(name) else last[name]
        else:
            tensors[name] = _between(first[name], last[name], scale, name)
    if scale == 1 or not factors:
        tensors |= {name: last[name] for name in factors}
    else:
        tensors |= _beside(model, first, last, factors, scale)
    model.load_state_dict(tensors, strict=False)
    return model


def _between(first: torch.Tensor, last: torch.Tensor, scale: float, name: str) -> torch.Tensor:
    if name in ("feature_mean", "feature_std") and not torch.equal(first.to(last.device), last):
        raise ValueError(
            "The two classifiers standardise features by other statistics: there is no path between them."
        )
    if scale == 1 or not last.is_floating_point():  # whole numbers: counters of batches
        return last
    return between(first, last, scale)


def _beside(
    model: MultiLabelClassifier,
    first: dict[str, torch.Tensor],
    last: dict[str, torch.Tensor],
    factors: set[str],
    scale: float,
) -> dict[str, torch.Tensor]:
    """Both pairs of factors as one of twice the rank: `(1 - scale) B0 A0 + scale B1 A1`; the layers are widened."""
    wide = {}
    for name in factors:
        start = first[name].to(last[name].device)
        if _FACTOR.search(name).group(1) == "A":  # type: ignore[union-attr]
            wide[name] = torch.cat([start, last[name]])
        else:
            wide[name] = torch.cat([(1 - scale) * start, scale * last[name]], dim=1)
        module = model.get_submodule(name.rpartition(".")[0])
        module.weight = torch.nn.Parameter(torch.empty_like(wide[name]))
        module.out_features, module.in_features = wide[name].shape
    # What a layer multiplies the product by is `lora_alpha / lora_r`: both doubled, it stays.
    model.config.lora_r, model.config.lora_alpha = 2 * model.config.lora_r, 2 * model.config.lora_alpha
    return wide
