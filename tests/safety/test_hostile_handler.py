"""Whatever a handler returns, raises or streams: the client gets HTTP, and the worker lives on."""

from __future__ import annotations

import json
import time
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
# Some requests here end the worker, more often than a model may crash.
PROPERTIES = "engine=Python\nretry_threshold=1000\ncrash_loop_limit=1000\n"
SANE = b'Output().add("fine")'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model_directory(tmp_path_factory.mktemp("hostile") / "hostile", MODEL, PROPERTIES)) as running:
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


# Python expressions, so that a large value is a small case.
TEXTS = st.one_of(
    st.text(max_size=30).map(repr),
    st.text("\r\n\x00\x1b\x7f\x85\u2028\ud800: é", max_size=10).map(repr),
    st.just("'x' * 70_000"),
)
BYTES = st.binary(max_size=50).map(repr) | st.just("b'?' * 300_000")
CODES = (
    st.integers(-40_000, 40_000) | st.integers(200, 599) | st.sampled_from([0, 99, 100, 199, 204, 205, 304, 600, -1])
)
NAMES = TEXTS | st.sampled_from(
    [
        *("Content-Length", "Transfer-Encoding", "Connection", "Content-Encoding", "Content-Type", "Upgrade", "Date"),
        *("Trailer", "Set-Cookie", "x-request-id", "x-bloomery-seed", "request_tracking_id", "Server", ":status"),
        "X-A\r\nX-B",
    ]
).map(repr)
VALUES = TEXTS | st.sampled_from(
    ["None", "-1", "True", "2.5", "float('nan')", "b'?'", "'chunked'", "'gzip'", "'0'", "'99999999999'", "object()"]
)
BODIES = TEXTS | BYTES | st.sampled_from(["None", "[1, 2]", "{}", "1.5"])
ERRORS = st.sampled_from(["None", "ValueError('broke')", "MemoryError()", "StopIteration()", "Hostile()"])
FORMATTERS = st.sampled_from(["", ", output_formatter=None", ", lambda item: 1 // 0", ", lambda item: object()"])
ITEMS = st.lists(TEXTS | BYTES | st.just("None"), max_size=4).map(", ".join)


@st.composite
def outputs(draw: st.DrawFn) -> str:
    text = f"Output({draw(CODES)}, {draw(TEXTS)})"
    for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=4)):
        text += f".add_property({name}, {value})"
    for body in draw(st.lists(BODIES, max_size=2)):
        text += f".add({body}, key={draw(TEXTS | st.just('None'))})"
    if draw(st.booleans()):
        text += f".add_stream_content(chain([{draw(ITEMS)}], {draw(ERRORS)}){draw(FORMATTERS)})"
    return text


@numbers(250, 5000)
def test_any_output_reaches_the_client_as_http(server: Server, count: int) -> None:
    def check(expression: str) -> None:
        body = expression.encode("utf-8", "surrogatepass")
        with exchange(server.port) as connection:
            connection.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            reply, whole = connection.reply_or_beginning()
        assert reply is not None
        assert 200 <= reply.status <= 599
        assert whole or "stream_content" in expression  # only a stream may break off, when its generator fails
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
    "Output().finalize(None)",
    "Output().properties.update({f'X-{number}': 'v' * 1000 for number in range(2000)})",
    "[o := Output().add('x'), o.properties.update({f'X-{number}': 'v' * 1000 for number in range(2000)}), o][2]",
]
RAISED = [
    *("ValueError()", "ValueError('\\ud800 \\r\\n\\r\\n\\x00')", "KeyError('k')", "StopIteration()", "GeneratorExit()"),
    *("MemoryError()", "RecursionError()", "Hostile()"),
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


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
@pytest.mark.parametrize(
    "where", ["fail({})", "Output().add_stream_content(chain([], {}))", "Output().finalize(fail, {})"]
)
def test_a_handler_that_leaves_is_replaced_and_its_client_told(server: Server, error: str, where: str) -> None:
    assert returned(server, where.format(error)).status in (200, 503)
    deadline = time.monotonic() + 30
    while server.request("POST", "/invocations", SANE).body != b"fine":
        assert time.monotonic() < deadline
    assert server.ping().status == 200


def test_a_head_request_gets_no_body_whatever_is_returned(server: Server) -> None:
    reply = returned(server, "Output().add('body')", b"HEAD")
    assert (reply.status, reply.body) == (200, b"")
    still_works(server)
