"""Models that are added, scaled and removed while the server runs, and the level of its log."""

from __future__ import annotations

import logging

from aiohttp import web

from bloomery.errors import BadRequestError, ConfigurationError, LoadFailedError, ModelLoadError
from bloomery.http_api import registration, response
from bloomery.http_api.models import Models
from bloomery.http_api.permission import Permission
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.settings import devices
from bloomery.settings.server import ServerSettings

_LEVELS = {"TRACE": "DEBUG", "DEBUG": "DEBUG", "INFO": "INFO", "WARN": "WARNING", "WARNING": "WARNING"}
_LEVELS |= {"ERROR": "ERROR", "FATAL": "CRITICAL", "CRITICAL": "CRITICAL"}


def add_routes(app: web.Application, models: Models, management: Management, permission: Permission) -> None:
    """/models and /server/logging."""
    guard, route = permission.guard, app.router.add_route
    route("GET", "/models", models.listing)
    route("POST", "/models", guard(management.register, multi_model=True))
    for path in ("/models/{model}", "/models/{model}/{version}"):
        route("GET", path, models.description)
        route("PUT", path, guard(management.scale))
        route("DELETE", path, guard(management.unregister, multi_model=True))
    route("POST", "/server/logging", guard(set_log_level))


class Management:
    """The changing calls. What they begin goes on when the client leaves."""

    def __init__(self, registry: Registry, registrar: Registrar, settings: ServerSettings) -> None:
        self._registry, self._registrar, self._settings = registry, registrar, settings

    async def register(self, http: web.Request) -> web.StreamResponse:
        """Add a model: 200 when it can serve, 202 at once with ``synchronous=false``."""
        wanted = registration.read(await registration.parameters(http))
        return await self.add(wanted, "Model")

    async def add(self, wanted: registration.Registration, kind: str) -> web.StreamResponse:
        """The same for what has been read already; ``kind`` is what the answer calls it."""
        if wanted.name is not None:
            self._registrar.refuse_known(wanted.name, wanted.version)
        if not wanted.synchronous and not registration.is_local(wanted) and self._settings.allow_model_urls:
            self._registrar.begin(self._fetch_and_load(wanted))  # fetching may take as long as loading does
            name = wanted.name or wanted.shown
            return response.document({"status": f'{kind} "{name}" registration scheduled.'}, 202)
        addition = await registration.resolve(wanted, self._settings)
        model = self._registrar.admit(addition)
        if not wanted.synchronous:
            self._registrar.begin(self._registrar.load(model))
            return response.document({"status": f'{kind} "{model.name}" registration scheduled.'}, 202)
        await self._registrar.finish(self._registrar.load(model))
        return response.document({"status": f'{kind} "{model.name}" registered.'})

    async def scale(self, http: web.Request) -> web.StreamResponse:
        """Have as many groups as ``min_worker`` says: 200 when that is so, 202 at once with ``synchronous=false``."""
        model = self._registry.get(http.match_info["model"], http.match_info.get("version"))
        stated = dict(http.query)
        fewest = registration.number(stated, "min_worker") if stated.get("min_worker") else None
        most = registration.number(stated, "max_worker") if stated.get("max_worker") else None
        if fewest is not None and most is not None and fewest > most:
            raise BadRequestError(f"min_worker={fewest} is above max_worker={most}; raise one or lower the other")
        # One that is not said gives way to the other.
        lowest = fewest if fewest is not None else min(model.settings.min_workers, most or model.settings.min_workers)
        highest = most if most is not None else max(model.settings.max_workers, lowest)
        try:
            devices.refuse_too_many(lowest, model.settings.ranks)
        except ConfigurationError as error:
            raise BadRequestError(str(error)) from error
        workers = f"New Worker configuration min workers:{lowest} max workers:{highest}"
        if not registration.synchronous(stated):
            self._registrar.begin(model.scale(lowest, highest))
            return response.document({"status": f'Workflow "{model.name}" worker scaling scheduled. {workers}'}, 202)
        try:
            await self._registrar.finish(model.scale(lowest, highest))
        except ModelLoadError as error:
            raise LoadFailedError(f"model {model.name!r} stays as it was: {error}") from error
        return response.document({"status": f'Workflow "{model.name}" worker scaled. {workers}'})

    async def unregister(self, http: web.Request) -> web.StreamResponse:
        """Remove a model, all its versions unless one is named: it takes no more requests and finishes those it has."""
        name = http.match_info["model"]
        models = self._registry.versions(name, http.match_info.get("version"))
        await self._registrar.finish(self._registrar.unregister(models))
        return response.document({"status": f'Model or workflow "{name}" unregistered'})

    async def _fetch_and_load(self, wanted: registration.Registration) -> None:
        await self._registrar.load(self._registrar.admit(await registration.resolve(wanted, self._settings)))


async def set_log_level(http: web.Request) -> web.StreamResponse:
    """How much the server writes into its log; never prompts or answers, at any level."""
    level = http.query.get("level", "").upper()
    if level not in _LEVELS:
        raise BadRequestError(f"Parameter level is {level!r}; it must be one of {', '.join(_LEVELS)}.")
    logging.getLogger("bloomery").setLevel(_LEVELS[level])
    return response.document({"status": "OK"})
