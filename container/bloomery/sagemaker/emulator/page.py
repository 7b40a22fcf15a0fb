"""The page at ``/_bloomery/``: what runs, what it is at, what it printed last, and a box for a prompt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from aiohttp import web

from bloomery.sagemaker.emulator.api.components import Components
from bloomery.sagemaker.emulator.api.endpoint_view import SERVES
from bloomery.sagemaker.emulator.api.endpoints import Endpoints
from bloomery.sagemaker.emulator.api.lives import LINES
from bloomery.sagemaker.emulator.deployment import Fleet, component_key

PATH = "/_bloomery/"
_HTML = Path(__file__).with_name("page.html")
# The page is one file and talks to this emulator alone.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


class Page:
    """The page, and the JSON that it asks for every second."""

    def __init__(self, endpoints: Endpoints, components: Components, fleet: Fleet) -> None:
        self._endpoints, self._components, self._fleet = endpoints, components, fleet

    def add_routes(self, app: web.Application) -> None:
        """Below ``PATH``, which is no possible name of a bucket."""
        app.router.add_get(PATH.rstrip("/"), self._redirect)
        app.router.add_get(PATH, self._page)
        app.router.add_get(PATH + "endpoints", self._list)

    async def _redirect(self, http: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(PATH)

    async def _page(self, http: web.Request) -> web.Response:
        return web.Response(
            body=_HTML.read_bytes(),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY", "Cache-Control": "no-store"},
        )

    async def _list(self, http: web.Request) -> web.Response:
        now = time.time()
        shown: list[dict[str, Any]] = []
        for record, phase in self._endpoints.all():
            variants = record.document["Spec"]["variants"]
            since = record.document.get("Pending", {}).get("StartTime", record.modified)
            shown.append(
                {
                    "name": record.name,
                    "status": record.status,
                    "phase": phase,
                    "serves": record.status in SERVES,
                    "elapsed": round(now - since, 1),
                    "reason": record.document.get("FailureReason"),
                    "config": record.document["EndpointConfigName"],
                    "variants": [
                        {
                            "name": variant["name"],
                            "model": (variant["container"] or {}).get("model_name"),
                            "image": (variant["container"] or {}).get("image"),
                            "instances": variant["instance_count"],
                            "type": variant["instance_type"],
                        }
                        for variant in variants
                    ],
                    "components": [
                        {
                            "name": component.name,
                            "status": component.status,
                            "phase": doing,
                            "copies": component.document["Copies"],
                            "reason": component.document.get("FailureReason"),
                            "log": self._fleet.last_lines(component_key(component.name), LINES)
                            or component.document.get("LastLines", []),
                        }
                        for component, doing in self._components.of(record)
                    ],
                    "log": self._fleet.last_lines(record.name, LINES) or record.document.get("LastLines", []),
                }
            )
        return web.json_response({"endpoints": shown}, headers={"Cache-Control": "no-store"})
