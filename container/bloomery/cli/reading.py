"""The part of a command line that says what to serve, and the settings that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloomery import settings
from bloomery.errors import ConfigurationError


@dataclass(frozen=True)
class Wanted:
    """Arguments of ``serve`` and ``explain``."""

    source: str | None
    options: Sequence[str]
    models: Sequence[str]
    model_store: str | None
    config_file: str | None
    strict: bool
    host: str | None = None
    port: int | None = None

    def settings(self) -> settings.Settings:
        """All of them; when they shall be strict, a notice is an error."""
        loaded = settings.load(
            self.source,
            options=self.options,
            models=self.models,
            model_store=self.model_store,
            config_file=self.config_file,
            host=self.host,
            port=self.port,
        )
        if self.strict and loaded.notices:
            loaded.unpacked.remove()
            raise ConfigurationError("\n".join(f"--strict: {notice}" for notice in loaded.notices))
        return loaded
