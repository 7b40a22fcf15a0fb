"""One model's settings, from every source that speaks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.processes import machine
from bloomery.settings import contradictions, devices, engine, environment, keys, kinds, properties, source, table
from bloomery.settings.devices import Workers
from bloomery.settings.explained import Explained, overridden, shown
from bloomery.settings.layers import Found, Layer, slip
from bloomery.settings.model import DeviceSet, ModelSettings
from bloomery.settings.secret import guard
from bloomery.settings.security import Security
from bloomery.settings.server_table import SERVER_KEYS
from bloomery.settings.source import Home, Source


class ModelReader:
    """Reads the settings of one model; ``explained``, ``notices`` and ``remarks`` grow on the way.

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
        *,
        travels: bool = False,
    ) -> None:
        """``travels``: the model directory will be served on another machine, whose files nobody here can look at."""
        self.source, self.home, self.environ = one, home, environ
        self.security = Security.read(environ)
        self.explained: list[Explained] = []
        self.notices: list[str] = []
        self.remarks: list[str] = []
        self.root: Layer = {}
        file = one.model_dir / source.PROPERTIES
        self.stated = stated = properties.read(file) if file.is_file() else {}
        said = [environment.read(each) for each in variables]
        cwd = Path.cwd()
        layers = [
            _normalised(command, cwd),
            one.given,
            _normalised(stated, one.model_dir, travels),
            *(_normalised(each, cwd) for each in said),
        ]
        if one.is_default and home.repository and not any(key in x for x in layers for key in table.MODEL_SOURCES):
            self.root = _normalised(root, home.repository)
        self.found = _merged([*layers, self.root])
        for layer in (stated, *said, command):
            for key, each in layer.items():
                if (problem := keys.oddity(key)) and not (layer is command and key in SERVER_KEYS):
                    self.notices.append(f"{each.origin}: {key} {problem}")
                if keys.is_quoted(each.text):
                    self.notices.append(f"{each.origin}: {key}: {keys.QUOTED}")

    def settings(self) -> ModelSettings:
        """The model's settings, checked against each other."""
        model_dir, found = self.source.model_dir, self.found
        where = self._checkpoint()
        name = self.source.name or (source.name_of(where.text) if where else "model")
        values, origins = self._values()
        gpus, on_cpu = devices.selected(found.get("load_on_devices"), machine.devices(self.environ))
        stated_degree = values.pop("tensor_parallel_degree", 1)
        degree = stated_degree or len(gpus) or machine.cores()
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
        is_ours = model_dir == self.home.model_dir
        self.security.enforce(model_dir, choice.entry_point, is_ours, found, self.stated)
        origins.update(engine=choice.engine_origin, entry_point=choice.entry_point_origin)
        sets = devices.device_sets(gpus, on_cpu, degree, name)
        self._place(values, sets, degree, choice.engine != "Python")
        settings = ModelSettings(
            name=name,
            version=self.source.version,
            model_dir=model_dir,
            engine=choice.engine,
            entry_point=choice.entry_point,
            tensor_parallel_degree=degree,
            rolling_batch=choice.rolling_batch,
            properties=self._properties(choice.engine, degree),
            **values,
        )
        self.notices += contradictions.notices(settings, self.found)
        self.remarks += contradictions.remarks(settings, self.found)
        self._explain(settings, origins)
        return replace(settings, rolling_batch=settings.rolling_batch and not settings.async_mode)

    def _checkpoint(self) -> Found | None:
        """What says where the checkpoint is; the one in the model directory itself when nothing else does."""
        where = next((self.found[key] for key in table.MODEL_SOURCES if key in self.found), None)
        if where is None and source.is_checkpoint(self.source.model_dir):
            where = Found(str(self.source.model_dir), f"the checkpoint in {self.source.model_dir}")
            self.found["option.model_id"] = where
        if where is None and self.source.is_default and self.home.repository is None:
            raise ConfigurationError(
                "nothing says what to serve; name a model directory, a checkpoint, an s3:// URI or a hub model's id: "
                "bloomery serve facebook/opt-125m"
            )
        return where

    def _values(self) -> tuple[dict[str, Any], dict[str, str]]:
        values, origins = {}, {}
        for setting in table.MODEL:
            if setting.key in self.found and setting.field not in ("engine", "entry_point"):
                values[setting.field] = table.parse(setting, self.found[setting.key])
                origins[setting.field] = self.found[setting.key].origin
        return values, origins

    def _place(self, values: dict[str, Any], sets: list[DeviceSet], degree: int, distributed: bool) -> None:
        """How many groups there are, and where. As in DJLServing, workers are counted per device, and each set of GPUs
        that a model is split over has one group."""
        workers = {kind: devices.workers(self.found, kind) for kind in {devices.kind_of(each) for each in sets}}
        if (distributed or degree > 1) and "gpu" in workers:
            if workers["gpu"].most > 1:
                source = self.found.get("gpu.maxWorkers") or self.found["gpu.minWorkers"]
                self.notices.append(
                    f"{source.origin}: {source.text} worker groups per device have no effect on GPUs: a model that is "
                    "split over devices, or runs as MPI ranks, has one group per set of them"
                )
            workers["gpu"] = Workers(1, 1)
        values["min_workers"] = sum(workers[devices.kind_of(each)].fewest for each in sets)
        values["max_workers"] = sum(workers[devices.kind_of(each)].most for each in sets)
        devices.refuse_too_many(values["min_workers"], degree if distributed else 1)
        if sets != [()] or "load_on_devices" in self.found:
            values["placements"] = devices.placements(sets, workers)
        for name in table.WORKERS:
            of_kind = {kind: self.found.pop(f"{kind}.{name}", None) for kind in devices.KINDS}
            used = next((of_kind[kind] for kind in devices.KINDS if kind in workers and of_kind[kind]), None)
            if used:
                self.found[name] = used

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
        if settings.version:
            row("version", settings.version, "load_models")
        own = settings.model_dir == self.home.model_dir
        row("model_dir", str(settings.model_dir), "default" if own else "argument")
        for setting in table.MODEL:
            if setting.key in table.WORKERS and setting.key in self.found:
                origins[setting.field] = self.found[setting.key].origin
            value = getattr(settings, setting.field)
            if setting.parse is kinds.milliseconds:
                value *= 1000
            row(setting.key, shown(value), origins.get(setting.field, "default"))
        if settings.placements:
            row("devices", " | ".join(",".join(each) or "cpu" for each in settings.placements), "load_on_devices")
        known = {setting.key for setting in table.MODEL}
        for key in sorted(self.found.keys() - known):
            found = self.found[key]
            row(key, str(guard(key, found.text)), found.origin)


def _normalised(layer: Layer, base: Path, travels: bool = False) -> Layer:
    """Keys under their first names, paths absolute, and workers per kind of device: what is said for one kind comes
    before what the same source says for all."""
    aliases = {alias: setting.key for setting in table.MODEL for alias in setting.aliases}
    out: Layer = {}
    for key, found in layer.items():
        if key not in SERVER_KEYS and key not in table.WORKERS:
            there = travels and found.text.startswith(("/", "~"))
            slip(found if there else source.located(key, found, base), aliases.get(key, key), out)
    for name in table.WORKERS:
        for kind in devices.KINDS:
            if name in layer:
                slip(layer[name], f"{kind}.{name}", out)
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
