"""Settings: read once, typed, and each with the place it came from."""

from bloomery.settings.address import Address
from bloomery.settings.explained import Explained
from bloomery.settings.loading import Settings, load
from bloomery.settings.model import ModelSettings
from bloomery.settings.secret import Secret
from bloomery.settings.server import ServerSettings

__all__ = ["Address", "Explained", "ModelSettings", "Secret", "ServerSettings", "Settings", "load"]
