"""Tests of the classification half of `fairpo_trl.reporting`: files, tables, exports and pictures."""

import copy
import csv
import io
import json
import re
import struct
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console

from fairpo_trl.reporting.comparison_blocks import (
    confused_block,
    detail_block,
    fell_block,
    main_block,
    per_label_block,
)
from fairpo_trl.reporting.label_blocks import groups_block, moved_block, promises
from fairpo_trl.reporting.label_exports import comparison_csv, comparison_latex, csv_text, labels_csv, tex
from fairpo_trl.reporting.label_markdown import (
    render_comparison_markdown,
    render_label_markdown,
    write_label_report,
)
from fairpo_trl.reporting.label_plots import plot_label_deltas, plot_samples
from fairpo_trl.reporting.label_results import (
    check_label_comparison,
    check_label_results,
    difference,
    method_key,
    read_label_comparison,
    read_label_results,
    write_label_comparison_json,
    write_label_results,
)
from fairpo_trl.reporting.label_tables import print_label_comparison, print_label_results
from fairpo_trl.reporting.label_writers import write_label_comparison
from fairpo_trl.reporting.numbers import delta, percent, points
from fairpo_trl.reporting.pareto_plot import plot_pareto
from fairpo_trl.reporting.plots import plot_weights


PARTITION = {"owl": "privileged", "harp": "privileged", "cat": "non_privileged", "tree_50%": "non_privileged"}
COUNTS = {"owl": 31, "harp": 25, "cat": 400, "tree_50%": 212}
METRICS = ("map", "sample_f1", "accuracy", "exact_match")


def evaluation(shift=0.0):
    """As `GroupEvaluation.to_dict()` writes it."""
    group = {"labels": 2, "labels_counted": 2, "samples": 100, "samples_f1": 100}
    for metric, value in zip(METRICS, (0.5, 0.4, 0.9, 0.7), strict=True):
        group |= {metric: value + shift, f"{metric}_all_negative": 0.05, f"{metric}_label_prior": 0.06}
    return {
        "by_group": {name: dict(group) for name in ("all", "privileged", "non_privileged")},
        "by_label": {name: {"role": role, "ap": 0.5} for name, role in PARTITION.items()},
        "labels_without_positives": [],
        "zero_division": 0,
        "samples": "all",
    }


def change(mean, half=0.01, **more):
    return {"delta": mean, "low": mean - half, "high": mean + half, "seed_sd": None, **more}


@pytest.fixture
def results():
    deltas = dict(zip(PARTITION, (0.03, 0.002, -0.025, None), strict=True))
    by_label = {
        name: {"role": PARTITION[name], "positives": 20, "ap_reference": 0.5, "ap": 0.5 + value} | change(value)
        if value is not None
        else {"role": PARTITION[name], "positives": 0, "delta": None, "low": None, "high": None, "seed_sd": None}
        for name, value in deltas.items()
    }
    by_group = {"all": change(0.002), "privileged": change(0.016), "non_privileged": change(-0.025)}
    return {
        "title": "openclipart: fairpo_cpo",
        "command": "python coco_fairpo.py --output_dir /home/someone/runs/x",
        "data": {"test": {"images": 1100, "series": 900, "dropped": 3}},
        "partition": dict(PARTITION),
        "label_counts": dict(COUNTS),
        "method": "fairpo_cpo",
        "settings": {"beta": 1.0},
        "seeds": [0],
        "seconds": 100.0,
        "evaluations": {"reference": evaluation(), "trained": evaluation(0.016)},
        "comparison": {
            "by_group": by_group, "by_label": by_label, "fell": ["cat"], "fell_surely": ["cat"], "eps": 0.01,
            "seeds": 1, "series": 900, "resamples": 1000, "level": 0.95,
        },
        "hinge": {"pairs": 0.62, "labels": 0.5, "eps": 0.01},
        "confusion": {"reference": 0.66, "trained": 0.701},
        "weights_history": [{"step": s, "privileged": 0.5, "non_privileged": 0.5} for s in (1, 2)],
        "samples": [
            {"image": "samples/0.png", "id": "birds/owl_1", "true": ["owl"],
             "reference": [["cat", 0.9], ["owl", 0.3]], "trained": [["owl", 0.8], ["cat", 0.7]]},
            {"image": None, "id": "b", "true": [], "reference": [["cat", 0.9]], "trained": [["cat", 0.7]]},
        ],
    }  # fmt: skip


