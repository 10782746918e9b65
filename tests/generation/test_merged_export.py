"""An adapter merged into its base: the same logits from a plain model, and what cannot be merged is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset
from fake_hub import FakeHub
from huggingface_hub import ModelCard, constants
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairpo_trl.commands.push import PushArguments, run
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.merging import merge_adapter
from fairpo_trl.generation.trainer import FairPOTrainer


TOKENS = torch.randint(6, 40, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a LoRA adapter trained on it by FairPO."""
    home = tmp_path_factory.mktemp("merged")
    base, out = home / "tiny-base", home / "adapter"
    make_model(dtype=torch.float32).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    trainer = FairPOTrainer(
        model=str(base),
        args=FairPOConfig(
            output_dir=str(out),
            privileged_attributes=["concise"],
            max_steps=3,
            per_device_train_batch_size=4,
            save_strategy="no",
            learning_rate=0.1,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(make_rows(12)),
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(dataset_name="some-org/pairs")
    return base, out


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


def rewrite(folder: Path, name: str, **changes) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_merged_model_gives_the_logits_of_the_adapter(trained, tmp_path):
    base, adapter = trained
    output = merge_adapter(adapter, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    expected = logits(PeftModel.from_pretrained(plain, str(adapter)))
    assert (expected - before).abs().max() > 1e-2  # the adapter does something
    merged = AutoModelForCausalLM.from_pretrained(output)
    assert type(merged).__name__ == "LlamaForCausalLM" and merged.dtype == torch.float32
    assert (logits(merged) - expected).abs().max() <= 1e-5
    names = {path.name for path in output.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if "adapter" in name or name.endswith(".bin")]
    with safe_open(output / "model.safetensors", framework="pt") as file:
        assert not [key for key in file.keys() if "lora" in key]  # noqa: SIM118
    text = "the small cat likes"
    assert AutoTokenizer.from_pretrained(output)(text) == make_tokenizer()(text)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]  # no draft is left


def test_the_tokenizer_is_that_of_the_base_where_the_adapter_brings_none(trained, tmp_path):
    _, adapter = trained
    bare = Path(shutil.copytree(adapter, tmp_path / "bare"))
    for path in [*bare.glob("tokenizer*"), bare / "chat_template.jinja"]:
        path.unlink()
    assert AutoTokenizer.from_pretrained(merge_adapter(bare, tmp_path / "merged"))("cat") == make_tokenizer()("cat")


def test_a_quantised_base_is_refused_with_the_reason(trained, tmp_path):
    base, adapter = trained
    quantised = Path(shutil.copytree(base, tmp_path / "four-bit"))
    rewrite(quantised, "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    copy = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    rewrite(copy, "adapter_config.json", base_model_name_or_path=str(quantised))
    with pytest.raises(ValueError, match=r"is quantised \(bitsandbytes\): a merged weight would be rounded"):
        merge_adapter(copy, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_has_nothing_to_merge_or_no_base_is_refused(trained, tmp_path):
    base, adapter = trained
    prompts = tmp_path / "prompts"
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(prompts)
    with pytest.raises(ValueError, match="of kind PROMPT_TUNING, which changes the input and no weight"):
        merge_adapter(prompts, tmp_path / "merged")
    copy = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    rewrite(copy, "adapter_config.json", base_model_name_or_path="/not/here/at-all")
    with pytest.raises(FileNotFoundError, match="'/not/here/at-all' that .* names is not there: correct"):
        merge_adapter(copy, tmp_path / "merged")
    rewrite(copy, "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ValueError, match="names no base model"):
        merge_adapter(copy, tmp_path / "merged")
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        merge_adapter(base, tmp_path / "merged")
    with pytest.raises(ValueError, match="holds something already"):
        merge_adapter(adapter, base)


@pytest.mark.parametrize("options", [{"target_modules": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}])
def test_one_of_two_tied_matrices_is_not_merged_into_both(options, tmp_path):
    base, adapter = tmp_path / "tied", tmp_path / "adapter"
    model = make_model(dtype=torch.float32)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    loaded = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], **options})
    get_peft_model(loaded, config).save_pretrained(adapter)
    with pytest.raises(ValueError, match=r"The adapter changes the .* which are one tied matrix there"):
        merge_adapter(adapter, tmp_path / "merged")


def test_a_weight_that_is_not_finite_stops_the_merge_and_leaves_nothing(trained, tmp_path):
    base, adapter = trained
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    with torch.no_grad():
        next(p for name, p in loaded.named_parameters() if "lora_B" in name).fill_(float("nan"))
    loaded.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="NaN"):
        merge_adapter(tmp_path / "broken", tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_merged_push_sends_a_plain_model_and_leaves_the_adapter_alone(trained, tmp_path, monkeypatch):
    base, adapter = trained
    names = sorted(path.name for path in adapter.iterdir())
    monkeypatch.setenv("HF_TOKEN", "hf_" + "notARealToken" * 2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FakeHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        plan = run(PushArguments(folder=str(adapter), repo_id="me/whole", merged=True, dry_run=True))
        assert not hub.requests and "model.safetensors" in {file.name for file in plan.files}
        run(PushArguments(folder=str(adapter), repo_id="me/whole", merged=True))
        ((_, _, files),) = hub.commits()
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not [name for name in files if "adapter" in name]
    card = ModelCard(files["README.md"].decode())
    assert 'AutoModelForCausalLM.from_pretrained("me/whole"' in card.text and "PeftModel" not in card.text
    assert "merged into the base model" in card.text and "| base model | tiny-base |" in card.text
    assert card.data.library_name == "transformers" and "lora" not in card.data.tags
    assert all(str(base.parent).encode() not in content for content in files.values())
    assert sorted(path.name for path in adapter.iterdir()) == names
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in files.items():
        (downloaded / name).write_bytes(content)
    expected = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)))
    assert (logits(AutoModelForCausalLM.from_pretrained(downloaded)) - expected).abs().max() <= 1e-5
