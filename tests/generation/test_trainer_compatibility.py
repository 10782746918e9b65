"""What users of Trainer switch on works with both trainers, or is refused with the reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import make_rows
from datasets import Dataset
from helpers_classification import classifier, multilabel, rows
from helpers_trainer import assert_same, data, drifted, fairpo, logs, lora, parameters


def pairs_trainer(out: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    from conftest import make_model

    return fairpo(out, data(21), model=drifted(dtype=dtype), ref=make_model(dtype=dtype), **options)


def label_trainer(out: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    models = {"model": classifier(seed=1, dtype=dtype), "ref_model": classifier(seed=0, dtype=dtype)}
    return multilabel(out, rows(27), **models, **{"timing": "lagged", **options})


TRAINERS = {"pairs": pairs_trainer, "labels": label_trainer}
both = pytest.mark.parametrize("make", TRAINERS.values(), ids=TRAINERS)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(((a[name] - b[name]).double() ** 2).sum()) for name in a))


# ---- gradient clipping ----


@both
def test_the_gradient_of_the_whole_step_is_clipped(make, tmp_path):
    size, count = (2, 2) if make is pairs_trainer else (4, 2)
    options = {"max_grad_norm": 1e-3, "max_steps": 1, "learning_rate": 0.5}
    trainer = make(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=count, **options)
    before = parameters(trainer)
    trainer.train()
    assert logs(trainer)[0]["grad_norm"] > 1e-2
    # torch adds 1e-6 to the norm before it divides.
    assert distance(parameters(trainer), before) == pytest.approx(0.5 * 1e-3, rel=1e-3)


@both
def test_clipping_does_not_depend_on_the_split_of_the_batch(make, tmp_path):
    runs = []
    for size, count in ((8, 1), (4, 2), (1, 8)):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": count, "num_train_epochs": 2}
        trainer = make(tmp_path, max_grad_norm=0.05, eta_alpha=0.5, **options)
        trainer.train()
        runs.append(parameters(trainer))
    assert_same(runs[0], runs[1], 1e-6)
    assert_same(runs[0], runs[2], 1e-6)


# ---- precision ----


@both
def test_bf16_is_finite_and_close_to_float32(make, tmp_path):
    runs = []
    for bf16 in (False, True):
        trainer = make(tmp_path, dtype=torch.float32, bf16=bf16, eta_alpha=0.5, num_train_epochs=2)
        before = parameters(trainer)
        trainer.train()
        assert all(math.isfinite(value) for entry in logs(trainer) for value in entry.values())
        assert all(value.dtype == torch.float32 for value in parameters(trainer).values())
        runs.append((parameters(trainer), trainer.group_weights.weights, logs(trainer)[0]["loss"]))
    moved = distance(runs[0][0], before)
    between = distance(runs[0][0], runs[1][0])
    assert between < 0.05 * moved
    assert (between > 0) is (make is pairs_trainer)  # the head of a classifier computes in float32 all the same
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=0, atol=0.01)
    assert runs[1][2] == pytest.approx(runs[0][2], rel=0.02)


# ---- memory ----


@pytest.mark.parametrize("options", [{}, {"peft_config": lora()}], ids=["full", "lora"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_pairs_with_gradient_checkpointing_are_pairs_without(reentrant, options, tmp_path):
    runs = []
    for checkpointing in (False, True):
        more = {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}} if checkpointing else {}
        accumulation = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        trainer = fairpo(tmp_path, data(13), gradient_checkpointing=checkpointing, **more, **accumulation, **options)
        trainer.train()
        runs.append(parameters(trainer))
    assert_same(*runs, 1e-12)


def test_a_classifier_refuses_gradient_checkpointing_and_says_why(tmp_path):
    with pytest.raises(ValueError, match="does not support"):
        label_trainer(tmp_path, gradient_checkpointing=True).train()


# ---- torch.compile ----


@pytest.mark.slow
@both
def test_a_compiled_model_takes_the_same_steps(make, tmp_path):
    runs = []
    for compiled in (False, True):
        options = {"torch_compile": True, "torch_compile_backend": "aot_eager"} if compiled else {}
        if make is pairs_trainer:  # one shape is compiled once; a compiled model takes the plain layout
            options |= {"pad_to_multiple_of": 32, "packing": "never"}
        trainer = make(tmp_path / str(compiled), eta_alpha=0.5, max_steps=3, **options)
        trainer.train()
        runs.append(({k.removeprefix("_orig_mod."): v for k, v in parameters(trainer).items()}, trainer))
    assert_same(runs[0][0], runs[1][0], 1e-6)
    assert runs[0][1].group_weights.as_dict() == pytest.approx(runs[1][1].group_weights.as_dict(), abs=1e-9)
    runs[1][1].save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").is_file()


# ---- data ----


@both
def test_loader_workers_change_nothing(make, tmp_path):
    runs = []
    for workers in (0, 2):
        options = {"dataloader_num_workers": workers, "train_sampling_strategy": "random", "num_train_epochs": 2}
        trainer = make(tmp_path, eta_alpha=0.5, gradient_accumulation_steps=2, **options)
        trainer.train()
        runs.append((parameters(trainer), trainer.group_weights.state_dict()))
    assert_same(runs[0][0], runs[1][0], 0.0)
    assert runs[0][1] == runs[1][1]


def test_a_stream_goes_on_bit_equal_after_a_resume(tmp_path):
    def trainer(out: Any) -> Any:
        options = {"max_steps": 9, "save_strategy": "steps", "save_steps": 4, "eta_alpha": 0.5}
        stream = Dataset.from_list(make_rows(24)).to_iterable_dataset()
        return fairpo(tmp_path / out, stream, non_privileged_attributes=["polite", "factual"], **options)

    whole = trainer("a")
    whole.train()  # 6 steps are an epoch
    again = trainer("a")
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert again.state.global_step == 9
    assert_same(parameters(whole), parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()


def test_a_stream_of_labels_is_refused_with_the_reason(tmp_path):
    stream = Dataset.from_list([{"features": [0.0] * 5, "labels": [1] * 6}] * 8).to_iterable_dataset()
    with pytest.raises(ValueError, match=r"must be a `MultiLabelSplit`, got IterableDataset.*so streams are refused"):
        multilabel(tmp_path, stream)