def method(name, section, head="mlp", dp=None, dh=0.0, **more):
    groups = {
        group: dict.fromkeys(METRICS, 0.5) | {"paper_map": 0.88} for group in ("all", "privileged", "non_privileged")
    }
    row = {"name": name, "label": more.pop("label", name), "section": section, "head": head, "seeds": 5}
    row |= {"groups": groups, "confusion": 0.66, "bands": {"head": 0.7, "mid": 0.6, "tail": 0.5}}
    if dp is not None:
        change = {"privileged": dp, "non_privileged": dh}
        row["delta_reference"] = {
            group: {"mean": x, "low": x - 0.008, "high": x + 0.009, "seed_sd": 0.002} for group, x in change.items()
        }
        row |= {"fell": ["cat"], "fell_surely": [], "hinge": {"pairs": 0.6, "labels": 0.5}}
    return row | more


@pytest.fixture
def comparison():
    against = {"privileged": {"mean": 0.007, "low": -0.001, "high": 0.015}}
    methods = [
        method("reference", "reference", label="reference (BCE)"),
        method("bce_continued", "methods", dp=0.0123, dh=0.008),
        method("fairpo_cpo", "methods", dp=0.02, dh=0.004, delta_continued=against, label="FairPO-CPO"),
        method("reweighted_10", "reweighting", dp=0.028, dh=0.004, label="re-weighted x10"),
        method("reweighted_3", "reweighting", dp=0.02, dh=0.007, label="re-weighted x3", seeds=3),
        method("no_fallback", "ablations", dp=-0.3, dh=-0.2, label="without BCE fallback"),
        method("reference", "reference", head="linear"),
    ]
    per_label = {name: {"mean": -0.01, "low": -0.02, "high": 0.005} for name in PARTITION}
    return {
        "title": "openclipart: every method",
        "data": {"test": {"images": 1100, "series": 900}},
        "partition": dict(PARTITION),
        "label_counts": dict(COUNTS),
        "heads": {"mlp": "shared MLP", "linear": "linear"},
        "trivial": {"all_negative": {"privileged": dict.fromkeys(METRICS, 0.02)}},
        "methods": methods,
        "per_label": {"fairpo_cpo, mlp": per_label},
        "confused_pairs": {"pairs": [{"label": "owl", "confused_with": "cat", "before": 9, "after": 7}]},
        "notes": ["Continued BCE gains nothing."],
    }


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 5000
    return struct.unpack(">II", data[16:24])


