"""Errors that name what is wrong and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def unknown_names_message(what: str, unknown: Iterable[str], known: Sequence[str]) -> str:
    """
    One sentence that names every unknown name, its nearest known one, and the known names.

    Args:
        what (`str`):
            What the names are, in the singular ("attribute", "label", "option").
        unknown (`Iterable[str]`):
            The names that were not found.
        known (`Sequence[str]`):
            The names that exist; at most twelve are listed.

    Returns:
        `str`: the message, for a `ValueError`.
    """
    parts = []
    for name in unknown:
        near = difflib.get_close_matches(str(name), [str(k) for k in known], n=2, cutoff=0.6)
        hint = f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""
        parts.append(f"{name!r}{hint}")
    listed = ", ".join(repr(k) for k in known[:12]) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    return f"Unknown {what}: {', '.join(parts)}. Known: {listed}."
