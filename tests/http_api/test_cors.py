"""What pages of other sites may read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.server import LABORATORY, Server, serving

PAGE = "https://app.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


@pytest.fixture(scope="module")
def open_server() -> Iterator[Server]:
    environment = {
        "SERVING_CORS_ALLOWED_ORIGIN": f"{PAGE}, https://other.example",
        "SERVING_CORS_ALLOWED_METHODS": "POST",
        "SERVING_CORS_ALLOWED_HEADERS": "content-type",
    }
    with serving(LABORATORY, env=environment) as running:
        yield running


def test_nothing_is_said_unless_it_is_enabled(server: Server) -> None:
    reply = server.request("POST", "/invocations", headers={"Origin": PAGE})
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_without_it_a_preflight_is_a_request_like_any_other(server: Server) -> None:
    assert server.request("OPTIONS", "/invocations", headers=PREFLIGHT).json()["properties"]["Origin"] == PAGE


def test_a_page_that_is_named_may_read_the_answer(open_server: Server) -> None:
    for path in ("/invocations", "/ping", "/nowhere"):
        reply = open_server.request("POST", path, headers={"Origin": PAGE})
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in reply.headers["vary"]


def test_a_streamed_answer_too(open_server: Server) -> None:
    reply = open_server.post({"do": "stream", "lines": 2}, Origin=PAGE)
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert len(reply.body.splitlines()) == 2


def test_another_page_gets_no_leave(open_server: Server) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        assert "access-control-allow-origin" not in open_server.request("POST", "/invocations", headers=headers).headers


@pytest.mark.parametrize("path", ["/invocations", "/models", "/predictions/laboratory"])
def test_a_preflight_is_answered_here_and_not_by_the_model(open_server: Server, path: str) -> None:
    reply = open_server.request("OPTIONS", path, headers=PREFLIGHT)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-allow-methods"] == "POST"
    assert reply.headers["access-control-allow-headers"] == "content-type"


def test_an_options_request_that_is_no_preflight_reaches_the_model(open_server: Server) -> None:
    assert open_server.request("OPTIONS", "/invocations").json()["content"]


def test_any_origin_is_an_asterisk() -> None:
    with serving(LABORATORY, env={"SERVING_CORS_ALLOWED_ORIGIN": "*"}) as server:
        reply = server.request("POST", "/invocations", headers={"Origin": PAGE})
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "vary" not in reply.headers
