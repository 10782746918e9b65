"""The frame of every page: the template engine with escaping on, the content security policy, writing.

The policy allows nothing but images within the page and the one style sheet and script whose hashes it names, so text
that came from data could load or run nothing even if it became markup.
"""

import base64
import hashlib
import os
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairpo_trl.files import write_text
from fairpo_trl.reporting.numbers import ABSENT, role_text


def clean(value: Any) -> Any:
    """A value for the page: control characters and halves of surrogate pairs in texts become replacement signs."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def write_page(template: str, path: str | os.PathLike[str], **context: Any) -> Path:
    """Render a page and write it, whole or not at all.

    Args:
        template: Name of a file in `templates`.
        path: The page; its folder is created if needed.
        context: What the template shows.

    Returns:
        The path.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(path)
    text = render_page(template, **context)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def render_page(template: str, **context: Any) -> str:
    """A page as text; see [`write_page`]."""
    style, script = _static("report.css"), _static("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(style=style, script=script, policy=policy, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fairpo_trl.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=clean,
    )
    environment.globals["ABSENT"] = ABSENT
    environment.filters["role"] = role_text
    environment.filters["one_line"] = one_line
    return environment


def one_line(name: str) -> str:
    """A name of a column without the line breaks a terminal wants; a hyphen before one belongs to it."""
    return name.replace("-\n", "").replace("\n", " ")


@cache
def _static(name: str) -> Markup:
    return Markup(files("fairpo_trl.reporting.html").joinpath(name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
