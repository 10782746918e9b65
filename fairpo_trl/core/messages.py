"""Errors that name what is wrong and what was probably meant."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


_LISTED = 12
_MARKS = "|;,\n"
"""What joins names and belongs to hardly any."""
_SHOWN = 60


def shortened(value: Any) -> str:
    """A value as Python writes it, cut to a length that a message can bear: data may hold cells of megabytes."""
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def unknown_names_message(what: str, unknown: Iterable[str], known: Sequence[str]) -> str:
    """
    One sentence that names every unknown name, its nearest known one, and the known names.

    Args:
        what (`str`):
            What the names are, in the singular ("attribute", "label", "option").
        unknown (`Iterable[str]`):
            The names that were not found.
        known (`Sequence[str]`):
            The names that exist; at most twelve are listed, as of the unknown ones.

    Returns:
        `str`: the message, for a `ValueError`.
    """
    parts = []
    for name in unknown:
        near = difflib.get_close_matches(str(name)[:_SHOWN], [str(k) for k in known], n=2, cutoff=0.6)
        hint = f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""
        parts.append(f"{shortened(name)}{hint}")
    if len(parts) > _LISTED:
        parts[_LISTED:] = [f"... ({len(parts)} in all)"]
    more = f", ... ({len(known)} in all)" if len(known) > _LISTED else ""
    listed = ", ".join(shortened(k) for k in known[:_LISTED]) + more
    return f"Unknown {what}: {', '.join(parts)}. Known: {listed}."


def require_known(what: str, names: Iterable[Any], known: Sequence[str]) -> None:
    """Raises `ValueError`, with [`unknown_names_message`], unless every one of some names is known."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(unknown_names_message(what, unknown, known))


def spelling_key(name: str) -> str:
    """What a name is without regard to case, white space, invisible characters and the ways Unicode can write it."""
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible.casefold()).split())


def second_spellings(names: Iterable[str]) -> list[list[str]]:
    """Names that differ only in case, white space or Unicode form, as lists of two or more; none if all is well."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(spelling_key(name), []).append(name)
    return [spellings for spellings in alike.values() if len(spellings) > 1]


def _mark_order(mark: str) -> tuple[bool, bool, str]:
    """The marks that tell most first, blanks last."""
    return mark not in _MARKS, mark.isspace(), mark


def joined_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """
    Names, of all that occur, that look like several written into one, each with the mark that joins them.

    A name is joined if, divided at a mark (whatever is neither letter nor digit), its parts are names as well: at `|`,
    `;`, `,` or the end of a line one part is enough, by itself or in another joined name; at other marks every part
    must be a name by itself. At marks other than blanks, `_`, `-` and `.` it is enough too that every name is joined,
    and every part in several of them.
    """
    every = list(dict.fromkeys(names))
    alone = {spelling_key(name) for name in every}
    parts_of = {
        (name, mark): [spelling_key(part) for part in name.split(mark) if part.strip()]
        for name in every
        for mark in sorted(set(re.findall(r"[\W_]", name.strip())), key=_mark_order)
    }
    shared: dict[tuple[str, str], set[str]] = {}
    for (name, mark), parts in parts_of.items():
        for part in parts:
            shared.setdefault((mark, part), set()).add(name)
    found: dict[str, str] = {}
    for (name, mark), parts in parts_of.items():
        if len(parts) < 2:
            continue
        several = [len(shared[mark, part]) > 1 for part in parts]
        if mark in _MARKS:
            joined = any(part in alone or often for part, often in zip(parts, several, strict=True))
        else:
            everywhere = not (mark.isspace() or mark in "_-.") and all((other, mark) in parts_of for other in every)
            joined = all(part in alone for part in parts) or (everywhere and all(several))
        if joined:
            found.setdefault(name, mark)
    return list(found.items())
