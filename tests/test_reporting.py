"""Tests of `fairpo_trl.reporting`: the results file, terminal tables, plots and the Markdown report."""

import copy
import io
import json
import struct
import subprocess
import sys

import pytest
from rich.console import Console

from fairpo_trl.reporting import (
    ComparisonPoint,
    check_results,
    plot_comparison,
    plot_margins,
    plot_weights,
    plot_win_rates,
    print_results,
    read_results,
    render_markdown,
    write_report,
    write_results,
)
from fairpo_trl.reporting.markdown import escape
from fairpo_trl.reporting.numbers import duration, interval, share, verdict
from fairpo_trl.reporting.results import without_local_paths


HOSTILE = "<script>alert(1)</script> | `code` **bold** [bold]x[/bold] $a$ \x1b[31m\nsecond & last"


def around(mean, half=0.04, n=200):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


@pytest.fixture
def results():
    partition = {"warmth": "privileged", "brevity": "non_privileged", "plain_words": "non_privileged"}
    means = {"warmth": 0.73, "brevity": 0.41, "plain_words": 0.51}
    attributes = [
        {
            "attribute": name,
            "role": partition[name],
            "pairs": 120,
            "win_rate": {
                "scorer": {
                    "reference_vs_itself": around(0.5, 0.03),
                    "trained": around(mean),
                    "difference": around(mean - 0.5),
                },
            },
            "pair_accuracy": {"trained": 0.7},
            "final_weight": 0.5,
        }
        for name, mean in means.items()
    ]
    attributes[0]["win_rate"]["second_judge"] = {"trained": {"mean": 0.6}}
    steps = range(1, 40, 4)
    return {
        "title": "FairPO, a small model",
        "command": "python train.py --output /home/someone/runs/x",
        "model": "SmolLM2-135M-Instruct",
        "partition": partition,
        "settings": {"beta": 0.1},
        "seeds": [0, 1],
        "hardware": "2 CPU cores",
        "seconds": 1234.5,
        "attributes": attributes,
        "guards": {
            "reference": {"completions": 200, "mean_words": 20.5, "unended_share": 0.25},
            "trained": {"completions": 200, "mean_words": 18.0, "unended_share": 0.5, "mean_token_log_prob": -1.25},
        },
        "weights_history": [{"step": s, "privileged": 0.5 + s / 100, "non_privileged": 0.5 - s / 100} for s in steps],
        "margins_history": [{"step": s, "warmth": s / 50, "brevity": -s / 90} for s in steps],
        "samples": [{"prompt": "Tell me about /home/x.", "reference": "Plain.", "trained": HOSTILE}],
    }


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 5000
    return struct.unpack(">II", data[16:24])


def has_ink_of(path, colour):
    """Whether some pixel has this colour (red, green, blue from 0 to 1)."""
    import numpy as np
    from matplotlib.image import imread

    return bool((np.abs(imread(path)[..., :3] - np.array(colour)).max(axis=-1) < 0.02).any())


class TestResults:
    def test_round_trip(self, results, tmp_path):
        path = write_results(results, tmp_path / "new" / "results.json")
        expected = results | {"command": "python train.py --output x"}
        assert read_results(path) == expected
        assert [file.name for file in path.parent.iterdir()] == ["results.json"], "no temporary file is left"

    def test_samples_are_not_touched(self, results, tmp_path):
        assert read_results(write_results(results, tmp_path / "r.json"))["samples"] == results["samples"]

    def test_a_failed_write_keeps_the_old_file(self, results, tmp_path):
        path = write_results(results, tmp_path / "results.json")
        before = path.read_bytes()
        for bad in (float("nan"), object()):
            with pytest.raises((ValueError, TypeError)):
                write_results(results | {"settings": {"beta": bad}}, path)
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_nan_and_names_the_place(self, results, value):
        results["attributes"][1]["win_rate"]["scorer"]["trained"]["mean"] = value
        with pytest.raises(ValueError, match=r"attributes\[1\]\.win_rate\.scorer\.trained\.mean"):
            check_results(results)

    def test_refuses_other_shapes(self, results):
        for change, message in [
            ({"partition": {"warmth": "protected"}}, "protected"),
            ({"partition": {"warmth": "non_privileged"}}, "warmth"),
            ({"colour": "red"}, "colour"),
        ]:
            with pytest.raises(ValueError, match=message):
                check_results(results | change)
        del results["title"]
        with pytest.raises(ValueError, match="title"):
            check_results(results)

    def test_refuses_an_interval_upside_down(self, results):
        results["attributes"][0]["win_rate"]["scorer"]["trained"] |= {"low": 0.9, "high": 0.1}
        with pytest.raises(ValueError, match="low end"):
            check_results(results)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("/home/me/data/x.json", "x.json"),
            ("run --out=/tmp/a/b/ --data 'C:\\Users\\me\\d.csv'", "run --out=b --data 'd.csv'"),
            ("~/models/smol", "smol"),
            (
                "https://example.org/a/b and org/model and ./runs/x",
                "https://example.org/a/b and org/model and ./runs/x",
            ),
            ("fixed 0.5 / 0.5, 3/4", "fixed 0.5 / 0.5, 3/4"),
        ],
    )
    def test_local_paths(self, text, expected):
        assert without_local_paths(text) == expected


