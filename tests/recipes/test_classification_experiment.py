"""The comparison and the sweep of the classification half, on small random features: runs, resuming, tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_classification import LABELS, PRIVILEGED, rows

from experiments.classification import runs as engine
from experiments.classification.compare import ABLATIONS, METHODS, REWEIGHTING, SECTIONS, VARIANTS, rows_of
from experiments.classification.compare_tables import write_tables
from experiments.classification.demo_search import choose as choose_for_demo
from experiments.classification.demo_search import measure, on_test, write_table
from experiments.classification.folds import fold_of_rows
from experiments.classification.icons import label_matrix
from experiments.classification.photographs import SECTIONS as PHOTOGRAPHS
from experiments.classification.photographs import partition_of, with_rate
from experiments.classification.pool import Job, run_jobs
from experiments.classification.runs import REFERENCE, Experiment, Head, Row
from experiments.classification.search import CURVE, candidates
from experiments.classification.search_tables import _verdict, choose, rank_on_folds, write_search
from experiments.classification.slides_table import rows_of as slides_rows
from experiments.classification.slides_table import section as slides_section
from experiments.classification.sweep import GRID
from experiments.classification.sweep import rows_of as sweep_rows
from experiments.classification.sweep_tables import write_sweep
from fairpo_trl import MultiLabelFairPOConfig, Partition
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.methods import Method, apply_method
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.classification.metrics.paper_protocol import paper_protocol_map
from fairpo_trl.classification.reference import options_of
from fairpo_trl.reporting.numbers import points


pytestmark = pytest.mark.xdist_group("classification_experiment")  # its fixtures are costly: once for the file


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


def test_a_mix_lies_between_the_logits_and_is_trained_once(done):
    half = Row("fairpo_cpo_mix0.5", "half", "fairpo_cpo", mix=0.5)
    assert done.path(half, HEAD, 0) == done.path(CPO, HEAD, 0)
    middle = (done.logits(REFERENCE, HEAD, 0, "test") + done.logits(CPO, HEAD, 0, "test")) / 2
    np.testing.assert_allclose(done.logits(half, HEAD, 0, "test"), middle, rtol=0, atol=1e-6)
    methods = {row.name for row in PHOTOGRAPHS["methods"]}
    mixes = PHOTOGRAPHS["variants"]
    assert {row.trained.name for row in mixes} < methods and len({row.name for row in mixes}) == len(mixes) == 9
    assert with_rate(mixes[0], {mixes[0].trained.name: 0.5}).options["learning_rate"] == 0.5


def test_tables_say_what_the_logits_say(done, capsys):
    sections = {"reference": [REFERENCE], "methods": [CONTINUED, CPO], "reweighting": [REWEIGHTING[0]]}
    comparison = write_tables(done, sections, [HEAD], [0, 1, 2], resamples=50).to_dict()
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
    assert comparison["confused_pairs"]["method"] == "FairPO-CPO, tiny MLP, seed 0"
    assert comparison["allowed_fall"] == 0.01 and comparison["command"] == 'make table ARGS="--resamples 50"'
    printed = capsys.readouterr().out
    assert "FairPO-CPO" in printed and "BCE continued" in printed and "converged" in printed
    assert json.loads((done.folder / "comparison.json").read_text())["title"].startswith("openclipart")


def test_the_table_of_the_slides_has_both_metrics(done):
    sections = {"reference": [REFERENCE], "methods": [CONTINUED, CPO]}
    comparison = write_tables(done, sections, [HEAD], [0, 1], resamples=20).to_dict()
    rows = slides_rows(comparison, "tiny")
    assert rows.index.tolist() == ["reference", "bce_continued", "fairpo_cpo"]
    labels = done.splits["test"].labels
    theirs = [
        np.mean(
            [
                paper_protocol_map(labels, done.logits(row, HEAD, s, "test"), done.partition)["privileged"]
                for s in (0, 1)
            ]
        )
        for row in (REFERENCE, CPO)
    ]
    assert rows.loc["fairpo_cpo", "P_paper_map"] == pytest.approx(theirs[1])
    assert rows.loc["fairpo_cpo", "P_paper_map_change"] == pytest.approx(theirs[1] - theirs[0])
    for short, group in (("P", "privileged"), ("held", "non_privileged")):
        interval = rows.loc["fairpo_cpo", f"{short}_interval"]
        assert rows.loc["fairpo_cpo", f"{short}_map_change"] == pytest.approx(interval["mean"], abs=1e-9)
        assert comparison["methods"][2]["delta_reference"][group]["mean"] == interval["mean"]
    text = slides_section(rows, comparison["trivial"]["all_negative"], "tiny")
    assert "| FairPO-CPO |" in text and "| no label at all |" in text and "by the slides'" in text


def test_without_runs_the_tables_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no complete run: run the comparison"):
        write_tables(experiment(tmp_path), {"methods": [CPO]}, [HEAD], [0], 10)


def test_the_rows_are_every_method_and_ablation_of_the_paper():
    named = {row.method for sections in (SECTIONS, PHOTOGRAPHS) for rows in sections.values() for row in rows}
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
    table = write_sweep(experiments, points, HEAD, [0], tmp_path, "python sweep.py")
    assert len(table) == 2 * len(GRID["beta"]) and (tmp_path / "sweep.png").is_file()
    read = pd.read_csv(tmp_path / "sweep.csv")
    assert {"partition", "option", "value", "test_privileged", "validation_held"} <= set(read.columns)
    assert read["test_privileged"].nunique() > 2
    assert read.loc[read["default"], "value"].tolist() == [1.0, 1.0]
    text = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert "| command | `python sweep.py` |" in text and "by name (1 labels)" in text and "1 (default)" in text


# ---- the search ----


def series_split(repeats: int = 3) -> MultiLabelSplit:
    """40 series of 1 to `repeats` rows; the first label is in 8 of them, the last in nearly all."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, repeats + 1, size=40)
    of_series = (generator.random((40, len(LABELS))) < np.linspace(0.2, 0.9, len(LABELS))).astype(np.int8)
    of_series[:, 0] = np.arange(40) < 8
    labels = np.repeat(of_series, sizes, axis=0)
    return MultiLabelSplit(
        name="train",
        label_names=LABELS,
        labels=labels,
        ids=tuple(f"row {i}" for i in range(len(labels))),
        series=tuple(f"series {i}" for i in np.repeat(np.arange(40), sizes)),
    )


