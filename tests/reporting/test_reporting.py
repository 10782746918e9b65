"""Tests of the reports of all documents: their tables of typed cells, in the terminal, Markdown, LaTeX and CSV."""

import csv
import io
import re
import subprocess
import sys

import pytest
from builders import (
    HOSTILE,
    around,
    bare_generation_fields,
    comparison_fields,
    generation_fields,
    label_fields,
    label_set_fields,
)
from rich.console import Console

from fairpo_trl.reporting import (
    LabelComparison,
    LabelResults,
    Results,
    print_results,
)
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.cells import Change, Mean, Outcome, Pieces, Value, pieces, text_of
from fairpo_trl.reporting.comparison_report import (
    comparison_report,
    confused_block,
    detail_block,
    fell_block,
    main_block,
    per_label_block,
)
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.generation_report import generation_report, guards_block, pairs_block, win_rate_block
from fairpo_trl.reporting.label_report import groups_block, label_report, moved_block, promises
from fairpo_trl.reporting.numbers import duration, number, percent, points, share, verdict
from fairpo_trl.reporting.render.csv import comparison_csv, csv_text, labels_csv
from fairpo_trl.reporting.render.latex import blocks_latex, tex
from fairpo_trl.reporting.render.markdown import escape, report_markdown


def texts(row):
    return tuple(map(text_of, row))


def row_of(block: Block, first: str):
    return next(texts(row) for row in block.rows() if row[0] == first)


def printed(show, document, **options):
    out = io.StringIO()
    show(document, Console(file=out, width=100, highlight=False, **options))
    return out.getvalue()


def markdown(fields):
    return report_markdown(generation_report(Results(**fields)))


class TestCells:
    def test_numbers(self):
        assert [share(x) for x in (0.731, 1.0, -0.05, -0.001, None)] == [".73", "1.00", "-.05", ".00", "–"]
        assert [percent(x) for x in (0.684, 1.0, 0.0, None)] == ["68.4", "100.0", "0.0", "–"]
        values = (0.0123, -0.004, 0.1023, 0.00001, -0.00001, None)
        assert [points(x) for x in values] == ["+1.23", "-.40", "+10.23", ".00", ".00", "–"]
        assert [number(x, "decimal") for x in (0.5, -1.25, -0.001)] == ["0.50", "-1.25", "0.00"]
        assert (number(120, "count"), number(0.03214, "fine")) == ("120", "0.0321")
        assert [duration(s) for s in (44.6, 720, 7500)] == ["45 s", "12 min", "2 h 05 min"]

    def test_verdicts(self):
        found = [verdict(Interval(**around(mean))) for mean in (0.2, -0.2, 0.0)]
        assert found == ["better", "worse", "same"]
        assert verdict(None) is None and verdict(Interval(mean=0.2)) is None

    def test_a_mean_has_its_interval_and_no_verdict(self):
        assert text_of(Mean(Interval(mean=0.73, low=0.69, high=0.77))) == ".73 [.69, .77]"
        assert text_of(Mean(Interval(mean=0.6))) == ".60" and text_of(Mean(None)) == "–"
        assert (text_of(Value(0.5, "percent")), text_of(Value(2, "decimal", signed=True))) == ("50.0", "+2.00")

    def test_a_change_shows_seeds_interval_and_verdict(self):
        found = Interval(mean=0.0123, low=0.004, high=0.0205, seed_sd=0.003)
        assert text_of(Change(found)) == "+1.23 ±.30 [+.40, +2.05] ▲"
        assert pieces(Change(found)) == Pieces("+1.23 ±.30", "[+.40, +2.05]", "▲", "better")
        assert text_of(Change(found, "share", arrow=False)) == "+.01 ±.00 [.00, +.02]"
        assert text_of(Outcome(found)) == "▲ better"
        assert text_of(Change(Interval(mean=-0.02, low=-0.03, high=-0.001))) == "-2.00 [-3.00, -.10] ▼"
        assert text_of(Change(Interval(mean=0.0, low=-0.03, high=0.01))).endswith("≈")
        assert [text_of(cell) for cell in (Change(Interval(mean=0.0123)), Change(None), Outcome(None))] == [
            "+1.23", "–", "–"
        ]  # fmt: skip

    def test_text_that_looks_like_a_change_is_text(self):
        assert pieces("+1.00 [+.50, +1.50] ▲") == Pieces("+1.00 [+.50, +1.50] ▲")


