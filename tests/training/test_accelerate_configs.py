"""Every file of accelerate_configs loads with the installed accelerate and says where it was run; one runs here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torture
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from helpers_processes import together

from fairpo_trl.training.checkpoints import newest_complete


ROOT = Path(__file__).resolve().parents[2]
TYPES = {
    "cpu": DistributedType.NO,
    "single_gpu": DistributedType.NO,
    "ddp_cpu": DistributedType.MULTI_GPU,
    "multi_gpu": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
}


def test_the_files_are_those_that_are_described():
    assert {path.stem for path in (ROOT / "accelerate_configs").glob("*.yaml")} == TYPES.keys()


@pytest.mark.parametrize("name", TYPES)
def test_it_loads_with_the_installed_accelerate(name):
    path = ROOT / "accelerate_configs" / f"{name}.yaml"
    config = load_config_from_file(str(path))  # refuses keys that it does not know
    assert config.distributed_type == TYPES[name]
    assert config.use_cpu is name.endswith("cpu")
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")
    assert (config.num_processes > 1) is (name not in ("cpu", "single_gpu"))
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if name.startswith("deepspeed"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


@pytest.mark.parametrize("name", TYPES)
def test_its_header_holds_the_command_and_what_was_run(name):
    text = (ROOT / "accelerate_configs" / f"{name}.yaml").read_text(encoding="utf-8")
    header = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"accelerate launch --config_file accelerate_configs/{name}.yaml recipes/generation_fairpo.py" in header
    assert re.search(r"^# run +\S", header, re.MULTILINE)
    assert yaml.safe_load(text)["compute_environment"] == "LOCAL_MACHINE"


def assert_newest(out, processes, steps):
    folder, passed_over = newest_complete(out)
    assert folder is not None and folder.name == f"checkpoint-{steps}" and not passed_over
    assert json.loads((folder / "fairpo_state.json").read_text())["processes"] == processes


@pytest.mark.slow
@pytest.mark.parametrize("half", torture.HALVES)
def test_the_recipes_run_with_two_processes_and_resume_with_one(half, tmp_path):
    script, options = torture.HALVES[half].script, torture.HALVES[half].prepare(tmp_path)
    options += ["--output_dir", str(tmp_path / "out"), "--save_steps", "3"]
    if half == "generation":  # one half by the launcher: programs that import everything anew take their time
        launch = ["-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
        command = [sys.executable, *launch, script, *options, "--max_steps", "6"]
        done = subprocess.run(command, cwd=ROOT, env=torture.ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        first = done.stdout
    else:
        command = [str(ROOT / script), *options, "--max_steps", "6"]
        first = together(torture.run_script, (command,), 2, tmp_path / "first")
    assert "Training goes on from" not in first
    assert_newest(tmp_path / "out", processes=2, steps=6)

    whole = {"generation": "4", "classification": "8"}[half]  # as many examples in a step as two processes had
    command = [str(ROOT / script), *options, "--max_steps", "9", "--per_device_train_batch_size", whole]
    command += ["--resume_from_checkpoint", "true"]
    said = together(torture.run_script, (command,), 1, tmp_path / "log")
    assert said.count("Training goes on from") == 1
    assert_newest(tmp_path / "out", processes=1, steps=9)
    assert "checkpoint-6 was written by 2 process(es), now there is 1: weights" in said
    assert list((tmp_path / "out").glob("*.safetensors"))
