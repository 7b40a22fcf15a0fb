"""All settings of one server, each with the place it came from.

Precedence, strongest first: command line, the model directory's serving.properties, environment, the repository's
own serving.properties (unread once a model source is given), defaults.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.processes import machine
from bloomery.settings import engine, environment, kinds, properties, source, table
from bloomery.settings.model import ModelSettings
from bloomery.settings.properties import Found
from bloomery.settings.secret import guard
from bloomery.settings.server import ServerSettings, read_address, read_port
from bloomery.settings.source import Home, Source
from bloomery.settings.table import Setting

Layer = dict[str, Found]


@dataclass(frozen=True)
class Explained:
    """One line of ``bloomery explain``."""

    scope: str  # "server", or the model's name
    key: str
    value: str
    origin: str


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
    environ: Mapping[str, str] | None = None,
    home: Home | None = None,
) -> Settings:
    """Read every setting for ``bloomery serve [argument]``; ``options`` are the texts of ``-o key=value``."""
    environ = os.environ if environ is None else environ
    home = home or Home.find()
    command = _command_line(options)
    root = properties.read(home.properties) if home.properties else {}
    explained: list[Explained] = []
    notices = environment.strangers(environ)
    server = _server(command, environ, root, host, port, explained)
    models = []
    for one in source.find(argument, home):
        model = _Model(one, home, command, environ, root)
        models.append(model.settings())
        explained += model.explained
        notices += model.notices
    return Settings(server, models, explained, notices)


def _command_line(options: Iterable[str]) -> Layer:
    layer = {}
    for text in options:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigurationError(f"command line -o {text}: write -o key=value, for instance -o option.dtype=bf16")
        problem = "" if key.startswith("option.") or key in table.SERVER_KEYS else _oddity(key)
        if problem:
            raise ConfigurationError(f"command line -o {key}: {problem}")
        layer[key] = Found(value.strip(), f"command line -o {key}")
    return layer


def _oddity(key: str) -> str:
    """What a user should hear about a key; "" when it is known, or a handler's own."""
    if key in table.WITHOUT_EFFECT:
        return "has no effect in this server"
    if key.startswith("option."):
        close = [] if key in table.OPTIONS else difflib.get_close_matches(key, table.OPTIONS, 1, 0.85)
        return f"goes to the handler as it is; did you mean {close[0]}?" if close else ""
    if key in table.SERVER_KEYS:
        variables = next(setting.variables for setting in table.SERVER if setting.key == key)
        return f"is a setting of the server, not of a model; set the environment variable {variables[0]}"
    known = (*table.BARE_KEYS, *(f"{kind}.{name}" for kind in ("gpu", "cpu") for name in table.WORKERS))
    known += tuple(alias for setting in table.MODEL for alias in setting.aliases)
    if key in known:
        return ""
    if f"option.{key}" in table.OPTIONS:
        return f"is not a key here; did you mean option.{key}?"
    close = difflib.get_close_matches(key, [*known, *table.SERVER_KEYS, *table.OPTIONS], 1)
    advice = f"did you mean {close[0]}?" if close else "a handler's own keys begin with option."
    return f"is not a key here; {advice}"


def _parse(setting: Setting, found: Found) -> Any:
    try:
        return setting.parse(found.text)
    except ValueError as error:
        shown = guard(setting.key, found.text)
        raise ConfigurationError(f"{found.origin}: {setting.key}={shown!s}: it must be {error}") from None


def _server(
    command: Layer, environ: Mapping[str, str], root: Layer, host: str | None, port: int | None, rows: list[Explained]
) -> ServerSettings:
    found = {**root, **environment.read_server(environ), **command}
    values: dict[str, Any] = {}
    origins = {"host": "default", "port": "default"}
    for setting in table.SERVER:
        if setting.key not in found:
            continue
        stated = found[setting.key]
        origins[setting.field] = stated.origin
        if setting.field == "address":
            values["host"], values["port"] = read_address(stated)
            origins["host"] = origins["port"] = stated.origin
        else:
            values[setting.field] = _parse(setting, stated)
    if environ.get("SAGEMAKER_BIND_TO_PORT", "").strip():
        origins["port"] = "environment SAGEMAKER_BIND_TO_PORT"
        values["port"] = read_port(environ["SAGEMAKER_BIND_TO_PORT"], origins["port"])
    if host is not None:
        values["host"], origins["host"] = host, "command line --host"
    if port is not None:
        values["port"], origins["port"] = read_port(str(port), "command line --port"), "command line --port"
    server = ServerSettings(**values)
    rows += [
        Explained("server", each.name, str(getattr(server, each.name)), origins.get(each.name, "default"))
        for each in fields(server)
    ]
    return server


