"""Remembers what a client said earlier in its session."""

from djl_python import Input, Output
from djl_python.session_manager import SessionManager

HEADER = "X-Amzn-SageMaker-Session-Id"
sessions = None


def handle(inputs: Input) -> Output:
    global sessions
    if sessions is None:
        sessions = SessionManager(inputs.get_properties())
    if inputs.is_empty():
        return None

    request = inputs.get_as_json()
    outputs = Output()
    if request.get("requestType") == "NEW_SESSION":
        session = sessions.create_session()
        session.put("said", [])
        return outputs.add_property(HEADER, session.session_id).add_as_json({"opened": True})
    if request.get("requestType") == "CLOSE":
        closed = inputs.get_property(HEADER)
        sessions.close_session(closed)
        return outputs.add_property("X-Amzn-SageMaker-Closed-Session-Id", closed).add_as_json({"closed": True})
    session = sessions.get_session(inputs.get_property(HEADER))
    if session is None:
        return outputs.error("the session is over", code=410, message="Gone")
    said = [*session.get("said"), request["text"]]
    session.put("said", said)
    return outputs.add_as_json({"said": said})
