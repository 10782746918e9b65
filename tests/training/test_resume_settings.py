"""A run goes on under the settings of its checkpoint: what changes its meaning is refused, the rest is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_model
from helpers_classification import classifier, multilabel
from helpers_classification import parameters as label_parameters
from helpers_trainer import assert_same, data, fairpo, lora, parameters
from peft import LoraConfig

from fairpo_trl.training.checkpoints import mark_complete, newest_complete
from fairpo_trl.training.run_folder import current_run
from fairpo_trl.training.settings import RunSettings, compare_settings


pytestmark = pytest.mark.xdist_group("resume_settings")  # its fixtures are costly: once for the file

RUN = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "train_sampling_strategy": "random",
    "save_strategy": "steps",
    "save_steps": 2,
    "num_train_epochs": 1,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fairpo(folder, data(16), **{**RUN, "max_steps": 2}).train()
    return folder / "checkpoint-2"


CHANGES = {
    "seed": ({"seed": 7}, "seed 42 -> 7"),
    "data seed": ({"data_seed": 7}, "data_seed None -> 7"),
    "order": ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy 'random' -> 'sequential'"),
    "balanced": ({"balanced_sampling": "role"}, "balanced_sampling 'none' -> 'role'"),
    "batch": ({"per_device_train_batch_size": 2}, r"examples in one optimizer step 4 -> 2 \(per_device_train_batch"),
    "accumulation": ({"gradient_accumulation_steps": 2}, "examples in one optimizer step 4 -> 8"),
    "reference": ({"ref": lambda: make_model(seed=99)}, r"reference '\w{12}' -> '\w{12}' \(hash of its weights\)"),
    "loss": ({"privileged_loss": "simpo"}, "privileged_loss 'dpo' -> 'simpo'"),
    "several": ({"beta": 5.0, "epsilon": 0.2}, "beta 0.5 -> 5.0; epsilon 0.05 -> 0.2"),
    "hinge": ({"hinge": False}, "hinge True -> False"),
    "eta": ({"eta_alpha": 5.0}, "eta_alpha 0.05 -> 5.0"),
    "prior": ({"group_prior": {"privileged": 0.9, "non_privileged": 0.1}}, "group_prior None -> "),
    "length": ({"max_length": 16}, "max_length 1024 -> 16"),
    "optimizer": ({"optim": "sgd"}, "optim 'adamw_torch' -> 'sgd'"),
    "adapter": ({"peft_config": lora()}, "adapter None -> "),
    "sampler": (
        {"accelerator_config": {"use_seedable_sampler": False}},
        r"accelerator_config None -> \{'split_batches': False, 'use_seedable_sampler': False",
    ),
}


def made(options: dict) -> dict:
    return {name: value() if callable(value) else value for name, value in options.items()}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_meaning_is_refused_before_anything_is_loaded(change, checkpoint, tmp_path):
    options, message = CHANGES[change]
    trainer = fairpo(tmp_path, data(16), **{**RUN, **made(options)})
    before = parameters(trainer)
    with pytest.raises(
        ValueError, match=rf"checkpoint-2 was written under other settings.*{message}.*Resume with the settings"
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert_same(before, parameters(trainer), 0.0)


def test_other_settings_are_said_in_one_line_and_an_equal_batch_split_otherwise_goes_on(checkpoint, tmp_path, capsys):
    options = {"learning_rate": 0.5, "lr_scheduler_type": "linear", "max_steps": 3, "logging_steps": 5}
    options |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = fairpo(tmp_path, data(16), **{**RUN, **options})
    trainer.train(resume_from_checkpoint=str(checkpoint))
    line = (
        "checkpoint-2 was written with other settings, which may change: learning_rate 0.001 -> 0.5 (the optimizer "
        "keeps the checkpoint's), lr_scheduler_type 'constant' -> 'linear', max_steps 2 -> 3."
    )
    assert line in capsys.readouterr().out
    assert trainer.optimizer.param_groups[0]["initial_lr"] == 0.001  # as the line says
    assert trainer.state.global_step == 3


def test_data_that_would_begin_anew_is_refused(checkpoint, tmp_path):
    trainer = fairpo(tmp_path, data(16), **{**RUN, "ignore_data_skip": True})
    with pytest.raises(ValueError, match="`ignore_data_skip=True` would begin the data anew at checkpoint-2"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_another_adapter_is_refused(tmp_path):
    fairpo(tmp_path, data(16), **{**RUN, "max_steps": 2, "peft_config": lora()}).train()
    # Of the same shape: loading it would change its scale in silence.
    other = LoraConfig(
        r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    with pytest.raises(ValueError, match="other settings.*adapter .*'lora_alpha': 8.* -> .*'lora_alpha': 32"):
        fairpo(tmp_path, data(16), **{**RUN, "peft_config": other}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3}, "seed 42 -> 3"),
        ({"beta": 3.0}, "beta .* -> 3.0"),
        ({"epsilon": 0.5}, "epsilon .* -> 0.5"),
        ({"per_device_train_batch_size": 4}, "examples in one optimizer step 8 -> 4"),
        ({"ref_model": lambda: classifier(seed=5)}, r"reference '\w{12}' -> '\w{12}'"),
        ({"model": lambda: classifier(seed=1, head="shared_mlp")}, "trained parameters '2 of 36 values' -> "),
    ],
)
def test_a_classifier_refuses_other_settings_too(options, message, tmp_path):
    multilabel(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    trainer = multilabel(tmp_path, **made(options))
    before = label_parameters(trainer)
    with pytest.raises(ValueError, match=f"checkpoint-2 was written under other settings.*{message}"):
        trainer.train(resume_from_checkpoint=True)
    assert_same(before, label_parameters(trainer), 0.0)


@pytest.mark.parametrize(
    ("engine", "processes", "message"),
    [
        (
            "DeepSpeed ZeRO-2",
            1,
            r"engine 'DeepSpeed ZeRO-2' -> 'one process or DDP' \(the optimizer's state has another",
        ),
        ("FSDP2 FULL_STATE_DICT", 2, "engine 'FSDP2 FULL_STATE_DICT' -> 'one process or DDP'"),
    ],
)
def test_a_checkpoint_of_another_engine_is_refused(engine, processes, message, checkpoint, tmp_path):
    state = json.loads((checkpoint / "fairpo_state.json").read_text())
    state["settings"]["meaning"]["engine"] = engine
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "fairpo_state.json").write_text(json.dumps({**state, "processes": processes}))
    (folder / "trainer_state.json").write_text("{}")
    mark_complete(folder)
    with pytest.raises(ValueError, match=message):
        fairpo(tmp_path, data(16), **RUN).train(resume_from_checkpoint=str(folder))


@pytest.mark.parametrize(("then", "now"), [(4, 1), (2, 1)])
def test_zero_is_not_resumed_by_another_number_of_processes(then, now, checkpoint, tmp_path, monkeypatch, capsys):
    state = json.loads((checkpoint / "fairpo_state.json").read_text())
    state["settings"]["meaning"]["engine"] = "DeepSpeed ZeRO-2"
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "fairpo_state.json").write_text(json.dumps({**state, "processes": then}))
    (folder / "trainer_state.json").write_text("{}")
    mark_complete(folder)
    monkeypatch.setattr("fairpo_trl.training.safe_checkpoints.engine_of", lambda accelerator: "DeepSpeed ZeRO-2")
    with pytest.raises(
        ValueError,
        match=rf"checkpoint-2 was written by {then} process\(es\) under DeepSpeed ZeRO-2, now there is {now}: "
        rf"DeepSpeed keeps the optimizer's state in one part for each. Resume with {then}, or start anew",
    ):
        fairpo(tmp_path, data(16), **RUN).train(resume_from_checkpoint=str(folder))
    assert "carry over" not in capsys.readouterr().out


def test_a_checkpoint_that_keeps_the_model_alone_says_so_and_nothing_is_trained_over_it(tmp_path, capsys):
    options = {**RUN, "save_only_model": True, "max_steps": 2}
    fairpo(tmp_path, data(16), **options).train()
    for resume in (True, str(tmp_path / "checkpoint-2")):
        with pytest.raises(
            FileNotFoundError,
            match="checkpoint-2 has no fairpo_state.json: `save_only_model=True` kept its model alone",
        ):
            fairpo(tmp_path, data(16), **options).train(resume_from_checkpoint=resume)
    assert "passed over" not in capsys.readouterr().out
    assert newest_complete(tmp_path, current_run(tmp_path)) == (tmp_path / "checkpoint-2", [])


def test_an_option_that_only_one_side_knows_is_a_difference():
    now = RunSettings({"beta": 0.1, "new": 1}, {})
    with pytest.raises(ValueError, match="new None -> 1"):
        compare_settings("checkpoint-1", RunSettings({"beta": 0.1}, {}), now, True)
    assert compare_settings("checkpoint-1", now, now, True) is None