class TestNumbers:
    def test_texts(self):
        assert [share(x) for x in (0.731, 1.0, -0.05, -0.001, None)] == [".73", "1.00", "-.05", ".00", "–"]
        assert interval(around(0.05, 0.1), signed=True) == "+.05 [-.05, +.15]"
        assert interval({"mean": 0.6}) == ".60"
        assert [duration(s) for s in (44.6, 720, 7500)] == ["45 s", "12 min", "2 h 05 min"]

    def test_verdicts(self):
        means = (0.2, -0.2, 0.0)
        assert [verdict(around(mean)) for mean in means] == ["better", "worse", "same"]
        assert verdict(None) is None and verdict({"mean": 0.2}) is None


def printed(results, **console):
    out = io.StringIO()
    print_results(results, Console(file=out, width=100, highlight=False, **console))
    return out.getvalue()


class TestTables:
    def test_fits_and_reads_without_colour(self, results):
        text = printed(results)
        assert max(map(len, text.splitlines())) <= 100
        for expected in ("▲ better", "▼ worse", "≈ unclear", ".73 [.69, .77]", "second judge", "20.50"):
            assert expected in text

    def test_markup_and_control_characters_are_shown_not_obeyed(self, results):
        text = printed(results)
        assert "[bold]x[/bold]" in text and "<script>" in text and "\x1b" not in text
        assert "\x1b[31m\n" not in printed(results, force_terminal=True)

    def test_absent_stays_absent(self, results):
        rows = [line for line in printed(results).splitlines() if "plain_words" in line]
        assert rows[1].count("–") == 4 and "nan" not in "".join(rows)

    def test_least_results(self):
        text = printed({"title": "Nothing yet", "partition": {}, "attributes": []})
        assert "Nothing yet" in text and "sound" not in text


class TestPlots:
    @pytest.mark.parametrize(
        ("plot", "size"),
        [(plot_weights, (1125, 630)), (plot_margins, (1125, 630)), (plot_win_rates, (1125, 510))],
    )
    def test_size_and_ink(self, results, tmp_path, plot, size):
        path = plot(results, tmp_path / "new" / "plot.png")
        assert png_size(path) == size
        assert has_ink_of(path, (0xD5 / 255, 0x5E / 255, 0))

    def test_second_judge_without_intervals(self, results, tmp_path):
        assert png_size(plot_win_rates(results, tmp_path / "p.png", "second_judge"))[0] == 1125

    def test_names_with_a_formula_sign(self, results, tmp_path):
        text = json.dumps(results).replace("warmth", "$x^{$").replace("a small model", "$\\\\frac$")
        for plot in (plot_weights, plot_margins, plot_win_rates):
            png_size(plot(json.loads(text), tmp_path / "p.png"))

    def test_nothing_to_plot(self, results, tmp_path):
        empty = {"title": "t", "partition": {}, "attributes": []}
        for plot in (plot_weights, plot_margins, plot_win_rates):
            with pytest.raises(ValueError, match=r"history|win rates"):
                plot(empty, tmp_path / "p.png")
        with pytest.raises(ValueError, match="no points"):
            plot_comparison([], tmp_path / "p.png")
        assert not list(tmp_path.iterdir())

    def test_comparison(self, tmp_path):
        def point(label, x, mean, worst):
            return ComparisonPoint(label, around(x), around(mean), {"mean": worst})

        curve = [point("20", 0.55, 0.5, 0.48), point("60", 0.66, 0.47, 0.41)]
        path = plot_comparison(
            [point("FairPO $", 0.68, 0.5, 0.47)], tmp_path / "c.png", curves={"DPO, stopped": curve}, subtitle="200"
        )
        assert png_size(path) == (1650, 840)
        assert png_size(plot_comparison([], tmp_path / "d.png", curves={"DPO": curve})) == (1650, 840)


