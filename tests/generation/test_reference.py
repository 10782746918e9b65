"""The reference is the model that was passed, the policy starts from it, and it keeps still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from conftest import make_model
from helpers_trainer import data, fairpo
from packaging.version import Version
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM
from transformers.integrations.peft import MIN_PEFT_VERSION

from fairpo_trl.core.losses import LOG_2
from fairpo_trl.generation.reference import silence


PAIRS = data(8)


def _lora(**options: Any) -> LoraConfig:
    return LoraConfig(r=4, task_type="CAUSAL_LM", **{"target_modules": ["q_proj", "v_proj"], **options})


def _trainer(out: Path, model: Any, ref: Any = None, **options: Any) -> Any:
    defaults = {"eval_dataset": PAIRS, "max_steps": 2, "learning_rate": 0.5, "beta": 1.0}
    return fairpo(out, PAIRS, model, ref, **{**defaults, **options})


def _reference_log_probs(trainer: Any) -> torch.Tensor:
    batch = next(iter(trainer.get_eval_dataloader()))
    if trainer.precompute_ref_logps:
        return torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    reference = trainer.model if trainer.ref_model is None else trainer.ref_model
    return torch.cat(trainer.compute_ref_log_probs(reference, batch))


# ---- what may be passed ----


def _base(path: str) -> Any:
    return LlamaForCausalLM.from_pretrained(path)


def _merged(path: str) -> Any:
    """An SFT adapter merged into its base; its configuration still names the base."""
    merged = get_peft_model(_base(path), _lora(init_lora_weights=False)).merge_and_unload()
    return merged.requires_grad_(True)


def _loaded_by_hand(path: str) -> Any:
    model = _base(path)
    model.load_state_dict(make_model(5, torch.float32).state_dict())
    return model


def _second_adapter(path: str) -> Any:
    model = get_peft_model(_base(path), _lora(init_lora_weights=False))
    model.add_adapter("second", _lora(init_lora_weights=False))
    model.set_adapter("second")
    return model


def _only_adapter_of_another_name(path: str) -> Any:
    return get_peft_model(_base(path), _lora(init_lora_weights=False), adapter_name="sft")


def _adapter_of_transformers(path: str) -> Any:
    if Version(peft.__version__) < Version(MIN_PEFT_VERSION):
        pytest.skip(f"transformers takes no adapter of PEFT {peft.__version__}, but of {MIN_PEFT_VERSION}")
    model = _base(path)
    model.add_adapter(_lora(init_lora_weights=False))
    return model


def _trained_adapter(path: str) -> Any:
    return get_peft_model(_base(path), _lora(init_lora_weights=False, use_dora=True))


def _prompt(path: str) -> Any:
    return get_peft_model(_base(path), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))


def _without_a_path(path: str) -> Any:
    return make_model(2, torch.float32)


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        str,
        _merged,
        _loaded_by_hand,
        _second_adapter,
        _only_adapter_of_another_name,
        _adapter_of_transformers,
        _trained_adapter,
        _prompt,
        _without_a_path,
    ],
)
def test_the_policy_starts_from_the_model_that_was_passed_and_the_reference_keeps_still(
    tmp_path: Path,
    tiny_model_path: str,
    make: Callable[[str], Any],
    precompute: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if precompute and make in (str, _trained_adapter, _prompt):
        pytest.skip("as without")
    torch.manual_seed(1)
    trainer = _trainer(tmp_path, make(tiny_model_path), precompute_ref_log_probs=precompute)
    before = trainer.evaluate()
    assert before["eval_loss/role/non_privileged"] == pytest.approx(LOG_2, abs=1e-6)
    assert before["eval_margin/role/privileged"] == pytest.approx(0, abs=1e-5)
    assert before["eval_inside_hinge/role/non_privileged"] == 1
    assert "Policy and reference agree at the start (DPO loss 0.6931 = log 2, hinge 0)" in capsys.readouterr().out

    reference, digest = _reference_log_probs(trainer), trainer.reference_digest()
    trainer.train()
    trainer.model.eval()
    assert _reference_log_probs(trainer).equal(reference)
    assert trainer.reference_digest() == digest
    assert abs(trainer.evaluate()["eval_margin/role/privileged"]) > 5e-5  # the policy did move


@pytest.mark.parametrize(
    "config",
    [
        _lora(),
        _lora(modules_to_save=["lm_head", "embed_tokens", "norm"]),
        _lora(target_modules=["embed_tokens", "q_proj"]),
        _lora(trainable_token_indices=[10, 11]),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    ],
    ids=["lora", "modules_to_save", "embeddings", "tokens", "ia3"],
)
def test_without_its_fresh_adapter_the_model_is_the_reference(
    tmp_path: Path, tiny_model_path: str, config: Any
) -> None:
    trainer = _trainer(tmp_path, _loaded_by_hand(tiny_model_path), peft_config=config)
    reference, digest = _reference_log_probs(trainer), trainer.reference_digest()
    trainer.train()
    # Exactly 0 on some processors; on others a product rounds otherwise at another address: the last bit of float32.
    assert trainer._start_check.start.difference <= 1e-6
    trainer.model.eval()
    assert _reference_log_probs(trainer).equal(reference)
    assert trainer.reference_digest() == digest


def test_the_digest_sees_every_part_of_the_reference(tmp_path: Path, tiny_model_path: str) -> None:
    trainer = _trainer(tmp_path, _trained_adapter(tiny_model_path))
    trainer.evaluate()
    digest = trainer.reference_digest()
    layer = trainer.model.base_model.model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.lora_A["default"].weight += 1
        assert trainer.reference_digest() == digest  # the adapter that is trained
        layer.lora_A["ref"].weight[0, 0] += 1e-3
        moved = trainer.reference_digest()
        assert moved != digest
        layer.base_layer.weight[0, 0] += 1e-3
        assert trainer.reference_digest() not in (digest, moved)


def test_where_a_difference_is_meant_one_line_says_what_the_reference_is(
    tmp_path: Path, tiny_model_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = _trainer(tmp_path, _base(tiny_model_path), make_model(3, torch.float32))
    trainer.evaluate()
    trainer.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "reference" in line]
    assert len(lines) == 1
    assert lines[0].startswith("The reference is the `ref_model` that was passed (a model of its own). At the start")
    assert "differs from it by" in lines[0]

    for config, why in (
        (_lora(init_lora_weights=False), "`init_lora_weights=False` starts the adapter at random"),
        (PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"), "PROMPT_TUNING puts virtual tokens"),
    ):
        _trainer(tmp_path, tiny_model_path, peft_config=config, max_steps=1).train()
        assert why in capsys.readouterr().out


def test_a_model_that_does_not_start_from_its_reference_ends_the_run_before_the_first_step(
    tmp_path: Path, tiny_model_path: str
) -> None:
    trainer = _trainer(tmp_path, _base(tiny_model_path))
    with torch.no_grad():
        trainer.model.model.layers[1].mlp.up_proj.weight += 0.5
    with pytest.raises(
        ValueError, match=r"not its reference at the start: .* nats per token, .* instead of log 2"
    ) as e:
        trainer.train()
    assert trainer.state.global_step == 0
    assert "a frozen copy of the model that was passed" in str(e.value)
    assert "pass it as `ref_model`" in str(e.value)


def test_a_resumed_run_has_left_its_reference(tmp_path: Path, tiny_model_path: str) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    first = _trainer(tmp_path, _merged(tiny_model_path), **options)
    torch.manual_seed(1)
    digest = first.reference_digest()
    first.train()
    (model,) = [first.ref_model]
    again = _trainer(tmp_path, model.requires_grad_(True), **options)
    assert again.reference_digest() == digest
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again._start_check.start is None
    assert again.reference_digest() == digest
    assert again.state.global_step == 4


# ---- what is refused ----


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_2", "olora", "corda", "loftq", "lora_ga"])
def test_initialisations_that_move_the_base_into_the_adapter_are_refused(
    tmp_path: Path, tiny_model_path: str, init: str
) -> None:
    config = _lora()
    config.init_lora_weights = init
    with pytest.raises(ValueError, match=rf"`init_lora_weights='{init}'` moves .* pass a second copy .*`ref_model`"):
        _trainer(tmp_path, tiny_model_path, peft_config=config)


def test_such_an_initialisation_works_beside_a_reference_of_its_own(tmp_path: Path, tiny_model_path: str) -> None:
    trainer = _trainer(tmp_path, tiny_model_path, _base(tiny_model_path), peft_config=_lora(init_lora_weights="pissa"))
    assert trainer.evaluate()["eval_loss/role/non_privileged"] == pytest.approx(LOG_2, abs=1e-5)


def _with_biases() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_bias=True,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_the_reference_shares_are_refused(tmp_path: Path, bias: str) -> None:
    with pytest.raises(ValueError, match=r"would move with them, .*bias.* Set `bias='none'`"):
        _trainer(tmp_path, _with_biases(), peft_config=_lora(bias=bias))


def test_weights_that_were_thawed_by_hand_are_refused(tmp_path: Path, tiny_model_path: str) -> None:
    model = get_peft_model(_base(tiny_model_path), _lora())
    model.base_model.model.model.norm.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"would move with them, .*norm\.weight.*`modules_to_save`"):
        _trainer(tmp_path, model)


def test_references_that_are_none_are_refused(tmp_path: Path, tiny_model_path: str) -> None:
    with pytest.raises(ValueError, match=r"`ref_model` must be a model, got .*from_pretrained"):
        _trainer(tmp_path, tiny_model_path, Path(tiny_model_path))

    base = _base(tiny_model_path)
    with pytest.raises(ValueError, match="`ref_model` is made of the modules of `model`"):
        _trainer(tmp_path, get_peft_model(base, _lora()), base)

    with pytest.raises(ValueError, match=r"`ref_model` with PROMPT_TUNING cannot be used"):
        _trainer(tmp_path, tiny_model_path, _prompt(tiny_model_path))

    merged = get_peft_model(base, _lora(init_lora_weights=False))
    merged.merge_adapter()
    with pytest.raises(ValueError, match=r"merged into its weights, .*unmerge_adapter"):
        _trainer(tmp_path, merged)


def test_a_peft_model_can_be_the_reference(tmp_path: Path, tiny_model_path: str) -> None:
    reference = get_peft_model(_base(tiny_model_path), _lora(init_lora_weights=False))
    folder = tmp_path / "sft"
    reference.save_pretrained(folder)
    model = PeftModel.from_pretrained(_base(tiny_model_path), folder, is_trainable=True)
    trainer = _trainer(tmp_path, model, reference)
    assert trainer.evaluate()["eval_loss/role/non_privileged"] == pytest.approx(LOG_2, abs=1e-6)


# ---- randomness that the reference would not share ----


def _llama(**options: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**make_model().config.to_dict(), "dtype": "float32", **options}))


def _opt() -> Any:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=64,
        hidden_size=16,
        ffn_dim=32,
        word_embed_proj_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        dropout=0.3,
        attention_dropout=0.3,
        layerdrop=0.5,
    )
    return OPTForCausalLM(config)


def _gpt_neo() -> Any:
    """Reads the probability from its configuration at each call."""
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=64,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        attention_dropout=0.5,
        resid_dropout=0.5,
    )
    return GPTNeoForCausalLM(config)


@pytest.mark.parametrize("make", [lambda: _llama(attention_dropout=0.5), _opt, _gpt_neo], ids=["llama", "opt", "neo"])
def test_disable_dropout_reaches_every_kind_of_dropout(tmp_path: Path, make: Callable[[], Any]) -> None:
    inputs = torch.tensor([[5, 6, 7, 8, 9, 10]])
    loud = make().train()
    with torch.no_grad():
        assert not loud(inputs).logits.equal(loud(inputs).logits)
    # One pass, laid out as the reference's: two round differently, by more than this epsilon.
    trainer = _trainer(tmp_path, make(), learning_rate=0.0, epsilon=1e-6, skip_idle_pairs=False)
    trainer.train()
    assert trainer._start_check.start.difference < 1e-6
    steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert all(
        entry["inside_hinge/role/non_privileged"] == 1
        for entry in steps
        if "inside_hinge/role/non_privileged" in entry
    )


def test_probabilities_by_adapter_and_router_noise_are_switched_off() -> None:
    layer = torch.nn.Module()
    layer.module_dropout = {"default": 0.5}
    layer.jitter_noise, layer.router_jitter_noise, layer.drop_path_rate, layer.num_drops = 0.1, 0.2, 0.3, 3
    layer.drop = torch.nn.Dropout2d(0.4)
    silence(layer)
    assert layer.module_dropout == {"default": 0.0}
    assert (layer.jitter_noise, layer.drop_path_rate, layer.drop.p) == (0.0, 0.0, 0.0)
    assert (layer.router_jitter_noise, layer.num_drops) == (0.2, 3)  # thresholds and counts are no noise


@pytest.mark.parametrize("ref", [None, "its own"])
def test_noise_that_cannot_be_switched_off_is_refused_before_the_first_step(
    tmp_path: Path, tiny_model_path: str, ref: str | None
) -> None:
    model = _base(tiny_model_path)
    model.get_input_embeddings().register_forward_hook(
        lambda module, _, out: out + torch.rand_like(out) if module.training else out
    )
    trainer = _trainer(tmp_path, model, ref and _base(tiny_model_path))
    assert trainer.evaluate()["eval_loss/role/non_privileged"] == pytest.approx(LOG_2, abs=1e-6)
    with pytest.raises(ValueError, match=r"is random although `disable_dropout=True`.*disable_dropout=False"):
        trainer.train()


def test_neftune_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`neftune_noise_alpha=5` does not work with FairPO"):
        fairpo(tmp_path, neftune_noise_alpha=5)


def test_with_dropout_on_the_start_may_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _trainer(tmp_path, _llama(attention_dropout=0.5), disable_dropout=False)
    trainer.train()
    assert "dropout is on (`disable_dropout=False`)" in capsys.readouterr().out
