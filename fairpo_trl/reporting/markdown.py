"""A report of a run in Markdown, with plots beside it. Text that came from data or models can never become markup."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairpo_trl.reporting.html.generation import write_html_report
from fairpo_trl.reporting.numbers import (
    ABSENT,
    GUARD_LABELS,
    duration,
    guard,
    pair_cells,
    role_text,
    verdict_text,
    win_rate_cells,
)
from fairpo_trl.reporting.plots import plot_margins, plot_weights, plot_win_rates
from fairpo_trl.reporting.results import (
    Regression,
    Results,
    by_role,
    check_results,
    has_equal_length,
    judges,
    read_results,
    without_local_paths,
    write_results,
)


_MARKUP = re.compile(r"[\\`*_\[\]#|~>$:@]|(?<=www)\.", re.IGNORECASE)  # colon, at and dot: no link by itself


def escape(text: str) -> str:
    """Text from data as Markdown that shows it literally, on one line, also within a table cell.

    Markdown's signs get a backslash, `<` and `&` become entities (no tag can open), a line break becomes `<br>`, and
    other control characters are replaced.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ").strip()
    text = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", text).replace("\n", "<br>")


def render_markdown(results: Results, images: Mapping[str, str] | None = None) -> str:
    """The report as text.

    Args:
        results: A run.
        images: Description -> path of a PNG relative to the report, in the order to be shown.

    Returns:
        Markdown with a final line break.

    Raises:
        ValueError: The results are not sound; see `check_results`.
    """
    check_results(results)
    parts = [f"# {escape(results['title'])}", _about(results)]
    for judge in judges(results):
        parts += [f"## Win rate against the reference, judged by the {escape(judge.replace('_', ' '))}"]
        parts += [
            "Mean over held-out prompts with 95 % bootstrap intervals; .50 is as good as the reference. The "
            "difference is trained minus reference against itself with another seed, paired by prompt.",
            _win_rates(results, judge),
        ]
    parts += [f"![{escape(text)}]({path.replace(' ', '%20')})" for text, path in (images or {}).items()]
    parts += ["## Held-out preference pairs", _pairs(results)]
    if "guards" in results:
        parts += ["## Does the text stay sound?", _guards(results)]
    if results.get("samples"):
        rows = [[escape(sample[key]) for key in ("prompt", "reference", "trained")] for sample in results["samples"]]
        parts += ["## What the models write", pipe_table(["prompt", "reference", "trained"], rows)]
    if results.get("regressions"):
        parts += ["## What became worse most", _regressions(results["regressions"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(results: Results, folder: str | os.PathLike[str]) -> Path:
    """Write `results.json`, its plots, `report.md` and the page `report.html` into one folder.

    Args:
        results: A run; what it lacks is left out of the report.
        folder: Created if needed.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: The results are not sound; see `check_results`.
    """
    folder = Path(folder)
    results = read_results(write_results(results, folder / "results.json"))  # from here on without local paths
    images = {}
    for judge in judges(results):
        name = "win_rates_" + re.sub(r"\W+", "_", judge) + ".png"
        plot_win_rates(results, folder / name, judge)
        images[f"Win rates of all attributes, judged by the {judge.replace('_', ' ')}"] = name
    if results.get("weights_history"):
        images["Group weights over training"] = plot_weights(results, folder / "weights.png").name
    if results.get("margins_history"):
        images["Margins of the pairs over training"] = plot_margins(results, folder / "margins.png").name
    report = folder / "report.md"
    report.write_text(render_markdown(results, images), encoding="utf-8")
    write_html_report([results], folder / "report.html")
    return report


def _about(results: Results) -> str:
    rows = [[name, escape(str(results[name]))] for name in ("model", "data", "hardware") if name in results]  # type: ignore[literal-required]
    for role in ("privileged", "non_privileged"):
        names = [escape(name) for name, found in results["partition"].items() if found == role]
        rows.append([role_text(role), ", ".join(names) or ABSENT])
    if "seeds" in results:
        rows.append(["seeds", ", ".join(map(str, results["seeds"]))])
    if "seconds" in results:
        rows.append(["time", duration(results["seconds"])])
    settings = results.get("settings", {})
    if settings:
        rows.append(["settings", ", ".join(escape(f"{name} = {value}") for name, value in settings.items())])
    if "command" in results:
        rows.append(["command", escape(without_local_paths(results["command"]))])
    return pipe_table(["", ""], rows)


def _win_rates(results: Results, judge: str) -> str:
    equal_length = has_equal_length(results, judge)
    rows = []
    for entry in by_role(results):
        rates = entry.get("win_rate", {}).get(judge)
        found = verdict_text(rates.get("difference") if rates else None)
        rows.append(
            [
                role_text(entry["role"]),
                escape(entry["attribute"]),
                *win_rate_cells(entry, judge, equal_length),
                found,
            ]
        )
    at_length = ["at equal length"] if equal_length else []
    header = ["role", "attribute", "reference vs itself", "trained", *at_length, "difference", ""]
    return pipe_table(header, rows, numbers_from=2)


def _regressions(regressions: Sequence[Regression], count: int = 3) -> str:
    """The worst changes of each attribute, `count` of each at most."""
    rows, seen = [], Counter[str]()
    for found in regressions:
        seen[found["attribute"]] += 1
        if seen[found["attribute"]] <= count:
            texts = (escape(found[key]) for key in ("prompt", "reference", "trained"))
            judge = escape(found["judge"].replace("_", " "))
            rows.append([escape(found["attribute"]), judge, f"{found['change']:+.2f}", *texts])
    return pipe_table(["attribute", "judge", "change", "prompt", "reference", "trained"], rows)


def _pairs(results: Results) -> str:
    rows = [[role_text(e["role"]), escape(e["attribute"]), *pair_cells(e)] for e in by_role(results)]
    header = ["role", "attribute", "pairs", "accuracy, reference", "accuracy, trained", "inside hinge", "final weight"]
    return pipe_table(header, rows, numbers_from=2)


def _guards(results: Results) -> str:
    reference, trained = results["guards"]["reference"], results["guards"]["trained"]
    names = [name for name in dict.fromkeys([*GUARD_LABELS, *reference, *trained]) if name in reference | trained]
    rows = [
        [escape(GUARD_LABELS.get(name, name.replace("_", " "))), guard(name, reference), guard(name, trained)]
        for name in names
    ]
    return pipe_table(["", "reference", "trained"], rows, numbers_from=1)


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """A table of Markdown from cells that are escaped already; columns from `numbers_from` on are set to the right."""
    first_number = len(header) if numbers_from is None else numbers_from
    rule = ["---" if i < first_number else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(header), rule, *map(list, rows)])
