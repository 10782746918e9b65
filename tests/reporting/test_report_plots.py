"""Tests of the pictures of reports, and of the files that a report leaves."""

import copy
import json

import numpy as np
import pytest
from builders import ROLES, around, comparison_fields, generation_fields, label_fields
from matplotlib.image import imread

from fairpo_trl.reporting import (
    ComparisonPoint,
    LabelComparison,
    LabelResults,
    Results,
    plot_comparison,
    plot_margins,
    plot_weights,
    plot_win_rates,
    write_report,
)
from fairpo_trl.reporting.comparison_plot import plot_pareto, reweighting_curve
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.plots import plot_label_deltas, plot_samples


ORANGE, BLUE = (0xD5 / 255, 0x5E / 255, 0), (0, 0x72 / 255, 0xB2 / 255)


def has_ink_of(path, colour):
    """Whether some pixel has this colour (red, green, blue from 0 to 1)."""
    return bool((np.abs(imread(path)[..., :3] - np.array(colour)).max(axis=-1) < 0.02).any())


class TestRuns:
    @pytest.mark.parametrize("plot", [plot_weights, plot_margins, plot_win_rates])
    def test_both_roles_are_drawn(self, tmp_path, plot):
        path = plot(Results(**generation_fields()), tmp_path / "new" / "plot.png")
        assert has_ink_of(path, ORANGE) and has_ink_of(path, BLUE)

    def test_names_with_a_formula_sign(self, tmp_path):
        text = json.dumps(generation_fields()).replace("warmth", "$x^{$").replace("a small model", "$\\\\frac$")
        for plot in (plot_weights, plot_margins, plot_win_rates):
            assert plot(Results(**json.loads(text)), tmp_path / "p.png").stat().st_size > 5000

    def test_many_groups_are_told_apart_by_role(self, tmp_path):
        names = [f"label {i}" for i in range(20)]
        fields = generation_fields()
        fields["partition"] |= dict.fromkeys(names, "non_privileged")
        fields["weights_history"] = [{"step": s, "warmth": 1.0, **dict.fromkeys(names, s / 9)} for s in (1, 5)]
        assert plot_weights(Results(**fields), tmp_path / "w.png").stat().st_size > 5000

    def test_nothing_to_plot(self, tmp_path):
        empty = Results(title="t", partition={}, attributes=[])
        for plot in (plot_weights, plot_margins, plot_win_rates):
            with pytest.raises(ValueError, match=r"history|win rates"):
                plot(empty, tmp_path / "p.png")
        with pytest.raises(ValueError, match="no points"):
            plot_comparison([], tmp_path / "p.png")
        with pytest.raises(ValueError, match="no changes"):
            plot_label_deltas({}, ROLES, tmp_path / "p.png", "t")
        with pytest.raises(ValueError, match="no samples"):
            plot_samples(LabelResults(**label_fields() | {"samples": []}), tmp_path / "p.png")
        assert not list(tmp_path.iterdir())

    def test_a_comparison_of_methods_with_a_curve(self, tmp_path):
        def point(label, x, mean, worst):
            return ComparisonPoint(label, Interval(**around(x)), Interval(**around(mean)), Interval(mean=worst))

        curve = [point("20", 0.55, 0.5, 0.48), point("60", 0.66, 0.47, 0.41)]
        path = plot_comparison(
            [point("FairPO $", 0.68, 0.5, 0.47)], tmp_path / "c.png", curves={"DPO, stopped": curve}
        )
        assert has_ink_of(path, ORANGE)


class TestPareto:
    def test_methods_and_ablations_are_drawn(self, tmp_path):
        comparison = LabelComparison(**comparison_fields())
        methods = plot_pareto(comparison, tmp_path / "m.png").read_bytes()
        assert plot_pareto(comparison, tmp_path / "a.png", ablations=True).read_bytes() != methods

    def test_the_curve_follows_the_factors(self):
        """Their order in the file says nothing, nor does a number in a label."""
        fields = comparison_fields()
        fields["methods"][4]["factor"] = 3.0
        curve = reweighting_curve(LabelComparison(**fields).methods)
        assert [method.label for method in curve] == ["re-weighted x3", "re-weighted x10"]

    @pytest.mark.parametrize(("head", "message"), [("linear", "'linear'"), ("mpl", "Unknown head 'mpl'")])
    def test_a_head_without_points_is_named(self, tmp_path, head, message):
        with pytest.raises(ValueError, match=message):
            plot_pareto(LabelComparison(**comparison_fields()), tmp_path / "p.png", head)


class TestFiles:
    def test_a_report_links_its_plots(self, tmp_path):
        fields = generation_fields()
        before = copy.deepcopy(fields)
        report = write_report(Results(**fields), tmp_path / "report")
        assert fields == before
        text = report.read_text(encoding="utf-8")
        names = {"win_rates_scorer.png", "win_rates_second_judge.png", "weights.png", "margins.png"}
        assert not [name for name in names if f"({name})" not in text]
        assert {file.name for file in report.parent.iterdir()} == names | {"results.json", "report.md", "report.html"}
        assert "someone" not in text and "▲ better" in text and "21 min" in text

    def test_a_label_report_links_its_pictures(self, tmp_path):
        report = write_report(LabelResults(**label_fields(tmp_path)), tmp_path)
        text = report.read_text(encoding="utf-8")
        names = {"label_deltas.png", "weights.png", "samples.png"}
        assert not [name for name in names if f"({name})" not in text]
        written = {file.name for file in tmp_path.iterdir()}
        assert written == names | {"results.json", "report.md", "report.html", "samples"}
        assert "someone" not in text

    def test_a_comparison_writes_every_file(self, tmp_path):
        text = write_report(LabelComparison(**comparison_fields()), tmp_path).read_text(encoding="utf-8")
        pictures = {"pareto_mlp.png", "pareto_mlp_ablations.png", "label_deltas_fairpo_cpo_mlp.png"}
        tables = {"comparison.json", "comparison.md", "comparison.csv", "comparison_labels.csv", "comparison.tex"}
        assert {file.name for file in tmp_path.iterdir()} == pictures | tables, "the linear head has nothing to plot"
        assert not [name for name in pictures if f"({name})" not in text]

    def test_a_missing_or_broken_image_is_named(self, tmp_path):
        results = LabelResults(**label_fields())
        with pytest.raises(FileNotFoundError, match="birds/owl_1"):
            plot_samples(results, tmp_path / "samples.png")
        (tmp_path / "samples").mkdir()
        (tmp_path / "samples" / "0.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match=r"samples/0\.png"):
            plot_samples(results, tmp_path / "s.png")
