"""The notebook runs from top to bottom on a tiny model, and what it shows are tables and pictures."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from builders import HOSTILE, comparison_fields, generation_fields, label_fields
from helpers_notebook import run_notebook

from fairpo_trl.classification.train_metrics import LabelMetrics
from fairpo_trl.evaluation import Candidate, Held, select
from fairpo_trl.generation.metrics import GroupMetrics
from fairpo_trl.reporting import LabelComparison, LabelResults, Results


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def code_cells() -> list[dict]:
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


ROLES = ["privileged", "non_privileged"]


def frame(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"role": ROLES, "pairs": [3, 1204], "accuracy": [0.5, 1.0], "margin": [-1.25, 0.0], "loss": [0.6931, 0.25],
         "inside_hinge": [1.0, float("nan")]},
        index=pd.Index(names, name="name"),
    )  # fmt: skip


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, tiny_model_path, monkeypatch):
    for name in ("first_steps.ipynb", "ratings.csv", "judges.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(Path("first_steps.ipynb").read_text(encoding="utf-8"))
    outputs = run_notebook(notebook, {MODEL: tiny_model_path, "max_steps=20": "max_steps=2", "=48": "=4"})
    shown = [output["data"] for cell in outputs for output in cell if "data" in output]
    pages = ["".join(data["text/html"]) for data in shown if "text/html" in data]
    for text in (
        "Share of the comparable prompts",
        "By attribute",
        "Candidates, from the safest",
        "What the models write",
    ):
        assert any(text in page for page in pages), text
    assert sum("image/png" in data for data in shown) == 3
    assert Path("first-steps/report/report.html").is_file()


def test_the_committed_outputs_are_small_and_of_the_code_that_is_there():
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] in ([None] * len(cells), [*range(1, len(cells) + 1)])
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in cells
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    assert sum(map(len, pictures)) < 150_000
    assert not re.search(r"/(root|home|tmp|work)/", json.dumps(cells))


class TestResultsInANotebook:
    def test_metrics_are_tables_of_numbers_as_reports_write_them(self):
        page = GroupMetrics(frame(["concise", "polite"]), frame(ROLES))._repr_html_()
        assert page.count("<table>") == 2
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("</style>")[2]))
        assert (
            "By attribute role pairs accuracy margin loss inside hinge concise privileged 3 .50 -1.25 0.6931" in text
        )
        assert "polite held 1204 1.00 0.00 0.2500 –" in text
        assert "By role pairs accuracy" in text and "held 1204" in text

    def test_names_from_data_are_text(self):
        page = LabelMetrics(frame([HOSTILE, "cat"]), frame(ROLES))._repr_html_()
        assert "&lt;script&gt;" in page and "<script" not in page and "<img" not in page

    def test_a_selection_says_what_was_decided(self):
        gains = {"half": [0.5, 0.0] * 100, "whole": [0.5, 0.5] * 100}
        polite = {"half": [0.25, -0.25] * 100, "whole": [0.0, -0.5] * 100}
        page = select([Candidate(name, gains[name], {"polite": Held(polite[name])}) for name in gains])._repr_html_()
        assert "half is handed over" in page and "Held measures: half" in page and page.count("<table>") == 2

    @pytest.mark.parametrize(
        "document",
        [Results(**generation_fields()), LabelResults(**label_fields()), LabelComparison(**comparison_fields())],
        ids=lambda document: type(document).__name__,
    )
    def test_a_document_is_its_tables_without_a_page_around_them(self, document):
        page = document._repr_html_()
        assert page.count("<table>") >= 3 and document.title in page
        assert not re.search(r"<(html|body|script|link|img|h1)\b|url\(|data-|<svg", page)

    def test_few_of_the_texts_are_shown(self):
        page = Results(**generation_fields())._repr_html_()
        assert "trained text 2" in page and "trained text 3" not in page
