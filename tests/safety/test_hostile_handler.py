"""Whatever a handler returns, raises or streams: the client gets HTTP, and the worker lives on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.raw_http import RawReply, ask, exchange
from tests.support.server import Server, model_directory, serving
from tests.support.unharmed import unharmed

# The request is Python: the handler builds from it whatever a handler could build.
MODEL = """
import ast
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return eval(inputs.get_as_string(), {"Output": Output, "Hostile": Hostile, "chain": chain, "fail": fail})

def fail(error):
    raise error

def chain(items, error):
    yield from items
    if error is not None:
        raise error

class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("this error cannot even be shown")
    __repr__ = __str__
"""
SANE = b'Output().add("fine")'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model_directory(tmp_path_factory.mktemp("hostile") / "hostile", MODEL)) as running:
        yield running


def returned(server: Server, expression: str, method: bytes = b"POST") -> RawReply:
    body = expression.encode("utf-8", "surrogatepass")
    reply = ask(
        server.port,
        [b"%s /invocations HTTP/1.1\r\nHost: x\r\n" % method, b"Content-Length: %d\r\n\r\n" % len(body), body],
        method,
    )
    assert reply is not None, expression
    assert 200 <= reply.status <= 599
    return reply


def still_works(server: Server) -> None:
    assert returned(server, SANE.decode()).body == b"fine"


TEXTS = st.text(max_size=30) | st.text("\r\n\x00\x1b\x7f\x85\u2028\ud800: é", max_size=10) | st.just("x" * 70_000)
CODES = (
    st.integers(-40_000, 40_000)
    | st.integers(200, 599)
    | st.sampled_from([0, 99, 100, 199, 204, 205, 304, 600, 1000, -1])
)
NAMES = TEXTS | st.sampled_from(
    [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Content-Encoding",
        "Content-Type",
        "Upgrade",
        "Date",
        "Trailer",
    ]
    + ["Set-Cookie", "x-request-id", "x-bloomery-seed", "request_tracking_id", "Server", ":status", "X-A\r\nX-B"]
)
ODDITIES = st.sampled_from(
    [None, -1, 0, True, 2.5, float("nan"), b"\xff", "chunked", "gzip", "0", "99999999999", "text/event-stream"]
)
PROPERTIES = st.dictionaries(NAMES, TEXTS | ODDITIES, max_size=4)
BODIES = st.one_of(
    st.none(), TEXTS, st.binary(max_size=50), st.just(b"\xff" * 300_000), st.lists(st.integers(), max_size=3)
)


@st.composite
def outputs(draw: st.DrawFn) -> str:
    text = f"Output({draw(CODES)!r}, {draw(TEXTS)!r})"
    for name, value in draw(PROPERTIES).items():
        shown = "float('nan')" if value != value else repr(value)
        text += f".add_property({name!r}, {shown})"
    for body in draw(st.lists(BODIES, max_size=2)):
        text += f".add({body!r}, key={draw(st.none() | TEXTS)!r})"
    if draw(st.booleans()):
        items = draw(st.lists(TEXTS | st.binary(max_size=20) | st.just(b"\xff" * 100_000) | st.none(), max_size=4))
        error = draw(st.sampled_from(["None", "ValueError('broke')", "MemoryError()", "StopIteration()", "Hostile()"]))
        formatter = draw(
            st.sampled_from(["", ", output_formatter=None", ", lambda item: 1 // 0", ", lambda item: object()"])
        )
        text += f".add_stream_content(chain({items!r}, {error}){formatter})"
    return text


@numbers(250, 5000)
def test_any_output_reaches_the_client_as_http(server: Server, count: int) -> None:
    def check(expression: str) -> None:
        body = expression.encode("utf-8", "surrogatepass")
        with exchange(server.port) as connection:
            connection.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            reply, whole = connection.reply_or_beginning()
        assert reply is not None, expression
        assert 200 <= reply.status <= 599
        assert whole or "error" in expression or "Error" in expression or "chain" in expression, "cut off"
        still_works(server)

    with unharmed(server):
        for_all(outputs(), check, count)


ODD_RETURNS = [
    *("1", "'text'", "b'bytes'", "[]", "{}", "object()", "Output", "lambda: 1", "float('nan')", "(Output(),)"),
    *("Output(code='200')", "Output(code='many')", "Output(code=None)", "Output(code=2**70)", "Output(message=None)"),
    *("Output(code=float('inf'))", "Output(message=b'x')", "Output(message=object())", "Output().add(object())"),
    *(
        "Output().add_property(1, 2)",
        "Output().add_property(None, None)",
        "Output().add_property(Hostile(), Hostile())",
    ),
    *("Output().add_stream_content(5)", "Output().add_stream_content(None)", "Output().add_stream_content('text')"),
    *("Output().add_stream_content([object()], output_formatter=None)", "Output().add_stream_content([], 7)"),
    *("Output().add('x').content.append('y')", "[o := Output(), setattr(o, 'content', None)][0]"),
    *("[o := Output(), setattr(o, 'properties', None)][0]", "[o := Output(), setattr(o, 'code', [])][0]"),
    *("[o := Output(), setattr(o, 'content', 'text')][0]", "[o := Output(), o.content.add('k', 'not bytes')][0]"),
    *("Output().add('x' * 10, batch_index='one')", "Output().finalize(fail, ValueError('too late'))"),
    *("Output().finalize(None)", "Output().finalize(fail, SystemExit(3))"),
]
RAISED = [
    *("ValueError()", "ValueError('\\ud800 \\r\\n\\r\\n\\x00')", "KeyError('k')", "StopIteration()", "GeneratorExit()"),
    *("KeyboardInterrupt()", "SystemExit(0)", "SystemExit('bye')", "MemoryError()", "RecursionError()", "Hostile()"),
    *("BrokenPipeError()", "ConnectionResetError()", "TimeoutError()", "BaseException('base')", "OSError(28, 'full')"),
    *("UnicodeDecodeError('utf-8', b'x', 0, 1, 'r')", "ExceptionGroup('many', [ValueError('one')])"),
]


@pytest.mark.parametrize("expression", ODD_RETURNS)
def test_what_is_no_output_is_a_failure_of_that_request_alone(server: Server, expression: str) -> None:
    with unharmed(server):
        reply = returned(server, expression)
        if reply.status >= 400 and reply.status != 502:
            assert json.loads(reply.body)["error"]
        still_works(server)


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("where", ["fail({})", "Output().add_stream_content(chain([], {}))"])
def test_whatever_is_raised_is_an_answer_with_a_cause(server: Server, error: str, where: str) -> None:
    with unharmed(server):
        reply = returned(server, where.format(error))
        assert reply.status in (424, 507)
        assert json.loads(reply.body)["error"]
        still_works(server)


def test_a_head_request_gets_no_body_whatever_is_returned(server: Server) -> None:
    reply = returned(server, "Output().add('body')", b"HEAD")
    assert (reply.status, reply.body) == (200, b"")
    still_works(server)
