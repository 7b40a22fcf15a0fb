"""GET /models: what is served, in DJLServing's words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from aiohttp import web

from bloomery.errors import BadRequestError, ModelNotFoundError
from bloomery.http_api import health, response
from bloomery.http_api.permission import Permission
from bloomery.serving.model import Model
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.workers.group import Group

Item = TypeVar("Item")
_LONGEST_PAGE = 1000


class Models:
    """Describes the models; the report of one that failed is shown only to those who may manage."""

    def __init__(self, registry: Registry, registrar: Registrar, permission: Permission) -> None:
        self._registry, self._registrar, self._permission = registry, registrar, permission

    async def listing(self, http: web.Request) -> web.StreamResponse:
        """All models, ``limit`` of them from ``next_page_token`` on."""
        models, following = page(http, self._registry.models())
        return response.document({"models": [self._summary(model) for model in models], **following})

    async def description(self, http: web.Request) -> web.StreamResponse:
        """How a model is served and how it fares; without a version, each of its versions."""
        name, version = http.match_info["model"], http.match_info.get("version")
        manager = self._permission.refusal(http, multi_model=True) is None
        try:
            models = self._registry.versions(name, version)
        except ModelNotFoundError as error:
            failure = self._registrar.failure(name, version) if manager else None
            if failure is None:
                raise
            raise ModelNotFoundError(f"{error}; adding it failed: {failure.report}") from error
        return response.document([self._workflow(model, manager) for model in models])

    def _workflow(self, model: Model, manager: bool) -> dict[str, object]:
        """DJLServing wraps each model into a workflow of the same name."""
        version = {} if model.version is None else {"version": model.version}
        return {"workflowName": model.name, **version, "models": [self._details(model, manager)]}

    def _details(self, model: Model, manager: bool) -> dict[str, object]:
        settings = model.settings
        details = {
            **self._summary(model),
            "batchSize": settings.batch_size,
            "maxBatchDelayMillis": round(settings.max_batch_delay * 1000),
            "queueSize": settings.job_queue_size,
            "requestInQueue": model.status().queued,
            "loadedAtStartup": self._registry.at_startup(model),
            "workerGroups": _worker_groups(model),
            "engine": settings.engine,
            "entryPoint": settings.entry_point,
            "tensorParallelDegree": settings.tensor_parallel_degree,
            **{key: value for key, value in health.state_of(model).items() if key != "status"},
        }
        if manager and model.error is not None:
            details["report"] = model.error.report
        return details

    def _summary(self, model: Model) -> dict[str, object]:
        version = {} if model.version is None else {"version": model.version}
        ready = model.status().state == "ready"
        status = "READY" if ready else health.state_of(model)["state"]
        return {"modelName": model.name, **version, "modelUrl": self._registry.url(model), "status": status}


def page(http: web.Request, items: Sequence[Item]) -> tuple[Sequence[Item], dict[str, str]]:
    """The part of ``items`` that a request asks for, and ``nextPageToken`` if that is not all."""
    start, limit = _number(http, "next_page_token", 0), _number(http, "limit", 100)
    limit = min(limit, _LONGEST_PAGE)
    following = {"nextPageToken": str(start + limit)} if start + limit < len(items) else {}
    return items[start : start + limit], following


def _number(http: web.Request, name: str, default: int) -> int:
    text = http.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or (name == "limit" and int(text) == 0):
        raise BadRequestError(f"Parameter {name} is {text!r}; it must be a whole number.")
    return int(text)


def _worker_groups(model: Model) -> list[dict[str, object]]:
    """The groups by the first device each has; DJLServing's worker is our group."""
    by_device: dict[str | None, list[Group]] = {}
    for group in model.groups:
        device = group.placement.devices[0] if group.placement.devices else None
        by_device.setdefault(device, []).append(group)
    return [
        {
            "device": {"deviceType": "cpu" if device is None else "gpu", "deviceId": _device_number(device)},
            "minWorkers": model.settings.min_workers,
            "maxWorkers": model.settings.max_workers,
            "workers": [_worker(group) for group in groups],
        }
        for device, groups in by_device.items()
    ]


def _device_number(device: str | None) -> int | str:
    if device is None:
        return -1
    return int(device) if device.isdecimal() else device  # CUDA_VISIBLE_DEVICES may hold UUIDs


def _worker(group: Group) -> dict[str, object]:
    status = group.status()
    started = datetime.fromtimestamp(group.placement.started_at, UTC).isoformat(timespec="milliseconds")
    return {
        "id": group.index,
        "startTime": started.replace("+00:00", "Z"),
        "status": status.state.upper(),
        "busy": status.busy,
        "restarts": status.restarts,
    }
