"""
What MkDocs needs to know of a repository whose pages are also read where they lie.

The start page is the README. Links of the pages to files outside `docs/` lead to copies in the site; links to folders
become plain text, since a site has no listing to show.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_AS_PAGES = {"README.md": "index.md"}


def _outside(source: Path, target: str) -> Path | None:
    """The file of the repository that a link leads to, if it lies outside `docs/`."""
    path = (source.parent / target).resolve()
    inside = path.is_relative_to(ROOT / "docs")
    return None if inside or not path.is_relative_to(ROOT) else path


def _source_of(page_file: File) -> Path:
    return ROOT / "README.md" if page_file.src_uri == "index.md" else ROOT / "docs" / page_file.src_uri


def on_files(files: Files, config: Any) -> Files:
    """Adds the start page, and a copy of every file outside `docs/` that a page shows or links."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    linked: dict[str, Path] = {}
    for file in files.documentation_pages():
        source = _source_of(file)
        for _, _, target, _ in _LINK.findall(source.read_text(encoding="utf-8")):
            path = _outside(source, target)
            if path is not None and path.is_file() and path.name not in _AS_PAGES:
                linked[f"files/{path.relative_to(ROOT).as_posix()}"] = path
    for name, path in linked.items():
        # As text, also where it is Markdown: the site has the docs as pages, the rest as files.
        name = f"{name}.txt" if path.suffix in {".md", ".py", ".cff"} else name
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads the links of a page to where their targets lie in the site."""
    source = _source_of(page.file)
    up = "../" * page.file.src_uri.count("/")

    def lead(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        path = (source.parent / target).resolve()
        if path.is_relative_to(ROOT / "docs"):  # from the README, whose folder is one above
            return f"{picture}[{text}]({up}{path.relative_to(ROOT / 'docs').as_posix()}{anchor or ''})"
        if path.name in _AS_PAGES:
            return f"[{text}]({up}{_AS_PAGES[path.name]}{anchor or ''})"
        if path.is_dir():
            return text
        name = f"files/{path.relative_to(ROOT).as_posix()}"
        name = f"{name}.txt" if path.suffix in {".md", ".py", ".cff"} else name
        return f"{picture}[{text}]({up}{name})"

    return _LINK.sub(lead, markdown)