class TestGeneration:
    def test_a_row_per_attribute_and_judge(self):
        block = win_rate_block(Results(**generation_fields()))
        assert [name for name, _ in block.sections] == ["privileged", "held"]
        assert row_of(block, "warmth") == (
            "warmth", "scorer", "+.23 [+.19, +.27]", "▲ better", ".74 [.70, .78]", ".51 [.48, .54]", ".61 [.56, .66]"
        )  # fmt: skip
        assert [texts(row)[:2] for row in block.rows()][1] == ("warmth", "second judge")
        assert block.roles == ("privileged",) * 2 + ("non_privileged",) * 4

    def test_an_attribute_without_a_judge_shows_dashes(self):
        fields = generation_fields()
        fields["attributes"][1]["win_rate"] = {}
        assert set(row_of(win_rate_block(Results(**fields)), "brevity")[1:]) == {"–"}
        assert set(row_of(win_rate_block(Results(**bare_generation_fields())), "a")[1:]) == {"–"}

    def test_no_column_for_what_no_judge_measured(self):
        fields = generation_fields()
        for entry in fields["attributes"]:
            del entry["length_controlled"]
        assert "at equal\nlength" not in win_rate_block(Results(**fields)).header

    def test_pairs_and_guards(self):
        results = Results(**generation_fields())
        assert row_of(pairs_block(results), "brevity") == ("brevity", "121", ".58", ".72", ".84", ".34")
        guards = guards_block(results)
        assert row_of(guards, "completions") == ("completions", "200", "201")
        assert row_of(guards, "words per completion") == ("words per completion", "20.50", "18.25")
        assert row_of(guards, "cut at the length limit, %")[1:] == ("25.0", "50.0")
        assert row_of(guards, "log-prob. per token under the reference, nats")[1:] == ("–", "-1.25")

    def test_a_guard_of_tomorrow_is_shown_by_its_name(self):
        fields = generation_fields()
        fields["guards"]["trained"] |= {"shouting_share": 0.25}
        assert row_of(guards_block(Results(**fields)), "shouting share") == ("shouting share", "–", "25.0")

    def test_what_was_not_measured_has_no_part(self):
        report = generation_report(Results(**bare_generation_fields()))
        assert [type(part) for part in report.parts()] == [Block] and report.facts[-1] == ("held", "–")


