"""Settings: read once, typed, and each with the place it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bloomery.exports import lazily

if TYPE_CHECKING:
    from bloomery.settings.address import Address
    from bloomery.settings.explained import Explained
    from bloomery.settings.loading import Settings, load
    from bloomery.settings.model import ModelSettings
    from bloomery.settings.secret import Secret
    from bloomery.settings.server import ServerSettings

__all__ = ["Address", "Explained", "ModelSettings", "Secret", "ServerSettings", "Settings", "load"]

# A fetch needs two of this room's modules, and all take as long as 30 MB.
__getattr__ = lazily(
    __name__,
    {
        "address": ("Address",),
        "explained": ("Explained",),
        "loading": ("Settings", "load"),
        "model": ("ModelSettings",),
        "secret": ("Secret",),
        "server": ("ServerSettings",),
    },
)