def printed(show, document):
    out = io.StringIO()
    show(document, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def cells(block, first):
    return next(row for row in block.rows() if row[0] == first)


@pytest.fixture
def sets(results):
    """A run that is measured by F1 of label sets, which have no scores."""
    del results["samples"]
    for evaluated in results["evaluations"].values():
        for row in evaluated["by_group"].values():
            row |= dict.fromkeys(row, None) | {"precision": 0.8, "recall": 0.6, "f1": 0.7, "sample_f1": 0.5}
    for row in results["comparison"]["by_label"].values():
        row.pop("ap_reference", None), row.pop("ap", None)
        row |= {"f1_reference": 0.25, "f1": 0.75}
    nothing = {"reference": None, "trained": None}
    table = {
        "title": "What was read",
        "header": ["method", "malformed"],
        "rows": [["free <b>", "4.3"]],
        "note": "Note",
    }
    return results | {
        "measure": "F1", "hinge": {"pairs": None, "labels": None}, "confusion": nothing, "tables": [table],
    }  # fmt: skip


class TestLabelSets:
    def test_groups_have_precision_recall_and_f1(self, sets):
        block = groups_block(sets)
        assert block.header == ("", "precision", "recall", "F1", "set-F1", "exact match", "change of F1")
        rows = dict(block.sections)["privileged"]
        assert rows[0] == ("reference", "80.0", "60.0", "70.0", "50.0", "–", "–")
        assert [row[0] for row in rows] == ["reference", "trained"], "baselines without a set have no F1"

    def test_labels_and_sentences_speak_of_f1(self, sets):
        block = moved_block(sets, None)
        assert block.title == "Change of F1 per label, in points"
        assert cells(block, "owl")[4:] == ("25.0", "75.0", "+3.00 [+2.00, +4.00] ▲")
        assert promises(sets) == [
            "Held labels whose F1 fell by more than 1 point: 1 (cat ▼); ▼ with the whole interval: 1."
        ]

    def test_report_page_and_terminal_have_the_further_table_and_no_average_precision(self, sets, tmp_path):
        report = write_label_report(sets, tmp_path).read_text(encoding="utf-8")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        shown = printed(print_label_results, sets)
        assert "| free &lt;b\\> | 4.3 |" in report
        assert "free &lt;b&gt;" in page and "free <b>" in shown
        for text in (report, page, shown):
            assert "What was read" in text and "change of F1" in text
            assert "mAP" not in text and "average precision" not in text and "Confusion" not in text

    def test_what_cannot_be_shown_is_refused(self, sets):
        with pytest.raises(ValueError, match="unknown measure 'F2'; known: 'mAP', 'F1'"):
            check_label_results(sets | {"measure": "F2"})
        sets["tables"][0]["rows"].append(["one cell"])
        with pytest.raises(ValueError, match=r"tables\[0\]: 2 columns, but a row of 1"):
            check_label_results(sets)


class TestNumbers:
    def test_shares_are_per_cent_with_one_digit(self):
        assert [percent(x) for x in (0.684, 1.0, 0.0, None)] == ["68.4", "100.0", "0.0", "–"]

    def test_differences_are_points_with_a_sign(self):
        values = (0.0123, -0.004, 0.1023, 0.00001, -0.00001, None)
        assert [points(x) for x in values] == ["+1.23", "-.40", "+10.23", ".00", ".00", "–"]

    def test_a_delta_shows_seeds_interval_and_verdict(self):
        found = {"mean": 0.0123, "low": 0.004, "high": 0.0205}
        assert delta(found) == "+1.23 [+.40, +2.05] ▲"
        assert delta(found | {"seed_sd": 0.003}) == "+1.23 ±.30 [+.40, +2.05] ▲"
        assert delta({"mean": -0.02, "low": -0.03, "high": -0.001}) == "-2.00 [-3.00, -.10] ▼"
        assert delta({"mean": 0.0, "low": -0.03, "high": 0.01}).endswith("≈")
        assert delta({"mean": 0.0123}) == "+1.23" and delta(None) == "–"

    def test_a_row_of_a_comparison_becomes_a_delta(self):
        assert difference(change(0.5, 0.25)) == {"mean": 0.5, "low": 0.25, "high": 0.75}
        assert difference({"delta": None, "low": None}) is None and difference({}) is None


class TestFiles:
    def test_a_run_is_written_without_local_paths_and_read_again(self, results, tmp_path):
        path = write_label_results(results, tmp_path / "new" / "results.json")
        assert read_label_results(path) == results | {"command": "python coco_fairpo.py --output_dir x"}
        assert [file.name for file in path.parent.iterdir()] == ["results.json"], "no temporary file is left"

    def test_a_comparison_is_written_and_read_again(self, comparison, tmp_path):
        path = write_label_comparison_json(comparison, tmp_path / "comparison.json")
        assert read_label_comparison(path) == comparison

    def test_a_refused_document_keeps_the_old_file(self, results, tmp_path):
        path = write_label_results(results, tmp_path / "results.json")
        before = path.read_bytes()
        results["confusion"]["trained"] = float("nan")
        with pytest.raises(ValueError, match=r"confusion\.trained"):
            write_label_results(results, path)
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"cat": "non_privileged"', '"cat": "protected"', "protected"),
            ('"label_counts": {"owl"', '"label_counts": {"owk"', "did you mean 'owl'"),
            ("samples/0.png", "/etc/0.png", "samples\\[0\\].image"),
            ("samples/0.png", "../0.png", "samples\\[0\\].image"),
            ('["cat", 0.9]', '["cat", 1.9]', "no probability"),
            ('"true": ["owl"]', '"true": ["owls"]', "samples\\[0\\].true"),
            ('"hinge"', '"hinges"', "hinge"),
            ('"delta": 0.03, "low": 0.019', '"delta": 0.03, "low": 0.9', "low end"),
        ],
    )
    def test_an_unsound_run_is_refused_with_the_place(self, results, old, new, message):
        text = json.dumps(results)
        assert old in text
        with pytest.raises(ValueError, match=message):
            check_label_results(json.loads(text.replace(old, new, 1)))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"section": "method"}, "did you mean 'methods'"),
            ({"head": "shared"}, "head"),
            ({"name": "bce_continued"}, "twice"),
            ({"fell": ["dog"]}, "dog"),
            ({"colour": 1}, "colour"),
        ],
    )
    def test_an_unsound_method_is_refused(self, comparison, change, message):
        comparison["methods"][2] |= change
        with pytest.raises(ValueError, match=message):
            check_label_comparison(comparison)

    def test_changes_per_label_belong_to_a_method(self, comparison):
        comparison["per_label"] = {"fairpo_cpo": {}}
        with pytest.raises(ValueError, match="did you mean 'fairpo_cpo, mlp'"):
            check_label_comparison(comparison)
        assert method_key(comparison["methods"][2]) == "fairpo_cpo, mlp"