class TestLabels:
    def test_trivial_baselines_stand_beside_the_models(self):
        sections = dict(groups_block(LabelResults(**label_fields())).sections)
        assert list(sections) == ["privileged, 2 labels", "held, 2 labels", "all, 2 labels"]
        rows = [texts(row) for row in sections["privileged, 2 labels"]]
        assert rows[0] == ("reference", "50.0", "40.0", "90.0", "70.0", "–")
        assert rows[1] == ("trained", "51.6", "41.6", "91.6", "71.6", "+1.60 [+.60, +2.60] ▲")
        assert rows[2] == ("all-negative", "5.0", "5.0", "5.0", "5.0", "–") and rows[3][0] == "label prior"

    def test_labels_that_gained_and_fell_most(self):
        gained, fell = moved_block(LabelResults(**label_fields()), 1).sections
        assert (gained[0], [texts(row) for row in gained[1]]) == (
            "gained most", [("owl", "privileged", "31", "20", "50.0", "53.0", "+3.00 [+2.00, +4.00] ▲")]
        )  # fmt: skip
        assert [row[0] for row in fell[1]] == ["cat"], "a label without a change is in neither"

    def test_promises_are_said_in_words(self):
        hinge, fell, confusion = promises(LabelResults(**label_fields()))
        assert "62.0 % of the held (image, label) pairs" in hinge and "50.0 % of the held labels" in hinge
        assert "1 (cat ▼)" in fell and "66.3 % -> 70.1 %" in confusion

    def test_label_sets_have_precision_recall_and_f1(self):
        results = LabelResults(**label_set_fields())
        block = groups_block(results)
        assert block.header == ("", "precision", "recall", "F1", "set-F1", "exact match", "change of F1")
        rows = [texts(row) for row in dict(block.sections)["privileged"]]
        assert rows[0] == ("reference", "80.0", "60.0", "70.0", "50.0", "–", "–")
        assert [row[0] for row in rows] == ["reference", "trained"], "baselines without a set have no F1"
        assert row_of(moved_block(results), "owl")[4:] == ("25.0", "75.0", "+3.00 [+2.00, +4.00] ▲")
        assert len(promises(results)) == 1 and "F1 fell by more than 1 point" in promises(results)[0]

    def test_label_sets_speak_of_no_average_precision(self):
        results = LabelResults(**label_set_fields())
        for text in (report_markdown(label_report(results)), printed(print_results, results)):
            assert "What was read" in text and "change of F1" in text and "-2.00" in text and "4.3" in text
            assert "mAP" not in text and "average precision" not in text and "Confusion" not in text


class TestComparison:
    @pytest.fixture
    def comparison(self):
        return LabelComparison(**comparison_fields())

    def test_the_slides_table_has_both_controls(self, comparison):
        block = main_block(comparison, "mlp")
        assert [name for name, _ in block.sections] == [
            "trivial baselines", "reference", "methods", "re-weighting curve", "ablations"
        ]  # fmt: skip
        row = row_of(block, "FairPO-CPO")
        assert row[1:9] == ("50.0",) * 8
        assert row[9:] == ("+2.00 ±.20 [+1.20, +2.90] ▲", "+.70 [-.10, +1.50] ≈")
        assert row_of(block, "reference (BCE)")[9:] == ("–", "–")
        assert row_of(block, "all-negative")[1:9] == ("2.0",) * 4 + ("–",) * 4
        assert row_of(block, "re-weighted x3 (3 of 5 seeds)"), "fewer seeds than the others are said"

    def test_the_slides_protocol_is_set_apart(self, comparison):
        block = detail_block(comparison, "mlp")
        assert row_of(block, "FairPO-CPO")[1:] == (
            "+.40 ±.20 [-.40, +1.30] ≈", "1 (0)", "60.0", "50.0", "66.0", "70.0", "60.0", "50.0", "88.0", "88.0"
        )  # fmt: skip
        assert block.header[-2:] == ("slides'\nP*", "slides'\nheld*") and "NOT comparable" in block.note

    @pytest.mark.parametrize(
        ("allowed", "words"), [(None, "the allowed points"), (0.01, "1 point ("), (0.005, "0.5 points ")]
    )
    def test_the_allowed_fall_is_said_in_points(self, allowed, words):
        comparison = LabelComparison(**comparison_fields() | {"allowed_fall": allowed})
        assert f"fell by more than {words}" in detail_block(comparison, "mlp").note

    def test_the_method_of_the_confused_pairs_is_named(self, comparison):
        assert "(after" not in confused_block(comparison).title
        fields = comparison_fields()
        fields["confused_pairs"]["method"] = "FairPO-CPO, seed 0"
        assert confused_block(LabelComparison(**fields)).title.endswith("(after: FairPO-CPO, seed 0)")

    def test_per_label_and_fallen_labels(self, comparison):
        block = per_label_block(comparison, "mlp", 1)
        assert [[row[0] for row in rows] for _, rows in block.sections] == [["harp", "owl"], ["cat"]]
        assert row_of(block, "harp") == ("harp", "25", "-1.00 [-2.00, +.50] ≈")
        assert per_label_block(comparison, "linear") is None and fell_block(comparison, "linear") is None
        assert row_of(fell_block(comparison, "mlp"), "FairPO-CPO") == ("FairPO-CPO", "cat")


