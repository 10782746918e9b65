"""Packages whose public names load on first use: importing them costs nothing, and torch alone takes seconds."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, names_of: Mapping[str, str]) -> Callable[[str], Any]:
    """
    The `__getattr__` of a package, which imports the module of a public name when it is asked for.

    Args:
        package (`str`):
            `__name__` of the package.
        names_of (`Mapping[str, str]`):
            Module, as it is called within the package -> its public names, divided by blanks.

    Returns:
        `Callable[[str], Any]`: raises `AttributeError`, with a near match, for a name that is not among them.
    """
    module_of = {name: module for module, names in names_of.items() for name in names.split()}

    def find(name: str) -> Any:
        if name in module_of:
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        near = difflib.get_close_matches(name, module_of, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and not name.startswith("__") else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    return find
