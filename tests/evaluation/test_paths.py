"""Paths from a reference to a trained model: a scaled adapter is the model between the two, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_model, make_tokenizer
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.helpers import rescale_adapter_scale
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fairpo_trl.evaluation.models import find_model
from fairpo_trl.evaluation.paths import copy_model, interpolate_model, scale_adapter


TARGETS = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, one with biases, and one with tied embeddings."""
    root = tmp_path_factory.mktemp("bases")
    for name, options in {
        "plain": {},
        "biased": {"attention_bias": True, "mlp_bias": True},
        "tied": {"tie_word_embeddings": True},
    }.items():
        config = make_model().config
        config.update(options)
        torch.manual_seed(0)
        model = type(make_model())(config).to(torch.float32)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        model.save_pretrained(root / name)
        make_tokenizer().save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make_adapter(base: Path, output: Path, adapter_name: str = "default", **options: Any) -> Path:
    """An adapter with every trainable number moved away from where it began."""
    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": TARGETS, **options})
    model = get_peft_model(load(base), config, adapter_name=adapter_name)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(output)
    return output if adapter_name == "default" else output / adapter_name


def merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """Weights of the model that the adapter makes of its base."""
    return PeftModel.from_pretrained(load(base), str(adapter)).merge_and_unload().state_dict()


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "rslora": ("plain", {"use_rslora": True}),
    "ranks and alphas by module": ("plain", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 64}}),
    "all biases": ("biased", {"bias": "all"}),
    "biases of its layers": ("biased", {"bias": "lora_only"}),
    "bias of B": ("biased", {"lora_bias": True}),
    "head in modules_to_save": ("plain", {"modules_to_save": ["lm_head"]}),
    "embeddings in modules_to_save": ("plain", {"modules_to_save": ["embed_tokens"]}),
    "norms in modules_to_save": ("plain", {"modules_to_save": ["norm"]}),
    "head of tied embeddings in modules_to_save": ("tied", {"modules_to_save": ["lm_head"]}),
    "embeddings": ("plain", {"target_modules": ["embed_tokens", "q_proj"]}),
    "a second adapter": ("plain", {"adapter_name": "other"}),
    "orthogonal start": ("plain", {"init_lora_weights": "orthogonal"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_adapter_is_the_interpolated_model(kind, bases, tmp_path):
    base_name, options = KINDS[kind]
    base = bases[base_name]
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    source = find_model(str(adapter), base_model=str(base))
    first, last = load(base).state_dict(), merged(base, adapter)
    moved = [name for name in last if not torch.allclose(first[name], last[name], atol=1e-3)]
    assert moved
    for scale in (0.25, 1.5):
        found = merged(base, scale_adapter(source, scale, tmp_path / f"scaled-{scale}"))
        assert found.keys() == last.keys()
        for name, tensor in found.items():
            expected = first[name].double() + scale * (last[name].double() - first[name].double())
            torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_at_scale_one_every_tensor_is_the_adapters(bases, tmp_path):
    adapter = make_adapter(bases["plain"], tmp_path / "adapter", modules_to_save=["lm_head"])
    source = find_model(str(adapter), base_model=str(bases["plain"]))
    scaled = load_file(scale_adapter(source, 1.0, tmp_path / "one") / "adapter_model.safetensors")
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        assert torch.equal(tensor, scaled[name])


def test_lora_on_tied_embeddings_writes_what_peft_scales(bases, tmp_path):
    # Merged, both ends of the model would move: what counts is how the adapter runs.
    adapter = make_adapter(bases["tied"], tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    source = find_model(str(adapter), base_model=str(bases["tied"]))
    scaled = scale_adapter(source, 0.5, tmp_path / "half")
    ids = torch.arange(6, 16)[None]
    model = PeftModel.from_pretrained(load(bases["tied"]), str(adapter)).eval()
    with torch.no_grad(), rescale_adapter_scale(model, 0.5):
        expected = model(input_ids=ids).logits
    with torch.no_grad():
        found = PeftModel.from_pretrained(load(bases["tied"]), str(scaled)).eval()(input_ids=ids).logits
        whole = model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - whole).abs().max() > 1e-2


def test_an_adapter_in_half_precision_keeps_its_scale(bases, tmp_path):
    adapter = make_adapter(bases["plain"], tmp_path / "adapter")
    tensors = {k: v.to(torch.bfloat16) for k, v in load_file(adapter / "adapter_model.safetensors").items()}
    from safetensors.torch import save_file

    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    source = find_model(str(adapter), base_model=str(bases["plain"]))
    scaled = load_file(scale_adapter(source, 0.3, tmp_path / "scaled") / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        expected = tensor.double() * (0.3 if ".lora_B." in name else 1)
        torch.testing.assert_close(scaled[name].double(), expected, rtol=1e-6, atol=0)


def test_the_folder_loads_without_us_and_holds_nothing_else(bases, tmp_path):
    adapter = make_adapter(bases["plain"], tmp_path / "adapter")
    make_tokenizer().save_pretrained(adapter)
    (adapter / "training_args.bin").write_bytes(b"secret")
    (adapter / "optimizer.pt").write_bytes(b"large")
    source = find_model(str(adapter), base_model=str(bases["plain"]))
    for folder in (scale_adapter(source, 0.5, tmp_path / "a"), copy_model(source, tmp_path / "b")):
        names = {path.name for path in folder.iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
        assert not names & {"training_args.bin", "optimizer.pt", "README.md"}
        assert PeftModel.from_pretrained(load(bases["plain"]), str(folder)).peft_config["default"].inference_mode


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"trainable_token_indices": [3, 4]}, "trainable_tokens"),
    ],
)
def test_what_is_not_linear_is_refused_with_what_to_do(options, words, bases, tmp_path):
    adapter = make_adapter(bases["plain"], tmp_path / "adapter", **options)
    source = find_model(str(adapter), base_model=str(bases["plain"]))
    with pytest.raises(ValueError, match=words) as caught:
        scale_adapter(source, 0.5, tmp_path / "half")
    assert "path checkpoints" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_another_kind_of_adapter_is_refused(bases, tmp_path):
    config = IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    get_peft_model(load(bases["plain"]), config).save_pretrained(tmp_path / "ia3")
    source = find_model(str(tmp_path / "ia3"), base_model=str(bases["plain"]))
    with pytest.raises(ValueError, match="kind IA3, which has no scale"):
        scale_adapter(source, 0.5, tmp_path / "half")


