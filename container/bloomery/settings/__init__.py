"""Settings: read once, typed, and each with the place it came from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bloomery.settings.address import Address
    from bloomery.settings.explained import Explained
    from bloomery.settings.loading import Settings, load
    from bloomery.settings.model import ModelSettings
    from bloomery.settings.secret import Secret
    from bloomery.settings.server import ServerSettings

__all__ = ["Address", "Explained", "ModelSettings", "Secret", "ServerSettings", "Settings", "load"]

_MODULES = {
    "Address": "address",
    "Explained": "explained",
    "ModelSettings": "model",
    "Secret": "secret",
    "ServerSettings": "server",
    "Settings": "loading",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: a fetch needs two of this room's modules, and all take as long as 30 MB."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
