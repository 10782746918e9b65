"""Every YAML under recipes/generation: its header is complete, it parses, and it trains (on a tiny model)."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_rows, make_tokenizer
from label_sets.arguments import make_parser as label_set_parser
from transformers import LlamaConfig, LlamaForCausalLM

from fairpo_trl.commands.generation import make_parser
from fairpo_trl.generation.run import run


ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes" / "generation").glob("*/*.yaml"))
NAMES = [f"{path.parent.name}/{path.name}" for path in FILES]
# Of the machine, not of the recipe: what a CPU without bfloat16 kernels cannot do, and a run of two small steps.
ON_A_CPU = {"use_cpu": True, "bf16": False, "dtype": "float32", "gradient_checkpointing": False, "report_to": "none"}
# Without bitsandbytes everything else of a QLoRA file still runs.
WITHOUT_4_BIT = {"load_in_4bit": False, "use_bnb_nested_quant": False}
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
TWO_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "max_length": 64,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def wide_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model whose layers are multiples of the blocks in which bitsandbytes computes in 4 bits on a CPU."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
    )
    path = tmp_path_factory.mktemp("wide") / "tiny-wide-llama"
    LlamaForCausalLM(config).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)


def arguments(options: dict) -> list[str]:
    return [text for key, value in options.items() for text in (f"--{key}", str(value))]


def parse(path: Path, options: dict):
    return make_parser().parse(["--config", str(path), *arguments(options)])


@pytest.mark.parametrize("option", ["load_in_4bit", "load_in_8bit"])
def test_a_quantised_model_without_bitsandbytes_names_the_extra(option, tmp_path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    arguments = ["--use_cpu", "true", "--bf16", "false", "--model_name_or_path", "some/model", f"--{option}", "true"]
    parsed = make_parser().parse(
        [*arguments, "--dataset_name", "missing.jsonl", "--output_dir", str(tmp_path / "out")]
    )
    with pytest.raises(ImportError, match=rf"`{option}` needs bitsandbytes.*fairpo_trl\[qlora\]"):
        run(*parsed)
    assert not (tmp_path / "out").exists()


def test_there_are_recipes() -> None:
    assert {"lora.yaml", "qlora.yaml", "full.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_header_says_how_on_what_how_long_and_what_comes_out(path: Path) -> None:
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    for key in ("command", "hardware", "time", "expected"):
        assert re.search(rf"^# {key} +\S", header, re.MULTILINE), key
    if path.name != "demo.yaml":
        assert f"--config {path.relative_to(ROOT).as_posix()}" in header
        assert header.count("not run here; estimate") == 3


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_option_is_known_and_taken_over(path: Path) -> None:
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = parse(path, {"use_cpu": True, "bf16": False})
    for key, value in given.items():
        if key in ("use_cpu", "bf16", "report_to", "lora_target_modules"):
            continue  # overridden above, or put in another form by TRL and Transformers
        owner = next(part for part in parsed if hasattr(part, key))
        read = getattr(owner, key)
        assert getattr(read, "value", read) == value, key


ALWAYS_SAID = {"bf16", "use_cpu", "output_dir", "dataset_name", "privileged_attributes"}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("[glp]*/**/*.yaml")), ids=lambda path: path.stem)
def test_a_file_says_what_differs_from_the_defaults_and_nothing_else(path: Path) -> None:
    make = label_set_parser if path.parent.name == "label_sets" else make_parser
    defaults = {
        name: getattr(action.default, "value", action.default) for name, action in make("recipe").options().items()
    }
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert not {name for name, value in given.items() if defaults[name] == value} - ALWAYS_SAID


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name != "demo.yaml"], ids=lambda path: path.parent.name
)
def test_gpu_recipes_keep_the_checkpoint_with_the_best_worst_attribute(path: Path) -> None:
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert given["bf16"] is True
    assert given["metric_for_best_model"] == "eval_accuracy/worst_attribute" and given["greater_is_better"] is True
    assert given["load_best_model_at_end"] is True and given["eval_steps"] == given["save_steps"]
    assert given.get("use_peft", False) is (path.name != "full.yaml")
    assert given.get("load_in_4bit", False) is (path.name == "qlora.yaml")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_two_optimizer_steps(path: Path, tiny_model_path: str, wide_model_path: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    split = yaml.safe_load(path.read_text(encoding="utf-8")).get("dataset_test_split", "test")
    rows = [{**row, "split": "train" if i < 18 else split} for i, row in enumerate(make_rows(24))]
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    output = tmp_path / "out"
    options = {
        **ON_A_CPU,
        **TWO_STEPS,
        **(WITHOUT_4_BIT if path.name == "qlora.yaml" and not HAS_BITSANDBYTES else {}),
        "model_name_or_path": wide_model_path if path.name == "qlora.yaml" else tiny_model_path,
        "dataset_name": str(data),
        "output_dir": str(output),
    }
    trainer = run(*parse(path, options))

    assert trainer.state.global_step == 2
    weights = "model.safetensors" if path.name == "full.yaml" else "adapter_model.safetensors"
    assert (output / weights).is_file()
    if path.name == "qlora.yaml" and HAS_BITSANDBYTES:
        assert any(type(module).__name__ == "Linear4bit" for module in trainer.model.modules())
    assert (output / "README.md").is_file()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    if trainer.args.eval_strategy != "no":
        assert trainer.state.best_metric == trainer.group_metrics["eval"].worst()[1]
        assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
