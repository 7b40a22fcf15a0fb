"""All settings of one server, each with the place it came from.

Precedence, strongest first: command line, the model directory's serving.properties, environment, config.properties,
the repository's own serving.properties (unread once a model source is given), defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bloomery.errors import ConfigurationError
from bloomery.settings import environment, image_variables, keys, of_server, properties, store
from bloomery.settings.archive import Limits, Unpacked
from bloomery.settings.explained import Explained
from bloomery.settings.layers import Found, Layer, lay, merged
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
    notices: list[str]  # what has no effect, is misspelt, or contradicts something
    remarks: list[str]  # what is right and may surprise
    unpacked: Unpacked  # archives of models; ``remove`` them when the models are gone


def load(
    argument: str | None = None,
    *,
    options: Iterable[str] = (),
    host: str | None = None,
    port: int | None = None,
    config_file: str | None = None,
    models: Iterable[str] = (),
    model_store: str | None = None,
    environ: Mapping[str, str] | None = None,
    home: Home | None = None,
) -> Settings:
    """Read every setting for ``bloomery serve [argument]``; ``options`` are the texts of ``-o key=value``.

    ``models`` and ``model_store`` are those of ``-m`` and ``-s``, as DJLServing's start command has them.
    """
    environ = os.environ if environ is None else environ
    home = home or Home.find()
    command = _command_line(options)
    if listed := ",".join(models):
        lay(Found(listed, "command line --models"), "load_models", command)
    if model_store:
        lay(Found(model_store, "command line --model-store"), "model_store", command)
    if argument is not None and listed:
        raise ConfigurationError(f"both {argument} and --models {listed} say what to serve; keep one of them")
    root = properties.read(home.properties) if home.properties else {}
    variables, config = environment.variables(environ), environment.config(config_file, environ)
    notices = [*environment.strangers(variables), *environment.strangers(config), *image_variables.notices(environ)]
    remarks = [*image_variables.remarks(environ)]
    weaker = [environment.read_server(variables), environment.read_server(config), root]
    server, explained = of_server.read(command, weaker, environ, host, port)
    server = replace(server, config_file=config_file)
    unpacked = Unpacked(Limits(server.max_archive_size, server.max_archive_entries))
    named = store.names_checkpoint([command, environment.read(variables)])
    try:
        read = []
        for one in store.find(argument, merged([command, *weaker]), server.multi_model, named, home, unpacked):
            model = ModelReader(one, home, command, [variables, config], environ, root)
            read.append(replace(model.settings(), required=server.wait_model_loading))
            explained += model.explained
            notices += model.notices
            remarks += model.remarks
        _refuse_twins(read)
    except BaseException:
        unpacked.remove()
        raise
    return Settings(server, read, explained, notices, remarks, unpacked)


def _refuse_twins(models: Iterable[ModelSettings]) -> None:
    places: dict[tuple[str, str | None], ModelSettings] = {}
    for model in models:
        twin = places.setdefault((model.name, model.version), model)
        if twin is not model:
            raise ConfigurationError(
                f"two models are called {model.name!r} ({twin.model_dir} and {model.model_dir}); give one another name "
                "or version: load_models=[name:version]=url,…"
            )


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
