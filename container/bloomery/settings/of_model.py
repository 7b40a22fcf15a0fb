"""One model's settings, from every source that speaks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.processes import machine
from bloomery.settings import engine, environment, keys, kinds, properties, source, table
from bloomery.settings.explained import Explained, overridden
from bloomery.settings.layers import Found, Layer, lay, slip
from bloomery.settings.model import ModelSettings
from bloomery.settings.secret import guard
from bloomery.settings.server_table import SERVER_KEYS
from bloomery.settings.source import Home, Source


class ModelReader:
    """Reads the settings of one model; ``explained`` and ``notices`` grow on the way.

    ``variables`` are those of the environment and of config.properties, the strongest first; ``root`` is the
    repository's own serving.properties.
    """

    def __init__(
        self,
        one: Source,
        home: Home,
        command: Layer,
        variables: Sequence[Layer],
        environ: Mapping[str, str],
        root: Layer,
    ) -> None:
        self.source, self.home, self.environ = one, home, environ
        self.explained: list[Explained] = []
        self.notices: list[str] = []
        self.root: Layer = {}
        file = one.model_dir / source.PROPERTIES
        stated = properties.read(file) if file.is_file() else {}
        said = [environment.read(each) for each in variables]
        cwd = Path.cwd()
        layers = [
            _normalised(command, cwd, environ),
            one.given,
            _normalised(stated, one.model_dir, environ),
            *(_normalised(each, cwd, environ) for each in said),
        ]
        if one.is_default and home.repository and not any(key in x for x in layers for key in table.MODEL_SOURCES):
            self.root = _normalised(root, home.repository, environ)
        self.found = _merged([*layers, self.root])
        for layer in (stated, *said, command):
            for key, each in layer.items():
                if (problem := keys.oddity(key)) and not (layer is command and key in SERVER_KEYS):
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
        choice = engine.choose(model_dir, name, found, where is not None, self.home.model_dir)
        degree_key = "option.tensor_parallel_degree"
        is_default = degree_key not in found or (
            degree_key in self.root and found[degree_key].origin == self.root[degree_key].origin
        )
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
            rolling_batch=choice.rolling_batch,
            properties=self._properties(choice.engine, degree),
            **values,
        )
        self._explain(settings, origins)
        return settings

    def _values(self) -> tuple[dict[str, Any], dict[str, str]]:
        values, origins = {}, {}
        for setting in table.MODEL:
            if setting.key in self.found and setting.field not in ("engine", "entry_point"):
                values[setting.field] = table.parse(setting, self.found[setting.key])
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
            weaker = overridden(key, self.found.get(key))
            self.explained.append(Explained(settings.name, key, value, origin, weaker))

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
        elif key not in SERVER_KEYS:
            slip(source.located(key, found, base), aliases.get(key, key), out)
    for key, found in specific.items():
        lay(found, key, out)
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
        taken = next((key for key in table.MODEL_SOURCES if key in out), None)
        for key, found in layer.items():
            if taken and key in table.MODEL_SOURCES and key != taken:
                slip(Found(f"{key}={found.text}", found.origin), taken, out)
            else:
                slip(found, key, out)
    return out