class TestTerminal:
    @pytest.mark.parametrize(
        ("show", "document", "said"),
        [
            (print_results, Results(**generation_fields()), ["▲ better", "≈ unclear", ".74", "[.70, .78]", "20.50"]),
            (print_results, LabelResults(**label_fields()), ["+1.60 [+.60, +2.60] ▲", "✓ owl * 82", "· cat 90"]),
            (print_results, LabelComparison(**comparison_fields()), ["+2.00 ±.20 ▲", "Head: linear", "harp"]),
        ],
    )
    def test_it_fits_and_reads_without_colour(self, show, document, said):
        text = printed(show, document)
        assert max(map(len, text.splitlines())) <= 100 and "…" not in text
        assert not [expected for expected in said if expected not in text]
        assert "nan" not in text and "None" not in text

    def test_a_verdict_is_never_torn(self):
        fields = generation_fields()
        fields["attributes"][0]["win_rate"] = {
            "a judge with a long name": fields["attributes"][0]["win_rate"]["scorer"]
        }
        assert "▲ better" in printed(print_results, Results(**fields))

    def test_a_long_name_is_folded_and_its_interval_stands_below(self):
        fields = comparison_fields()
        fields["methods"][2]["label"] = "a method with a very long name that has to be folded somewhere"
        lines = printed(print_results, LabelComparison(**fields)).splitlines()
        (at,) = [i for i, line in enumerate(lines) if "+.70 ≈" in line]
        assert "[-.10, +1.50]" in lines[at + 1]

    def test_markup_and_control_characters_are_shown_not_obeyed(self):
        fields, labels = generation_fields(), label_fields()
        fields["samples"][0]["trained"] = labels["samples"][0]["id"] = "[bold]x[/bold] \x1b[31m"
        for text in (
            printed(print_results, Results(**fields), force_terminal=True),
            printed(print_results, LabelResults(**labels)),
        ):
            assert "[bold]x[/bold]" in text and "\x1b[31m" not in text


