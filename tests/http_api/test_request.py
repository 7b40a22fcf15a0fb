"""How an HTTP request arrives at a handler."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
from contextlib import closing
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from tests.support.server import Server

from bloomery.http_api.request import read


def seen(
    server: Server, path: str = "/invocations", body: bytes = b"x", method: str = "POST", **headers: str
) -> dict[str, Any]:
    reply = server.request(method, path, body, headers)
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json()
    return document


def test_the_body_arrives_as_data(server: Server) -> None:
    assert seen(server, body=b"\x00\xff body")["content"] == [["data", "\x00\xff body"]]


def test_an_empty_body_is_an_empty_entry_and_not_an_initialise_call(server: Server) -> None:
    assert seen(server, body=b"")["content"] == [["data", ""]]


def test_query_parameters_come_after_the_body_so_that_one_called_data_hides_nothing(server: Server) -> None:
    content = seen(server, "/invocations?a=1&data=q", b"body")["content"]
    assert content == [["data", "body"], ["a", "1"], ["data", "q"]]


def test_a_form_arrives_as_one_entry_per_field(server: Server) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert seen(server, body=b"a=1&b=%C3%A9&a=&c=x+y", **kind)["content"] == [
        ["a", "1"],
        ["b", "\xc3\xa9"],
        ["a", ""],
        ["c", "x y"],
    ]


def test_json_sent_by_curl_without_a_content_type_stays_whole(server: Server) -> None:
    body = b'{"inputs": "a=1&b=2"}'
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert seen(server, body=body, **kind)["content"] == [["data", body.decode()]]


def test_a_multipart_body_arrives_as_one_entry_per_part(server: Server) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\x01\xff\r\n--B--\r\n"
    )
    content = seen(server, body=body, **{"Content-Type": "multipart/form-data; boundary=B"})["content"]
    assert content == [["text", "hello"], ["file", "\x00\x01\xff"]]


async def test_between_the_parts_of_a_multipart_body_others_have_their_turn() -> None:
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), limit=2**20)  # here in whole: nothing else waits
    body.feed_data(b'--B\r\nContent-Disposition: form-data; name="n"\r\n\r\nx\r\n' * 500 + b"--B--\r\n")
    body.feed_eof()
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    reading = asyncio.create_task(read(make_mocked_request("POST", "/invocations", kind, payload=body), "id", 2**20))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(reading.result().content) == 500
    assert turns >= 500  # aiohttp reads them all in one


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data; name=n\r\n\r\n\r\n"),
        ("application/x-www-form-urlencoded", b"n=1&"),
    ],
)
@pytest.mark.full  # aiohttp takes seconds for so many
def test_more_parts_than_a_frame_holds_are_a_400(server: Server, kind: str, part: bytes) -> None:
    reply = server.request("POST", "/invocations", part * 40_000, {"Content-Type": kind})
    assert reply.status == 400
    assert "fields" in reply.json()["message"] or "32767 parts" in reply.json()["message"]


def test_a_broken_multipart_body_is_a_400(server: Server) -> None:
    reply = server.request("POST", "/invocations", b"nonsense", {"Content-Type": "multipart/form-data"})
    assert (reply.status, reply.json()["type"]) == (400, "BadRequestException")


def test_headers_arrive_as_properties_under_their_own_spelling(server: Server) -> None:
    properties = seen(server, **{"Content-Type": "text/plain; charset=utf-8", "X-Some-Header": "value"})["properties"]
    assert properties["X-Some-Header"] == "value"
    assert properties["Content-Type"] == "text/plain; charset=utf-8"


def test_of_a_repeated_header_the_last_wins(server: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.putrequest("POST", "/invocations")
        for name, value in (("X-Many", "first"), ("x-many", "last"), ("Content-Length", "1")):
            connection.putheader(name, value)
        connection.endheaders(b"x")
        properties = json.load(connection.getresponse())["properties"]
    assert [value for name, value in properties.items() if name.lower() == "x-many"] == ["last"]


def test_custom_attributes_become_properties(server: Server) -> None:
    properties = seen(server, **{"X-Amzn-SageMaker-Custom-Attributes": "tenant=blue; trace=a=b;flag"})["properties"]
    assert (properties["tenant"], properties["trace"]) == ("blue", "a=b")
    assert "flag" not in properties
    assert "X-Amzn-SageMaker-Custom-Attributes" not in properties


@pytest.mark.parametrize(
    "headers",
    [
        {"x-bloomery-seed": "1", "X-Bloomery-Request-Id": "2"},
        {"X-Amzn-SageMaker-Custom-Attributes": "x-bloomery-events=1"},
        {"batch_size": "3", "tensor_parallel_degree": "9"},
    ],
)
def test_a_client_cannot_set_what_server_and_worker_agree_on(server: Server, headers: dict[str, str]) -> None:
    properties = seen(server, **headers)["properties"]
    assert not [name for name in properties if name.lower().startswith("x-bloomery-")]
    assert "batch_size" not in properties
    assert properties.get("tensor_parallel_degree") != "9"


@pytest.mark.parametrize("header", ["handler", "Handler"])
def test_a_client_cannot_choose_the_function(server: Server, header: str) -> None:
    reply = server.request("POST", "/invocations", b"x", {header: "other"})
    assert reply.status == 400
    assert reply.json()["message"] == "The handler can't be overridden in a request"


def test_a_compressed_body_arrives_unpacked_and_no_longer_says_that_it_is_compressed(server: Server) -> None:
    document = seen(server, body=gzip.compress(b"plain"), **{"Content-Encoding": "gzip"})
    assert document["content"] == [["data", "plain"]]
    assert "content-encoding" not in {name.lower() for name in document["properties"]}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
def test_any_method_reaches_the_handler(server: Server, method: str) -> None:
    assert seen(server, body=b"x", method=method)["content"] == [["data", "x"]]


@pytest.mark.parametrize(
    "path", ["/invocations", "/invocations/below", "/predictions/laboratory", "/models/laboratory/invoke"]
)
def test_these_paths_reach_the_handler(server: Server, path: str) -> None:
    assert seen(server, path)["content"] == [["data", "x"]]


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/invocations?model_name=nobody", {}, b"x"),
        ("/invocations", {"model_name": "nobody"}, b"x"),
        ("/invocations", {"Content-Type": "application/x-www-form-urlencoded"}, b"model_name=nobody"),
        ("/predictions/nobody", {}, b"x"),
        ("/models/nobody/invoke", {}, b"x"),
    ],
)
def test_an_unknown_model_is_a_404_wherever_it_is_named(
    server: Server, path: str, headers: dict[str, str], body: bytes
) -> None:
    reply = server.request("POST", path, body, headers)
    assert reply.status == 404
    assert reply.json() == {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "Model or workflow not found: nobody",
    }


def test_an_unknown_version_is_a_404(server: Server) -> None:
    assert server.request("POST", "/predictions/laboratory/9", b"x").status == 404


def test_the_clients_request_id_comes_back_and_reaches_the_handler(server: Server) -> None:
    reply = server.request("POST", "/invocations", b"x", {"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.json()["properties"]["requestId"] == "mine-1"


def test_without_a_request_id_each_request_gets_its_own(server: Server) -> None:
    first, second = (server.request("POST", "/invocations", b"x").headers["x-request-id"] for _ in range(2))
    assert first != second
