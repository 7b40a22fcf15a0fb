"""/ping: whether requests can be answered, and what stands in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from bloomery.errors import ModelLoadError, WorkerError
from bloomery.http_api import response
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry


def ping(registry: Registry, allow_multi_status: bool = False) -> Callable[[web.Request], Awaitable[web.Response]]:
    """200 while every required model can answer; else 503 with the state of each, or 207 where that is allowed and
    some can."""

    async def handle(_: web.Request) -> web.Response:
        states = {model.name: state_of(model) for model in registry.models()}
        healthy = registry.healthy()
        some = allow_multi_status and any(model.status().state == "ready" for model in registry.models())
        answer = response.document(states, 200 if healthy else 207 if some else 503)
        if not healthy:
            answer.headers["Retry-After"] = "2"
        return answer

    return handle


def state_of(model: Model) -> dict[str, object]:
    """One model's state. ``status`` is DJLServing's word."""
    status = model.status()
    if status.state == "ready":
        return {"status": "Healthy"}
    state: dict[str, object] = {
        "status": "Failed" if status.state == "failed" else "Unhealthy",
        "state": status.state,
        "phase": status.phase,
        "percent": round(status.percent, 1),
        "elapsed": round(status.elapsed, 1),
    }
    if status.state in ("restarting", "failed"):
        # The class alone: whoever can reach the port may ask, and the rest may hold paths, prompts and tracebacks.
        state["error"] = (ModelLoadError if model.error else WorkerError).__name__
    return state
