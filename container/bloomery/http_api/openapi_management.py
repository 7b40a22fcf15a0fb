"""The rows of the OpenAPI table that describe and change what is served."""

from __future__ import annotations

from dataclasses import replace

from bloomery.http_api.openapi_route import Body, Route

_PAGES = {"limit": "entries per page, 100 unless told otherwise", "next_page_token": "where the page begins"}
_SYNCHRONOUS = {"synchronous": "false: answer 202 at once"}
_WORKERS = {"min_worker": "worker groups that are started", "max_worker": "worker groups at most"}
_NEW_MODEL = {
    "url": "a model directory or an archive on this machine; elsewhere with allow_model_urls=true",
    "model_name": "its name, unless the directory's will do",
    "model_version": "its version",
    "engine": "as in serving.properties",
    "device": "load_on_devices of serving.properties",
    "job_queue_size": "requests that may wait",
    "batch_size": "requests joined into one call of the handler",
    "max_batch_delay": "milliseconds a batch waits for company",
    "max_idle_time": "accepted, without effect here",
    **_WORKERS,
    **_SYNCHRONOUS,
}
_ADAPTER = {"src": "where its weights are", "alias": "another name for it; any other parameter is the handler's"}
_WHICH = {"model_name": "the model, unless only one is served"}
_VERSION = {"model_version": "its version, unless the newest will do"}
_SCHEDULED = "Begun; with synchronous=false nobody waits for the end"
_CHANGED = (400, 403, 404)
_ADDED = (*_CHANGED, 409, 413, 500, 503, 507)


def _read(path: str, tag: str, summary: str, answer: str, pages: bool = False) -> Route:
    return Route("GET", path, tag, summary, answer, query=_PAGES if pages else {}, errors=(400,) if pages else (404,))


def _models() -> tuple[Route, ...]:
    rows = [
        _read("/models", "models", "The models that are served", "Models", pages=True),
        Route(
            "POST",
            "/models",
            "models",
            "Add a model; answers when it can serve",
            answer="Status",
            body=Body(None, {"url": "/opt/ml/models/mine", "model_name": "mine"}),
            query=_NEW_MODEL,
            accepted=_SCHEDULED,
            errors=_ADDED,
        ),
    ]
    for path, which in (("/models/{model}", "a model"), ("/models/{model}/{version}", "that version of a model")):
        rows += [
            _read(path, "models", f"How {which} is served", "ModelDescription"),
            Route(
                "PUT",
                path,
                "models",
                f"Change the number of worker groups of {which}; no request is lost",
                answer="Status",
                query={**_WORKERS, **_SYNCHRONOUS},
                accepted=_SCHEDULED,
                errors=(*_CHANGED, 500),
            ),
            Route("DELETE", path, "models", f"Remove {which}; running requests finish", "Status", errors=(403, 404)),
        ]
    return tuple(rows)


def _workflows() -> tuple[Route, ...]:
    rows = [
        _read("/workflows", "workflows", "The same models, as DJLServing's workflows", "Workflows", pages=True),
        Route(
            "POST",
            "/workflows",
            "workflows",
            "Add the one model of a workflow file on this machine",
            answer="Status",
            body=Body(None, {"url": "/opt/ml/workflows/mine.yaml"}),
            query={**_NEW_MODEL, "url": "the file, JSON or YAML; the other parameters win over what it says"},
            accepted=_SCHEDULED,
            errors=_ADDED,
        ),
    ]
    for path in ("/workflows/{model}", "/workflows/{model}/{version}"):
        like = f"As {path.replace('workflows', 'models')}"
        rows += [
            _read(path, "workflows", like, "ModelDescription"),
            Route(
                "PUT",
                path,
                "workflows",
                like,
                answer="Status",
                query={**_WORKERS, **_SYNCHRONOUS},
                accepted=_SCHEDULED,
                errors=(*_CHANGED, 500),
            ),
            Route("DELETE", path, "workflows", like, "Status", errors=(403, 404)),
        ]
    return tuple(rows)


def _adapters() -> tuple[Route, ...]:
    rows: list[Route] = []
    for base, whose, which in (
        ("/adapters", "the only model, or the one named", {**_WHICH, **_VERSION}),
        ("/models/{model}/adapters", "a model", _VERSION),
    ):
        one = f"{base}/{{adapter}}"
        refused = (*_CHANGED, 424, 503)  # or as the handler says
        about = f"an adapter of {whose}"
        added = {"name": "its name", **_ADAPTER, **which}
        listing = f"The adapters of {whose}"
        register = f"Have the handler of {whose} register an adapter in every group"
        body = Body(None, {"name": "mine", "src": "/opt/ml/adapters/mine"})
        change = Body(None, {"src": "/opt/ml/adapters/other"})
        rows += [
            Route("GET", base, "adapters", listing, "Adapters", query={**_PAGES, **which}, errors=(400, 404)),
            Route("POST", base, "adapters", register, "Status", body, added, errors=(*refused, 409, 413)),
            Route("GET", one, "adapters", about.capitalize(), "Adapter", query=which, errors=(400, 404)),
            Route("DELETE", one, "adapters", f"Remove {about}", "Status", query=which, errors=refused),
            Route(
                "POST",
                f"{one}/update",
                "adapters",
                f"Change {about}",
                answer="Status",
                body=change,
                query={**_ADAPTER, **which},
                errors=(*refused, 413),
            ),
        ]
    return tuple(rows)


def _kserve() -> tuple[Route, ...]:
    def ready(path: str, summary: str, *errors: int) -> Route:
        return Route("GET", f"{path}/ready", "kserve", summary, "KServeReady", refusals=(424,), errors=errors)

    rows = [
        Route("GET", "/v2", "kserve", "Name and version of the server", "KServeServer"),
        Route("GET", "/v2/health/live", "kserve", "Whether the server answers at all", "KServeLive"),
        ready("/v2/health", "Whether every required model can answer"),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        rows += [
            Route("GET", base, "kserve", "What a model takes and gives", "KServeModel", errors=(404,)),
            ready(base, "Whether it can answer", 404),
            Route("POST", f"{base}/infer", "kserve", "Refused: tensors are not served here", errors=(404, 501)),
        ]
    return tuple(replace(row, error="KServeError") for row in rows)


ROUTES_OF_MANAGEMENT: tuple[Route, ...] = (
    *_models(),
    *_workflows(),
    *_adapters(),
    Route(
        "POST",
        "/server/logging",
        "server",
        "Set the level of the server's log",
        answer="Status",
        query={"level": "DEBUG, INFO, WARNING or ERROR"},
        errors=(400, 403),
    ),
    *_kserve(),
)
