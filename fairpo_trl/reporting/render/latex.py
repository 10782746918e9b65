"""Tables in LaTeX. Text is escaped: no name is a command."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.cells import text_of


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


def tex(text: str) -> str:
    """Text as LaTeX that shows it literally, on one line; control characters become question marks."""
    text = re.sub(r"\s+", " ", text).strip()
    return "".join(_TEX.get(c, c if c.isprintable() else "?") for c in text)


def blocks_latex(blocks: Sequence[Block], title: str) -> str:
    """Blocks as floating tables under captions that begin with a title; they need booktabs and graphicx."""
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(block_latex(block, title) for block in blocks)


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
        lines += [" & ".join(tex(text_of(cell)) for cell in row) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
    return "\n".join(lines)
