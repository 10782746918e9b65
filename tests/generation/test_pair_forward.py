"""Which layout a run takes, and that pairs inside their hinge are spared the backward pass without a difference."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_model
from helpers_trainer import ExactHead, assert_same, data, drifted, fairpo, logs, lora, parameters
from transformers import FalconConfig, FalconForCausalLM

from fairpo_trl.generation import pair_forward
from fairpo_trl.generation.pair_forward import IdleShare, needs_gradient


@pytest.fixture
def exact_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)


def falcon() -> FalconForCausalLM:
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, alibi=True, eos_token_id=1
    )
    return FalconForCausalLM(config)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """(pairs, with gradient) of every packed pass from now on."""
    seen = []
    original = pair_forward.token_outputs

    def token_outputs(model, inputs, packed=None, **kwargs):
        pairs = len(inputs["input_ids"]) // 2 if packed is None else len(set(packed.pair.flatten().tolist()) - {-1})
        seen.append((pairs, torch.is_grad_enabled()))
        return original(model, inputs, packed, **kwargs)

    monkeypatch.setattr(pair_forward, "token_outputs", token_outputs)
    monkeypatch.setattr("fairpo_trl.generation.log_probs.token_outputs", token_outputs)
    return seen


# ---- the layout ----


def test_a_model_that_cannot_be_packed_takes_the_plain_layout_and_says_why_once(tmp_path, caplog):
    trainer = fairpo(tmp_path, data(8), model=falcon(), ref=falcon(), num_train_epochs=2)
    trainer.train()
    lines = [record.message for record in caplog.records if "plain layout" in record.message]
    assert len(lines) == 1 and "ALiBi" in lines[0]
    assert trainer._packs is False and math.isfinite(logs(trainer)[-1]["loss"])


def test_always_raises_there(tmp_path):
    trainer = fairpo(tmp_path, data(8), model=falcon(), ref=falcon(), packing="always")
    with pytest.raises(ValueError, match="packing='always'.*ALiBi.*packing='auto'"):
        trainer.train()


@pytest.mark.parametrize("what", ["values", "error"])
def test_a_model_whose_first_batch_differs_takes_the_plain_layout(what, tmp_path, monkeypatch, caplog):
    # As a model would that looks at the row and not at the mask: nothing it says about itself gives it away.
    def masks(packed, config, dtype):
        if what == "error":
            raise RuntimeError("a mask of its own")
        return torch.ones(packed.pair.shape, dtype=torch.long)

    expected = fairpo(tmp_path, data(8), packing="never")
    expected.train()
    monkeypatch.setattr("fairpo_trl.generation.packed_forward.attention_masks", masks)
    trainer = fairpo(tmp_path, data(8))
    trainer.train()
    assert {"values": "differ from the plain", "error": "a mask of its own"}[what] in caplog.text
    assert_same(parameters(trainer), parameters(expected), 0)


def test_never_and_dropout_take_the_plain_layout(tmp_path, caplog):
    trainer = fairpo(tmp_path, data(4), packing="never")
    trainer.train()
    assert trainer._packs is False and "plain layout" not in caplog.text  # asked for, so nothing to say
    trainer = fairpo(tmp_path, data(4), disable_dropout=False)
    trainer.train()
    assert trainer._packs is False and "with dropout" in caplog.text


def test_evaluation_is_packed_too(tmp_path, exact_head):
    results = []
    for packing in ("always", "never"):
        trainer = fairpo(tmp_path, data(8), eval_dataset=data(9, seed=3), packing=packing)
        results.append(trainer.evaluate())
    for key in ("eval_loss", "eval_margin/role/privileged", "eval_entropy", "eval_logps/chosen", "eval_num_tokens"):
        assert results[0][key] == pytest.approx(results[1][key], rel=1e-9)


# ---- idle pairs ----

IDLE_CASES = {
    "pair hinge": {},
    "micro-batches of one pair, momentum and weight decay": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 3,
        "optim": "adamw_torch",
        "weight_decay": 0.1,
        "learning_rate": 1e-3,
        "privileged_attributes": ["factual"],
    },
    "attribute hinge": {"hinge_level": "attribute", "grouping": "attribute"},
    "cpo, lora": {"privileged_loss": "cpo", "peft_config": lora()},
    "hinge as a penalty": {"balancer": "lagrangian", "lagrangian_term": "hinge", "grouping": "attribute"},
    "weights of the step itself": {"timing": "current"},
    "gradient checkpointing": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("case", IDLE_CASES)
def test_skipping_idle_pairs_changes_nothing(case, tmp_path, monkeypatch, exact_head):
    monkeypatch.setattr(IdleShare, "pays", lambda self: True)
    options, runs = {"max_steps": 5, **IDLE_CASES[case]}, []
    for skip in (True, False):
        seen = spied(monkeypatch)
        trainer = fairpo(tmp_path, data(12), skip_idle_pairs=skip, **options)
        start = parameters(trainer)
        trainer.train()
        runs.append((parameters(trainer), logs(trainer), sum(pairs for pairs, graph in seen if graph)))
    assert max(float((runs[0][0][name] - start[name]).abs().max()) for name in start) > 1e-4
    assert_same(runs[0][0], runs[1][0], 1e-9)
    assert runs[0][2] < runs[1][2]  # some pairs were spared
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-8), key


def test_a_step_of_idle_pairs_alone_still_moves_by_momentum_and_decay(tmp_path, exact_head):
    # Policy = reference: every held pair is idle, and no pair of this run is privileged but the first step's.
    pairs = data(12, attributes=("polite",)).to_list()
    pairs[0]["attribute"] = "concise"
    from datasets import Dataset

    runs = []
    for skip in (True, False):
        trainer = fairpo(
            tmp_path, Dataset.from_list(pairs), model=drifted(), ref=drifted(), skip_idle_pairs=skip, epsilon=5.0,
            optim="adamw_torch", weight_decay=0.1, learning_rate=1e-2, per_device_train_batch_size=2,
        )  # fmt: skip
        trainer.train()
        runs.append(parameters(trainer))
    assert_same(*runs, 1e-9)


def test_where_no_pair_can_be_idle_nothing_is_looked_for(tmp_path, monkeypatch):
    for options in ({"hinge": False}, {"balancer": "lagrangian"}, {"skip_idle_pairs": False}):
        trainer = fairpo(tmp_path, data(4), **options)
        seen = spied(monkeypatch)
        trainer.train()
        assert trainer._idle is None
        assert (4, True) in seen and all(pairs == 4 for pairs, _ in seen)


def test_a_first_pass_stops_while_too_few_pairs_are_idle():
    share = IdleShare(backward=1.0)
    assert share.pays()  # policy = reference: all are idle
    for _ in range(50):
        share.update(active=3, held=4)
    assert not share.pays()  # 1 + .75 * 2 > 2
    for _ in range(100):
        share.update(active=1, held=4)
    assert share.pays()  # 1 + .25 * 2 < 2
    full = IdleShare(backward=2.0)
    full.load_state_dict([0.5, 1.0])
    lora_share = IdleShare(backward=1.0)
    lora_share.load_state_dict([0.5, 1.0])
    assert full.pays() and not lora_share.pays()  # a costlier backward pass is worth more
    assert full.state_dict() == [0.5, 1.0]


def test_pairs_that_need_a_gradient():
    losses = torch.tensor([[0.0, 0.3], [0.2, 0.0], [0.0, float("nan")], [0.5, 0.5]])
    members = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    assert needs_gradient(losses, members).tolist() == [False, True, True, False]


def test_the_share_of_idle_pairs_is_part_of_a_checkpoint(tmp_path):
    trainer = fairpo(tmp_path, data(8), model=drifted(), ref=make_model())
    trainer.train()
    state = trainer.group_state()
    assert state["idle_pairs"][1] > 0
    other = fairpo(tmp_path, data(8))
    other.load_group_state(state)
    assert other._idle.state_dict() == state["idle_pairs"]
    del state["idle_pairs"]
    other.load_group_state(state)  # a checkpoint from before


def test_a_run_goes_on_with_another_layout(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "model": drifted()}
    fairpo(tmp_path, data(8), packing="never", skip_idle_pairs=False, **options).train()
    trainer = fairpo(tmp_path, data(8), **{**options, "max_steps": 3, "model": drifted()})
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3 and trainer._packs
