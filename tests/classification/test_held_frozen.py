"""Held labels that are frozen: the branch starts at the reference, and nothing moves a held logit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.branch import freeze_held_labels
from fairpo_trl.classification.data import MultiLabelSplit


NAMES = ("toaster", "dog", "cat", "sea")


def make_reference(head: str) -> MultiLabelClassifier:
    torch.manual_seed(0)
    config = MultiLabelClassifierConfig(
        label_names=list(NAMES), feature_size=6, head=head, hidden_size=5, dropout=0.3, standardize=False
    )
    return MultiLabelClassifier(config)


def make_split(rows: int = 40) -> MultiLabelSplit:
    generator = np.random.default_rng(0)
    return MultiLabelSplit(
        name="train",
        label_names=NAMES,
        labels=(generator.random((rows, 4)) < 0.4).astype(np.int8),
        ids=tuple(map(str, range(rows))),
        features=generator.normal(size=(rows, 6)).astype(np.float32),
    )


@pytest.mark.parametrize("head", ["linear", "label_mlp", "shared_mlp"])
@pytest.mark.parametrize("loss", ["bce", "dpo"])
def test_training_moves_privileged_logits_and_no_held_one(head, loss, tmp_path):
    reference, split = make_reference(head), make_split()
    model = copy.deepcopy(reference)
    freeze_held_labels(model, ["cat", "toaster"])
    features = torch.from_numpy(split.features)
    before = reference.eval()(features=features).logits
    assert torch.equal(model.eval()(features=features).logits, before)
    assert torch.equal(model.train()(features=features).logits[:, 1::2], before[:, [1, 3]])  # no dropout on held ones

    args = MultiLabelFairPOConfig(
        output_dir=str(tmp_path), privileged_labels=["toaster", "cat"], privileged_loss=loss, num_train_epochs=2,
        learning_rate=0.05, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = MultiLabelFairPOTrainer(model=model, ref_model=reference, args=args, train_dataset=split)
    trainer.train()
    after = model.eval()(features=features).logits
    assert torch.equal(after[:, [1, 3]], before[:, [1, 3]])
    assert ((after - before)[:, [0, 2]].abs().amax(dim=0) > 1e-3).all()

    trainer.save_model(str(tmp_path / "saved"))
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(loaded(features=features).logits, after)
    loaded(features=features).logits.sum().backward()
    assert all(parameter.grad is None for parameter in loaded.head.base.parameters())
    assert all(parameter.grad is not None for parameter in loaded.head.branch.parameters())


def test_for_a_linear_head_it_is_training_the_privileged_rows_alone(tmp_path):
    reference, split = make_reference("linear"), make_split()
    reference.config.dropout = reference.head.dropout.p = 0.0
    branch, rows = copy.deepcopy(reference), copy.deepcopy(reference)
    freeze_held_labels(branch, ["toaster"])
    features, labels = torch.from_numpy(split.features), torch.from_numpy(split.labels).float()
    for model, mask in ((branch, None), (rows, torch.tensor([1.0, 0.0, 0.0, 0.0]))):
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        for _ in range(5):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(features=features).logits[:, 0], labels[:, 0]
            )
            optimizer.zero_grad()
            loss.backward()
            if mask is not None:
                for parameter in parameters:
                    parameter.grad *= mask.view(-1, *[1] * (parameter.dim() - 1))
            optimizer.step()
    torch.testing.assert_close(branch(features=features).logits, rows(features=features).logits, rtol=0, atol=1e-6)


def test_what_cannot_be_frozen_is_refused():
    model = make_reference("linear")
    with pytest.raises(ValueError, match="toastr.*toaster"):
        freeze_held_labels(model, ["toastr"])
    with pytest.raises(ValueError, match="at least one privileged label"):
        freeze_held_labels(model, [])
    freeze_held_labels(model, ["toaster"])
    with pytest.raises(ValueError, match="branch already"):
        freeze_held_labels(model, ["cat"])
