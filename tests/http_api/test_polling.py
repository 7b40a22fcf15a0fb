"""x-synchronous: false."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import LABORATORY, Reply, Server, serving

LATER = {"x-synchronous": "false"}


def begin(server: Server, order: object, path: str = "/invocations") -> str:
    """Ask, and the token."""
    reply = server.post(order, path, **LATER)
    assert (reply.status, reply.body) == (200, b"")
    token = reply.headers["x-next-token"]
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == f"x-next-token={token}"
    return token


def poll(server: Server, token: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("POST", "/invocations", headers={"x-starting-token": token, **named})


def settled(server: Server, token: str, **headers: str) -> Reply:
    """The first answer that is not 202."""
    deadline = time.monotonic() + 30
    while (reply := poll(server, token, **headers)).status == 202:
        assert reply.reason == "The model result is not yet available"
        assert reply.headers["x-next-token"] == token
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return reply


def collected(server: Server, token: str, **headers: str) -> list[bytes]:
    """The bodies of all polls until there is no further token."""
    bodies = []
    while True:
        reply = settled(server, token, **headers)
        assert reply.status == 200
        bodies.append(reply.body)
        if "x-next-token" not in reply.headers:
            return bodies
        token = reply.headers["x-next-token"]


def until_exists(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/invocations", "/predictions/laboratory"])
def test_an_answer_is_collected_with_its_status_and_headers(server: Server, path: str) -> None:
    order = {"do": "answer", "code": 201, "properties": {"x-mine": "yes"}, "body": "done"}
    reply = settled(server, begin(server, order, path))
    assert (reply.status, reply.headers["x-mine"], reply.body) == (201, "yes", b"done")
    assert "x-next-token" not in reply.headers


def test_without_the_header_an_answer_comes_at_once(server: Server) -> None:
    assert server.post({"do": "answer", "body": "now"}, **{"x-synchronous": "true"}).body == b"now"


def test_a_sagemaker_client_says_it_in_its_custom_attributes(server: Server) -> None:
    attributes = "X-Amzn-SageMaker-Custom-Attributes"
    reply = server.post({"do": "answer", "body": "done"}, **{attributes: "x-synchronous=false"})
    token = reply.headers["x-next-token"]
    deadline = time.monotonic() + 30
    while True:
        reply = server.request("POST", "/invocations", headers={attributes: f"x-starting-token={token};x-max-items=1"})
        if reply.status != 202:
            break
        assert time.monotonic() < deadline
    assert (reply.status, reply.body) == (200, b"done")


def test_polling_before_the_first_piece_repeats_nothing_later(server: Server, tmp_path: Path) -> None:
    held = tmp_path / "held"
    blocker = begin(server, {"do": "wait", "started": str(tmp_path / "started"), "release": str(held)})
    token = begin(server, {"do": "stream", "lines": 3})
    until_exists(tmp_path / "started")
    early = poll(server, token)
    assert early.status == 202
    held.touch()
    settled(server, blocker)
    assert b"".join(collected(server, early.headers["x-next-token"])) == b"line 0\nline 1\nline 2\n"


def test_pieces_can_be_collected_while_more_are_made(server: Server, tmp_path: Path) -> None:
    release = tmp_path / "release"
    token = begin(server, {"do": "stream", "lines": 2, "release": str(release)})
    first = settled(server, token)
    assert first.body == b"line 0\n"
    following = first.headers["x-next-token"]
    assert poll(server, following).status == 202
    release.touch()
    assert b"".join(collected(server, following)) == b"line 1\n"


def test_at_most_as_many_pieces_come_as_are_asked_for(server: Server, tmp_path: Path) -> None:
    token = begin(server, {"do": "stream", "lines": 5, "ended": str(tmp_path / "ended")})
    until_exists(tmp_path / "ended")
    assert collected(server, token, x_max_items="2")[:2] == [b"line 0\nline 1\n", b"line 2\nline 3\n"]


def test_a_poll_may_be_repeated_and_what_was_acknowledged_is_forgotten(server: Server) -> None:
    token = begin(server, {"do": "stream", "lines": 3})
    first = settled(server, token, x_max_items="1")
    assert settled(server, token, x_max_items="1").body == first.body
    following = first.headers["x-next-token"]
    assert settled(server, following, x_max_items="1").body == b"line 1\n"
    assert poll(server, token).status == 400


def test_a_handlers_failure_is_the_answer(server: Server) -> None:
    reply = settled(server, begin(server, {"do": "fail", "text": "wrong number"}))
    assert reply.status == 424
    assert "wrong number" in reply.json()["error"]


def test_of_a_stream_that_breaks_the_pieces_come_and_then_the_error(server: Server) -> None:
    token = begin(server, {"do": "stream", "lines": 1, "fail": "ran dry"})
    first = settled(server, token)
    assert (first.status, first.body) == (200, b"line 0\n")
    last = settled(server, first.headers["x-next-token"])
    assert (last.status, last.json()["type"]) == (424, "StreamException")
    assert "ran dry" in last.json()["message"]
    assert "x-next-token" not in last.headers


@pytest.mark.parametrize("token", ["nope", "x" * 500, "0" * 36, "0" * 36 + "-1"])
def test_an_invalid_token_is_djlservings_400(server: Server, token: str) -> None:
    reply = poll(server, token)
    assert reply.status == 400
    assert reply.json()["message"] == f"Invalid x-starting-token: {token[:80]}"


@pytest.mark.parametrize("suffix", ["2", "-1", "x", "99999999999999"])
def test_a_number_beyond_the_pieces_is_invalid_too(server: Server, suffix: str) -> None:
    token = begin(server, {"do": "nothing"})
    settled(server, token)
    assert poll(server, token + suffix).status == 400


@pytest.mark.parametrize("most", ["0", "-1", "many"])
def test_a_number_of_pieces_that_is_none_is_a_400(server: Server, most: str) -> None:
    assert poll(server, begin(server, {"do": "nothing"}), x_max_items=most).status == 400


class TestLimits:
    @pytest.fixture(scope="class")
    @classmethod
    def limited(cls) -> Iterator[Server]:
        environment = {"SERVING_ASYNC_MAX_RESULTS": "2", "SERVING_ASYNC_MAX_BYTES": "1000"}
        with serving(LABORATORY, env=environment) as running:
            yield running

    def test_more_answers_than_can_be_kept_are_refused_and_collected_ones_make_room(self, limited: Server) -> None:
        tokens = [begin(limited, {"do": "nothing"}) for _ in range(2)]
        reply = limited.post({"do": "nothing"}, **LATER)
        assert (reply.status, reply.json()["type"]) == (503, "WlmCapacityException")
        assert "async_max_results" in reply.json()["message"]
        for token in tokens:
            settled(limited, token)
        settled(limited, begin(limited, {"do": "nothing"}))

    def test_an_answer_beyond_the_bytes_is_an_error_for_it_alone(self, limited: Server, tmp_path: Path) -> None:
        ended = tmp_path / "ended"
        token = begin(limited, {"do": "stream", "lines": 1, "flood": 400, "ended": str(ended)})
        until_exists(ended)  # the request has been cancelled
        collected_bytes, reply = 0, settled(limited, token)
        while reply.status == 200:
            collected_bytes += len(reply.body)
            reply = settled(limited, reply.headers["x-next-token"])
        assert reply.status == 503
        assert "async_max_bytes" in reply.json()["message"]
        assert 400 <= collected_bytes <= 1000
        assert settled(limited, begin(limited, {"do": "answer", "body": "x" * 900})).status == 200

    def test_an_answer_that_nobody_asks_for_is_dropped_and_its_request_cancelled(self, tmp_path: Path) -> None:
        with serving(LABORATORY, env={"SERVING_ASYNC_EXPIRY": "0.5"}) as server:
            ended = tmp_path / "ended"
            token = begin(server, {"do": "stream", "endless": True, "ended": str(ended)})
            until_exists(ended)
            assert poll(server, token).status == 400

    def test_the_server_ends_with_an_answer_that_nobody_has_collected(self) -> None:
        with serving(LABORATORY) as server:
            begin(server, {"do": "stream", "endless": True})
            assert server.stop() == 0
