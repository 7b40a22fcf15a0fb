"""GET /models: what is served, in DJLServing's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from bloomery.errors import BadRequestError
from bloomery.http_api import health, response
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry

Handler = Callable[[web.Request], Awaitable[web.Response]]


def listing(registry: Registry) -> Handler:
    """All models, ``limit`` of them from ``next_page_token`` on."""

    async def handle(request: web.Request) -> web.Response:
        models = registry.models()
        start, limit = _number(request, "next_page_token", 0), _number(request, "limit", 100)
        page: dict[str, object] = {"models": [_summary(model) for model in models[start : start + limit]]}
        if start + limit < len(models):
            page["nextPageToken"] = str(start + limit)
        return response.document(page)

    return handle


def description(registry: Registry) -> Handler:
    """One model: how it is served and how it fares."""

    async def handle(request: web.Request) -> web.Response:
        model = registry.get(request.match_info["model"], request.match_info.get("version"))
        settings = model.settings
        details = {
            **_summary(model),
            "engine": settings.engine,
            "entryPoint": settings.entry_point,
            "tensorParallelDegree": settings.tensor_parallel_degree,
            "minWorkers": settings.min_workers,
            "maxWorkers": settings.max_workers,
            "batchSize": settings.batch_size,
            "maxBatchDelayMillis": round(settings.max_batch_delay * 1000),
            "queueSize": settings.job_queue_size,
            **{key: value for key, value in health.state_of(model).items() if key != "status"},
        }
        return response.document([details])

    return handle


def _summary(model: Model) -> dict[str, object]:
    summary: dict[str, object] = {"modelName": model.name, "modelUrl": model.settings.model_dir.as_uri()}
    if model.version is not None:
        summary["version"] = model.version
    ready = model.status().state == "ready"
    return {**summary, "status": "READY" if ready else health.state_of(model)["state"]}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 9:
        raise BadRequestError(f"Parameter {name} is {text!r}; it must be a whole number.")
    return int(text)
