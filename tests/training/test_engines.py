"""FSDP2, ZeRO-2 and ZeRO-3, launched with the shipped configurations on the CPU, give what one process gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import helpers_engines
import pytest
import torch
from helpers_processes import Copy
from helpers_trainer import assert_same

from fairpo_trl.training.checkpoints import verify


# One launch an engine, for all tests of the file.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("engines")]

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {
    "fsdp2": "FSDP2 FULL_STATE_DICT",
    "deepspeed_zero2": "DeepSpeed ZeRO-2",
    "deepspeed_zero3": "DeepSpeed ZeRO-3",
}
CASES = [f"pairs {name}" for name in (*helpers_engines.PAIRS, "resumed")]
CASES += [f"labels {name}" for name in (*helpers_engines.LABELS, "resumed")]


class Launches:
    """What each engine found, launched when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found = folder, {}

    def folder_of(self, engine: str) -> Path:
        return self.folder / engine

    def __getitem__(self, engine: str) -> list[dict[str, Any]]:
        if engine not in self.found:
            folder = self.folder_of(engine)
            folder.mkdir()
            helpers_engines.make_base(folder)
            self.found[engine] = [helpers_engines.run_all(folder)] if engine == "one" else self.launch(engine, folder)
        return self.found[engine]

    def launch(self, engine: str, folder: Path) -> list[dict[str, Any]]:
        config, log = str(ROOT / "accelerate_configs" / f"{engine}.yaml"), folder / "launcher"
        launched = Copy(helpers_engines.launch, (config, str(folder)), log, {"DS_ACCELERATOR": "cpu"})
        assert launched.wait(timeout=1500) == 0, log.read_text(encoding="utf-8")[-8000:]
        return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def skip_labels(engine: str, case: str) -> None:
    if engine == "deepspeed_zero3" and case.startswith("labels"):
        pytest.skip("a classifier is refused under ZeRO-3")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    return Launches(tmp_path_factory.mktemp("engines"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_one_process(engine, case, found):
    skip_labels(engine, case)
    one, other = found["one"][0][case], found[engine][0][case]
    assert_one_process(one, other, adam=case.endswith(("saved", "resumed")))
    assert found[engine][1][case]["weights"] == other["weights"]  # equal on every process


def assert_one_process(one: dict[str, Any], other: dict[str, Any], adam: bool) -> None:
    # Adam divides by the size of the gradient, and so rounding shows.
    assert one["steps"] == other["steps"] == 4
    assert_same(one["parameters"], other["parameters"], 2e-5 if adam else 1e-6)
    for key in ("log_weights", "moment"):
        assert other["weights"][key] == pytest.approx(one["weights"][key], abs=1e-5 if adam else 1e-6)
    for a, b in zip(one["logs"], other["logs"], strict=True):
        same = {key for key in a if not key.endswith(("runtime", "per_second", "total_flos", "preparation_time"))}
        assert {key: b[key] for key in same} == pytest.approx({key: a[key] for key in same}, rel=1e-4, abs=2e-5)
    for key, value in one["evaluated"].items():
        if not key.endswith(("runtime", "per_second", "preparation_time")):
            assert other["evaluated"][key] == pytest.approx(value, rel=1e-4, abs=2e-5), key


@pytest.mark.parametrize("half", ["pairs", "labels"])
@pytest.mark.parametrize("engine", ENGINES)
def test_checkpoints_are_whole_and_name_the_engine(engine, half, found):
    skip_labels(engine, half)
    assert found[engine]
    folder = found.folder_of(engine) / f"{half} saved" / "checkpoint-4"
    verify(folder)
    state = json.loads((folder / "fairpo_state.json").read_text())
    assert state["settings"]["meaning"]["engine"] == ENGINES[engine]
    assert state["processes"] == 2


# The signal comes as step 2 begins: of pairs its exchange is over, and all processes learn of it in step 3.
@pytest.mark.parametrize(("half", "step"), [("pairs", 3), ("labels", 2)])
@pytest.mark.parametrize("engine", ENGINES)
def test_sigterm_to_one_process_stops_all_of_them_with_one_checkpoint(engine, half, step, found):
    skip_labels(engine, half)
    assert [rank[f"{half} stopped"] for rank in found[engine]] == [[143, step], [143, step]]
    (folder,) = (found.folder_of(engine) / f"{half} stopped").glob("checkpoint-*")
    assert folder.name == f"checkpoint-{step}"
    verify(folder)
    said = (found.folder_of(engine) / "output.txt").read_text()
    assert said.count(f"Stopped after step {step}, checkpoint-{step} is written") == 1


@pytest.mark.parametrize("half", ["pairs", "labels"])
def test_sharded_state_files_resume_and_end_with_a_whole_model(half, found):
    one, other = found["one"][0], found["fsdp2"][0]
    for name, expected in ((f"{half} sharded", f"{half} saved"), (f"{half} sharded, resumed", f"{half} resumed")):
        assert_one_process(one[expected], other[name], adam=True)
    folder = found.folder_of("fsdp2") / f"{half} sharded"
    assert list((folder / "checkpoint-4").glob("pytorch_model_fsdp_0/*.distcp"))
    verify(folder / "checkpoint-4")
    state = json.loads((folder / "checkpoint-4" / "fairpo_state.json").read_text())
    assert state["settings"]["meaning"]["engine"] == "FSDP2 SHARDED_STATE_DICT"
    assert other[f"{half} said"] == f"Model saved to {folder / 'final'}."


@pytest.mark.parametrize("half", ["pairs", "labels"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_raises_on_every_process(engine, half, found):
    skip_labels(engine, half)
    for rank in found[engine]:
        assert "Optimizer step 2: the gradient is not finite" in rank[f"{half} infinite"]


@pytest.mark.parametrize("engine", ENGINES)
def test_bf16_starts_from_log_2_with_a_precomputed_reference_too(engine, found):
    for case in ("pairs bf16", "pairs bf16 precomputed"):
        run = found[engine][0][case]
        assert run["steps"] == 2
        losses = {key: value for key, value in run["logs"][0].items() if key.startswith("loss/")}
        assert losses and losses == pytest.approx(dict.fromkeys(losses, math.log(2)), abs=0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_classifier_in_bf16_keeps_its_head_in_float32(engine, found):
    skip_labels(engine, "labels")
    run = found[engine][0]["labels bf16"]
    assert run["steps"] == 2
    assert {value.dtype for value in run["parameters"].values()} == {torch.float32}
    plain = found["one"][0]["labels plain"]
    first, exact = run["logs"][0], plain["logs"][0]
    same = [key for key in exact if key.startswith("loss")]
    assert len(same) > 2 and {k: first[k] for k in same} == pytest.approx({k: exact[k] for k in same}, rel=1e-4)


def test_a_classifier_is_refused_under_zero_3_with_what_to_launch(found):
    for rank in found["deepspeed_zero3"]:
        assert "launch with accelerate_configs/deepspeed_zero2.yaml or fsdp2.yaml" in rank["labels refused"]
