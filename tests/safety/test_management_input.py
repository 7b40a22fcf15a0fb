"""Whatever is asked of the management calls: an answer or a refusal in words, and the models that serve serve on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.raw_http import ask
from tests.support.server import LABORATORY, Server, model_directory, serving
from tests.support.unharmed import unharmed

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\x00", "\ud800", "..", "../..", "~nobody/x", "a" * 5000, "é", "%00"]
)
URLS = st.one_of(
    TEXTS,
    st.sampled_from(
        [
            *("/", "/etc/passwd", "/dev/zero", "/proc/self/environ", "file:///", "file://host/x", "s3://b/p", "s3://"),
            *("http://127.0.0.1:1/x.tar.gz", "https://[", "ftp://x", "djl://ai.djl.pytorch/x", "jar:file:///x", "."),
        ]
    ),
)
NUMBERS = st.sampled_from(["0", "1", "-1", "x", "", "1e9", "٣", "9" * 30]) | st.integers(-(2**40), 2**40)
VALUES = TEXTS | NUMBERS | st.none() | st.booleans() | st.lists(st.integers(), max_size=2)
PARAMETERS = st.fixed_dictionaries(
    {"url": URLS},
    optional={
        "model_name": VALUES,
        "model_version": VALUES,
        "engine": VALUES,
        "device": VALUES,
        "min_worker": NUMBERS,
        "max_worker": NUMBERS,
        "batch_size": VALUES,
        "job_queue_size": VALUES,
        "synchronous": VALUES,
        "handler": VALUES,
    },
)
BODIES = st.one_of(
    PARAMETERS.map(lambda parameters: json.dumps(parameters).encode()),
    st.sampled_from([b"[" * 5000, b"{", b"[]", b"1", b"\xff", b'{"url": {"a": 1}}']),
    st.binary(max_size=30),
)
CALLS = st.sampled_from(
    [
        *("POST /models", "POST /workflows", "PUT /models/nobody", "DELETE /models/nobody", "DELETE /models/%00"),
        *("PUT /models/laboratory/9", "DELETE /workflows/nobody", "POST /models/laboratory/adapters", "POST /adapters"),
        *("DELETE /adapters/nobody", "PUT /models/laboratory?min_worker=x", "PUT /models/laboratory?max_worker=-1"),
        *(
            "POST /server/logging?level=nonsense",
            "POST /server/logging?level=",
            "POST /models/laboratory/adapters/x/update",
        ),
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(LABORATORY) as running:
        yield running


@numbers(100, 2000)
def test_any_management_call_is_answered(server: Server, count: int) -> None:
    def check(case: tuple[str, bytes]) -> None:
        call, body = case
        method, path = call.split()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        reply = ask(server.port, [head.encode() + body], method.encode())
        assert reply is not None
        assert reply.status < 500 or reply.status == 503, (case, reply)
        if reply.status >= 400:
            assert json.loads(reply.body)["message"]
            assert b"Traceback" not in reply.body

    with unharmed(server):
        for_all(st.tuples(CALLS, BODIES), check, count)
        assert server.post({"do": "answer", "body": "serves"}).body == b"serves"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Host": "evil.example"},
        {"Origin": "null", "Content-Type": "text/plain"},
    ],
)
def test_a_page_or_a_proxy_cannot_manage(server: Server, tmp_path: Path, headers: dict[str, str]) -> None:
    marker = tmp_path / "ran"
    directory = model_directory(tmp_path / "m", f"open({str(marker)!r}, 'w').close()\n")
    reply = server.request("POST", f"/models?url={directory}&model_name=m", b"", headers)
    assert (reply.status, marker.exists()) == (403, False)
    assert server.request("DELETE", "/models/laboratory", headers=headers).status == 403


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/m.tar.gz", "https://host.invalid/m.tar.gz", "s3://bucket/m.tar.gz"]
)
def test_a_model_is_loaded_from_no_url_unless_that_is_enabled(server: Server, url: str) -> None:
    reply = server.request("POST", f"/models?url={url}&model_name=m")
    assert reply.status in (400, 403, 404)
    assert len(server.request("GET", "/models").json()["models"]) == 1