class TestBlocks:
    def test_trivial_baselines_stand_beside_the_models(self, results):
        sections = dict(groups_block(results).sections)
        rows = sections["privileged, 2 labels"]
        assert rows[0] == ("reference", "50.0", "40.0", "90.0", "70.0", "–")
        assert rows[1] == ("trained", "51.6", "41.6", "91.6", "71.6", "+1.60 [+.60, +2.60] ▲")
        assert rows[2] == ("all-negative", "5.0", "5.0", "5.0", "5.0", "–")
        assert rows[3][0] == "label prior" and list(sections) == [
            "privileged, 2 labels",
            "held, 2 labels",
            "all, 2 labels",
        ]

    def test_labels_that_gained_and_fell_most(self, results):
        gained, fell = moved_block(results, 1).sections
        assert gained == (
            "gained most",
            (("owl", "privileged", "31", "20", "50.0", "53.0", "+3.00 [+2.00, +4.00] ▲"),),
        )
        assert [row[0] for row in fell[1]] == ["cat"], "a label without a change is in neither"

    def test_promises_are_said_in_words(self, results):
        hinge, fell, confusion = promises(results)
        assert "62.0 % of the held (image, label) pairs" in hinge and "50.0 % of the held labels" in hinge
        assert "1 (cat ▼)" in fell and "66.0 % -> 70.1 %" in confusion

    def test_the_slides_table_has_both_controls(self, comparison):
        block = main_block(comparison, "mlp")
        assert [name for name, _ in block.sections] == [
            "trivial baselines", "reference", "methods", "re-weighting curve", "ablations"
        ]  # fmt: skip
        row = cells(block, "FairPO-CPO")
        assert row[1:9] == ("50.0",) * 8
        assert row[9:] == ("+2.00 ±.20 [+1.20, +2.90] ▲", "+.70 [-.10, +1.50] ≈")
        assert cells(block, "reference (BCE)")[9:] == ("–", "–")
        assert cells(block, "all-negative")[1:9] == ("2.0",) * 4 + ("–",) * 4
        assert cells(block, "re-weighted x3 (3 of 5 seeds)"), "fewer seeds than the others are said"

    def test_the_slides_protocol_is_set_apart(self, comparison):
        block = detail_block(comparison, "mlp")
        assert cells(block, "FairPO-CPO")[1:] == (
            "+.40 ±.20 [-.40, +1.30] ≈", "1 (0)", "60.0", "50.0", "66.0", "70.0", "60.0", "50.0", "88.0", "88.0"
        )  # fmt: skip
        assert block.header[-2:] == ("slides'\nP*", "slides'\nheld*") and "NOT comparable" in block.note

    def test_the_allowed_fall_is_said_in_points(self, comparison):
        assert "more than the allowed points" in detail_block(comparison, "mlp").note
        comparison["allowed_fall"] = 0.01
        assert "fell by more than 1 point (those" in detail_block(comparison, "mlp").note
        comparison["allowed_fall"] = 0.005
        assert fell_block(comparison, "mlp").title.startswith("Held labels that fell by more than 0.5 points,")

    def test_the_method_of_the_confused_pairs_is_named(self, comparison):
        assert "(after" not in confused_block(comparison).title
        comparison["confused_pairs"]["method"] = "FairPO-CPO, seed 0"
        assert confused_block(comparison).title.endswith("(after: FairPO-CPO, seed 0)")

    def test_per_label_and_fallen_labels(self, comparison):
        block = per_label_block(comparison, "mlp", 1)
        assert [[row[0] for row in rows] for _, rows in block.sections] == [["harp", "owl"], ["cat"]]
        assert block.sections[0][1][0] == ("harp", "25", "-1.00 [-2.00, +.50] ≈")
        assert per_label_block(comparison, "linear") is None and fell_block(comparison, "linear") is None
        assert cells(fell_block(comparison, "mlp"), "FairPO-CPO") == ("FairPO-CPO", "cat")


