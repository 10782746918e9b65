"""One test per fact about TRL, transformers, accelerate and PEFT that FairPOTrainer builds on.

When one fails after an upgrade, its comment says what of ours breaks. They run against DPOTrainer, without our code.
"""

from __future__ import annotations

import inspect
import re

import pytest
import torch
import transformers
import trl
from accelerate import Accelerator
from conftest import make_model, make_rows
from datasets import Dataset
from helpers_trainer import data, dpo, logs, lora
from transformers import LlamaForCausalLM, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model, use_adapter


ROW = {"prompt_ids": [5, 6], "chosen_ids": [7, 8, 1], "rejected_ids": [9, 1]}


@pytest.fixture
def pairs() -> Dataset:
    return data(13).remove_columns("attribute")


# ---- batches ----


def test_get_batch_samples_is_called_once_per_optimizer_step_with_the_whole_window(pairs, tmp_path):
    # Breaks: group sizes N_g are counted there, before the window's first backward.
    windows, order = [], []

    class Spy(DPOTrainer):
        def get_batch_samples(self, *args):
            batches, items = super().get_batch_samples(*args)
            windows.append([len(b["input_ids"]) // 2 for b in batches])
            order.append("window")
            return batches, items

        def compute_loss(self, *args, **kwargs):
            order.append("loss")
            return super().compute_loss(*args, **kwargs)

    trainer = dpo(tmp_path, pairs, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    trainer.__class__ = Spy
    trainer.train()
    assert windows == [[2, 2, 2, 2], [2, 2, 1]]
    assert order == ["window", *["loss"] * 4, "window", *["loss"] * 3]


@pytest.mark.parametrize(("scaled", "factor"), [(True, 2.0), (False, 1.0)])
def test_loss_is_scaled_for_ga_stops_the_division(scaled, factor, tmp_path, monkeypatch):
    # Breaks: our loss is a share of the whole step; divided again, gradients shrink by the accumulation.
    monkeypatch.setattr(DPOTrainer, "loss_is_scaled_for_ga", scaled)
    monkeypatch.setattr(
        DPOTrainer, "compute_loss", lambda self, model, inputs, *a, **k: next(model.parameters()).sum() * 0 + 1.0
    )
    trainer = dpo(tmp_path, data(8).remove_columns("attribute"), gradient_accumulation_steps=2)
    trainer.train()
    assert logs(trainer)[0]["loss"] == pytest.approx(factor)


def test_collator_drops_unknown_columns():
    # Breaks (harmlessly): AttributeCollator would be needless.
    batch = DataCollatorForPreference(pad_token_id=0)([{**ROW, "attribute": "concise"}])
    assert set(batch) == {"input_ids", "attention_mask", "completion_mask"}


def test_batch_is_all_chosen_then_all_rejected():
    # Breaks: `chunk(2)` in pair_log_probs and PairMetricSums would pair the wrong rows.
    batch = DataCollatorForPreference(pad_token_id=0)(
        [ROW, {"prompt_ids": [5], "chosen_ids": [8], "rejected_ids": [9]}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 1], [5, 8, 0, 0, 0], [5, 6, 9, 1, 0], [5, 9, 0, 0, 0]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]


def test_signature_columns(pairs, tmp_path):
    # Breaks: we append the attribute column to this list, or `remove_unused_columns` would drop it.
    trainer = dpo(tmp_path, pairs)
    trainer._set_signature_columns_if_needed()
    assert trainer._signature_columns == [
        "prompt_ids",
        "chosen_ids",
        "rejected_ids",
        "ref_chosen_logps",
        "ref_rejected_logps",
    ]


def test_rows_whose_prompt_fills_max_length_vanish_in_silence(tmp_path):
    # Breaks: we tokenise with max_length=None and name the rows instead (`_prepare_dataset`, `check_tokens`).
    rows = make_rows(6)
    rows[2]["prompt"] = "the cat " * 10
    trainer = dpo(tmp_path, Dataset.from_list(rows).remove_columns("attribute"), max_length=20)
    assert len(trainer.train_dataset) == 5
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(trainer.train_dataset.column_names)


def test_prepare_dataset_keeps_further_columns(tmp_path):
    # Breaks: the attribute column must survive tokenisation and precomputing.
    trainer = dpo(tmp_path, data(6), precompute_ref_log_probs=True)
    assert {"attribute", "ref_chosen_logps"} <= set(trainer.train_dataset.column_names)


# ---- the fused head ----


def fused(outputs: tuple[str, ...] = ("log_probs", "entropy", "mean_logits", "is_top1")):
    model = make_model(dtype=torch.float32)
    add_fused_lm_head(model, outputs=outputs)
    labels = torch.tensor([[-100, -100, 7, 8], [-100, 9, 1, -100]])
    ids = torch.tensor([[5, 6, 7, 8], [5, 9, 1, 0]])
    return model, ids, labels, model(input_ids=ids, labels=labels, fused_lm_head=True, use_cache=False)


def test_fused_head_returns_shifted_log_probs_and_zeros_outside_the_completion():
    # Breaks: pair_log_probs sums whole rows without a mask.
    model, ids, labels, out = fused()
    assert out.log_probs.shape == (2, 3)
    assert (out.log_probs[labels[:, 1:] == -100] == 0).all()
    want = model(input_ids=ids).logits.log_softmax(-1)[0, 1, 7]
    torch.testing.assert_close(out.log_probs[0, 1], want)


def test_fused_head_gives_the_statistics_that_the_metrics_read():
    # Breaks: entropy, logits/* and mean_token_accuracy in PairMetricSums.
    model, ids, _, out = fused()
    logits = model(input_ids=ids).logits[0, 1]
    torch.testing.assert_close(out.mean_logits[0, 1], logits.mean())
    torch.testing.assert_close(out.entropy[0, 1], torch.distributions.Categorical(logits=logits).entropy())
    assert out.is_top1.dtype == torch.bool


def test_trainer_adds_the_fused_head_with_these_outputs(pairs, tmp_path):
    # Breaks: our compute_loss calls the model with `fused_lm_head=True` and reads these fields.
    trainer = dpo(tmp_path, pairs)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    for model in (trainer.model, trainer.ref_model):
        out = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
        assert out.log_probs.shape == (len(labels), labels.size(1) - 1)
    assert (
        out is not None
        and trainer.model(input_ids=batch["input_ids"], labels=labels, fused_lm_head=True).is_top1 is not None
    )


def test_tests_can_replace_the_fused_head_by_an_exact_one():
    # Breaks: ExactHead in helpers_trainer.py, with which splits are compared in float64.
    import trl.trainer.utils as utils

    names = list(inspect.signature(utils._ChunkedLogProbFunction.forward).parameters)
    assert len(names) == 10, names  # ctx, hidden, weight, bias, labels, temperature, chunk, softcap, scale, outputs


# ---- reference ----


def test_adapter_switched_off_is_the_base(tmp_path):
    # Breaks: the reference of a LoRA run.
    base = make_model()
    ids = torch.tensor([[5, 6, 7]])
    want = base(ids).logits.detach().clone()
    trainer = dpo(tmp_path, data(4).remove_columns("attribute"), model=base, peft_config=lora())
    assert trainer.ref_model is None
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    with torch.no_grad():
        with use_adapter(model, adapter_name=None):
            torch.testing.assert_close(model(ids).logits, want)
        assert (model(ids).logits - want).abs().max() > 1e-6


def test_precompute_calls_the_public_compute_ref_log_probs(pairs, tmp_path, monkeypatch):
    # Breaks: our override would not be used for precomputed references (pairs of both paths must agree).
    calls = []
    original = DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(
        DPOTrainer, "compute_ref_log_probs", lambda self, m, i: calls.append(1) or original(self, m, i)
    )
    dpo(tmp_path, pairs, precompute_ref_log_probs=True, precompute_ref_batch_size=5)
    assert len(calls) == 3
    assert list(inspect.signature(original).parameters) == ["self", "model", "inputs"]


# ---- logs and checkpoints ----


def test_log_changes_the_dict_that_evaluate_returns(pairs, tmp_path):
    # Breaks: eval metrics reach `evaluate()`'s result and metric_for_best_model through `logs.update` in log().
    trainer = dpo(tmp_path, pairs, eval_dataset=pairs.select(range(4)))

    def log(logs, start_time=None):
        logs["eval_extra"] = 7.0

    trainer.log = log
    assert trainer.evaluate()["eval_extra"] == 7.0


@pytest.mark.parametrize("prefix", ["eval", "eval_far"])
def test_evaluation_logs_hold_the_prefix_and_runtime(prefix, pairs, tmp_path):
    # Breaks: log() finds the prefix of the running evaluation by the key `<prefix>_runtime`; training logs have none.
    trainer = dpo(tmp_path, pairs)
    seen = []
    trainer.log = lambda logs, start_time=None: seen.append(set(logs))
    trainer.evaluate(pairs.select(range(4)), metric_key_prefix=prefix)
    assert [k for k in seen[0] if k.endswith("_runtime")] == [f"{prefix}_runtime"]
    trainer.train()
    assert not [k for k in seen[1] if k.endswith("_runtime")] and "train_runtime" in seen[-1]


def test_optimizer_state_hooks_are_called_at_save_and_resume(pairs, tmp_path, monkeypatch):
    # Breaks: fairpo_state.json is written and read in them.
    calls = []
    save, load = DPOTrainer._save_optimizer_and_scheduler, DPOTrainer._load_optimizer_and_scheduler
    monkeypatch.setattr(
        DPOTrainer, "_save_optimizer_and_scheduler", lambda self, d: calls.append(("save", d)) or save(self, d)
    )
    monkeypatch.setattr(
        DPOTrainer, "_load_optimizer_and_scheduler", lambda self, c: calls.append(("load", c)) or load(self, c)
    )
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    dpo(tmp_path, pairs, **options).train()
    folder = str(tmp_path / "checkpoint-2")
    dpo(tmp_path, pairs, **{**options, "max_steps": 3}).train(resume_from_checkpoint=folder)
    assert [c for c in calls if c == ("save", folder)] and ("load", folder) in calls


def test_a_resume_after_the_last_step_would_train_one_more_and_epochs_know_that_it_is_one(pairs, tmp_path):
    # Breaks: `_run_epoch` is where a resumed run finds that nothing is left, by this keyword; `_finalize_training` is
    # where a stop writes its checkpoint. When the first line fails, the override of `_run_epoch` can go.
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    dpo(tmp_path, pairs, **options).train()
    calls = []

    class Spy(DPOTrainer):
        def _run_epoch(self, *args, **kwargs):
            calls.append((args, kwargs["resume_from_checkpoint"]))
            return super()._run_epoch(*args, **kwargs)

        def _finalize_training(self, trial, num_train_samples, start_time):
            calls.append("end")
            return super()._finalize_training(trial, num_train_samples, start_time)

    again = dpo(tmp_path, pairs, **options)
    again.__class__ = Spy
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert again.state.global_step == 2
    assert calls == [((), str(tmp_path / "checkpoint-1")), "end"]


def test_the_optimizers_state_brings_its_settings_along(tmp_path):
    # Breaks: a resumed run says that learning rate and weight decay stay those of the checkpoint.
    parameter = torch.nn.Parameter(torch.zeros(1))
    one, other = (torch.optim.AdamW([parameter], lr=rate, weight_decay=rate) for rate in (0.5, 0.1))
    other.load_state_dict(one.state_dict())
    assert (other.param_groups[0]["lr"], other.param_groups[0]["weight_decay"]) == (0.5, 0.5)


def test_create_model_card_is_the_hook_for_the_card():
    # Breaks: our facts are added after super().create_model_card(model_name, dataset_name, tags).
    assert list(inspect.signature(DPOTrainer.create_model_card).parameters) == [
        "self",
        "model_name",
        "dataset_name",
        "tags",
    ]


# ---- accelerate ----


def test_end_of_dataloader_and_remainder_are_known_with_the_last_batch():
    # Breaks: padded duplicates are told from pairs by them (`padded_duplicates`).
    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(torch.utils.data.DataLoader(torch.arange(7), batch_size=3))
    seen = []
    for _ in loader:
        seen.append((accelerator.gradient_state.end_of_dataloader, accelerator.gradient_state.remainder))
    assert seen == [(False, 1), (False, 1), (True, 1)]
    loader = accelerator.prepare(torch.utils.data.DataLoader(torch.arange(6), batch_size=3))
    assert [accelerator.gradient_state.remainder for _ in loader] == [0, 0]


def test_set_epoch_reaches_a_sampler():
    # Breaks: GroupBalancedSampler would draw the same order every epoch.
    from torch.utils.data import SequentialSampler

    class Sampler(SequentialSampler):
        epoch = -1

        def set_epoch(self, epoch):
            self.epoch = epoch

    sampler = Sampler(range(6))
    loader = Accelerator(cpu=True).prepare(torch.utils.data.DataLoader(torch.arange(6), batch_size=3, sampler=sampler))
    loader.set_epoch(4)
    assert sampler.epoch == 4


# ---- pushes and connections ----


def test_pushes_go_through_the_two_methods_that_ours_replace():
    # Breaks: PublishingTrainer no longer decides what is uploaded.
    assert "self._push_from_checkpoint(output_dir)" in inspect.getsource(transformers.Trainer._save_checkpoint)
    uploads = [
        name
        for name, method in inspect.getmembers(transformers.Trainer, inspect.isfunction)
        # Python 3.14 lists the function of a class's annotations too; its source is the whole class.
        if name != "__annotate_func__" and "upload_f" in inspect.getsource(method)
    ]
    assert sorted(uploads) == ["_push_from_checkpoint", "push_to_hub"]
    asked = ["self", "commit_message", "blocking", "token", "revision", "kwargs"]
    found = list(inspect.signature(transformers.Trainer.push_to_hub).parameters)
    assert [name for name in found if name != "private"] == asked  # `private` is new


# ---- defaults ----


def test_defaults_that_our_documentation_states(tmp_path):
    # Breaks: recipes for the CPU turn these off explicitly.
    fields = DPOConfig.__dataclass_fields__
    assert fields["gradient_checkpointing"].default is True
    assert fields["bf16"].default is None and fields["beta"].default == 0.1
    assert fields["loss_type"].default_factory() == ["sigmoid"] and fields["label_smoothing"].default == 0.0
    assert fields["disable_dropout"].default is True and fields["max_length"].default == 1024


def test_dict_fields_can_be_extended():
    # Breaks: `group_prior` as JSON on the command line.
    assert isinstance(DPOConfig._VALID_DICT_FIELDS, list) and "model_init_kwargs" in DPOConfig._VALID_DICT_FIELDS


def test_versions():
    # The range the facts above were read in.
    assert trl.__version__.startswith("1.16.") and int(transformers.__version__.split(".")[0]) == 5


# ---- the reference, dropout, evaluations ----


def test_a_reference_that_is_left_out_is_loaded_by_name(tmp_path, tiny_model_path):
    # Breaks: `choose_reference` copies the model that was passed instead.
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    with torch.no_grad():
        model.lm_head.weight += 1
    trainer = dpo(tmp_path, data(6), model, ref=None)
    assert not trainer.ref_model.lm_head.weight.equal(model.lm_head.weight)


def test_disable_dropout_reaches_modules_only():
    # Breaks: `reference.silence` switches off what is called as a function.
    model = make_model()
    model.model.layers[0].self_attn.attention_dropout = 0.5
    disable_dropout_in_model(model)
    assert model.model.layers[0].self_attn.attention_dropout == 0.5


def test_an_evaluation_logs_the_very_metrics_of_its_loop():
    # Breaks: `GroupRobustTrainer.log` tells an evaluation's log from training's by this object.
    source = inspect.getsource(Trainer.evaluate)
    assert source.index("output = self.evaluation_loop(") < source.index("self.log(output.metrics)")


def test_transformers_looks_at_the_end_of_a_metrics_name(tmp_path):
    # Breaks: `settle_best_metric` sets the direction for our names.
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="eval_loss/role/privileged")
    assert args.greater_is_better is True


def test_preparing_a_dataset_needs_nothing_of_the_trainer_but_its_tokenizer():
    # Breaks: `tokenise_pairs` calls it without a trainer.
    source = inspect.getsource(DPOTrainer._prepare_dataset)
    assert set(re.findall(r"self\.(\w+)", source)) == {"_tokenizer"}
    assert set(re.findall(r"args\.(\w+)", source)) == {"dataset_num_proc", "max_length", "truncation_mode"}


# ---- the packed layout and the reference cache ----


def test_the_fused_head_scores_what_the_backbone_returns_at_the_places_of_shift_labels():
    # Breaks: packed_forward selects positions in a hook of `base_model`; the head would score others, or all.
    model = make_model(dtype=torch.float32)
    add_fused_lm_head(model)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    whole = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs  # [1, 4]
    seen = []

    def select(module, args, output):
        seen.append(output.last_hidden_state.shape)
        output.last_hidden_state = output.last_hidden_state[:, [2, 0]]
        return output

    model.base_model.register_forward_hook(select)
    some = model(input_ids=ids, shift_labels=ids[:, [3, 1]], fused_lm_head=True).log_probs
    assert seen == [(1, 5, 16)]
    torch.testing.assert_close(some, whole[:, [2, 0]])


def test_a_mask_of_four_dimensions_is_taken_as_it_is():
    # Breaks: packed_forward says with it which token sees which.
    model = make_model()
    ids = torch.tensor([[5, 6, 7]])
    allowed = torch.eye(3, dtype=torch.bool)[None, None]  # nobody sees anybody else
    alone = model(input_ids=ids, attention_mask=allowed, position_ids=torch.zeros_like(ids)).logits
    expected = model(input_ids=torch.tensor([[6]])).logits
    torch.testing.assert_close(alone[:, 1], expected[:, 0])


def test_precomputing_goes_through_the_hook_that_the_cache_replaces(pairs, tmp_path, monkeypatch):
    # Breaks: CachedReference._precompute_ref_logps would not be called, and TRL's own cache misses max_length.
    calls = []

    def hook(self, dataset, name, batch_size):
        calls.append((name, len(dataset), batch_size, len(self._precompute_model_hash), self._precompute_engine))
        return dataset

    monkeypatch.setattr(DPOTrainer, "_precompute_ref_logps", hook)
    dpo(tmp_path, pairs, precompute_ref_log_probs=True, precompute_ref_batch_size=5, eval_dataset=pairs.select([0]))
    assert calls == [("train", 13, 5, 64, None), ("eval", 1, 5, 64, None)]
