"""Errors that name what is wrong and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


_LISTED = 12
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
