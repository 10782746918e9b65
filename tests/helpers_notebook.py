"""Runs a notebook from top to bottom without a kernel, and can keep what it showed.

python tests/helpers_notebook.py examples/first_steps.ipynb    # in examples/: runs it and writes its outputs
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def run_notebook(notebook: dict[str, Any], replace: dict[str, str] | None = None) -> list[list[dict[str, Any]]]:
    """
    Runs the code cells in their order in one namespace.

    Args:
        notebook: The notebook as JSON.
        replace: Text -> other text in its code.

    Returns:
        Outputs of each code cell in the notebook's format: what it printed, and its last value as a notebook shows it.
    """
    namespace: dict[str, Any] = {"__name__": "notebook"}
    found = []
    for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), start=1):
        source = "".join(cell["source"])
        for text, other in (replace or {}).items():
            source = source.replace(text, other)
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        printed, value = io.StringIO(), None
        with redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), namespace)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
        if value is not None:
            shown = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
            outputs.append({**shown, "data": bundle(value)})
        found.append(outputs)
    return found


def bundle(value: Any) -> dict[str, Any]:
    """A value by media type."""
    data: dict[str, Any] = {"text/plain": lines(repr(value))}
    if (html := getattr(value, "_repr_html_", None)) is not None:
        # An object with HTML has no use for its text, which may be long.
        data = {"text/html": lines(html()), "text/plain": [f"<{type(value).__name__}>"]}
    elif (png := getattr(value, "_repr_png_", None)) is not None:
        small = getattr(value, "quantize", lambda colours: value)(64)  # a committed picture has to be small
        data["image/png"] = base64.b64encode(getattr(small, "_repr_png_", png)()).decode()
    return data


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    os.chdir(path.parent)
    outputs = run_notebook(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, shown) in enumerate(zip(code, outputs, strict=True), start=1):
        cell |= {"execution_count": number, "outputs": shown}
    Path(path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
