"""Model cards: the pieces that every card has, and cards of others without what is local in them."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from jinja2 import Environment, PackageLoader, StrictUndefined

from fairpo_trl.hub.privacy import is_hub_id, last_part, one_line, public_command, snapshot_id
from fairpo_trl.reporting.render import markdown


PAPER = {
    "title": "FairPO: Robust Preference Optimization for Fair Multi-Label Learning",
    "id": "2505.02433",
    # docstyle-ignore
    "citation": textwrap.dedent("""\
        @article{mondal2025fairpo,
            title  = {{FairPO: Robust Preference Optimization for Fair Multi-Label Learning}},
            author = {Soumen Kumar Mondal and Prateek Chanda and Akshit Varmora and Ganesh Ramakrishnan},
            year   = 2025,
            eprint = {arXiv:2505.02433},
        }"""),
}
"""Title, arXiv id and citation, in the form TRL's card takes."""

PAPERS = {"fairpo": "https://arxiv.org/abs/2505.02433", "group_robust": "https://arxiv.org/abs/2405.20304"}
"""Where the two papers are."""


def escaped(text: Any) -> str:
    """Text for a Markdown table cell that shows as it is: no HTML, no Markdown, no links, one line."""
    return markdown.escape(one_line(str(text)))


def fill(template: str, **values: Any) -> str:
    """
    A part of a card: the template of this name in `templates/`, filled. Text in it that is no code goes through its
    filter `shown` (see [`escaped`]).
    """
    return _templates().get_template(f"{template}.md").render(papers=PAPERS, **values).strip()


@functools.cache
def _templates() -> Environment:
    # Markdown, not HTML: the templates say what is text (`shown`), and what is code (`quoted`).
    found = Environment(
        loader=PackageLoader(__package__), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    found.filters |= {"shown": escaped, "quoted": json.dumps, "is_hub_id": is_hub_id, "last_part": last_part}
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A Markdown table whose last `numbers` columns are right-aligned."""
    return markdown.pipe_table(header, rows, len(header) - numbers)


def eval_result(
    about: tuple[str, str, str, str], metric: str, name: str, value: float, ends: tuple[float, float] | None = None
) -> EvalResult:
    """
    A number, with the ends of its interval, for the Hub's `model-index`; `about`: task and data, each as the Hub
    spells it and for people, as `metric` and `name` are.
    """
    return EvalResult(
        task_type=about[0],
        task_name=about[1],
        dataset_type=about[2],
        dataset_name=one_line(about[3]),
        metric_type=metric,
        metric_name=one_line(name),
        metric_value=round(float(value), 6) + 0.0,  # no -0.0
        metric_args=None if ends is None else {"low": round(ends[0], 6), "high": round(ends[1], 6)},
    )


def command_section(processes: int) -> list[str]:
    """The command of the run as a section of a card, in a list that is empty where there was none."""
    command = public_command(sys.argv)
    if not command:
        return []
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
    on = f"On {processes} processes. " if processes > 1 else ""
    return [f"## Command\n\n{fence}bash\n{command}\n{fence}\n\n{on}Paths are reduced to their last part."]


def as_list(value: Any) -> list[str]:
    """What a card's metadata give as one text or as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def package_version(package: str) -> str:
    """The installed version, or nothing for a package used from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def public_readme(path: Path) -> str:
    """A card as it may leave: without the path of a local base model, which PEFT writes three times."""
    card = ModelCard.load(path, ignore_metadata_errors=True)
    facts, text = public_card(card)
    if facts == card.data.to_dict():
        return path.read_text(encoding="utf-8")
    return f"---\n{ModelCardData(**facts).to_yaml()}\n---\n{text}"


def public_card(card: ModelCard) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a card, without the path of a local base model (PEFT's card has it three times)."""
    facts, text = card.data.to_dict(), card.text
    named = facts.get("base_model")
    if isinstance(named, str) and BaseModel.of(named).name != named:
        base = BaseModel.of(named)
        text = text.replace(named, base.name)
        facts["tags"] = [tag for tag in facts.get("tags", []) if named not in tag]
        facts["base_model"] = base.hub_id
    return facts, text


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The model that was trained: its name for people, its Hub id if it has one, and where its card may lie."""

    name: str
    hub_id: str | None
    folder: Path | None

    @classmethod
    def of(cls, name_or_path: str) -> BaseModel:
        """From what a config notes: a Hub id, a path, or a path in the Hub cache."""
        hub_id = snapshot_id(name_or_path)
        if hub_id:  # a Hub model, loaded by its place in the cache
            return cls(hub_id, hub_id, Path(name_or_path))
        if is_hub_id(name_or_path):
            return cls(name_or_path, name_or_path, None)
        return cls(last_part(name_or_path), None, Path(name_or_path) if name_or_path else None)

    def licence(self) -> dict[str, str]:
        """The licence as the base model's card states it, if that card is on this machine; else nothing."""
        found: Any = self.folder / "README.md" if self.folder is not None else None
        if self.folder is None and self.hub_id is not None:
            found = try_to_load_from_cache(self.hub_id, "README.md")
        if not isinstance(found, str | Path) or not Path(found).is_file():
            return {}
        try:
            data = ModelCard.load(found).data
        except (ValueError, OSError, yaml.YAMLError):  # somebody else's card: its errors are not ours
            return {}
        stated = {key: data.get(key) for key in ("license", "license_name", "license_link")}
        if str(stated["license_link"] or "").partition("://")[0] not in ("http", "https"):
            stated["license_link"] = None  # relative to the other repository
        return {key: value for key, value in stated.items() if isinstance(value, str) and value}
