"""Paths that are not inference, and refusals."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.support.server import LABORATORY, Server, serving


def test_ping_is_healthy_when_the_model_can_answer(server: Server) -> None:
    reply = server.ping()
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.json() == {"laboratory": {"status": "Healthy"}}


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_ping_answers_any_method(server: Server, method: str) -> None:
    assert server.request(method, "/ping").status == 200


@pytest.mark.parametrize("path", ["/", "/predictions", "/v1", "/models/a/b/c", "/invocation"])
def test_an_unknown_path_is_a_404_in_djlservings_words_and_says_where_the_paths_are_listed(
    server: Server, path: str
) -> None:
    reply = server.request("GET", path)
    assert reply.status == 404
    assert reply.json() == {
        "code": 404,
        "type": "ResourceNotFoundException",
        "message": "Requested resource is not found, please refer to API document. "
        f"There is no GET {path} here; GET /openapi.json lists what there is.",
    }


@pytest.mark.parametrize("path", ["/models", "/models/laboratory"])
def test_a_wrong_method_is_a_405_that_names_the_right_one(server: Server, path: str) -> None:
    reply = server.request("PATCH", path)
    assert (reply.status, reply.json()["type"]) == (405, "MethodNotAllowedException")
    assert "GET" in reply.headers["allow"]


def test_models_are_listed(server: Server) -> None:
    (model,) = server.request("GET", "/models").json()["models"]
    assert (model["modelName"], model["status"]) == ("laboratory", "READY")


def test_the_list_of_models_has_pages(server: Server) -> None:
    assert server.request("GET", "/models?next_page_token=1").json() == {"models": []}


def test_a_page_number_that_is_none_is_a_400(server: Server) -> None:
    assert server.request("GET", "/models?limit=many").status == 400


def test_a_model_is_described(server: Server) -> None:
    (workflow,) = server.request("GET", "/models/laboratory").json()
    (model,) = workflow["models"]
    assert (model["engine"], model["entryPoint"], model["queueSize"]) == ("Python", "model.py", 1000)


def test_describing_an_unknown_model_is_a_404(server: Server) -> None:
    assert server.request("GET", "/models/nobody").json()["type"] == "ModelNotFoundException"


def test_every_answer_has_a_request_id(server: Server) -> None:
    for path in ("/ping", "/nowhere", "/models"):
        assert server.request("GET", path).headers["x-request-id"]


def test_the_access_log_has_the_request_and_never_its_body(server: Server) -> None:
    server.request("POST", "/invocations?who=me", b"a confidential prompt", {"x-request-id": "logged-1"})
    line = server.wait_for(r"(?m)^.*bloomery\.access.*logged-1$")[0]
    assert "POST /invocations 200" in line
    assert "confidential" not in server.log()


def test_a_line_break_in_a_path_makes_no_line_of_the_log(server: Server) -> None:
    server.request("GET", "/x%0aforged", headers={"x-request-id": "forger-1"})
    assert r"/x\nforged 404" in server.wait_for(r"(?m)^.*bloomery\.access.*forger-1$")[0]


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"]
)
def test_what_is_no_http_is_a_400_and_no_traceback_in_the_log(server: Server, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(garbage)
        assert b" 400 " in connection.recv(100)
    server.request("GET", "/models")  # its line of the log comes after whatever was said about the garbage
    assert "Traceback" not in server.log()


class TestBodiesThatAreTooLarge:
    @pytest.fixture(scope="class")
    @classmethod
    def small(cls) -> Iterator[Server]:
        with serving(LABORATORY, env={"SERVING_MAX_REQUEST_SIZE": "1000"}) as running:
            yield running

    def test_an_announced_size_is_refused_with_limit_and_size(self, small: Server) -> None:
        reply = small.request("POST", "/invocations", b"x" * 5000)
        assert (reply.status, reply.json()["type"]) == (413, "PayloadTooLargeException")
        assert "5000" in reply.json()["message"]
        assert "1000" in reply.json()["message"]

    def test_the_limit_itself_is_allowed(self, small: Server) -> None:
        assert small.request("POST", "/invocations", b"x" * 1000).status == 200

    def test_a_chunked_body_is_refused_when_it_passes_the_limit(self, small: Server) -> None:
        with closing(small.connect()) as connection:
            connection.request("POST", "/invocations", iter([b"x" * 600, b"x" * 600]), encode_chunked=True)
            answer = connection.getresponse()
            assert answer.status == 413
            assert b"1000" in answer.read()

    def test_a_client_that_asks_first_is_refused_before_it_sends(self, small: Server) -> None:
        with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_a_client_that_asks_first_may_send_what_is_small_enough(self, small: Server) -> None:
        with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"hello")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")

    def test_a_compressed_body_counts_unpacked(self, small: Server) -> None:
        packed = gzip.compress(b"x" * 100_000)
        assert small.request("POST", "/invocations", packed, {"Content-Encoding": "gzip"}).status == 413

    def test_multipart_counts_too(self, small: Server) -> None:
        part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 3000 + b"\r\n--B--\r\n"
        with closing(small.connect()) as connection:
            headers = {"Content-Type": "multipart/form-data; boundary=B"}
            connection.request("POST", "/invocations", iter([part]), headers, encode_chunked=True)
            assert connection.getresponse().status == 413


def test_no_answer_is_to_be_kept_by_a_cache(server: Server) -> None:
    headers = server.request("POST", "/invocations").headers
    assert "no-store" in headers["cache-control"]
    assert (headers["pragma"], headers["expires"]) == ("no-cache", "Thu, 01 Jan 1970 00:00:00 UTC")
