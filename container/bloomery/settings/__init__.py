"""Settings: read once, typed, and each with the place it came from."""

from bloomery.settings.loading import Explained, Settings, load
from bloomery.settings.model import ModelSettings
from bloomery.settings.secret import Secret
from bloomery.settings.server import ServerSettings

__all__ = ["Explained", "ModelSettings", "Secret", "ServerSettings", "Settings", "load"]