def test_folds_cut_no_series_and_share_out_the_rarest_label():
    split = series_split(repeats=1)
    fold = fold_of_rows(split, 4)
    assert np.bincount(fold[split.labels[:, 0] == 1]).tolist() == [2, 2, 2, 2]
    assert np.bincount(fold).min() >= 8
    split = series_split()
    fold = fold_of_rows(split, 4)
    assert len({(name, number) for name, number in zip(split.series, fold.tolist(), strict=True)}) == 40
    assert np.array_equal(fold, fold_of_rows(split, 4)) and not np.array_equal(fold, fold_of_rows(split, 4, seed=1))
    with pytest.raises(ValueError, match="`folds` must be between 2 and 40"):
        fold_of_rows(split, 41)


def test_jobs_run_what_is_missing_and_log_it(tmp_path, capsys):
    job = Job("tiny-seed0", experiment(tmp_path), [CONTINUED], HEAD, 0)
    assert not job.complete()
    run_jobs([job], workers=1)
    assert job.complete() and (tmp_path / "logs" / "tiny-seed0.log").stat().st_size > 0
    assert "[1/1] tiny-seed0" in capsys.readouterr().out
    run_jobs([job], workers=1)
    assert capsys.readouterr().out == ""


def ranking(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"head": "tiny", "section": section, "name": name, "lead": lead, "held_lead": held}
            for section, name, lead, held in rows
        ]
    )


def test_the_choice_gains_most_at_a_held_cost_that_is_not_above_the_curves():
    table = ranking(
        ("curve", "x3", 0.0, 0.0),
        ("controls", "adjusted", 0.05, 0.02),
        ("candidates", "costly", 0.04, -0.001),
        ("candidates", "good", 0.02, 0.0),
        ("candidates", "safe", 0.01, 0.03),
    )
    assert choose(table, "tiny") == "good" and choose(table, "other") is None
    assert choose(ranking(("curve", "x3", 0.0, 0.0), ("candidates", "costly", 0.04, -0.001)), "tiny") is None


def test_the_search_ranks_folds_and_answers_on_test(done, tmp_path):
    curve = [CONTINUED, REWEIGHTING[0]]
    folds = [done, done]  # the seed tells them apart
    table = rank_on_folds(folds, {"curve": curve, "candidates": [CPO]}, [HEAD]).set_index("name")
    changes = [[done.change_of_map(row, HEAD, seed, "test")["privileged"] for seed in (0, 1)] for row in (*curve, CPO)]
    assert table["privileged"].tolist() == pytest.approx(np.mean(changes, axis=1))
    assert table["privileged_se"].tolist() == pytest.approx(np.std(changes, axis=1, ddof=1) / np.sqrt(2))
    best = max(curve, key=lambda row: table.loc[row.name, "privileged"]).name
    for ours, theirs in (("lead", "privileged"), ("held_lead", "held")):
        assert table[ours].tolist() == pytest.approx((table[theirs] - table.loc[best, theirs]).tolist())

    test = experiment(tmp_path)
    test.folder = done.folder
    answer = write_search(table.reset_index(), test, [(CPO, HEAD)], curve, [0, 1], 50, "python search.py")
    assert answer.startswith("tiny MLP: chosen on the folds was 'FairPO-CPO'. On test it")
    lines = pd.read_csv(done.folder / "test.csv").set_index(["name", "against", "group"])["mean"]
    for row in curve:  # a difference is the difference of the two changes
        for group in ("privileged", "non_privileged"):
            gap = lines["FairPO-CPO", "the reference", group] - lines[row.label, "the reference", group]
            assert lines["FairPO-CPO", row.label, group] == pytest.approx(gap, abs=1e-5)
    against = max(curve, key=lambda row: lines[row.label, "the reference", "privileged"])
    gaps = [lines["FairPO-CPO", against.label, group] for group in ("privileged", "non_privileged")]
    assert ("does not lie above" in answer) == (gaps[0] <= 0)
    text = (done.folder / "search.md").read_text(encoding="utf-8")
    assert "| command | `python search.py` |" in text
    assert answer in text and "| candidates | FairPO-CPO |" in text
    nothing = write_search(table.reset_index(), test, [], curve, [0, 1], 50, "python search.py")
    assert nothing.startswith("tiny: on the folds no candidate")
    assert nothing in (done.folder / "search.md").read_text(encoding="utf-8")


