"""Answers the requests that open and close a session, as LMI's handlers do.

A client opens one with the body ``{"requestType": "NEW_SESSION"}``, or with the header ``X-Amzn-SageMaker-Session-Id:
NEW_SESSION``; the same header of the answer tells its id. ``{"requestType": "CLOSE"}`` with the id in the header
closes it.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from djl_python.async_utils import create_non_stream_output
from djl_python.inputs import Input
from djl_python.outputs import Output
from djl_python.session_manager import EXPIRATION_TIME, Session, SessionManager

HEADER_SAGEMAKER_SESSION_ID = "X-Amzn-SageMaker-Session-Id"
HEADER_SAGEMAKER_CLOSED_SESSION_ID = "X-Amzn-SageMaker-Closed-Session-Id"
NEW_SESSION, CLOSE = "NEW_SESSION", "CLOSE"


def session_request_type(inputs: Input) -> str | None:
    """NEW_SESSION or CLOSE when this request is about a session itself, else None."""
    if inputs.get_property(HEADER_SAGEMAKER_SESSION_ID) == NEW_SESSION:
        return NEW_SESSION
    try:
        body = json.loads(inputs.get_as_bytes() or b"null")
    except ValueError:
        return None
    kind = body.get("requestType") if isinstance(body, dict) else None
    return kind if kind in (NEW_SESSION, CLOSE) else None


async def create_session(request: tuple[SessionManager, Input]) -> dict[str, Any]:
    """Open a session; what ``session_non_stream_output_formatter`` makes an answer of."""
    manager, _inputs = request
    try:
        session = manager.create_session()
    except Exception as error:
        return {"error": f"Failed to create session: {error}", "code": 424}
    ends = datetime.datetime.fromtimestamp(session.get(EXPIRATION_TIME), datetime.UTC)
    header = f"{session.session_id}; Expires={ends:%Y-%m-%dT%H:%M:%SZ}"
    result = {"result": f"Session {session.session_id} created"}
    return {"data": result, "properties": {HEADER_SAGEMAKER_SESSION_ID: header}}


async def close_session(request: tuple[SessionManager, Input]) -> dict[str, Any]:
    """Close the session that the request's header names."""
    manager, inputs = request
    session_id = inputs.get_property(HEADER_SAGEMAKER_SESSION_ID)
    try:
        manager.close_session(session_id)
    except Exception as error:
        return {"error": f"Failed to close session: {error}", "code": 424}
    result = {"result": f"Session {session_id} closed"}
    return {"data": result, "properties": {HEADER_SAGEMAKER_CLOSED_SESSION_ID: session_id}}


def get_session(session_manager: SessionManager | None, request: Input) -> Session | None:
    """The session that a request's header names, None when it names none."""
    session_id = request.get_property(HEADER_SAGEMAKER_SESSION_ID)
    if session_id is None:
        return None
    if session_manager is None:
        raise RuntimeError(
            f"sessions are not enabled, and the request has the header {HEADER_SAGEMAKER_SESSION_ID}: {session_id}"
        )
    return session_manager.get_session(session_id)


def session_non_stream_output_formatter(response: dict[str, Any], **_: Any) -> Output:
    """The answer to a request that opened or closed a session."""
    if "error" in response:
        return create_non_stream_output("", error=response["error"], code=response["code"])
    return create_non_stream_output(response["data"], properties=response.get("properties"))