class TestTerminal:
    def test_a_run_fits_and_reads_without_colour(self, results):
        text = printed(print_label_results, results)
        assert max(map(len, text.splitlines())) <= 100
        for expected in ("+1.60 [+.60, +2.60] ▲", "all-negative", "✓ owl * 80", "· cat 90", "66.0 % -> 70.1 %"):
            assert expected in text
        assert "nan" not in text and "None" not in text

    def test_a_comparison_fits_with_the_interval_below(self, comparison):
        comparison["methods"][2]["label"] = "a method with a very long name that has to be folded somewhere"
        text = printed(print_label_comparison, comparison)
        assert max(map(len, text.splitlines())) <= 100 and "…" not in text
        assert "+2.00 ±.20 ▲" in text and "[+1.20, +2.90]" in text and "Head: linear" in text
        assert "Note: Continued BCE gains nothing." in text and "harp" in text

    def test_text_from_data_is_shown_not_obeyed(self, results):
        results["samples"][0]["id"] = "[bold]x[/bold] \x1b[31m"
        text = printed(print_label_results, results)
        assert "[bold]x[/bold]" in text and "\x1b" not in text


class TestExports:
    def test_csv_holds_shares_and_is_empty_where_nothing_was_measured(self, comparison):
        rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
        assert [row["method"] for row in rows[:2]] == ["all_negative", "reference"] and len(rows) == 8
        row = next(row for row in rows if row["method"] == "fairpo_cpo")
        assert row["privileged_map_delta_reference_mean"] == "0.02"
        assert row["privileged_map_delta_continued_low"] == "-0.001"
        assert row["privileged_slides_protocol_map_not_comparable"] == "0.88" and row["held_labels_fell"] == "cat"
        assert rows[1]["privileged_map_delta_reference_mean"] == ""

    def test_csv_of_labels_has_a_line_per_method_and_label(self, comparison):
        rows = list(csv.DictReader(io.StringIO(labels_csv(comparison))))
        assert [row["label"] for row in rows] == list(PARTITION)
        assert rows[0] == {
            "head": "mlp", "method": "fairpo_cpo", "label": "owl", "role": "privileged", "positives_in_train": "31",
            "ap_delta": "-0.01", "low": "-0.02", "high": "0.005",
        }  # fmt: skip

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
    def test_no_csv_cell_of_text_is_a_formula(self, comparison, start):
        comparison["methods"][1]["label"] = f"{start}HYPERLINK(1)"
        labels = [row["label"] for row in csv.DictReader(io.StringIO(comparison_csv(comparison)))]
        assert f"'{start}HYPERLINK(1)" in labels
        assert csv_text("plain - text") == "plain - text"

    def test_latex_shows_text_literally(self):
        assert tex("a_b & 50% #1 $x$ {y} \\input~^") == (
            r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}input\textasciitilde{}\textasciicircum{}"
        )
        assert tex("+1.23 ±.30 ▲ –\n\x1b") == r"+1.23 $\pm$.30 $\uparrow$ -- ?"

    def test_latex_rows_have_as_many_cells_as_columns(self, comparison):
        comparison["methods"][1]["label"] = r"\input{x} & % {"
        text = comparison_latex(comparison)
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4, "two heads, two tables each"
        assert r"\input" not in text
        for columns, body in re.findall(r"\\begin\{tabular\}\{(l*r+)\}(.*?)\\end\{tabular\}", text, re.S):
            for line in body.splitlines():
                if line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
                    assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")

    def test_markdown_escapes_and_leaves_out_what_is_absent(self, results, comparison):
        results["title"] = comparison["title"] = "A <b>title</b> | x"
        for part in ("command", "settings", "seconds", "seeds", "samples", "weights_history"):
            del results[part]
        run, many = render_label_markdown(results), render_comparison_markdown(comparison)
        for text in (run, many):
            assert text.startswith(r"# A &lt;b\>title&lt;/b\> \| x") and "None" not in text and "nan" not in text
        assert "| command" not in run and "Best labels" not in run
        assert r"| tree\_50% | 212 | -1.00" in many and "slides' P\\*" in many
        for line in many.splitlines():
            if line.startswith("| FairPO-CPO | 50.0"):
                assert len(re.findall(r"(?<!\\)\|", line)) == 12


