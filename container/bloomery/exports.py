"""What a package offers under its own name, and imports when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``package``. ``homes``: its modules, and the names that come from each."""
    found = {name: f"{package}.{home}" for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(found[name])
        return getattr(home, name) if hasattr(home, name) else import_module(f"{found[name]}.{name}")

    return get
