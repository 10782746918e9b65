"""The divergence of a model from its reference on what it wrote: against log-probabilities computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer
from peft import LoraConfig, get_peft_model

from experiments.generation.compare import ROWS
from experiments.generation.divergence import divergence, draw
from experiments.generation.measure import At


@pytest.fixture
def measurer(tmp_path):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    adapter = get_peft_model(make_model(), LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM"))
    adapter.save_pretrained(tmp_path / "adapter")
    texts = [[["", [5, 6, 7], True], ["", [9], True]], [["", [8, 9], False], ["", [4], True]]]
    return SimpleNamespace(
        prompts=["one", "two"],
        read=lambda row, seed, at: {"completions": texts},
        adapter=lambda row, seed, step: tmp_path / "adapter",
        base=lambda: (torch.manual_seed(0), make_model(), tokenizer)[1:],
    )


def log_prob(model, tokenizer, prompt, ids):
    asked = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([asked + ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(asked) + i - 1, token]) for i, token in enumerate(ids))


def test_it_is_the_difference_of_the_log_probabilities_of_whole_texts(measurer):
    found = divergence(measurer, ROWS[0], 0, At(20), 2)
    _, tokenizer = measurer.base()
    model = get_peft_model(measurer.base()[0], LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM"))
    model.load_adapter(str(measurer.adapter(None, 0, 0)), "default")
    expected = []
    for prompt, ids in (("one", [5, 6, 7, tokenizer.eos_token_id]), ("two", [8, 9])):
        own = log_prob(model, tokenizer, prompt, ids)
        with model.disable_adapter():
            expected.append(own - log_prob(model, tokenizer, prompt, ids))
    assert found["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert abs(found["mean"]) > 1e-3


def test_a_scale_of_nearly_nothing_diverges_by_nearly_nothing(measurer):
    assert abs(divergence(measurer, ROWS[0], 0, At(20, 1e-6), 2)["mean"]) < 1e-3


def test_the_picture_joins_divergence_and_gain_of_one_seed(tmp_path):
    lines = [{"row": "fairpo_demo", "step": 40, "scale": 1.5, "seeds": [0, 1], "privileged_by_seed": [0.3, 0.2]}]
    draw({"seed": 0, "prompts": 2, "fairpo_demo 40 x1.5": {"mean": 2.0}}, lines, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
