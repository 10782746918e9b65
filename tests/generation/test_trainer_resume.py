"""N steps are N/2 steps and a resume, bit for bit; a checkpoint of another run is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers_trainer import NAMES, assert_same, data, fairpo, logs, lora, parameters

from fairpo_trl.core import Partition
from fairpo_trl.training.checkpoints import mark_complete


pytestmark = pytest.mark.xdist_group("trainer_resume")  # its fixtures are costly: once for the file


RUN = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "random",
    "num_train_epochs": 2,  # 6 steps each
    "save_strategy": "steps",
    "save_steps": 4,
    "eta_alpha": 0.5,
}
CASES = {
    "full": {},
    "lora": {"peft_config": lora()},
    "balanced": {"balanced_sampling": "attribute", "train_sampling_strategy": "random"},
    "sparse logs": {"logging_steps": 3},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "logging_steps": 5},
    "current": {"timing": "current"},
    "lagrangian": {"balancer": "lagrangian", "grouping": "attribute"},
    "attribute hinge": {"hinge_level": "attribute", "epsilon": 0.0},
    "relative": {"scaling": "relative", "floor": 0.05},
}


def comparable(trainer) -> list[dict]:
    """The logs, without the loss: Trainer begins its mean of the loss anew on resume."""
    return [{k: v for k, v in entry.items() if k != "loss"} for entry in logs(trainer)]


@pytest.mark.parametrize("case", CASES)
def test_resume_is_bit_equal(case, tmp_path):
    options = {**RUN, **CASES[case]}
    whole = fairpo(tmp_path, data(24), **options)
    whole.train()
    again = fairpo(tmp_path, data(24), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.state.global_step == whole.state.global_step == 12
    assert_same(parameters(whole), parameters(again), 0.0)
    assert whole.group_weights.state_dict() == again.group_weights.state_dict()
    assert whole.running_losses.state_dict() == again.running_losses.state_dict()
    assert whole.lr_scheduler.state_dict() == again.lr_scheduler.state_dict()
    a, b = whole.optimizer.state_dict(), again.optimizer.state_dict()
    assert a["param_groups"] == b["param_groups"]
    for key, state in a["state"].items():
        assert all(torch.equal(value, b["state"][key][name]) for name, value in state.items())
    assert comparable(whole) == comparable(again)
    assert (tmp_path / "checkpoint-8" / "fairpo_state.json").is_file()


def test_saving_changes_nothing(tmp_path):
    saved, unsaved = (fairpo(tmp_path / s, data(24), **{**RUN, "save_strategy": s}) for s in ("steps", "no"))
    saved.train()
    unsaved.train()
    assert_same(parameters(saved), parameters(unsaved), 0.0)
    assert logs(saved) == logs(unsaved)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    fairpo(folder, data(12), **{**RUN, "max_steps": 2, "save_steps": 2}).train()
    return folder / "checkpoint-2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"privileged_attributes": ["polite"]},
            r"another partition. Saved: privileged \['concise'\].*now: privileged \['polite'\]",
        ),
        ({"privileged_attributes": ["concise", "polite"]}, "another partition"),
        ({"grouping": "attribute"}, "belong to other groups"),
        ({"balancer": "fixed"}, "come from balancer='mirror_ascent', now it is 'fixed'"),
    ],
)
def test_resuming_another_run_is_refused(options, message, checkpoint, tmp_path):
    trainer = fairpo(tmp_path, data(12), **{**RUN, "max_steps": 4, **options})
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def copied(checkpoint: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(checkpoint, folder / checkpoint.name))


def test_checkpoint_without_fairpo_state_is_refused(checkpoint, tmp_path):
    other = copied(checkpoint, tmp_path)
    (other / "fairpo_state.json").unlink()
    mark_complete(other)
    with pytest.raises(FileNotFoundError, match="not written by FairPOTrainer"):
        fairpo(tmp_path, data(12), **{**RUN, "max_steps": 4}).train(resume_from_checkpoint=str(other))


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), (json.dumps({"version": 99}), "has version 99")])
def test_damaged_state_is_refused(text, message, checkpoint, tmp_path):
    other = copied(checkpoint, tmp_path)
    (other / "fairpo_state.json").write_text(text)
    mark_complete(other)  # so that it is the content that is refused, not the hash
    with pytest.raises(ValueError, match=message):
        fairpo(tmp_path, data(12), **{**RUN, "max_steps": 4}).train(resume_from_checkpoint=str(other))


def test_state_is_readable_json_with_partition_and_weights(checkpoint):
    state = json.loads((checkpoint / "fairpo_state.json").read_text())
    assert Partition.from_dict(state["partition"]) == Partition.by_name(sorted(NAMES), ["concise"])
    assert state["group_weights"]["steps"] == 2
    assert not list(checkpoint.glob("*.tmp"))
