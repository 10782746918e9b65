"""How the API reference reads a field `option(default, help)`: by its default, as it reads `field(default=...)`."""

from __future__ import annotations

from typing import Any

import griffe


class Options(griffe.Extension):
    """Leaves of such a field the default alone."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Called for every attribute, before the signatures of dataclasses are made of them."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            attr.value = value.arguments[0]