class TestMarkdown:
    def test_text_from_data_is_escaped(self):
        fields = generation_fields()
        fields["title"] = "A <b>title</b>"
        fields["samples"][0]["trained"] = "<script>alert(1)</script> | `code` **bold** \x1b\nsecond & last"
        text = markdown(fields)
        assert "<script" not in text and "<b>" not in text
        assert r"&lt;script\>alert(1)&lt;/script\> \| \`code\` \*\*bold\*\*" in text
        assert "<br>second &amp; last" in text and "\x1b" not in text

    @pytest.mark.parametrize("text", ["a|b", "`a`", "a\nb", "a\\|b", "a\r\n\n| --- |", HOSTILE])
    def test_a_cell_stays_one_cell(self, text):
        fields = generation_fields()
        fields["samples"], fields["regressions"] = [{"prompt": text, "reference": text, "trained": text}], []
        row = markdown(fields).rstrip("\n").splitlines()[-1]
        assert row.replace("\\\\", "").replace("\\|", "").count("|") == 4

    def test_escape(self):
        assert escape("[x](http://a) www.b.c @me") == r"\[x\](http\://a) www\.b.c \@me"
        assert escape("plain words, 0.5 - 1!") == "plain words, 0.5 - 1!"

    @pytest.mark.parametrize(
        "text",
        [
            report_markdown(generation_report(Results(**bare_generation_fields()))),
            report_markdown(label_report(LabelResults(**label_set_fields()))),
            report_markdown(comparison_report(LabelComparison(**comparison_fields()))),
        ],
    )
    def test_absent_parts_are_left_out(self, text):
        for absent in ("sound", "What the models write", "Best labels", "None", "nan"):
            assert absent not in text

    def test_the_worst_regressions_of_each_attribute(self):
        fields = generation_fields()
        found = {"judge": "scorer", "prompt": "ask", "reference": "good", "trained": HOSTILE}
        fields["regressions"] = [
            found | {"attribute": name, "change": -change}
            for name in ("brevity", "warmth")
            for change in (4.0, 3.0, 2.0, 1.0)
        ]
        table = markdown(fields).split("## Worst regressions")[1]
        assert re.findall(r"\w+ -\d\.\d\d by the scorer", table) == [
            f"{name} -{change}.00 by the scorer" for name in ("brevity", "warmth") for change in (4, 3, 2)
        ]

    def test_a_table_of_a_comparison_keeps_its_columns(self):
        text = report_markdown(comparison_report(LabelComparison(**comparison_fields() | {"title": "A <b>x</b> | y"})))
        assert text.startswith(r"# A &lt;b\>x&lt;/b\> \| y")
        assert r"| tree\_50% | 212 | -1.00" in text and "slides' P\\*" in text
        (row,) = [line for line in text.splitlines() if line.startswith("| FairPO-CPO | 50.0")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 12


class TestLatex:
    def test_it_shows_text_literally(self):
        assert tex("a_b & 50% #1 $x$ {y} \\input~^") == (
            r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}input\textasciitilde{}\textasciicircum{}"
        )
        assert tex("+1.23 ±.30 ▲ –\n\x1b") == r"+1.23 $\pm$.30 $\uparrow$ -- ?"

    def test_rows_have_as_many_cells_as_columns(self):
        fields = comparison_fields()
        fields["methods"][1]["label"] = r"\input{x} & % {"
        comparison = LabelComparison(**fields)
        text = blocks_latex([main_block(comparison, "mlp"), detail_block(comparison, "mlp")], "title")
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2 and r"\input" not in text
        for columns, body in re.findall(r"\\begin\{tabular\}\{(l*r+)\}(.*?)\\end\{tabular\}", text, re.S):
            for line in body.splitlines():
                if line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
                    assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")


class TestCsv:
    def test_it_holds_shares_and_is_empty_where_nothing_was_measured(self):
        rows = list(csv.DictReader(io.StringIO(comparison_csv(LabelComparison(**comparison_fields())))))
        assert [row["method"] for row in rows[:2]] == ["all_negative", "reference"] and len(rows) == 8
        row = next(row for row in rows if row["method"] == "fairpo_cpo")
        assert row["privileged_map_delta_reference_mean"] == "0.02"
        assert row["privileged_map_delta_continued_low"] == "-0.001"
        assert row["privileged_slides_protocol_map_not_comparable"] == "0.88" and row["held_labels_fell"] == "cat"
        assert rows[1]["privileged_map_delta_reference_mean"] == ""

    def test_labels_have_a_line_per_method(self):
        rows = list(csv.DictReader(io.StringIO(labels_csv(LabelComparison(**comparison_fields())))))
        assert [row["label"] for row in rows] == ["owl", "harp", "cat", "tree_50%"]
        assert rows[0] == {
            "head": "mlp", "method": "fairpo_cpo", "label": "owl", "role": "privileged", "positives_in_train": "31",
            "ap_delta": "-0.01", "low": "-0.02", "high": "0.005",
        }  # fmt: skip

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
    def test_no_cell_of_text_is_a_formula(self, start):
        fields = comparison_fields()
        fields["methods"][1]["label"] = f"{start}HYPERLINK(1)"
        labels = [row["label"] for row in csv.DictReader(io.StringIO(comparison_csv(LabelComparison(**fields))))]
        assert f"'{start}HYPERLINK(1)" in labels
        assert csv_text("plain - text") == "plain - text"


def test_knows_no_torch():
    code = (
        "import sys, fairpo_trl.reporting as shown; [getattr(shown, name) for name in shown.__all__]; "
        "sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
