"""Every file of accelerate_configs loads with the installed accelerate and says where it was run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType


ROOT = Path(__file__).resolve().parents[1]
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
