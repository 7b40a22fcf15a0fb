"""KServe's v2 protocol, as far as its probes and its registry of models go: health, readiness, metadata.

Its inference speaks in tensors, and a handler here takes bytes and text, so that part is refused in words.
"""

from __future__ import annotations

from aiohttp import web

import bloomery
from bloomery.errors import ModelNotFoundError
from bloomery.http_api import response
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry

_NOT_READY = 424  # as DJLServing's plugin answers


def add_routes(app: web.Application, registry: Registry) -> None:
    """/v2 and what is below it."""
    kserve, route = _KServe(registry), app.router.add_route
    route("GET", "/v2", kserve.server)
    route("GET", "/v2/health/live", kserve.live)
    route("GET", "/v2/health/ready", kserve.ready)
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        route("GET", path, kserve.metadata)
        route("GET", path + "/ready", kserve.model_ready)
        route("POST", path + "/infer", kserve.infer)


class _KServe:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def server(self, _: web.Request) -> web.StreamResponse:
        """Name and version of the server."""
        return response.document({"name": "bloomery", "version": bloomery.__version__, "extensions": []})

    async def live(self, _: web.Request) -> web.StreamResponse:
        """Whether the server answers at all."""
        return response.document({"live": True})

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Whether every required model can answer."""
        ready = self._registry.healthy()
        return response.document({"ready": ready}, 200 if ready else _NOT_READY)

    async def model_ready(self, http: web.Request) -> web.StreamResponse:
        """Whether one model can answer."""
        model = self._model(http)
        if model is None:
            return _not_found(http)
        ready = model.status().state == "ready"
        return response.document({"name": model.name, "ready": ready}, 200 if ready else _NOT_READY)

    async def metadata(self, http: web.Request) -> web.StreamResponse:
        """What a model takes and gives: whatever its handler does, which is bytes here."""
        model = self._model(http)
        if model is None:
            return _not_found(http)
        versions = [each.version for each in self._registry.versions(model.name) if each.version is not None]
        body = {"name": "data", "datatype": "BYTES", "shape": [1]}
        platform = f"bloomery_{model.settings.engine.lower()}"
        document = {"name": model.name, "versions": versions, "platform": platform, "inputs": [body], "outputs": [body]}
        return response.document(document)

    async def infer(self, http: web.Request) -> web.StreamResponse:
        """Refused, with the way that works."""
        model = self._model(http)
        if model is None:
            return _not_found(http)
        way = f"send the handler's own input to POST /predictions/{model.name}"
        return _error(f"tensors are not served here; {way}", 501)

    def _model(self, http: web.Request) -> Model | None:
        try:
            return self._registry.get(http.match_info["model"], http.match_info.get("version"))
        except ModelNotFoundError:
            return None


def _not_found(http: web.Request) -> web.Response:
    return _error(f"Model not found: {http.match_info['model']}", 404)


def _error(message: str, status: int) -> web.Response:
    """The protocol's error document."""
    return response.document({"error": message}, status)
