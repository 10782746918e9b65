"""Every YAML under recipes/preferences: a complete header, and two steps on rows of the published schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import WORDS
from test_recipe_yaml import ON_A_CPU, TWO_STEPS, arguments

from fairpo_trl.commands.generation import make_parser
from fairpo_trl.generation.run import run


ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes" / "preferences").glob("*.yaml"))
NAMES = [path.name for path in FILES]
PROMPT = {"ultrafeedback": "instruction", "safe_rlhf": "prompt", "helpsteer2": "prompt"}


def published(source: str, test_split: str, folder: Path) -> Path:
    """The rows of the published schema three times over with other prompts: twice train, once the test split."""
    rows = [json.loads(line) for line in (ROOT / "tests" / "data" / f"{source}.jsonl").read_text().splitlines()]
    column = PROMPT[source]
    copies = [
        {**row, column: f"{number} {row[column]}", "split": split}
        for number, split in enumerate(("train", "train", test_split))
        for row in rows
        if isinstance(row[column], str)
    ]
    for number, row in enumerate(copies):
        if source == "helpsteer2":
            row["coherence"] = 1 + number % 4  # the few stored rows are all equally coherent
        for word, completion in zip(WORDS, row.get("completions") or (), strict=False):
            if completion["response"].strip():  # the tiny tokenizer knows no other words, and would see equal answers
                completion["response"] = f"{word} {completion['response']}"
    if source == "ultrafeedback":  # as published: train alone
        copies = [{name: value for name, value in row.items() if name != "split"} for row in copies]
    path = folder / f"{source}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in copies), encoding="utf-8")
    return path


def test_the_three_sets_are_there() -> None:
    assert {path.stem for path in FILES} == set(PROMPT)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_header_says_how_on_what_how_long_and_what_comes_out(path: Path) -> None:
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    for key in ("command", "hardware", "time", "expected"):
        assert re.search(rf"^# {key} +\S", header, re.MULTILINE), key
    assert f"--config {path.relative_to(ROOT).as_posix()}" in header
    assert header.count("not run here; estimate") == 3
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) < 120


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_two_steps_on_rows_of_the_published_schema(path: Path, tiny_model_path: str, tmp_path: Path) -> None:
    source = path.stem
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    options = {
        **ON_A_CPU,
        **TWO_STEPS,
        "model_name_or_path": tiny_model_path,
        "dataset_name": str(published(source, given.get("dataset_test_split", "test"), tmp_path)),
        "dataset_source": source,
        "max_length": 512,
        "output_dir": str(tmp_path / "out"),
        **({"test_share": 0.3} if source == "ultrafeedback" else {}),
    }
    trainer = run(*make_parser().parse(["--config", str(path), *arguments(options)]))

    assert trainer.state.global_step == 2
    assert list(trainer.partition.privileged) == given["privileged_attributes"]
    assert set(trainer.partition.names) <= set(given.get("attributes", trainer.partition.names))
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    assert trainer.state.best_metric == trainer.group_metrics["eval"].worst()[1]