def test_the_demos_setting_gains_most_in_standard_errors_and_keeps_the_held_labels(done, tmp_path):
    numbers = measure([done, done], CPO, HEAD, 50)  # the seed tells them apart
    changes = [done.change_of_map(CPO, HEAD, seed, "test") for seed in (0, 1)]
    for name, group in (("privileged", "privileged"), ("held", "non_privileged")):
        assert numbers[name] == pytest.approx(np.mean([change[group] for change in changes]))
        assert numbers[f"{name}_se"] > 0
    lines = [("costly", 0.05, 0.001, -0.0031), ("noisy", 0.04, 0.02, 0.0), ("good", 0.03, 0.01, -0.003)]
    table = pd.DataFrame(
        [
            {"partition": "random", "share": 0.2, "loss": loss, "privileged": gain, "privileged_se": se, "held": held,
             "held_se": 0.001}
            for loss, gain, se, held in lines
        ]
    )  # fmt: skip
    assert choose_for_demo(table)["loss"] == "good"
    assert "the choice is good" in write_table(table, tmp_path, 4)
    assert "+3.00 ±1.00" in (tmp_path / "demo_search.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="No setting keeps the held labels"):
        choose_for_demo(table[:1])


def test_a_setting_on_test_is_its_mean_over_seeds(done):
    change = np.mean([done.change_of_map(CPO, HEAD, seed, "test")["privileged"] for seed in (0, 1)])
    half = replace(CPO, name=f"{CPO.name}_mix0.5", mix=0.5)
    assert f"2 seeds, 40 test images: privileged {points(change)} [" in on_test(done, CPO, HEAD, [0, 1], 20)
    assert on_test(done, half, HEAD, [0, 1], 20) != on_test(done, CPO, HEAD, [0, 1], 20)


def test_a_tag_of_few_icons_or_few_series_is_no_label():
    tags = {f"word{n % 10}-{n}": ["Common", "few"] if n < 39 else ["common"] for n in range(40)}
    tags |= {f"arrow-{n}": ["one series"] for n in range(60)}
    names, labels, matrix = label_matrix(tags)
    assert labels == ["common"] and matrix.tolist() == [[1]] * 40
    assert names == sorted(name for name in tags if name.startswith("word"))


def test_the_partitions_of_the_photographs():
    counts = {f"label {number}": number + 1 for number in range(18)}
    assert set(partition_of(counts, "least_frequent").privileged) == {"label 0", "label 1", "label 2", "label 3"}
    assert set(partition_of(counts, "most_frequent").privileged) == {"label 14", "label 15", "label 16", "label 17"}
    drawn = partition_of(counts, "random")
    assert len(drawn.privileged) == 4 and drawn.privileged == partition_of(counts, "random").privileged


@pytest.mark.parametrize(
    ("privileged", "low", "held", "said"),
    [
        (-0.01, -0.02, 0.01, "does not lie above the re-weighting curve"),
        (0.01, 0.001, 0.0, "lies above the whole re-weighting curve (surely)"),
        (0.01, -0.001, 0.0, "lies above the whole re-weighting curve (but not surely"),
        (0.01, 0.001, -0.001, "gains more than every factor of the curve (surely), at more cost"),
    ],
)
def test_the_answer_of_the_search_says_gain_cost_and_doubt(privileged, low, held, said):
    assert said in _verdict({"privileged": {"mean": privileged, "low": low}, "non_privileged": {"mean": held}})


@pytest.mark.parametrize("row", candidates(), ids=lambda row: row.label)
def test_every_candidate_of_the_search_is_a_configuration_the_trainer_takes(row, tmp_path):
    args = MultiLabelFairPOConfig(output_dir=str(tmp_path), report_to="none")
    apply_method(row.method, args, Partition.by_name(LABELS, PRIVILEGED), row.factor)
    MultiLabelFairPOConfig(**{**options_of(args), **row.options}).refuse_unused()


def test_candidates_have_names_of_their_own_and_the_curve_begins_with_factor_one():
    rows = [*candidates(), *CURVE]
    assert len({row.name for row in rows}) == len(rows) == len({(r.method, str(r.options), r.factor) for r in rows})
    assert CURVE[0].method == "bce_continued" and CURVE[1:] == REWEIGHTING