class TestPictures:
    def test_a_report_holds_its_pictures_and_no_local_path(self, results, tmp_path):
        (tmp_path / "samples").mkdir()
        Image.new("RGBA", (64, 40), (200, 30, 30, 128)).save(tmp_path / "samples" / "0.png")
        before = copy.deepcopy(results)
        report = write_label_report(results, tmp_path)
        assert results == before
        text = report.read_text(encoding="utf-8")
        names = {"label_deltas.png", "weights.png", "samples.png"}
        assert {file.name for file in tmp_path.iterdir()} == names | {
            "results.json",
            "report.md",
            "report.html",
            "samples",
        }
        for name in names:
            assert f"({name})" in text and png_size(tmp_path / name)[0] > 1000
        assert "someone" not in text

    def test_a_comparison_writes_every_file(self, comparison, tmp_path):
        text = write_label_comparison(comparison, tmp_path).read_text(encoding="utf-8")
        pictures = {"pareto_mlp.png", "pareto_mlp_ablations.png", "label_deltas_fairpo_cpo_mlp.png"}
        tables = {"comparison.json", "comparison.md", "comparison.csv", "comparison_labels.csv", "comparison.tex"}
        assert {file.name for file in tmp_path.iterdir()} == pictures | tables, "the linear head has nothing to plot"
        for name in pictures:
            assert f"({name})" in text

    def test_a_missing_or_broken_image_is_named(self, results, tmp_path):
        with pytest.raises(FileNotFoundError, match="birds/owl_1"):
            plot_samples(results, tmp_path / "samples.png")
        (tmp_path / "samples").mkdir()
        (tmp_path / "samples" / "0.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match=r"samples/0\.png"):
            plot_samples(results, tmp_path / "s.png")

    def test_many_groups_are_told_apart_by_role(self, results, tmp_path):
        names = [f"label {i}" for i in range(20)]
        results["partition"] |= dict.fromkeys(names, "non_privileged")
        results["weights_history"] = [{"step": s, "owl": 1.0, **dict.fromkeys(names, s / 9)} for s in (1, 5)]
        assert png_size(plot_weights(results, tmp_path / "w.png")) == (1125, 630)

    def test_nothing_to_plot(self, results, comparison, tmp_path):
        with pytest.raises(ValueError, match="no changes"):
            plot_label_deltas({}, PARTITION, tmp_path / "p.png", "t")
        with pytest.raises(ValueError, match="no samples"):
            plot_samples(results | {"samples": []}, tmp_path / "p.png")
        with pytest.raises(ValueError, match="'linear'"):
            plot_pareto(comparison, tmp_path / "p.png", "linear")
        with pytest.raises(ValueError, match="Unknown head 'mpl'"):
            plot_pareto(comparison, tmp_path / "p.png", "mpl")
        assert not list(tmp_path.iterdir())


def test_knows_no_torch():
    modules = "fairpo_trl.reporting.label_writers, fairpo_trl.reporting.label_tables"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
