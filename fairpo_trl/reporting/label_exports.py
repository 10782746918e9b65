"""The comparison of methods as CSV and LaTeX. Text is escaped: no cell is a formula, no name a LaTeX command."""

import csv
import io
import re
from typing import Any

from fairpo_trl.reporting.comparison_blocks import detail_block, heads, main_block
from fairpo_trl.reporting.label_blocks import Block
from fairpo_trl.reporting.label_results import GROUPS, METRICS, LabelComparison, check_label_comparison, method_key


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "–": "--",
    "±": r"$\pm$",
    "▲": r"$\uparrow$",
    "▼": r"$\downarrow$",
    "≈": r"$\approx$",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def tex(text: str) -> str:
    """Text as LaTeX that shows it literally, on one line; control characters become question marks."""
    text = re.sub(r"\s+", " ", text).strip()
    return "".join(_TEX.get(c, c if c.isprintable() else "?") for c in text)


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: such a beginning gets an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def comparison_csv(comparison: LabelComparison) -> str:
    """One line per method and head. Metrics and their differences are shares from 0 to 1; what is absent is empty.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    check_label_comparison(comparison)
    rows: list[dict[str, Any]] = []
    for method in comparison["methods"]:
        row: dict[str, Any] = {
            "section": method["section"],
            "head": csv_text(method["head"]),
            "method": csv_text(method["name"]),
            "label": csv_text(method["label"]),
            "seeds": method.get("seeds"),
            "seconds": method.get("seconds"),
        }
        for group in GROUPS:
            for metric in METRICS:
                row[f"{group}_{metric}"] = method["groups"].get(group, {}).get(metric)
                row[f"{group}_{metric}_seed_sd"] = method.get("seed_sd", {}).get(group, {}).get(metric)
        for against in ("reference", "continued"):
            deltas: Any = method.get(f"delta_{against}", {})
            for group in GROUPS:
                for part in ("mean", "low", "high", "seed_sd"):
                    row[f"{group}_map_delta_{against}_{part}"] = deltas.get(group, {}).get(part)
        hinge: Any = method.get("hinge", {})
        row |= {f"hinge_{part}": hinge.get(part) for part in ("pairs", "labels")}
        row["confusion"] = method.get("confusion")
        row |= {f"map_{band}": method.get("bands", {}).get(band) for band in ("head", "mid", "tail")}
        row["held_labels_fell"] = csv_text("; ".join(method["fell"])) if "fell" in method else None
        row["held_labels_fell_surely"] = (
            csv_text("; ".join(method["fell_surely"])) if "fell_surely" in method else None
        )
        row |= {
            f"{group}_slides_protocol_map_not_comparable": method["groups"].get(group, {}).get("paper_map")
            for group in GROUPS
        }
        rows.append(row)
    baselines: list[dict[str, Any]] = [
        {"section": "trivial", "method": csv_text(name), "label": csv_text(name)}
        | {f"{group}_{metric}": values.get(metric) for group, values in groups.items() for metric in METRICS}
        for name, groups in comparison["trivial"].items()
    ]
    return _csv([*baselines, *rows], list(rows[0]) if rows else ["section", "method"])


def labels_csv(comparison: LabelComparison) -> str:
    """One line per method, head and label: its change of average precision against the reference, as a share.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    check_label_comparison(comparison)
    rows = []
    for method in comparison["methods"]:
        for label, found in comparison.get("per_label", {}).get(method_key(method), {}).items():
            rows.append(
                {
                    "head": csv_text(method["head"]),
                    "method": csv_text(method["name"]),
                    "label": csv_text(label),
                    "role": comparison["partition"][label],
                    "positives_in_train": comparison["label_counts"][label],
                    "ap_delta": found["mean"],
                    "low": found.get("low"),
                    "high": found.get("high"),
                }
            )
    return _csv(rows, ["head", "method", "label", "role", "positives_in_train", "ap_delta", "low", "high"])


def comparison_latex(comparison: LabelComparison) -> str:
    """The slides' table and what it cost, one pair of tables per head; needs booktabs and graphicx.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    check_label_comparison(comparison)
    tables = [
        block_latex(block, comparison["title"])
        for head in heads(comparison)
        for block in (main_block(comparison, head), detail_block(comparison, head))
    ]
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(tables)


def block_latex(block: Block, title: str) -> str:
    """A block as a floating table, as wide as the line."""
    columns = "l" * block.texts + "r" * (len(block.header) - block.texts)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(title)}. {tex(block.title)}. {tex(block.note)}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(tex(name.replace("-\n", "")) for name in block.header) + r" \\",
    ]
    for name, rows in block.sections:
        lines.append(r"\midrule")
        if name:
            lines.append(rf"\multicolumn{{{len(block.header)}}}{{l}}{{\emph{{{tex(name)}}}}} \\")
        lines += [" & ".join(map(tex, row)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
    return "\n".join(lines)


def _csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()
