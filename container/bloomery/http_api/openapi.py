"""The OpenAPI 3.1 document at /openapi.json, built from one table with a row per public route.

Whoever adds a route to ``app`` adds its row to ROUTES (those that manage models are in ``openapi_management``); a test
compares the two in both directions.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from aiohttp import web

import bloomery
from bloomery.http_api.openapi_management import ROUTES_OF_MANAGEMENT
from bloomery.http_api.openapi_route import JSON, Body, Route
from bloomery.http_api.openapi_schemas import SCHEMAS, TEXT, Schema, reference

Handler = Callable[[web.Request], Awaitable[web.Response]]

_GENERATION = Body("GenerationRequest", {"inputs": "To be, or not", "parameters": {"max_new_tokens": 8}})
_CHAT = Body(
    "ChatRequest",
    {"model": "shakespeare-bloom", "messages": [{"role": "user", "content": "Who goes there?"}], "max_tokens": 8},
)
_COMPLETION = Body("CompletionRequest", {"model": "shakespeare-bloom", "prompt": "To be, or not", "max_tokens": 8})
_INFERENCE_ERRORS = (400, 404, 413, 424, 503, 507)
_OPENAI_ERRORS = (400, 404, 413, 500, 503, 507)
_STREAMS = ("application/jsonlines", "text/event-stream")


def _inference(path: str, summary: str, query: dict[str, str] | None = None) -> Route:
    return Route(
        "POST",
        path,
        "inference",
        summary,
        answer="GeneratedTexts",
        body=_GENERATION,
        query=query or {},
        also=_STREAMS,
        errors=_INFERENCE_ERRORS,
    )


_MODEL_NAME = {"model_name": "the model, unless only one is served"}
_METRICS = {"name[]": "only the metric of that name; may be repeated"}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/ping", "health", "Whether every required model can answer", answer="Health", errors=(503,)),
    _inference(
        "/invocations", "Ask the model that the request names, or the only one; any method will do", _MODEL_NAME
    ),
    _inference("/invocations/{rest}", "The same; the rest of the path means nothing here", _MODEL_NAME),
    _inference("/predictions/{model}", "Ask that model; any method will do"),
    _inference("/predictions/{model}/{version}", "Ask that version of a model"),
    _inference("/models/{model}/invoke", "Ask that model, as SageMaker's multi-model endpoints do"),
    Route(
        "POST",
        "/v1/chat/completions",
        "openai",
        "Continue a chat, in OpenAI's form",
        answer="ChatCompletion",
        body=_CHAT,
        also=("text/event-stream",),
        errors=_OPENAI_ERRORS,
        error="OpenAIError",
    ),
    Route(
        "POST",
        "/v1/completions",
        "openai",
        "Continue prompts, in OpenAI's form",
        answer="Completion",
        body=_COMPLETION,
        also=("text/event-stream",),
        errors=_OPENAI_ERRORS,
        error="OpenAIError",
    ),
    Route("GET", "/v1/models", "openai", "The models that are served, in OpenAI's form", answer="OpenAIModels"),
    Route(
        "GET",
        "/v1/models/{model}",
        "openai",
        "One model, in OpenAI's form",
        answer="OpenAIModel",
        errors=(404,),
        error="OpenAIError",
    ),
    Route("GET", "/metrics", "metrics", "Prometheus metrics", query=_METRICS, also=("text/plain",)),
    Route(
        "GET", "/server/metrics", "metrics", "The same, under DJLServing's path", query=_METRICS, also=("text/plain",)
    ),
    Route("GET", "/openapi.json", "description", "This document"),
    Route("GET", "/api-description", "description", "The same"),
    *ROUTES_OF_MANAGEMENT,
)


def description() -> Handler:
    """The document."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=_encoded(), content_type=JSON)

    return handle


@cache
def _encoded() -> bytes:
    return json.dumps(document(), indent=2).encode() + b"\n"


def document() -> dict[str, Any]:
    """The OpenAPI document of ROUTES."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bloomery",
            "version": bloomery.__version__,
            "summary": "Large language models served the way SageMaker, DJLServing and OpenAI clients expect",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.path)]),
        "tags": [route.tag],
        "summary": route.summary,
        "responses": {"200": _success(route)} | {str(status): _failure(status, route) for status in route.errors},
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        content: dict[str, object] = {"schema": reference(route.body.schema) if route.body.schema else {}}
        if route.body.example is not None:
            content["example"] = route.body.example
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": TEXT} for name in re.findall(r"{(\w+)}", route.path)
    ]
    in_query = [
        {"name": name, "in": "query", "description": text, "schema": TEXT} for name, text in route.query.items()
    ]
    return in_path + in_query


def _success(route: Route) -> dict[str, Any]:
    content: dict[str, Schema] = {media_type: {"schema": TEXT} for media_type in route.also}
    if route.answer is not None or not route.also:
        content = {JSON: {"schema": reference(route.answer) if route.answer else {"type": "object"}}, **content}
    return {"description": http.HTTPStatus.OK.phrase, "content": content}


def _failure(status: int, route: Route) -> dict[str, Any]:
    """A health check's refusal has the same form as its consent, and a handler's has one of its own."""
    schema = reference(route.error)
    if route.answer == "Health":
        schema = reference("Health")
    elif route.tag == "inference":
        schema = {"anyOf": [schema, reference("HandlerError")]}
    return {"description": http.HTTPStatus(status).phrase, "content": {JSON: {"schema": schema}}}