class TestMarkdown:
    def test_text_from_data_is_escaped(self, results):
        results["title"] = "A <b>title</b>"
        text = render_markdown(results)
        assert "<script" not in text and "<b>" not in text
        assert r"&lt;script\>alert(1)&lt;/script\> \| \`code\` \*\*bold\*\*" in text
        assert "<br>second &amp; last" in text and "\x1b" not in text

    @pytest.mark.parametrize("text", ["a|b", "`a`", "a\nb", "a\\|b", "a\r\n\n| --- |"])
    def test_a_cell_stays_one_cell(self, results, text):
        results["samples"][0]["trained"] = text
        row = render_markdown(results).rstrip("\n").splitlines()[-1]
        unescaped = row.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 4

    def test_escape(self):
        assert escape("[x](http://a) www.b.c @me") == r"\[x\](http\://a) www\.b.c \@me"
        assert escape("plain words, 0.5 - 1!") == "plain words, 0.5 - 1!"

    def test_absent_parts_are_left_out(self, results):
        for part in ("guards", "samples", "settings", "seeds", "seconds", "hardware", "model"):
            del results[part]
        text = render_markdown(results)
        assert "sound" not in text and "What the models write" not in text and "| model" not in text
        assert "| held | brevity | – | – | – | – |" in text, "the second judge did not score it"
        assert "nan" not in text.lower() and "None" not in text

    def test_report_links_its_plots(self, results, tmp_path):
        before = copy.deepcopy(results)
        report = write_report(results, tmp_path / "report")
        assert results == before
        text = report.read_text(encoding="utf-8")
        names = {"win_rates_scorer.png", "win_rates_second_judge.png", "weights.png", "margins.png"}
        for name in names:
            assert f"({name})" in text
        assert {file.name for file in report.parent.iterdir()} == names | {"results.json", "report.md", "report.html"}
        assert "someone" not in text and "▲ better" in text and "21 min" in text


class TestEqualLengthAndRegressions:
    """What `fairpo evaluate` measures besides is in the terminal and in Markdown too, not on the page alone."""

    @pytest.fixture
    def evaluated(self, results):
        results["attributes"][0]["length_controlled"] = {"scorer": around(0.61, 0.05)}
        regression = {"judge": "second_judge", "prompt": "ask", "reference": "good", "trained": HOSTILE}
        results["regressions"] = [
            regression | {"attribute": name, "change": -change}
            for name in ("brevity", "warmth")
            for change in (4.0, 3.0, 2.0, 1.0)
        ]
        return results

    def test_the_rate_at_equal_length_stands_beside_the_others(self, evaluated):
        text = render_markdown(evaluated)
        scorer, second = text.split("judged by the")[1:3]
        assert "| trained | at equal length | difference |" in scorer and ".61 [.56, .66]" in scorer
        assert "at equal length" not in second, "this judge has none"
        shown = printed(evaluated)
        assert ".61 [.56, .66]" in shown and max(map(len, shown.splitlines())) <= 100

    def test_the_worst_regressions_of_each_attribute_are_shown_with_their_texts(self, evaluated):
        table = render_markdown(evaluated).split("## What became worse most")[1]
        assert [line.split(" | ")[2] for line in table.splitlines() if "second judge" in line] == [
            "-4.00", "-3.00", "-2.00", "-4.00", "-3.00", "-2.00"
        ]  # fmt: skip
        assert "<script>" not in table


def test_knows_no_torch():
    code = "import sys, fairpo_trl.reporting; sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    if subprocess.run([sys.executable, "-c", "import sys, fairpo_trl; sys.exit('torch' in sys.modules)"]).returncode:
        pytest.skip("the package's own __init__ loads torch")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
