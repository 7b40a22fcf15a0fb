"""The Outputs of asynchronous handlers, and the requests that open and close sessions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from djl_python import Input, Output
from djl_python import session_utils as sessions
from djl_python.async_utils import create_non_stream_output, create_stream_chunk_output, handle_streaming_response
from djl_python.session_manager import SessionManager
from djl_python.test_model import create_json_request, decode_encoded_output_binary


def step_of(output: Output) -> dict[str, str]:
    return decode_encoded_output_binary(output.content.value_at(0))


def test_a_whole_answer_is_the_last_piece_of_itself() -> None:
    output = create_non_stream_output({"a": "é"}, properties={"X-A": "b"})
    assert step_of(output) == {"data": '{"a": "é"}\n', "last": "True"}
    assert output.get_properties() == {"Content-Type": "application/json", "X-A": "b"}


def test_a_failure_has_its_status() -> None:
    step = step_of(create_non_stream_output("", error="broken", code=429))
    assert step == {"data": "", "last": "True", "error": "broken", "code": "429"}


def test_a_piece_says_whether_it_is_the_last() -> None:
    output = create_stream_chunk_output("text", last_chunk=False)
    assert step_of(output) == {"data": "text\n", "last": "False"}
    assert output.get_property("content-type") == "application/jsonlines"


async def chunks(*values: str) -> AsyncIterator[str]:
    for value in values:
        yield value


async def steps(*values: str, formatter: Any, **kwargs: Any) -> list[dict[str, str]]:
    return [step_of(output) async for output in handle_streaming_response(chunks(*values), formatter, **kwargs)]


async def test_a_stream_ends_with_what_its_formatter_calls_the_last() -> None:
    def formatter(chunk: str, end: str) -> tuple[str, bool]:
        return chunk.upper(), chunk == end

    found = await steps("a", "b", "c", formatter=formatter, end="b")
    assert found == [{"data": "A\n", "last": "False"}, {"data": "B\n", "last": "True"}]


async def test_a_formatter_can_keep_the_history() -> None:
    def formatter(chunk: str, history: list[str]) -> tuple[str, bool, list[str]]:
        history = [*history, chunk]
        return "".join(history), len(history) == 3, history

    found = await steps("a", "b", "c", formatter=formatter, accumulate_chunks=True)
    assert [step["data"] for step in found] == ["a\n", "ab\n", "abc\n"]


async def test_a_formatter_that_fails_ends_the_stream_with_its_error() -> None:
    def formatter(chunk: str) -> tuple[str, bool]:
        raise ValueError(f"no {chunk}")

    assert await steps("a", "b", formatter=formatter) == [{"data": "", "last": "True", "error": "no a", "code": "424"}]


# --- sessions


@pytest.fixture
def manager(tmp_path: Path) -> SessionManager:
    return SessionManager({"sessions_path": str(tmp_path / "sessions")})


def request_of(body: object, session_id: str | None = None) -> Input:
    inputs = create_json_request(body)
    if session_id is not None:
        inputs.properties["x-amzn-sagemaker-session-id"] = session_id
    return inputs


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (request_of({"requestType": "NEW_SESSION"}), "NEW_SESSION"),
        (request_of({}, "NEW_SESSION"), "NEW_SESSION"),
        (request_of({"requestType": "CLOSE"}, "x"), "CLOSE"),
        (request_of({"requestType": "other"}), None),
        (request_of(["NEW_SESSION"]), None),
        (request_of({"inputs": "x"}, "x"), None),
        (Input(), None),
    ],
)
def test_a_request_about_a_session_is_told_from_others(inputs: Input, kind: str | None) -> None:
    assert sessions.session_request_type(inputs) == kind


async def test_a_session_is_opened_used_and_closed(manager: SessionManager) -> None:
    opened = sessions.session_non_stream_output_formatter(await sessions.create_session((manager, Input())))
    header = opened.get_property("X-Amzn-SageMaker-Session-Id")
    session_id, _, expires = header.partition("; Expires=")
    assert expires.endswith("Z")
    assert json.loads(step_of(opened)["data"]) == {"result": f"Session {session_id} created"}

    session = sessions.get_session(manager, request_of({}, header))
    assert session is not None
    assert session.session_id == session_id

    closed = sessions.session_non_stream_output_formatter(
        await sessions.close_session((manager, request_of({"requestType": "CLOSE"}, session_id)))
    )
    assert closed.get_property("X-Amzn-SageMaker-Closed-Session-Id") == session_id
    assert sessions.get_session(manager, request_of({}, session_id)) is None


async def test_a_session_that_cannot_be_closed_is_an_error(manager: SessionManager) -> None:
    response = await sessions.close_session((manager, request_of({}, "nonsense")))
    step = step_of(sessions.session_non_stream_output_formatter(response))
    assert step["code"] == "424"
    assert "invalid session_id: 'nonsense'" in step["error"]


def test_a_request_without_a_session_has_none(manager: SessionManager) -> None:
    assert sessions.get_session(manager, request_of({})) is None
    assert sessions.get_session(None, request_of({})) is None


def test_a_session_where_there_are_none_is_refused() -> None:
    with pytest.raises(RuntimeError, match="sessions are not enabled"):
        sessions.get_session(None, request_of({}, "x"))
