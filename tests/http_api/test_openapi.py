"""The document and the routes: each says what the other does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tests.support.server import LABORATORY, Server, model_directory, serving

from bloomery.http_api import app, openapi
from bloomery.http_api.permission import Door
from bloomery.http_api.polling import NEXT_TOKEN, STARTING_TOKEN, SYNCHRONOUS
from bloomery.serving.model import Model
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.settings.server import ServerSettings

DOCUMENT = openapi.document()
NAME = "shakespeare-bloom"


def served() -> set[tuple[str, str]]:
    """Method and path of every route; "*" takes all methods."""
    registry = Registry()
    routes = app.build(registry, ServerSettings(), Registrar(registry, Model), Door.ALL).router.routes()
    return {(route.method, route.resource.canonical) for route in routes if route.resource is not None}


def documented() -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in openapi.ROUTES}


def test_it_is_a_valid_openapi_document() -> None:
    validate(DOCUMENT)


def test_every_route_is_documented() -> None:
    documented_paths = {path for _, path in documented()}
    missing = [
        f"{method} {path}"
        for method, path in sorted(served())
        if (path not in documented_paths if method == "*" else (method, path) not in documented())
    ]
    assert not missing, f"add a row to ROUTES in http_api/openapi.py for: {', '.join(missing)}"


def test_every_documented_route_exists() -> None:
    extra = [f"{method} {path}" for method, path in documented() if not {(method, path), ("*", path)} & served()]
    assert not extra, f"http_api/app.py has no route for these rows of ROUTES in http_api/openapi.py: {extra}"


def test_no_route_has_two_rows() -> None:
    assert len(documented()) == len(openapi.ROUTES)


def test_every_schema_is_used() -> None:
    text = json.dumps(DOCUMENT)
    assert [name for name in openapi.SCHEMAS if f'"#/components/schemas/{name}"' not in text] == []


@pytest.fixture(scope="module")
def demonstration() -> Iterator[Server]:
    with serving(ready=False) as server:
        server.wait_ready(240)
        yield server


def operations(method: str) -> list[tuple[str, dict[str, Any]]]:
    """The operations that the demonstration can answer: none of its models has a version."""
    return [
        (path, item[method])
        for path, item in DOCUMENT["paths"].items()
        if method in item and "{version}" not in path and item[method]["tags"][0] != "description"
    ]


def check(reply_body: bytes, content_type: str, response: dict[str, Any]) -> None:
    media_type = content_type.partition(";")[0]
    schema = response["content"][media_type]["schema"]
    if media_type == "application/json":
        validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        validator.validate(json.loads(reply_body))


def answer(path: str, method: str, status: int) -> dict[str, Any]:
    """What is documented of it."""
    return dict(DOCUMENT["paths"][path][method.lower()]["responses"][str(status)])


def test_every_example_works_and_is_answered_as_documented(demonstration: Server) -> None:
    tried = 0
    for path, operation in operations("post"):
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if example is None or operation["tags"][0] not in ("inference", "openai"):
            continue
        reply = demonstration.post(example, path.replace("{model}", NAME).replace("{rest}", "x"))
        assert reply.status == 200, (path, reply.body)
        check(reply.body, reply.headers["content-type"], operation["responses"]["200"])
        tried += 1
    assert tried >= 6


def test_what_can_be_read_has_its_documented_form(demonstration: Server) -> None:
    for path in ("/ping", "/models", f"/models/{NAME}", "/v1/models", f"/v1/models/{NAME}", "/metrics"):
        reply = demonstration.request("GET", path)
        assert reply.status == 200, path
        operation = DOCUMENT["paths"][path.replace(NAME, "{model}")]["get"]
        check(reply.body, reply.headers["content-type"], operation["responses"]["200"])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", {"messages": []}, 400),
        ("/invocations", {"inputs": []}, 400),
        ("/predictions/nobody", {"inputs": "To be"}, 404),
    ],
)
def test_a_refusal_has_its_documented_form(demonstration: Server, path: str, body: object, status: int) -> None:
    reply = demonstration.post(body, path)
    assert reply.status == status
    operation = DOCUMENT["paths"][path.replace("nobody", "{model}")]["post"]
    check(reply.body, reply.headers["content-type"], operation["responses"][str(status)])


MANAGED = [
    # What is asked (in this order: they follow from each other), under which path it is documented, what is answered.
    ("GET", "/ping", "/ping", 200),
    ("GET", "/v2", "/v2", 200),
    ("GET", "/v2/health/live", "/v2/health/live", 200),
    ("GET", "/v2/health/ready", "/v2/health/ready", 200),
    ("GET", "/v2/models/laboratory", "/v2/models/{model}", 200),
    ("GET", "/v2/models/laboratory/ready", "/v2/models/{model}/ready", 200),
    ("GET", "/v2/models/nobody", "/v2/models/{model}", 404),
    ("POST", "/v2/models/laboratory/infer", "/v2/models/{model}/infer", 501),
    ("GET", "/models?limit=none", "/models", 400),
    ("GET", "/models/nobody", "/models/{model}", 404),
    ("GET", "/workflows", "/workflows", 200),
    ("GET", "/workflows/laboratory", "/workflows/{model}", 200),
    ("POST", "/models", "/models", 400),
    ("POST", "/models?url=s3://bucket/model", "/models", 403),
    ("POST", "/models?url=/no/such/place", "/models", 404),
    ("POST", f"/models?url={LABORATORY}", "/models", 409),
    ("POST", f"/models?url={LABORATORY}&model_name=more&model_version=1", "/models", 200),
    ("GET", "/models?limit=1", "/models", 200),
    ("GET", "/models/more/1", "/models/{model}/{version}", 200),
    ("PUT", "/models/more/1?min_worker=1&synchronous=false", "/models/{model}/{version}", 202),
    ("PUT", "/workflows/more?min_worker=1&max_worker=1", "/workflows/{model}", 200),
    ("PUT", "/models/more?min_worker=2&max_worker=1", "/models/{model}", 400),
    ("POST", "/models/more/adapters", "/models/{model}/adapters", 400),
    ("GET", "/models/more/adapters", "/models/{model}/adapters", 200),
    ("GET", "/adapters", "/adapters", 400),
    ("GET", "/adapters/none?model_name=more", "/adapters/{adapter}", 404),
    ("DELETE", "/models/more", "/models/{model}", 200),
    ("DELETE", "/workflows/more", "/workflows/{model}", 404),
    ("POST", "/workflows?url=/no/such/file", "/workflows", 400),
    ("POST", "/server/logging?level=INFO", "/server/logging", 200),
    ("POST", "/server/logging?level=chatty", "/server/logging", 400),
]


def test_what_management_answers_has_its_documented_form() -> None:
    with serving(LABORATORY) as server:
        for method, asked, path, status in MANAGED:
            reply = server.request(method, asked)
            assert reply.status == status, (method, asked, reply.body)
            check(reply.body, reply.headers["content-type"], answer(path, method, status))
        for method, path in (("PUT", "/models/laboratory"), ("DELETE", "/models/laboratory")):
            reply = server.request(method, path, headers={"X-Forwarded-For": "192.0.2.1"})
            assert reply.status == 403
            check(reply.body, reply.headers["content-type"], answer("/models/{model}", method, 403))


def test_an_answer_that_is_kept_is_collected_as_documented() -> None:
    with serving(LABORATORY) as server:
        started = server.post({"do": "report"}, **{SYNCHRONOUS: "false"})
        operation = DOCUMENT["paths"]["/invocations"]["post"]
        assert {SYNCHRONOUS, STARTING_TOKEN} <= {parameter["name"] for parameter in operation["parameters"]}
        for status in ("200", "202"):
            assert set(operation["responses"][status]["headers"]) <= set(started.headers)
        while (reply := server.post({}, **{STARTING_TOKEN: started.headers[NEXT_TOKEN]})).status == 202:
            assert "content" not in operation["responses"]["202"]
            assert reply.body == b""
        assert reply.status == 200


def test_a_model_that_failed_is_described_as_documented(tmp_path: Path) -> None:
    handler = "import os\ndef handle(inputs):\n    if not inputs.is_empty():\n        os._exit(9)\n"
    directory = model_directory(tmp_path / "m", handler, "engine=Python\nretry_threshold=0\n")
    with serving(LABORATORY) as server:
        assert server.request("POST", f"/models?url={directory}").status == 200
        server.post({}, "/predictions/m")
        deadline = time.monotonic() + 60
        while (model := (reply := server.request("GET", "/models/m")).json()[0]["models"][0])["status"] != "failed":
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        check(reply.body, reply.headers["content-type"], answer("/models/{model}", "GET", 200))
        described = DOCUMENT["components"]["schemas"]["ModelDescription"]["items"]["properties"]["models"]["items"]
        assert set(model) <= set(described["properties"])
        assert model["error"] == "ModelLoadError"


@pytest.mark.parametrize("path", ["/openapi.json", "/api-description"])
def test_the_server_tells_it(demonstration: Server, path: str) -> None:
    assert demonstration.request("GET", path).json() == json.loads(json.dumps(DOCUMENT))