def test_a_whole_tensor_that_the_base_lacks_is_named(bases, tmp_path):
    adapter = make_adapter(bases["biased"], tmp_path / "adapter", bias="all")
    source = find_model(str(adapter), base_model=str(bases["plain"]))
    with pytest.raises(ValueError, match=r"the tensor base_model\.model\..*bias .*the base has none of this name"):
        scale_adapter(source, 0.5, tmp_path / "half")


@pytest.mark.parametrize("scale", [-0.5, float("nan"), float("inf")])
def test_a_scale_is_a_finite_number(scale, bases, tmp_path):
    source = find_model(str(make_adapter(bases["plain"], tmp_path / "adapter")), base_model=str(bases["plain"]))
    with pytest.raises(ValueError, match="A scale must be"):
        scale_adapter(source, scale, tmp_path / "scaled")


@pytest.mark.parametrize("base", ["plain", "tied"])
def test_a_full_model_is_interpolated(base, bases, tmp_path):
    torch.manual_seed(3)
    trained = load(bases[base])
    for parameter in trained.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    trained.save_pretrained(tmp_path / "trained")
    make_tokenizer().save_pretrained(tmp_path / "trained")
    first, last = load(bases[base]).state_dict(), trained.state_dict()
    sources = find_model(str(bases[base])), find_model(str(tmp_path / "trained"))
    for scale in (0.5, 1.0, 1.25):
        found = load(interpolate_model(*sources, scale, tmp_path / f"at-{scale}")).state_dict()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, first[name] + scale * (last[name] - first[name]), rtol=0, atol=1e-6)


def test_full_models_of_other_shapes_are_refused(bases, tmp_path):
    make_model(layers=1, dtype=torch.float32).save_pretrained(tmp_path / "small")
    make_tokenizer().save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="differ in 'model.layers.1"):
        interpolate_model(find_model(str(bases["plain"])), find_model(str(tmp_path / "small")), 0.5, tmp_path / "half")
    with pytest.raises(ValueError, match="tied in only one"):
        interpolate_model(find_model(str(bases["plain"])), find_model(str(bases["tied"])), 0.5, tmp_path / "half")


def test_a_killed_draft_is_no_candidate(bases, tmp_path, monkeypatch):
    source = find_model(str(make_adapter(bases["plain"], tmp_path / "adapter")), base_model=str(bases["plain"]))
    from fairpo_trl.evaluation import paths

    def full(*args: Any, **options: Any) -> None:
        raise OSError("No space left on device")

    kept = scale_adapter(source, 0.5, tmp_path / "half")
    before = json.loads((kept / "adapter_config.json").read_text())
    monkeypatch.setattr(paths, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        scale_adapter(source, 0.5, tmp_path / "half")
    assert json.loads((kept / "adapter_config.json").read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "half"]
