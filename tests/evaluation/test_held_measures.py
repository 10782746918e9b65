"""Held besides what is judged: losses of held-out pairs, and tasks of lm-eval from a file of one's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_select_command import place, selected  # noqa: F401  # a fixture

from fairpo_trl.evaluation import held_measures
from fairpo_trl.evaluation.held_measures import HeldPairLosses, TaskResults, TextLogProbs
from fairpo_trl.evaluation.models import LoadedModels, find_model, load_tokenizer
from fairpo_trl.evaluation.served import WrittenModel


def read_pairs(place: Path, attribute: str = "polite") -> list[dict]:  # noqa: F811
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["attribute"] == attribute]


# ---- pairs ----


def test_the_loss_of_a_pair_is_dpos_and_prompts_are_the_unit(place, tmp_path):  # noqa: F811
    pairs, models = read_pairs(place)[:3], LoadedModels()
    pairs.append({**pairs[0], "chosen": pairs[1]["chosen"]})  # a second pair of the first prompt
    reference, full = (find_model(str(place / name)) for name in ("base", "full"))
    measure = HeldPairLosses(pairs, reference, models.open, tmp_path, beta=0.5)
    np.testing.assert_allclose(measure.values(reference), [-math.log(2)] * 3, atol=1e-12)

    def log_prob(source, prompt, text):
        tokenizer = load_tokenizer(source)
        start = tokenizer(prompt)["input_ids"]
        ids = [*start, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with models.open(source) as model, torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(log_probs[i - 1, ids[i]]) for i in range(len(start), len(ids)))

    losses = []
    for pair in pairs:
        ratio = [
            log_prob(source, pair["prompt"], pair["chosen"]) - log_prob(source, pair["prompt"], pair["rejected"])
            for source in (full, reference)
        ]
        losses.append(math.log1p(math.exp(-0.5 * (ratio[0] - ratio[1]))))
    expected = [-(losses[0] + losses[3]) / 2, -losses[1], -losses[2]]
    np.testing.assert_allclose(measure.values(full), expected, atol=1e-4)
    with pytest.raises(ValueError, match="needs? a model that is loaded here"):
        measure.values(WrittenModel(tmp_path / "a.jsonl"))
    for found, margin, words in ((pairs[:1], 0.1, "pairs of 1 prompts"), (pairs, 0.0, "must be positive")):
        with pytest.raises(ValueError, match=words):
            HeldPairLosses(found, reference, models.open, tmp_path, margin=margin)


def test_numbers_of_another_precision_are_not_taken(place, tmp_path):  # noqa: F811
    pairs, documents = read_pairs(place)[:3], ["the cat sees a red moon", "why is tea warm"]
    reference, full = (find_model(str(place / name)) for name in ("base", "full"))

    def values(dtype: str, folder: Path) -> list[float]:
        models = LoadedModels(dtype)
        losses = HeldPairLosses(pairs, reference, models.open, folder, dtype=dtype).values(full)
        return [*losses, *TextLogProbs(documents, models.open, folder, dtype=dtype).values(full)]

    exact = values("float32", tmp_path / "kept")
    rounded = values("bfloat16", tmp_path / "kept")
    assert rounded == values("bfloat16", tmp_path / "fresh") != exact
    assert len(list((tmp_path / "kept").iterdir())) == 6  # losses of two models and documents of one, twice


def test_losses_of_pairs_are_held_and_computed_once(place, tmp_path, monkeypatch):  # noqa: F811
    options = {"held_pairs": True, "margin": 0.5, "held_pairs_margin": 5.0, "scales": [0.5]}
    first = selected(place, tmp_path / "out", **options)
    held = {test.measure: test for test in first.selection.candidates[0].held}
    assert set(held) == {"polite", "factual", "polite, loss of pairs", "factual, loss of pairs"}
    assert held["polite, loss of pairs"].mean != 0 and held["polite, loss of pairs"].margin == 5.0
    assert "DPO loss" in first.judges["polite, loss of pairs"]
    monkeypatch.setattr(held_measures, "pair_log_ratios", lambda *args: pytest.fail("computed again"))
    assert selected(place, tmp_path / "out", **options).selection == first.selection
    with pytest.raises(ValueError, match="`held_pairs` cannot be held with `bound bernstein`"):
        selected(place, tmp_path / "out", held_pairs=True, bound="bernstein")


# ---- tasks ----

QUESTIONS = "the a one two small big moon tea why because eat sleep".split()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A folder with one task: the right one of two endings, 24 questions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    choices = ["cat sees", "red dog runs"]
    rows = [{"question": QUESTIONS[i % 12], "choices": choices, "answer": i % 2} for i in range(24)]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    text = f"""
        task: endings
        dataset_path: json
        dataset_kwargs: {{data_files: {{test: {folder / "docs.jsonl"}}}}}
        output_type: multiple_choice
        test_split: test
        doc_to_text: "{{{{question}}}}"
        doc_to_choice: "{{{{choices}}}}"
        doc_to_target: answer
        metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
    """
    (folder / "endings.yaml").write_text("\n".join(line[8:] for line in text.splitlines()), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_task_of_lm_eval_is_held_document_by_document(place, tmp_path, task):  # noqa: F811
    pytest.importorskip("lm_eval", reason='needs the extra "lm-eval", which `make venv` installs')
    models = LoadedModels()
    measure = TaskResults("endings=acc", models.open, tmp_path / "kept", include_path=task)
    source = find_model(str(place / "base"))
    values = measure.values(source)
    tokenizer, expected = load_tokenizer(source), []
    with models.open(source) as model, torch.no_grad():
        for i in range(24):
            sums = []
            for ending in (" cat sees", " red dog runs"):
                asked = QUESTIONS[i % 12]
                start, whole = (tokenizer(text)["input_ids"] for text in (asked, asked + ending))
                log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
                sums.append(sum(float(log_probs[p - 1, whole[p]]) for p in range(len(start), len(whole))))
            expected.append(float(np.argmax(sums) == i % 2))
    assert values.tolist() == expected
    assert (measure.lowest, measure.highest) == (-1.0, 1.0)
    results = selected(
        place, tmp_path / "out", held_tasks=["endings=acc_norm"], held_tasks_path=str(task), margin=0.5,
        held_tasks_margin=0.9, scales=[1.0],
    )  # fmt: skip
    held = {test.measure: test for test in results.selection.candidates[0].held}
    assert held["endings, acc_norm"].examples == 24 and held["endings, acc_norm"].margin == 0.9
    assert results.judges["endings, acc_norm"].startswith("lm-eval ")
    with pytest.raises(ValueError, match="unknown metric|Unknown metric"):
        TaskResults("endings=accuracy", models.open, tmp_path / "kept", include_path=task).values(source)


def test_without_lm_eval_or_a_path_it_is_said_before_a_model_is_loaded(place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("fairpo_trl.evaluation.held_measures.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "fairpo_trl\[lm-eval\]"'):
        selected(place, tmp_path / "out", held_tasks=["hellaswag"])
    with pytest.raises(ValueError, match="`held_tasks_path` has no effect without `held_tasks`"):
        selected(place, tmp_path / "out", held_tasks_path=str(tmp_path))
