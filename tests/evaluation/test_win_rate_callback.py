"""Win rates while training: they change nothing of the training, and choose the best checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_rows
from helpers_trainer import data, fairpo, lora
from transformers import EarlyStoppingCallback

from fairpo_trl.evaluation.callback import PREFIX, WinRateCallback
from fairpo_trl.evaluation.score_judges import CountJudge
from fairpo_trl.evaluation.writing import Sampling


PROMPTS = sorted({row["prompt"] for row in make_rows(12)})
JUDGES = {
    "concise": CountJudge("words:fewer"),
    "polite": CountJudge("characters:more"),
    "factual": CountJudge("words:more"),
}
SAMPLING = Sampling(samples_per_prompt=2, max_new_tokens=5, temperature=1.0)
EVALUATES = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "logging_steps": 1, "save_strategy": "no"}


def callback(**options: Any) -> WinRateCallback:
    return WinRateCallback(PROMPTS, JUDGES, ["concise"], sampling=SAMPLING, **options)


def trained(out: Any, *callbacks: WinRateCallback, **options: Any) -> Any:
    trainer = fairpo(out, data(12), eval_dataset=data(6, seed=1), peft_config=lora(), **{**EVALUATES, **options})
    for added in callbacks:
        added.attach(trainer)
    trainer.train()
    return trainer


def test_win_rates_are_logged_at_every_evaluation_and_training_stays_what_it_was(tmp_path):
    plain, measured = trained(tmp_path / "a"), trained(tmp_path / "b", callback())
    for (name, first), second in zip(plain.model.named_parameters(), measured.model.parameters(), strict=True):
        assert torch.equal(first, second), name
    found = [entry for entry in measured.state.log_history if f"{PREFIX}/concise" in entry]
    assert [entry["step"] for entry in found] == [2, 4]
    for entry in found:
        held = [entry[f"{PREFIX}/{name}"] for name in ("polite", "factual")]
        assert entry[f"{PREFIX}/worst_held"] == min(held)
        assert entry[f"{PREFIX}/privileged"] == entry[f"{PREFIX}/concise"]
        assert entry[f"{PREFIX}_runtime"] > 0
        assert all(-1 <= entry[f"{PREFIX}/{name}"] <= 1 for name in JUDGES)


def test_a_model_that_did_not_move_is_as_good_as_its_reference(tmp_path):
    # An adapter whose B is 0 is the reference: with shared random numbers every text is the same.
    trainer = fairpo(
        tmp_path, data(12), eval_dataset=data(6, seed=1), peft_config=lora(), **{**EVALUATES, "learning_rate": 0.0}
    )
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    callback().attach(trainer)
    metrics = trainer.evaluate()
    assert {metrics[f"{PREFIX}/{name}"] for name in JUDGES} == {0.0}


def test_the_worst_held_attribute_chooses_the_best_checkpoint(tmp_path):
    options = {"metric_for_best_model": "win_rate_difference/worst_held", "save_strategy": "best"}
    trainer = trained(tmp_path, callback(), **options)
    values = {
        entry["step"]: entry[f"{PREFIX}/worst_held"]
        for entry in trainer.state.log_history
        if f"{PREFIX}/worst_held" in entry
    }
    assert trainer.state.best_metric == max(values.values())
    assert trainer.state.best_global_step == max(values, key=values.__getitem__)


def test_early_stopping_sees_the_metrics(tmp_path):
    options = {
        "metric_for_best_model": "win_rate_difference/worst_held",
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_steps": 1,
        "max_steps": 6,
        "load_best_model_at_end": True,
        "learning_rate": 0.0,  # nothing gets better, so that patience ends
        "callbacks": [EarlyStoppingCallback(early_stopping_patience=1)],
    }
    assert trained(tmp_path, callback(), **options).state.global_step == 2


def test_every_so_many_steps_needs_no_evaluation(tmp_path):
    trainer = trained(tmp_path, callback(every=3), eval_strategy="no")
    assert [e["step"] for e in trainer.state.log_history if f"{PREFIX}/concise" in e] == [3]


def test_a_full_model_is_compared_with_its_reference_model(tmp_path):
    trainer = fairpo(tmp_path, data(12), eval_dataset=data(6, seed=1), **EVALUATES)
    callback().attach(trainer)
    metrics = trainer.evaluate()
    assert np.isfinite(metrics[f"{PREFIX}/worst_held"])
    trainer.ref_model = None
    with pytest.raises(ValueError, match="no reference to compare with"):
        callback().attach(trainer)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((PROMPTS[:1], JUDGES, ["concise"]), {}, "at least two prompts"),
        ((PROMPTS, JUDGES, ["concis"]), {}, "Unknown attribute: 'concis'.*'concise'"),
        ((PROMPTS, JUDGES, ["concise"]), {"every": 0}, "`every`"),
    ],
)
def test_bad_arguments_are_named(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        WinRateCallback(*arguments, **options)


def test_a_callback_that_is_passed_instead_of_attached_says_so(tmp_path):
    trainer = fairpo(tmp_path, data(12), eval_dataset=data(6), peft_config=lora(), callbacks=[callback()], **EVALUATES)
    with pytest.raises(ValueError, match=r"callback\.attach\(trainer\)"):
        trainer.evaluate()
