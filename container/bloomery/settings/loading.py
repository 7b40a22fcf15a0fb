"""All settings of one server, each with the place it came from.

Precedence, strongest first: command line, the model directory's serving.properties, environment, config.properties,
the repository's own serving.properties (unread once a model source is given), defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bloomery.errors import ConfigurationError
from bloomery.settings import environment, keys, of_server, properties, source
from bloomery.settings.explained import Explained
from bloomery.settings.layers import Found, Layer, lay
from bloomery.settings.model import ModelSettings
from bloomery.settings.of_model import ModelReader
from bloomery.settings.server import ServerSettings
from bloomery.settings.server_table import SERVER_KEYS
from bloomery.settings.source import Home


@dataclass(frozen=True)
class Settings:
    """What ``load`` returns."""

    server: ServerSettings
    models: list[ModelSettings]
    explained: list[Explained]
    notices: list[str]


def load(
    argument: str | None = None,
    *,
    options: Iterable[str] = (),
    host: str | None = None,
    port: int | None = None,
    config_file: str | None = None,
    environ: Mapping[str, str] | None = None,
    home: Home | None = None,
) -> Settings:
    """Read every setting for ``bloomery serve [argument]``; ``options`` are the texts of ``-o key=value``."""
    environ = os.environ if environ is None else environ
    home = home or Home.find()
    command = _command_line(options)
    root = properties.read(home.properties) if home.properties else {}
    variables, config = environment.variables(environ), environment.config(config_file, environ)
    notices = environment.strangers(variables) + environment.strangers(config)
    weaker = [environment.read_server(variables), environment.read_server(config), root]
    server, explained = of_server.read(command, weaker, environ, host, port)
    models = []
    for one in source.find(argument, home):
        model = ModelReader(one, home, command, [variables, config], environ, root)
        models.append(model.settings())
        explained += model.explained
        notices += model.notices
    return Settings(server, models, explained, notices)


def _command_line(options: Iterable[str]) -> Layer:
    layer: Layer = {}
    for text in options:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigurationError(f"command line -o {text}: write -o key=value, for instance -o option.dtype=bf16")
        problem = "" if key.startswith("option.") or key in SERVER_KEYS else keys.oddity(key)
        if problem:
            raise ConfigurationError(f"command line -o {key}: {problem}")
        lay(Found(value.strip(), f"command line -o {key}"), key, layer)
    return layer