class _Model:
    """Reads the settings of one model; ``explained`` and ``notices`` grow on the way."""

    def __init__(self, one: Source, home: Home, command: Layer, environ: Mapping[str, str], root: Layer) -> None:
        self.source, self.home, self.environ = one, home, environ
        self.explained: list[Explained] = []
        self.notices: list[str] = []
        self.root: Layer = {}
        file = one.model_dir / source.PROPERTIES
        stated = properties.read(file) if file.is_file() else {}
        variables = environment.read(environ)
        cwd = Path.cwd()
        layers = [
            _normalised(command, cwd, environ),
            one.given,
            _normalised(stated, one.model_dir, environ),
            _normalised(variables, cwd, environ),
        ]
        if one.is_default and home.repository and not any(key in x for x in layers for key in table.MODEL_SOURCES):
            self.root = _normalised(root, home.repository, environ)
        self.found = _merged([*layers, self.root])
        for layer in (stated, variables, command):
            for key, each in layer.items():
                if (problem := _oddity(key)) and not (layer is command and key in table.SERVER_KEYS):
                    self.notices.append(f"{each.origin}: {key} {problem}")

    def settings(self) -> ModelSettings:
        """The model's settings, checked against each other."""
        model_dir, found = self.source.model_dir, self.found
        where = next((found[key] for key in table.MODEL_SOURCES if key in found), None)
        if where is None and source.is_checkpoint(model_dir):
            where = found["option.model_id"] = Found(str(model_dir), f"the checkpoint in {model_dir}")
        if where is None and self.source.is_default and self.home.repository is None:
            raise ConfigurationError(
                "nothing says what to serve; name a model directory, a checkpoint, an s3:// URI or a hub model's id: "
                "bloomery serve facebook/opt-125m"
            )
        name = self.source.name or (source.name_of(where.text) if where else "model")
        values, origins = self._values()
        stated_degree = values.pop("tensor_parallel_degree", 1)
        degree = machine.tensor_parallel_maximum(self.environ) if stated_degree is None else stated_degree
        choice = engine.choose(model_dir, name, found, where is not None)
        degree_key = "option.tensor_parallel_degree"
        is_default = degree_key not in found or found[degree_key] is self.root.get(degree_key)
        if "option.pythonExecutable" not in found:  # another interpreter has other packages
            choice = engine.without_deepspeed(choice, model_dir, self.home.model_dir, degree, is_default)
        self.notices += choice.notices
        if choice.degree is not None and choice.degree != degree:
            degree, origins["tensor_parallel_degree"] = choice.degree, choice.notices[-1]
        origins.update(engine=choice.engine_origin, entry_point=choice.entry_point_origin)
        self._workers(values)
        settings = ModelSettings(
            name=name,
            model_dir=model_dir,
            engine=choice.engine,
            entry_point=choice.entry_point,
            tensor_parallel_degree=degree,
            properties=self._properties(choice.engine, degree),
            **values,
        )
        self._explain(settings, origins)
        return settings

    def _values(self) -> tuple[dict[str, Any], dict[str, str]]:
        values, origins = {}, {}
        for setting in table.MODEL:
            if setting.key in self.found and setting.field not in ("engine", "entry_point"):
                values[setting.field] = _parse(setting, self.found[setting.key])
                origins[setting.field] = self.found[setting.key].origin
        return values, origins

    def _workers(self, values: dict[str, Any]) -> None:
        fewest, most = values.get("min_workers", 1), values.get("max_workers")
        if most is None:
            values["max_workers"] = fewest
        elif fewest > most and "minWorkers" not in self.found:
            values["min_workers"] = most
        elif fewest > most:
            low, high = self.found["minWorkers"], self.found["maxWorkers"]
            raise ConfigurationError(
                f"minWorkers={fewest} ({low.origin}) is above maxWorkers={most} ({high.origin}); "
                "raise one or lower the other"
            )

    def _properties(self, chosen: str, degree: int) -> dict[str, str]:
        """What the initialise call receives: every setting given, and what was decided for it."""
        given = {
            key.removeprefix("option."): guard(key, found.text)
            for key, found in self.found.items()
            if key != "option.env"  # the processes have it as their environment; its text may hold secrets
        }
        return {**given, "engine": chosen, "tensor_parallel_degree": str(degree)}

    def _explain(self, settings: ModelSettings, origins: dict[str, str]) -> None:
        def row(key: str, value: str, origin: str) -> None:
            self.explained.append(Explained(settings.name, key, value, origin))

        row("name", settings.name, "the directory" if self.source.name else "the checkpoint")
        own = settings.model_dir == self.home.model_dir
        row("model_dir", str(settings.model_dir), "default" if own else "argument")
        for setting in table.MODEL:
            value = getattr(settings, setting.field)
            if isinstance(value, dict):
                value = ",".join(f"{name}={text}" for name, text in value.items())
            unit = setting.parse is kinds.milliseconds
            shown = f"{value * 1000:g}" if unit else str(value)
            row(setting.key, shown, origins.get(setting.field, "default"))
        known = {setting.key for setting in table.MODEL}
        for key in sorted(self.found.keys() - known):
            found = self.found[key]
            row(key, str(guard(key, found.text)), found.origin)


def _normalised(layer: Layer, base: Path, environ: Mapping[str, str]) -> Layer:
    """Keys under their first names, paths absolute, and of ``gpu.minWorkers`` and ``cpu.minWorkers`` the right one."""
    aliases = {alias: setting.key for setting in table.MODEL for alias in setting.aliases}
    device: str | None = None
    out: Layer = {}
    specific: Layer = {}
    for key, found in layer.items():
        kind, _, rest = key.partition(".")
        if kind in ("gpu", "cpu") and rest in table.WORKERS:
            device = device or ("gpu" if machine.devices(environ) else "cpu")
            if kind == device:
                specific[rest] = found
        elif key not in table.SERVER_KEYS:
            out[aliases.get(key, key)] = source.located(key, found, base)
    out.update(specific)
    return out


def _merged(layers: list[Layer]) -> Layer:
    """The strongest layer's word for each key. One layer names the checkpoint: a weaker one's other way of naming
    it is not mixed in."""
    out: Layer = {}
    for layer in layers:
        named = [key for key in table.MODEL_SOURCES if key in layer]
        if len(named) > 1:
            first, second = (layer[key].origin for key in named)
            raise ConfigurationError(
                f"option.model_id ({first}) and option.s3url ({second}) exclude each other; keep one"
            )
        taken = any(key in out for key in table.MODEL_SOURCES)
        for key, found in layer.items():
            if not (taken and key in table.MODEL_SOURCES):
                out.setdefault(key, found)
    return out
