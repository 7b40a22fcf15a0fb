"""Adapters of a model: /models/{model}/adapters, and /adapters for the only model."""

from __future__ import annotations

import re

from aiohttp import web

from bloomery.errors import BadRequestError, ForbiddenError
from bloomery.http_api import response
from bloomery.http_api.models import page
from bloomery.http_api.permission import Permission
from bloomery.http_api.registration import parameters
from bloomery.serving.model import Model
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.settings.server import ServerSettings
from bloomery.workers.adapter import Adapter

_NAME = re.compile(r"[^/?#%\\\s\x00-\x1f\x7f]{1,256}")
_REMOTE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def add_routes(
    app: web.Application, registry: Registry, registrar: Registrar, permission: Permission, settings: ServerSettings
) -> None:
    """Must come before /models/{model}/{version}, whose pattern they also match."""
    adapters = _Adapters(registry, registrar, settings)
    guard, route = permission.guard, app.router.add_route
    for base in ("/adapters", "/models/{model}/adapters"):
        route("GET", base, adapters.listing)
        route("POST", base, guard(adapters.register))
        route("GET", base + "/{adapter}", adapters.description)
        route("DELETE", base + "/{adapter}", guard(adapters.unregister))
        route("POST", base + "/{adapter}/update", guard(adapters.update))


class _Adapters:
    def __init__(self, registry: Registry, registrar: Registrar, settings: ServerSettings) -> None:
        self._registry, self._registrar, self._settings = registry, registrar, settings

    async def listing(self, http: web.Request) -> web.StreamResponse:
        """All adapters of the model, page by page."""
        adapters, following = page(http, list(self._model(http).adapters.known.values()))
        return response.document({"adapters": [_summary(adapter) for adapter in adapters], **following})

    async def description(self, http: web.Request) -> web.StreamResponse:
        """One adapter."""
        adapter = self._model(http).adapters.get(http.match_info["adapter"])
        return response.document({**_summary(adapter), "options": adapter.options})

    async def register(self, http: web.Request) -> web.StreamResponse:
        """Have the handler's register_adapter called in every group."""
        stated = await parameters(http)
        model = self._model(http)
        adapter = self._read(model, stated, stated.get("name", ""))
        await self._registrar.finish(model.adapters.register(adapter))
        return response.document({"status": f"Adapter {adapter.name} registered"})

    async def update(self, http: web.Request) -> web.StreamResponse:
        """Have the handler's update_adapter called in every group."""
        stated = await parameters(http)
        model = self._model(http)
        known = model.adapters.get(http.match_info["adapter"])
        adapter = self._read(model, {"src": known.src, "alias": known.alias, **stated}, known.name)
        await self._registrar.finish(model.adapters.update(adapter))
        return response.document({"status": f"Adapter {adapter.name} updated"})

    async def unregister(self, http: web.Request) -> web.StreamResponse:
        """Have the handler's unregister_adapter called in every group."""
        name = http.match_info["adapter"]
        await self._registrar.finish(self._model(http).adapters.unregister(name))
        return response.document({"status": f"Adapter {name} unregistered"})

    def _model(self, http: web.Request) -> Model:
        name = http.match_info.get("model") or http.query.get("model_name")
        return self._registry.get(name, http.query.get("model_version"))

    def _read(self, model: Model, stated: dict[str, str], name: str) -> Adapter:
        """The adapter that these parameters describe; those without a meaning of their own are the handler's."""
        source = stated.get("src", "")
        for key, value in (("name", name), ("src", source)):
            if not value:
                raise BadRequestError(f"Parameter {key} is required.")
        if not _NAME.fullmatch(name):
            raise BadRequestError(f"Parameter name is {name!r}; it must be fit for a part of a URL's path.")
        if _REMOTE.match(source) and not self._settings.allow_model_urls:
            raise ForbiddenError(
                f"{source.partition('?')[0]} is not on this machine; adapters come from elsewhere only with "
                "allow_model_urls=true (SERVING_ALLOW_MODEL_URLS)"
            )
        inside = model.settings.model_dir.absolute() / source  # an absolute source wins
        if "://" not in source and "\0" not in source and len(source) < 1024 and inside.exists():
            source = str(inside)
        known = ("name", "src", "alias", "model_name", "model_version")
        options = {key: value for key, value in stated.items() if key not in known}
        return Adapter(name, source, stated.get("alias", ""), options)


def _summary(adapter: Adapter) -> dict[str, object]:
    alias = {"alias": adapter.alias} if adapter.alias else {}
    return {"name": adapter.name, **alias, "src": adapter.src.partition("?")[0]}
