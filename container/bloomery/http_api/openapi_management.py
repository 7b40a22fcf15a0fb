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
_CHANGED = (400, 403, 404)


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
            errors=(*_CHANGED, 409, 500, 507),
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
            query={"url": "the file, JSON or YAML", **_SYNCHRONOUS},
            errors=(*_CHANGED, 409, 500),
        ),
    ]
    for path in ("/workflows/{model}", "/workflows/{model}/{version}"):
        like = f"As {path.replace('workflows', 'models')}"
        rows += [
            _read(path, "workflows", like, "ModelDescription"),
            Route(
                "PUT", path, "workflows", like, "Status", query={**_WORKERS, **_SYNCHRONOUS}, errors=(*_CHANGED, 500)
            ),
            Route("DELETE", path, "workflows", like, "Status", errors=(403, 404)),
        ]
    return tuple(rows)


def _adapters() -> tuple[Route, ...]:
    rows: list[Route] = []
    for base, whose in (("/adapters", "the only model"), ("/models/{model}/adapters", "a model")):
        refused = (*_CHANGED, 424, 503)
        one = f"{base}/{{adapter}}"
        rows += [
            _read(base, "adapters", f"The adapters of {whose}", "Adapters", pages=True),
            Route(
                "POST",
                base,
                "adapters",
                f"Have the handler of {whose} register an adapter in every group",
                answer="Status",
                query={"name": "its name", **_ADAPTER},
                errors=(*refused, 409),
            ),
            _read(one, "adapters", f"An adapter of {whose}", "Adapter"),
            Route("DELETE", one, "adapters", f"Remove an adapter of {whose}", "Status", errors=refused),
            Route(
                "POST",
                f"{one}/update",
                "adapters",
                f"Change an adapter of {whose}",
                "Status",
                query=_ADAPTER,
                errors=refused,
            ),
        ]
    return tuple(rows)


def _kserve() -> tuple[Route, ...]:
    rows = [
        Route("GET", "/v2", "kserve", "Name and version of the server"),
        Route("GET", "/v2/health/live", "kserve", "Whether the server answers at all"),
        Route("GET", "/v2/health/ready", "kserve", "Whether every required model can answer", errors=(424,)),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        rows += [
            Route("GET", base, "kserve", "What a model takes and gives", errors=(404,)),
            Route("GET", f"{base}/ready", "kserve", "Whether it can answer", errors=(404, 424)),
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
