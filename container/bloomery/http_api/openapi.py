"""The OpenAPI 3.1 document at /openapi.json, built from one table with a row per public route.

Whoever adds a route to ``app`` adds its row to ROUTES (those that manage models are in ``openapi_management``); a test
compares the two in both directions.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from typing import Any

from aiohttp import web

import bloomery
from bloomery.http_api.openapi_management import ROUTES_OF_MANAGEMENT
from bloomery.http_api.openapi_route import JSON, Body, Route
from bloomery.http_api.openapi_schemas import SCHEMAS, TEXT, Schema, reference
from bloomery.http_api.polling import MAX_ITEMS, NEXT_TOKEN, STARTING_TOKEN, SYNCHRONOUS

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
_POLLING = {
    SYNCHRONOUS: f"false: answer at once with {NEXT_TOKEN}, and keep the model's answer for whoever asks for it",
    STARTING_TOKEN: f"the {NEXT_TOKEN} of an earlier answer: collect what has come since; the body means nothing then",
    MAX_ITEMS: "pieces to collect at most, with that token",
}
_NEXT = {NEXT_TOKEN: "where to go on collecting; absent from the last piece, and from answers that are not kept"}
_NOT_YET = "Nothing to collect yet; ask again with the token"
_DESCRIPTION = (
    "A path answers 405, with the methods that it takes in Allow, to one that has no row here. Calls that change what "
    "is served answer 403 to anybody but this machine itself, unless management has an address of its own."
)


def _inference(path: str, summary: str, query: dict[str, str] | None = None) -> Route:
    return Route(
        "POST",
        path,
        "inference",
        summary,
        answer="GeneratedTexts",
        body=_GENERATION,
        query={**(query or {}), "adapter": "an adapter that the model has registered"},
        headers=_POLLING,
        reply_headers=_NEXT,
        accepted=_NOT_YET,
        polled=True,
        also=_STREAMS,
        errors=_INFERENCE_ERRORS,
    )


def _openai(path: str, summary: str, answer: str, body: Body) -> Route:
    return replace(
        _inference(path, summary),
        tag="openai",
        answer=answer,
        body=body,
        also=("text/event-stream",),
        errors=_OPENAI_ERRORS,
        error="OpenAIError",
    )


_MODEL_NAME = {"model_name": "the model, unless only one is served"}
_METRICS = {"name[]": "only the metric of that name; may be repeated"}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/ping", "health", "Whether every required model can answer", answer="Health", refusals=(503,)),
    _inference(
        "/invocations", "Ask the model that the request names, or the only one; any method will do", _MODEL_NAME
    ),
    _inference("/invocations/{rest}", "The same; the rest of the path means nothing here", _MODEL_NAME),
    _inference("/predictions/{model}", "Ask that model; any method will do"),
    _inference("/predictions/{model}/{version}", "Ask that version of a model"),
    _inference("/models/{model}/invoke", "Ask that model, as SageMaker's multi-model endpoints do"),
    _openai("/v1/chat/completions", "Continue a chat, in OpenAI's form", "ChatCompletion", _CHAT),
    _openai("/v1/completions", "Continue prompts, in OpenAI's form", "Completion", _COMPLETION),
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
            "description": _DESCRIPTION,
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
        "responses": {"200": _success(route)}
        | ({"202": _accepted(route)} if route.accepted is not None else {})
        | {str(status): _refusal(status, route) for status in route.refusals}
        | {str(status): _failure(status, route) for status in route.errors},
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
    stated = [
        {"name": name, "in": place, "description": text, "schema": TEXT}
        for place, texts in (("query", route.query), ("header", route.headers))
        for name, text in texts.items()
    ]
    return in_path + stated


def _success(route: Route) -> dict[str, Any]:
    content: dict[str, Schema] = {media_type: {"schema": TEXT} for media_type in route.also}
    if route.answer is not None or not route.also:
        content = {JSON: {"schema": reference(route.answer) if route.answer else {"type": "object"}}, **content}
    return {"description": http.HTTPStatus.OK.phrase, "content": content, **_reply_headers(route)}


def _accepted(route: Route) -> dict[str, Any]:
    content = {} if route.polled else {"content": {JSON: {"schema": reference(route.answer or "Status")}}}
    return {"description": route.accepted, **content, **_reply_headers(route)}


def _reply_headers(route: Route) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": TEXT} for name, text in route.reply_headers.items()}
    return {"headers": headers} if headers else {}


def _refusal(status: int, route: Route) -> dict[str, Any]:
    content = {JSON: {"schema": reference(route.answer or "Error")}}
    return {"description": http.HTTPStatus(status).phrase, "content": content}


def _failure(status: int, route: Route) -> dict[str, Any]:
    """What a handler refuses has a form of its own."""
    schema = reference(route.error)
    if route.tag == "inference":
        schema = {"anyOf": [schema, reference("HandlerError")]}
    return {"description": http.HTTPStatus(status).phrase, "content": {JSON: {"schema": schema}}}
