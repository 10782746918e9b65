"""Every option is honoured or refused with a reason, and means what its documentation says."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
import torch
from conftest import make_model, make_rows
from datasets import Dataset, IterableDataset
from helpers_trainer import NAMES, assert_same, data, fairpo, logs, lora, parameters
from transformers import TrainingArguments
from trl import DPOConfig

from fairpo_trl.generation import FairPOConfig
from fairpo_trl.generation.config import _REFUSED
from fairpo_trl.generation.run import slow_on_a_cpu
from fairpo_trl.training.arguments import GroupWeightArguments
from fairpo_trl.training.sampler import GroupBalancedSampler


# ---- every option of DPOConfig has a place ----

EXERCISED = {
    "learning_rate": 0.01,
    "model_init_kwargs": None,  # test_trainer_invariants: the reference "loaded again"
    "trust_remote_code": False,  # loading by name only; nothing of ours reads it
    "router_aux_loss_coef": None,  # test_mixture_of_experts
    "disable_dropout": True,
    "dataset_num_proc": None,
    "max_length": 16,
    "truncation_mode": "keep_end",
    "pad_to_multiple_of": 8,
    "precompute_ref_log_probs": True,
    "precompute_ref_batch_size": 3,
    "ld_alpha": 0.5,
    "beta": 0.3,
    "activation_offloading": False,  # test_activation_offloading
    "pad_token": "<eos>",
}


def test_every_option_of_dpo_is_exercised_or_refused():
    own = {f.name for f in dataclasses.fields(DPOConfig)} - {f.name for f in dataclasses.fields(TrainingArguments)}
    own |= {"learning_rate"}  # DPOConfig gives it another default
    refused = set(_REFUSED) & own
    assert own == set(EXERCISED) | refused, "TRL added or removed options: exercise or refuse them"
    assert not set(EXERCISED) & refused


@pytest.mark.parametrize(
    "option",
    [name for name, value in EXERCISED.items() if value not in (None, False, True)] + ["precompute_ref_log_probs"],
)
def test_option_runs(option, tmp_path):
    trainer = fairpo(tmp_path, data(8), **{option: EXERCISED[option]})
    trainer.train()
    assert trainer.state.global_step == 2 and logs(trainer)[0]["loss"] > 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("loss_type", ["ipo"]),
        ("loss_weights", [1.0]),
        ("f_divergence_type", "js_divergence"),
        ("f_alpha_divergence_coef", 0.3),
        ("label_smoothing", 0.1),
        ("discopop_tau", 0.1),
        ("use_weighting", True),
        ("sync_ref_model", True),
        ("ref_model_mixup_alpha", 0.5),
        ("ref_model_sync_steps", 3),
        ("padding_free", True),
        ("label_smoothing_factor", 0.1),
        ("auto_find_batch_size", True),
        ("neftune_noise_alpha", 5.0),
    ],
)
def test_refused_options_say_why(option, value):
    with pytest.raises(ValueError, match=rf"`{option}=.*does not work with FairPO: .{{20,}}Leave it at"):
        FairPOConfig(output_dir="x", bf16=False, privileged_attributes=["a"], **{option: value})


def test_refused_list_is_tested_whole():
    marks = next(m for m in test_refused_options_say_why.pytestmark if m.name == "parametrize")
    assert {option for option, _ in marks.args[1]} == set(_REFUSED)


# ---- documentation ----


def test_a_cpu_is_told_what_is_meant_for_a_gpu(tmp_path):
    config = FairPOConfig(output_dir=str(tmp_path), privileged_attributes=["a"], use_cpu=True)
    assert "`--bf16 false --gradient_checkpointing false --dtype float32`" in slow_on_a_cpu(config, "cpu")
    assert slow_on_a_cpu(config, "cuda") == ""
    config.bf16 = config.gradient_checkpointing = False
    assert slow_on_a_cpu(config, "cpu") == ""


def test_every_field_is_documented_twice_with_its_default():
    own = {
        f.name: f
        for f in dataclasses.fields(FairPOConfig)
        if f.name not in {g.name for g in dataclasses.fields(DPOConfig)}
    }
    form = re.compile(r"^ {4}(\w+) \(`(.+?)`, \*optional\*(?:, defaults to `(.+?)`)?\):$", re.M)
    documented = (GroupWeightArguments, FairPOConfig)
    annotations = GroupWeightArguments.__annotations__ | FairPOConfig.__annotations__
    entries = [entry for config in documented for entry in form.findall(inspect.getdoc(config))]
    assert [name for name, _, _ in entries] == list(own)
    for name, kind, default in entries:
        field = own[name]
        assert field.metadata["help"], name
        assert repr(field.default).replace("'", '"') == (default or "None").replace("'", '"'), name
        written = annotations[field.name]  # as in the source: argument parsers rewrite `field.type`
        assert kind.split("[")[0] in written or (written.startswith("Literal") and kind == "str"), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privileged_attributes": "concise"}, r"pass \['concise'\]"),
        ({"non_privileged_attributes": "polite"}, r"pass \['polite'\]"),
        ({"privileged_attributes": ["a", "b"], "non_privileged_attributes": ["b"]}, r"at once: \['b'\]"),
        ({"beta": 0.0}, "`beta` must be positive"),
        ({"privileged_loss": "simpo", "simpo_beta": -1.0}, "`simpo_beta` must be positive"),
        ({"epsilon": -0.1}, "`epsilon` must be >= 0"),
        ({"timing": "current", "gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2"),
        ({"balancer": "lagrangian", "hinge": False}, "`hinge=False` takes away"),
        ({"hinge_level": "attribute", "hinge": False}, "needs the hinge"),
        ({"balancer": "lagrangian", "hinge_level": "attribute"}, "`hinge_level='attribute'` would be ignored"),
        ({"balancer": "fixed", "scaling": "relative"}, "never moves the weights"),
        ({"balancer": "fixed", "floor": 0.1}, "never moves the weights"),
        ({"simpo_gamma": 1.0}, r"would be ignored: \['simpo_gamma'\]"),
        ({"cpo_lambda": 0.1}, r"would be ignored: \['cpo_lambda'\]"),
        ({"multiplier_start": 0.1, "lagrangian_term": "hinge"}, r"ignored: \['lagrangian_term', 'multiplier_start'\]"),
        ({"scaling": "fixed", "privileged_loss": "cpo"}, "log 2 for dpo"),
        ({"privileged_loss": "ipo", "bonbon_alpha": 1.5}, "`bonbon_alpha` is a share"),
        ({"privileged_loss": "dpo", "dpop_lambda": 5.0}, r"would be ignored: \['dpop_lambda'\]"),
        ({"scaling": "fixed", "epsilon": 0.0}, "epsilon=0"),
        ({"train_sampling_strategy": "batch_rebalance"}, "uneven batches"),
        ({"balanced_sampling": "role", "train_sampling_strategy": "group_by_length"}, "set one of the two"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        FairPOConfig(output_dir="x", bf16=False, **{"privileged_attributes": ["a"], **options})


@pytest.mark.parametrize(
    "options", [{"floor": 0.5}, {"group_prior": {"privilegd": 1.0}}, {"balancer": "lagrangian", "scaling": "relative"}]
)
def test_weight_options_are_checked_before_a_model_is_loaded(options, tmp_path):
    with pytest.raises(ValueError, match="floor|did you mean 'privileged'|follows its level"):
        fairpo(tmp_path, model="no/such-model", **options)


# ---- losses and weights do what they say ----


@pytest.mark.parametrize("loss", ["simpo", "cpo", "sft"])
def test_reference_free_privileged_losses_ignore_the_reference(loss, tmp_path):
    # Privileged pairs only: another reference changes nothing. With DPO it does.
    def run(kind, seed):
        trainer = fairpo(
            tmp_path, data(8), ref=make_model(seed), privileged_attributes=list(NAMES), privileged_loss=kind
        )
        trainer.train()
        return parameters(trainer)

    assert_same(run(loss, 0), run(loss, 3), 0.0)
    with pytest.raises(AssertionError, match="differs"):
        assert_same(run("dpo", 0), run("dpo", 3), 1e-4)


def test_chosen_texts_that_get_less_likely_are_said_once_with_what_to_do(tmp_path, caplog):
    # The model is far from its reference from the start, and its chosen texts have lost more than a nat.
    def fall(**options):
        caplog.clear()
        trainer = fairpo(
            tmp_path, data(12), learning_rate=1e-9, privileged_attributes=["polite", "factual"], num_train_epochs=2,
            **options,
        )  # fmt: skip
        trainer.train()
        changes = [entry["chosen_change/role/privileged"] for entry in logs(trainer)]
        return changes, [record.message for record in caplog.records if "less likely" in record.message]

    changes, said = fall()
    below = [change for change in changes if change < -1]
    assert len(changes) == 6 and len(below) == 2 and len(said) == 1
    assert f"{-below[0]:.1f} nats" in said[0] and "privileged_loss='cpo'" in said[0]
    changes, said = fall(model=make_model())
    assert max(map(abs, changes)) < 1e-3 and said == []


def test_sft_raises_the_likelihood_of_chosen_and_no_hinge_trains_all_pairs(tmp_path):
    trainer = fairpo(tmp_path, data(24), privileged_loss="sft", privileged_attributes=list(NAMES), num_train_epochs=4)
    trainer.train()
    assert logs(trainer)[-1]["logps/chosen"] > logs(trainer)[0]["logps/chosen"] + 1
    # At the reference the hinge has no gradient, plain DPO has.
    held = data(12).filter(lambda row: row["attribute"] != "concise")
    moved = []
    for hinge in (True, False):
        one = fairpo(
            tmp_path,
            held,
            model=make_model(),
            hinge=hinge,
            privileged_attributes=["polite"],
            balancer="fixed",
            group_prior={"privileged": 1e-9, "non_privileged": 1.0},
            max_steps=1,
        )
        before = parameters(one)
        one.train()
        moved.append(max(float((before[n] - p).abs().max()) for n, p in parameters(one).items()))
    assert moved[0] < 1e-8 and moved[1] > 1e-4


def test_epsilon_widens_the_hinge(tmp_path):
    shares = []
    for epsilon in (0.0, 0.2, 5.0):
        trainer = fairpo(tmp_path, epsilon=epsilon, eval_dataset=data(12, seed=3))
        shares.append(trainer.evaluate()["eval_inside_hinge/role/non_privileged"])
    assert shares == sorted(shares) and shares[0] < shares[2] == 1.0


def test_lagrangian_multipliers_rise_while_broken_and_fall_while_kept(tmp_path):
    common = {"balancer": "lagrangian", "grouping": "attribute", "eta_alpha": 0.5, "learning_rate": 0.0}
    kept = fairpo(tmp_path, model=make_model(), **common)  # at the reference: excess -epsilon
    kept.train()
    weights = logs(kept)[-1]
    # 6 steps of 0.5 * -0.05, each estimate being -0.05: 1 - 0.15
    assert weights["weight/polite"] == pytest.approx(0.85, abs=0.026) and weights["weight/concise"] == 1.0
    broken = fairpo(tmp_path, ref=make_model(), epsilon=0.0, lagrangian_term="hinge", **common)
    broken.train()
    path = [entry["weight/polite"] for entry in logs(broken)]
    assert path == sorted(path) and path[-1] > 1.05


def test_warns_once_when_a_weight_collapses(tmp_path, caplog):
    trainer = fairpo(tmp_path, model=make_model(), eta_alpha=15.0, learning_rate=0.0)
    with caplog.at_level("WARNING"):
        trainer.train()
    assert len([r for r in caplog.records if "The weight of group 'non_privileged' has come down" in r.message]) == 1


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_rows(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    message = (
        r"Optimizer step 1: the log-probability or loss of row 0 \(attribute 'concise', prompt '.*look at the model"
    )
    with pytest.raises(FloatingPointError, match=message):
        fairpo(tmp_path, model=model).train()


def test_model_without_trainable_parameters_is_refused(tmp_path):
    model = make_model()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        fairpo(tmp_path, model=model)


# ---- sampling ----


def test_balanced_sampling_balances_and_is_deterministic():
    membership = torch.zeros(40, 3, dtype=torch.bool)
    membership[:34, 0] = membership[34:38, 1] = membership[38:, 2] = True
    sampler = GroupBalancedSampler(membership, seed=1)
    first = list(sampler)
    assert len(first) == len(sampler) == 40 and first == list(GroupBalancedSampler(membership, seed=1))
    counts = membership[first].sum(dim=0).tolist()
    assert max(counts) - min(counts) <= 1
    # Shuffled passes: a small group's rows come equally often, a large one's rows at most once.
    uses = torch.bincount(torch.tensor(first), minlength=40)
    assert uses[:34].max() == 1 and uses[34:38].max() - uses[34:38].min() <= 1
    sampler.set_epoch(1)
    assert list(sampler) != first and list(GroupBalancedSampler(membership, seed=2)) != first


def test_trainer_draws_balanced_and_anew_each_epoch(tmp_path):
    rows = data(24, attributes=("concise", *["polite"] * 5))
    trainer = fairpo(
        tmp_path, rows, balanced_sampling="attribute", train_sampling_strategy="random", num_train_epochs=2
    )
    seen = []
    get_batch_samples = trainer.get_batch_samples

    def spy(*args):
        batches, items = get_batch_samples(*args)
        seen.extend(
            (b["attribute_mask"][i].tolist(), b["input_ids"][i].tolist())
            for b in batches
            for i in range(len(b["attribute_mask"]))
        )
        return batches, items

    trainer.get_batch_samples = spy
    trainer.train()
    assert sum(mask[trainer.partition.names.index("concise")] for mask, _ in seen) == 24  # half of 48
    assert [ids for _, ids in seen[:24]] != [ids for _, ids in seen[24:]]


# ---- data in other forms ----


def stream(rows: list[dict]) -> IterableDataset:
    return Dataset.from_list(rows).to_iterable_dataset()


def test_streaming(tmp_path):
    options = {"max_steps": 5, "non_privileged_attributes": ["polite", "factual"]}
    streamed = fairpo(tmp_path, stream(make_rows(24)), **options)
    streamed.train()
    whole = fairpo(
        tmp_path,
        Dataset.from_list(make_rows(24)),
        partition=streamed.partition,
        privileged_attributes=None,
        max_steps=5,
    )
    whole.train()
    assert_same(parameters(streamed), parameters(whole), 1e-9)
    with pytest.raises(ValueError, match="cannot be scanned.*non_privileged_attributes"):
        fairpo(tmp_path, stream(make_rows(24)), max_steps=5)
    with pytest.raises(ValueError, match="needs a dataset of known length"):
        fairpo(tmp_path, stream(make_rows(24)), balanced_sampling="role", train_sampling_strategy="random", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"attribute": "funny"}, "attribute in column 'attribute': 'funny'"), ({"attribute": ""}, "non-empty string")],
)
def test_bad_rows_late_in_a_stream_raise(change, message, tmp_path):
    rows = make_rows(80)
    rows[70] |= change
    trainer = fairpo(tmp_path, stream(rows), max_steps=30, non_privileged_attributes=["polite", "factual"])
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_conversational_format_and_another_column(tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "aspect": row["attribute"],
        }
        for row in make_rows(12)
    ]
    trainer = fairpo(
        tmp_path, Dataset.from_list(rows), attribute_column="aspect", eval_dataset=Dataset.from_list(rows[:5])
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy/worst_attribute"] >= 0


def test_several_evaluation_sets_have_metrics_of_their_own(tmp_path):
    trainer = fairpo(tmp_path, eval_dataset={"near": data(6, seed=3), "far": data(9, seed=4)})
    metrics = trainer.evaluate()
    alone = fairpo(tmp_path, eval_dataset=data(9, seed=4)).evaluate()
    assert metrics["eval_far_loss"] == pytest.approx(alone["eval_loss"], abs=1e-9)
    assert metrics["eval_far_margin/worst_attribute"] == pytest.approx(alone["eval_margin/worst_attribute"], abs=1e-9)
    assert "eval_near_accuracy/role/privileged" in metrics


# ---- backends ----


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"dataloader_num_workers": 1},
        {"gradient_checkpointing": True, "peft_config": lora()},
    ],
)
def test_same_numbers_with(options, tmp_path):
    base = {"peft_config": lora()} if "peft_config" in options else {}
    plain, other = fairpo(tmp_path, data(12), **base), fairpo(tmp_path, data(12), **options)
    plain.train()
    other.train()
    assert_same(parameters(plain), parameters(other), 1e-9)


def test_bf16_autocast_sums_in_float32(tmp_path):
    from fairpo_trl.generation import trainer as module

    seen = []
    original = module.pair_losses

    def spy(policy, ref_chosen, ref_rejected, args):
        pairs = original(policy, ref_chosen, ref_rejected, args)
        seen.extend(x.dtype for x in (*policy, ref_chosen, *pairs))
        return pairs

    module.pair_losses = spy
    try:
        trainer = fairpo(
            tmp_path, data(12), model=make_model(dtype=torch.float32), ref=make_model(dtype=torch.float32), bf16=True
        )
        trainer.train()
    finally:
        module.pair_losses = original
    assert set(seen) == {torch.float32}
    assert logs(trainer)[0]["loss/role/privileged"] == pytest.approx(0.6931, abs=1e-3)


def test_best_model_by_the_worst_attribute(tmp_path):
    trainer = fairpo(
        tmp_path,
        data(12),
        eval_dataset=data(12, seed=3),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        metric_for_best_model="eval_margin/worst_attribute",
        greater_is_better=True,
        load_best_model_at_end=True,
        learning_rate=0.5,
    )
    trainer.train()
    values = {e["step"]: e["eval_margin/worst_attribute"] for e in logs(trainer, "eval_loss")}
    assert trainer.state.best_metric == max(values.values())
    assert trainer.evaluate()["eval_margin/worst_attribute"] == pytest.approx(max(values.values()), abs=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="TRL's activation offloading opens a CUDA stream")
def test_activation_offloading(tmp_path):
    trainer = fairpo(tmp_path, data(8), activation_offloading=True, use_cpu=False)
    trainer.train()
    assert trainer.state.global_step == 2


def test_mixture_of_experts_keeps_its_auxiliary_loss(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    def model():
        torch.manual_seed(0)
        config = MixtralConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
            num_experts_per_tok=1,
            pad_token_id=0,
            eos_token_id=1,
        )
        return MixtralForCausalLM(config)

    losses = {}
    for coefficient in (0.0, 1.0):
        trainer = fairpo(tmp_path, data(8), model=model(), ref=model(), router_aux_loss_coef=coefficient, max_steps=1)
        trainer.train()
        losses[coefficient] = logs(trainer)[0]["loss"]
    assert losses[1.0] > losses[0.0] + 0.5  # a balanced router has an auxiliary loss near the number of experts chosen


def test_qlora_on_the_cpu(tmp_path):
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig

    # 4-bit blocks need larger matrices than the tiny model's.
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=quantization, device_map="cpu"
        )
        model(input_ids=torch.ones(1, 4, dtype=torch.long))
    except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
        pytest.skip(f"4-bit layers do not run on this CPU: {error}")
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = fairpo(tmp_path, data(8), model=model, ref=None, peft_config=adapter)
    before = parameters(trainer)
    trainer.train()
    assert before and all("lora_" in name for name in before)
    assert logs(trainer)[0]["loss/role/privileged"] == pytest.approx(0.6931, abs=1e-4)
    with pytest.raises(AssertionError, match="differs"):
        assert_same(before, parameters(trainer), 0.0)
