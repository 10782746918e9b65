"""Processes that would train past each other, or wait for each other for ever, are refused on every one of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import make_model
from helpers_classification import multilabel, rows
from helpers_processes import together
from helpers_trainer import data, fairpo


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("agreement")]


def case(name: str, out: str) -> Any:
    """A trainer on which the first process has something else than the second, or which would train alone."""
    first = os.environ["RANK"] == "0"
    gloo = {"ddp_backend": "gloo", "max_steps": 2, "per_device_train_batch_size": 2}
    if name == "fewer rows":
        return fairpo(out, data(7 if first else 11), **gloo)
    if name == "other rows":
        return fairpo(out, data(8, seed=0 if first else 99), **gloo)
    if name == "other evaluation rows":
        return fairpo(out, data(8), eval_dataset=data(5, seed=9 if first else 10), **gloo)
    if name == "another option":
        return fairpo(out, data(8), eta_alpha=0.05 if first else 0.5, **gloo)
    if name == "other roles":
        return fairpo(out, data(8), privileged_attributes=["concise" if first else "polite"], **gloo)
    if name == "another reference":
        return fairpo(out, data(8), ref=make_model(seed=0 if first else 3), **gloo)
    if name == "other labels":
        split = rows(24)
        split.labels[3, 0] = 1 if first else 0
        return multilabel(out, split, **gloo)
    if name == "uneven batches":
        return fairpo(out, data(9), accelerator_config={"even_batches": False}, **gloo)
    if name == "evaluated on fewer rows":
        trainer = fairpo(out, data(8), eval_dataset=data(8, seed=9), **gloo)
        trainer.eval_dataset = trainer.eval_dataset.select(range(8 if first else 5))
        trainer.train = lambda: trainer.evaluate()
        return trainer
    assert name == "gloo without use_cpu"
    return fairpo(out, data(8), **{**gloo, "use_cpu": False})


def run_cases(out: str) -> None:
    """Writes what each case said, and what is in the folder then."""
    said = {}
    for name in REFUSED:
        os.environ["ACCELERATE_USE_CPU"] = "false" if name == "gloo without use_cpu" else "true"
        try:
            case(name, out).train()
            said[name] = "trained"
        except ValueError as error:
            said[name] = str(error)
    Path(out, f"rank{os.environ['RANK']}.json").write_text(json.dumps([said, sorted(os.listdir(out))]))


REFUSED = {
    "fewer rows": r"the training data of process 1 .* is not that of process 0",
    "other rows": "The processes do not agree: the training data of process 1",
    "other evaluation rows": "the evaluation data of process 1",
    "another option": r"`eta_alpha` of process 1 \(0.5\) is not that of process 0 \(0.05\)",
    "other roles": "the partition of process 1",
    "another reference": "`reference` of process 1",
    "other labels": "the training data of process 1",
    "uneven batches": "`accelerator_config` has even_batches=False",
    "evaluated on fewer rows": r"the number of evaluation rows of process 1 \(5\) is not that of process 0 \(8\)",
    "gloo without use_cpu": "The launcher started 2 processes, but each would train alone",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("agreement") / "out"
    out.mkdir()
    together(run_cases, (str(out),), 2, out.with_name("log"))
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", REFUSED)
def test_processes_that_disagree_are_refused_on_every_one(name, said):
    for messages, _ in said:
        assert re.search(REFUSED[name], messages[name]), messages[name]


def test_nothing_is_written_by_them(said):
    assert not any(name.startswith("checkpoint") for _, names in said for name in names)
