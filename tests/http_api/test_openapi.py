"""The document and the routes: each says what the other does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tests.support.server import Server, serving

from bloomery.http_api import app, openapi
from bloomery.http_api.permission import Door
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


@pytest.mark.parametrize("path", ["/openapi.json", "/api-description"])
def test_the_server_tells_it(demonstration: Server, path: str) -> None:
    assert demonstration.request("GET", path).json() == json.loads(json.dumps(DOCUMENT))
