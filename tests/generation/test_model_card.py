"""The model card: complete metadata, no local path, nothing from data that could be read as Markdown."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, LoraConfig

from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.model_card import add_fairpo_facts, escaped
from fairpo_trl.generation.trainer import FairPOTrainer
from fairpo_trl.hub import card as hub_card
from fairpo_trl.hub.card import BaseModel, public_readme


LORA = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    path = tmp_path / "home-of-alice" / "tiny-base"
    make_model(dtype=torch.float32).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def make_trainer(
    tmp_path: Path, model, attributes=("concise", "polite"), peft: bool = True, **options
) -> FairPOTrainer:
    rows = Dataset.from_list(make_rows(8, attributes))
    defaults = {
        "output_dir": str(tmp_path / "out-of-alice" / "my-model"),
        "privileged_attributes": [attributes[0]],
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "allow_prompt_overlap": True,
    }
    return FairPOTrainer(
        model=model if not isinstance(model, Path) else str(model),
        args=FairPOConfig(**{**defaults, **options}),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=make_tokenizer(),
        peft_config=LORA if peft else None,
    )


def written(trainer: FairPOTrainer) -> tuple[ModelCard, str]:
    path = Path(trainer.args.output_dir) / "README.md"
    return ModelCard.load(path), path.read_text(encoding="utf-8")


def table_rows(text: str, heading: str) -> list[list[str]]:
    part = text.partition(heading)[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]  # as Markdown divides a row
        for line in part.splitlines()
        if line.startswith("|")
    ]


def test_adapter_of_a_local_model(tmp_path: Path, base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data-of-alice" / "pairs.jsonl"
    data.parent.mkdir()
    data.write_text("{}")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "recipe.py"), "--model_name_or_path", str(base_path)])
    trainer = make_trainer(tmp_path, base_path)
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.create_model_card(dataset_name=str(data))
    card, text = written(trainer)

    facts = card.data.to_dict()
    assert facts["library_name"] == "peft" and facts["pipeline_tag"] == "text-generation"
    assert {"trl", "dpo", "fairpo", "group-robust", "lora"} <= set(facts["tags"])
    assert not {"base_model", "base_model_relation", "datasets", "licence", "license"} & set(facts)
    for private in (str(tmp_path), str(base_path), "alice", "None", "TODO"):
        assert private not in text, private
    assert "tiny-base (a local model)" in text and "pairs.jsonl (local data)" in text
    assert "python recipe.py --model_name_or_path tiny-base" in text
    assert "2505.02433" in text and "2405.20304" in text and "- PEFT: " in text and "- TRL: " in text


def test_results_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(dtype=torch.float32), learning_rate=0.1, lr_scheduler_type="constant")
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card()
    card, text = written(trainer)

    frame = trainer.group_metrics["eval"].by_group
    results = {(r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    for name in ("concise", "polite"):
        assert results["accuracy", f"Pair accuracy: {name}"] == pytest.approx(frame.loc[name, "accuracy"], abs=1e-6)
        assert results["margin", f"Margin: {name}"] == pytest.approx(frame.loc[name, "margin"], abs=1e-6)
    worst, value = trainer.group_metrics["eval"].worst()
    key = ("worst_attribute_accuracy", f"Pair accuracy, worst attribute ({worst})")
    assert results[key] == pytest.approx(value, abs=1e-6)

    rows = {row[0]: row[1:] for row in table_rows(text, "## Attributes and results")}
    weights = trainer.group_weights.as_dict()
    assert rows["concise"][:3] == ["privileged", "4", "4"]
    assert rows["polite"][:3] == ["held", "4", "4"]
    assert float(rows["concise"][3]) == pytest.approx(frame.loc["concise", "accuracy"], abs=5e-4)
    assert float(rows["concise"][-1]) == pytest.approx(weights["privileged"], abs=5e-4)
    settings = {row[0]: row[1] for row in table_rows(text, "## FairPO settings")}
    assert settings["`epsilon`"] == "0.05" and settings["`balancer`"] == r"mirror\_ascent"
    assert "`simpo_beta`" not in settings


def test_without_evaluation_there_are_no_results(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(dtype=torch.float32))
    trainer.create_model_card()  # not even a step
    card, text = written(trainer)
    assert card.data.eval_results is None and "model-index" not in text
    assert "No evaluation has been run yet." in text and "| concise | privileged | 4 | 4 | – | – | – |" in text


def test_full_model(tmp_path: Path, base_path: Path) -> None:
    trainer = make_trainer(tmp_path, base_path, peft=False)
    trainer.model.config._name_or_path = ""
    trainer.create_model_card()
    card, text = written(trainer)
    assert card.data.library_name == "transformers" and "lora" not in card.data.tags
    assert "peft" not in text.lower().replace("`peft_config`", "")
    assert "a model built from a configuration" in text
    assert 'AutoModelForCausalLM.from_pretrained("my-model"' in text


@pytest.mark.parametrize("peft", [True, False])
def test_hub_model_with_a_card_in_the_cache(
    tmp_path: Path, base_path: Path, monkeypatch: pytest.MonkeyPatch, peft: bool
) -> None:
    cached = tmp_path / "cached" / "README.md"
    cached.parent.mkdir()
    cached.write_text("---\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE\n---\n# Tiny\n")
    monkeypatch.setattr(hub_card, "try_to_load_from_cache", lambda repo_id, filename: str(cached))
    trainer = make_trainer(tmp_path, base_path, peft=peft)
    trainer.model.config._name_or_path = "some-org/tiny-llama"
    trainer.create_model_card(dataset_name="some-org/pairs")
    card, text = written(trainer)
    assert card.data.base_model == "some-org/tiny-llama"
    assert card.data.to_dict()["base_model_relation"] == ("adapter" if peft else "finetune")
    assert card.data.license == "other" and card.data.license_name == "tiny"
    assert "license_link" not in card.data.to_dict()  # relative to the other repository
    assert card.data.datasets == ["some-org/pairs"]
    assert "[some-org/tiny-llama](https://huggingface.co/some-org/tiny-llama)" in text
    assert ("AutoPeftModelForCausalLM" in text) is peft


def test_licence_is_never_invented(tmp_path: Path) -> None:
    model = make_model(dtype=torch.float32)
    model.config._name_or_path = "some-org/not-in-any-cache"
    trainer = make_trainer(tmp_path, model)
    trainer.create_model_card()
    card, _ = written(trainer)
    assert card.data.license is None and "licence" not in card.data.to_dict()


def test_licence_of_a_local_model_and_a_broken_card(base_path: Path) -> None:
    readme = base_path / "README.md"
    readme.write_text("---\nlicense: apache-2.0\n---\n")
    base = BaseModel.of(str(base_path))
    assert base.licence() == {"license": "apache-2.0"}
    readme.write_text("---\nlicense: [\n---\n")
    assert base.licence() == {}


def test_a_model_in_the_hub_cache_is_named_by_its_id() -> None:
    base = BaseModel.of("/home/alice/.cache/huggingface/hub/models--some-org--tiny/snapshots/0a1b")
    assert (base.name, base.hub_id) == ("some-org/tiny", "some-org/tiny")


def test_names_from_data_are_escaped(tmp_path: Path) -> None:
    evil = "a | b <script>alert(1)</script> [x](http://evil.example) `c` **d**\n---\n# e"
    trainer = make_trainer(
        tmp_path,
        make_model(dtype=torch.float32),
        (evil, "polite"),
        grouping="attribute",
        group_prior={evil: 0.5, "polite": 0.5},
    )
    trainer.evaluate()
    trainer.create_model_card()
    card, text = written(trainer)
    body = text.partition("\n---\n")[2]
    assert "<script>" not in body and "](http://evil" not in body and "http://evil" not in body
    assert "\n# e" not in body and card.data.library_name == "peft"
    results = table_rows(text, "## Attributes and results")
    assert len(results) == 4 and {len(row) for row in results} == {8}
    assert any("alert(1)" in result.metric_name for result in card.data.eval_results)


def test_win_rates_are_a_column_and_results(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(dtype=torch.float32))
    trainer.create_model_card()
    add_fairpo_facts(trainer, win_rates={"concise": 0.625, "polite": math.nan})
    card, text = written(trainer)
    rows = table_rows(text, "## Attributes and results")
    assert rows[0][-1] == "Win rate" and rows[2][-1] == "0.625"
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [("win_rate", 0.625)]


def test_writing_again_changes_nothing(tmp_path: Path, base_path: Path) -> None:
    trainer = make_trainer(tmp_path, base_path)
    trainer.evaluate()
    trainer.create_model_card()
    first = written(trainer)[1]
    trainer.save_model()  # PEFT adds its own facts to the card that lies there
    trainer.create_model_card()
    assert written(trainer)[1] == first
    for _ in range(2):
        add_fairpo_facts(trainer)
    assert written(trainer)[1] == first


def test_written_at_every_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(dtype=torch.float32), save_strategy="steps", save_steps=1)
    trainer.train()
    assert written(trainer)[0].data.library_name == "peft"


def test_the_snippet_loads_the_adapter(tmp_path: Path, base_path: Path) -> None:
    trainer = make_trainer(tmp_path, base_path)
    trainer.save_model()
    trainer.create_model_card()
    snippet = written(trainer)[1].partition("```python\n")[2].partition("```")[0]
    compile(snippet, "snippet", "exec")
    there = Path(trainer.args.output_dir)
    snippet = snippet.replace('"my-model"', repr(str(there))).replace('"tiny-base"', repr(str(base_path)))
    namespace: dict = {}
    exec(snippet.replace(', device_map="auto"', "").replace("max_new_tokens=128", "max_new_tokens=2"), namespace)
    assert type(namespace["model"]).__name__.startswith("Peft")
    AutoPeftModelForCausalLM.from_pretrained(there)  # on this machine the noted path still works


# ---- the small parts ----


def test_escape_keeps_plain_names() -> None:
    assert escaped("helpful & polite") == "helpful &amp; polite"
    assert escaped("höflich – 礼貌") == "höflich – 礼貌"
    assert escaped("a\u202eb\tc") == "a b c"


def test_peft_s_card_leaves_without_the_path_and_stays_as_it_was(tmp_path: Path, base_path: Path) -> None:
    trainer = make_trainer(tmp_path, base_path)
    trainer.save_model(str(tmp_path / "saved"))
    readme = tmp_path / "saved" / "README.md"
    before = readme.read_text()
    assert str(base_path) in before
    card = ModelCard(public_readme(readme))
    assert str(tmp_path) not in str(card) and card.data.library_name == "peft"
    assert card.data.to_dict().get("base_model") is None  # a local base has no name that others could load
    assert readme.read_text() == before


def test_nothing_goes_over_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a card is written offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    make_trainer(tmp_path, make_model(dtype=torch.float32)).create_model_card()
