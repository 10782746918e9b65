"""The comparison and the sweep of the classification half, on small random features: runs, resuming, tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compare_classification import ABLATIONS, METHODS, REWEIGHTING, SECTIONS, VARIANTS, rows_of
from helpers_classification import LABELS, PRIVILEGED, rows
from openclipart import experiment as engine
from openclipart.comparison_tables import write_tables
from openclipart.experiment import REFERENCE, Experiment, Head, Row
from openclipart.sweep_tables import write_sweep
from sweep_classification import GRID
from sweep_classification import rows_of as sweep_rows

from fairpo_trl import Partition
from fairpo_trl.classification.evaluation.group_report import evaluate_groups
from fairpo_trl.classification.methods import Method


HEAD = Head("tiny", "tiny MLP", {"head": "shared_mlp", "hidden_size": 4}, {"learning_rate": 0.05})
CONTINUED, CPO = METHODS[0], next(row for row in METHODS if row.name == "fairpo_cpo")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 2)
    monkeypatch.setattr(engine, "ANNEAL", 1)


def experiment(folder: Path) -> Experiment:
    splits = {
        name: rows(n, seed=seed, name=name, unknown=0.0)
        for name, n, seed in (("train", 64, 0), ("validation", 24, 1), ("test", 40, 2))
    }
    return Experiment(folder, splits, Partition.by_name(LABELS, PRIVILEGED), epochs=2)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    patch = pytest.MonkeyPatch()
    patch.setattr(engine, "PATIENCE", 2)
    patch.setattr(engine, "ANNEAL", 1)
    found = experiment(tmp_path_factory.mktemp("runs"))
    for seed in (0, 1):
        for row in (REFERENCE, CONTINUED, CPO, REWEIGHTING[0]):
            found.run(row, HEAD, seed)
    patch.undo()
    return found


def test_a_complete_run_is_not_repeated(done, monkeypatch):
    monkeypatch.setattr(engine, "MultiLabelFairPOTrainer", lambda *_, **__: pytest.fail("it is there"))
    done.run(CPO, HEAD, 0)
    assert done.complete(CPO, HEAD, 1) and not done.complete(ABLATIONS[0], HEAD, 0)


def test_a_run_is_named_by_everything_it_depends_on(done):
    path = done.path(CPO, HEAD, 0)
    others = [
        done.path(CPO, HEAD, 1),
        done.path(Row("fairpo_cpo", "", "fairpo_cpo", {"beta": 2.0}), HEAD, 0),
        done.path(CPO, Head("tiny", "", {"head": "linear"}, {}), 0),
        Experiment(done.folder, done.splits, done.partition, epochs=3).path(CPO, HEAD, 0),
        Experiment(done.folder, done.splits, Partition.by_name(LABELS, ["drum"]), epochs=2).path(CPO, HEAD, 0),
    ]
    assert path not in others and len(set(others)) == len(others)
    # The reference does not know who is privileged: partitions share it.
    other = Experiment(done.folder, done.splits, Partition.by_name(LABELS, ["drum"]), epochs=2)
    assert other.path(REFERENCE, HEAD, 0) == done.path(REFERENCE, HEAD, 0)


def test_a_damaged_run_is_named(done, tmp_path):
    copy = experiment(tmp_path)
    copy.path(CPO, HEAD, 0).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"fairpo_cpo-tiny-seed0-\w+\.safetensors is damaged"):
        copy.logits(CPO, HEAD, 0, "test")


def test_tables_say_what_the_logits_say(done, capsys):
    sections = {"reference": [REFERENCE], "methods": [CONTINUED, CPO], "reweighting": [REWEIGHTING[0]]}
    comparison = write_tables(done, sections, [HEAD], [0, 1, 2], resamples=50)
    assert {"comparison.json", "comparison.md", "comparison.csv", "comparison.tex"} <= {
        path.name for path in done.folder.iterdir()
    }
    assert list(done.folder.glob("*.png"))
    by_name = {method["name"]: method for method in comparison["methods"]}
    assert by_name["fairpo_cpo"]["seeds"] == 2  # of the three asked for
    labels = done.splits["test"].labels
    deltas = [
        evaluate_groups(labels, done.logits(CPO, HEAD, seed, "test"), done.partition).by_group["map"]
        - evaluate_groups(labels, done.logits(REFERENCE, HEAD, seed, "test"), done.partition).by_group["map"]
        for seed in (0, 1)
    ]
    expected = np.mean([delta["privileged"] for delta in deltas])
    got = by_name["fairpo_cpo"]["delta_reference"]["privileged"]
    assert got["mean"] == pytest.approx(expected) and got["low"] <= got["mean"] <= got["high"]
    assert "delta_continued" in by_name["fairpo_cpo"] and "delta_continued" not in by_name["bce_continued"]
    assert set(comparison["trivial"]) == {"all_negative", "label_prior"}
    printed = capsys.readouterr().out
    assert "FairPO-CPO" in printed and "BCE continued" in printed and "converged" in printed
    assert json.loads((done.folder / "comparison.json").read_text())["title"].startswith("openclipart")


def test_without_runs_the_tables_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no complete run: run the comparison"):
        write_tables(experiment(tmp_path), {"methods": [CPO]}, [HEAD], [0], 10)


def test_the_rows_are_every_method_and_ablation_of_the_paper():
    named = {row.method for section in SECTIONS.values() for row in section}
    assert named == set(Method.__args__) - {"fairpo"}
    assert [row.factor for row in REWEIGHTING] == sorted(row.factor for row in REWEIGHTING)
    assert len(ABLATIONS) == 6 and all(len(row.options) <= 2 for row in ABLATIONS)
    names = [row.name for section in SECTIONS.values() for row in section]
    assert len(names) == len(set(names))
    assert len(rows_of("linear")) < len(rows_of("shared_mlp"))


@pytest.mark.parametrize("row", [*ABLATIONS, *VARIANTS], ids=lambda row: row.name)
def test_every_ablation_and_variant_trains(done, row):
    done.run(row, HEAD, 0)
    logits = done.logits(row, HEAD, 0, "test")
    assert np.isfinite(logits).all()
    plain = done.logits(CPO, HEAD, 0, "test")
    assert not np.array_equal(logits, plain)


def test_a_sweep_has_a_line_for_every_value_and_partition(tmp_path):
    base = experiment(tmp_path)
    experiments = {
        "least_frequent": base,
        "by_name": Experiment(tmp_path, base.splits, Partition.by_name(LABELS, ["drum"]), epochs=2),
    }
    points = [point for point in sweep_rows("fairpo_cpo") if point[0] == "beta"]
    for each in experiments.values():
        for _, _, row in points:
            each.run(row, HEAD, 0)
    table = write_sweep(experiments, points, HEAD, [0], tmp_path)
    assert len(table) == 2 * len(GRID["beta"]) and (tmp_path / "sweep.png").is_file()
    read = pd.read_csv(tmp_path / "sweep.csv")
    assert {"partition", "option", "value", "test_privileged", "validation_held"} <= set(read.columns)
    assert read["test_privileged"].nunique() > 2
