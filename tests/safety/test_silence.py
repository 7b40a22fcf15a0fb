"""What clients send and get stands in no log: markers are planted everywhere and looked for in the whole output."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.generated import for_all
from tests.support.http_grammar import damage
from tests.support.raw_http import ask
from tests.support.server import REPOSITORY, Reply, Server, serving

MARKER = "xyzzy-marker"


@pytest.fixture(scope="module")
def laboratory(laboratory: Server) -> Iterator[Server]:
    """The shared server, whose log the requests below must leave free of the marker."""
    yield laboratory
    laboratory.request("GET", "/models")  # its line comes after all others
    assert MARKER not in laboratory.log()


def send(server: Server, path: str, body: str | bytes, **headers: str) -> Reply:
    reply = server.request("POST", path, body, headers)
    assert MARKER not in server.log(), [line for line in server.log().splitlines() if MARKER in line]
    return reply


def test_bodies_and_answers(laboratory: Server) -> None:
    order = json.dumps({"do": "answer", "body": MARKER, "properties": {"X-Marker": MARKER}, "message": MARKER})
    reply = send(laboratory, "/invocations", order)
    assert (reply.body.decode(), reply.reason) == (MARKER, MARKER)


def test_headers_custom_attributes_and_query(laboratory: Server) -> None:
    kept = {"X-Marker": MARKER, "Authorization": f"Bearer {MARKER}", "Cookie": f"a={MARKER}"}
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": f"a={MARKER}"}
    reply = send(laboratory, f"/invocations?prompt={MARKER}&{MARKER}=1", MARKER, **kept, **attributes)
    assert reply.body.decode().count(MARKER) >= 6  # the handler has seen them all


def test_forms_and_multipart_fields(laboratory: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert send(laboratory, "/invocations", f"{MARKER}={MARKER}", **form).status == 200
    part = f'--B\r\nContent-Disposition: form-data; name="{MARKER}"; filename="{MARKER}"\r\n\r\n{MARKER}\r\n--B--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    assert send(laboratory, "/invocations", part, **kind).status == 200
    assert send(laboratory, "/invocations", f"--B\r\n{MARKER}\r\n{MARKER}", **kind).status == 400


def test_streams_whole_and_broken(laboratory: Server) -> None:
    order = {"do": "stream", "line": MARKER, "content_type": "application/jsonlines"}
    assert MARKER in send(laboratory, "/invocations", json.dumps(order)).body.decode()


def test_refusals_quote_to_the_client_alone(laboratory: Server) -> None:
    assert MARKER in send(laboratory, f"/invocations?model_name={MARKER}", b"").json()["message"]
    assert send(laboratory, "/invocations", b"", handler=MARKER).status == 400
    assert send(laboratory, "/invocations", MARKER, **{"Content-Encoding": "gzip"}).status == 400
    assert laboratory.request("GET", f"/models?limit={MARKER}").status == 400
    assert laboratory.request("GET", f"/predictions/a?b={MARKER}").status == 404
    assert MARKER not in laboratory.log()


def test_headers_that_cannot_be_sent_are_named_without_their_values(laboratory: Server) -> None:
    order = {"do": "answer", "body": "x", "properties": {"bad name": MARKER, "X-Long": MARKER * 1000}}
    assert send(laboratory, "/invocations", json.dumps(order)).status == 200
    assert "bad name" in laboratory.log()


@pytest.mark.parametrize(
    "garbage",
    [
        f"{MARKER}\r\n\r\n",
        f"GET /{MARKER * 1000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\n{MARKER}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX: {MARKER * 1000}\r\n\r\n",
        f"GET / HTTP/{MARKER}\r\nHost: x\r\n\r\n",
        f"GET http://[{MARKER}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{MARKER}\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {MARKER}\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {MARKER}\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request(laboratory: Server, garbage: str) -> None:
    ask(laboratory.port, [garbage.encode()])
    assert MARKER not in laboratory.log()


def test_damaged_requests(laboratory: Server) -> None:
    body = f'{{"do": "answer", "body": "{MARKER}"}}'
    whole = f"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Marker: {MARKER}\r\nContent-Length: {len(body)}\r\n\r\n"

    def check(data: bytes) -> None:
        try:
            ask(laboratory.port, [data, b"\r\n" * 200], timeout=0.1)
        except TimeoutError:
            pass  # it waits for more of what it took for a longer request

    for_all(damage((whole + body).encode()), check, 60)
    assert MARKER not in laboratory.log()


def test_the_access_log_has_the_path_without_its_query(laboratory: Server) -> None:
    send(laboratory, f"/invocations?prompt={MARKER}", b"", **{"x-request-id": "silent-1"})
    assert "POST /invocations 200" in laboratory.wait_for(r"(?m)^.*bloomery\.access.*silent-1$")[0]


def test_prompts_continuations_and_refused_questions_of_text_generation(demonstration: Server) -> None:
    word = "unforgettableprompt"
    parameters: list[object] = [
        {"max_new_tokens": 3},
        {"max_new_tokens": word},
        {"max_new_tokens": 10**6},
        {word: word},
        {"stop_sequences": [word], "max_new_tokens": 2},
    ]
    questions = [{"inputs": f"{word} {word}", "parameters": each} for each in parameters]
    questions += [{"inputs": word, "stream": True, "parameters": {"max_new_tokens": 2}}, {word: word}]
    for question in questions:
        demonstration.post(question)
    demonstration.request("POST", "/invocations", f'{{"inputs": "{word}', {"Content-Type": "application/json"})
    demonstration.request("POST", "/invocations", f"{word} " * 2000, {"Content-Type": "text/plain"})
    demonstration.request("GET", "/models")
    assert word not in demonstration.log(), [line for line in demonstration.log().splitlines() if word in line]


@pytest.mark.full
def test_prompts_and_continuations_of_deepspeed() -> None:
    model = REPOSITORY / "models" / "shakespeare-bloom"
    with serving(model, "-o", "engine=DeepSpeed", "-o", "option.tensor_parallel_degree=1") as server:
        for parameters in ({"max_new_tokens": 3}, {"max_new_tokens": "unforgettableprompt"}):
            server.post({"inputs": "unforgettableprompt", "parameters": parameters})
        server.post({"inputs": "unforgettableprompt", "parameters": {"max_new_tokens": 3, "unheard_of": 1}})
        assert "unforgettableprompt" not in server.log()
