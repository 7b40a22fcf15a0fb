"""/workflows, for the case of one model: DJLServing takes every model for a workflow of that one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from bloomery.errors import BadRequestError
from bloomery.http_api import registration, response
from bloomery.http_api.management import Management
from bloomery.http_api.models import Models, page
from bloomery.http_api.permission import Permission
from bloomery.http_api.registration import Registration
from bloomery.serving.registry import Registry

_LARGEST = 1024 * 1024  # bytes of a workflow file
# Keys of a workflow file, and of a model in it, with the parameters of POST /models that they stand for.
_SETTINGS = {
    "batchSize": "batch_size",
    "maxBatchDelayMillis": "max_batch_delay",
    "maxBatchDelay": "max_batch_delay",
    "queueSize": "job_queue_size",
    "minWorkers": "min_worker",
    "maxWorkers": "max_worker",
    "engine": "engine",
}


def add_routes(
    app: web.Application, registry: Registry, models: Models, management: Management, permission: Permission
) -> None:
    """Describing, scaling and removing are the models' own."""
    guard, route = permission.guard, app.router.add_route
    workflows = _Workflows(registry, management)
    route("GET", "/workflows", workflows.listing)
    route("POST", "/workflows", guard(workflows.register))
    for path in ("/workflows/{model}", "/workflows/{model}/{version}"):
        route("GET", path, models.description)
        route("PUT", path, guard(management.scale))
        route("DELETE", path, guard(management.unregister))


class _Workflows:
    def __init__(self, registry: Registry, management: Management) -> None:
        self._registry, self._management = registry, management

    async def listing(self, http: web.Request) -> web.StreamResponse:
        """All of them, page by page."""
        models, following = page(http, self._registry.models())
        listed = [
            {"workflowName": model.name, **({} if model.version is None else {"version": model.version})}
            for model in models
        ]
        return response.document({"workflows": listed, **following})

    async def register(self, http: web.Request) -> web.StreamResponse:
        """Add the model of a workflow file on this machine."""
        wanted = registration.read(await registration.parameters(http))
        if not registration.is_local(wanted):
            raise BadRequestError(f"Invalid workflow url: {wanted.shown}; it must be a file on this machine")
        return await self._management.add(_from_file(registration.path_of(wanted.url), wanted), "Workflow")


def _from_file(path: Path, wanted: Registration) -> Registration:
    """The registration of the one model in the workflow file at ``path``."""
    document = _parse(path)
    models = document.get("models")
    if not isinstance(models, dict) or not models:
        raise BadRequestError(f"{path} has no models; a workflow file looks like {_EXAMPLE}")
    if len(models) > 1:
        raise BadRequestError(
            f"{path} has {len(models)} models ({', '.join(map(str, models))}); this server runs workflows of one model "
            "only: add the models one by one, and call them from the client or from one handler"
        )
    ((key, model),) = models.items()
    model = model if isinstance(model, dict) else {"modelUrl": model}
    url = model.get("modelUrl")
    if not isinstance(url, str) or not url:
        raise BadRequestError(f"{path}: model {key!r} has no modelUrl")
    steps = document.get("workflow")
    if steps not in (None, {"out": [key, "in"]}):
        raise BadRequestError(f"{path}: the workflow must be {{out: [{key}, in]}}; other steps are not run here")
    if "://" not in url:
        url = str(path.parent / url)  # an absolute one wins
    stated = {
        parameter: str(each[name])
        for each in (document, model)  # a model's own word is the stronger
        for name, parameter in _SETTINGS.items()
        if name in each
    }
    version = document.get("version")
    read = registration.read({"url": url, **stated})
    return replace(
        read,
        name=wanted.name or str(document.get("name") or key),
        version=wanted.version or (None if version is None else str(version)),
        synchronous=wanted.synchronous,
        options={**read.options, **wanted.options},
    )


_EXAMPLE = '{"name": "echo", "models": {"m": "/models/echo"}, "workflow": {"out": ["m", "in"]}}'


def _parse(path: Path) -> Mapping[str, object]:
    """A JSON or YAML file; YAML's own types only, so that it can make no objects."""
    # Imported here: it takes 30 ms, and most servers never see a workflow.
    import yaml  # type: ignore[import-untyped,unused-ignore]

    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise BadRequestError(f"{path} is no workflow file: it must be JSON or YAML of at most {_LARGEST} bytes")
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadRequestError(f"{path} is no workflow file: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadRequestError(f"{path} is no workflow file; one looks like {_EXAMPLE}")
    return document
