"""Handlers that do what handlers should not: the worker answers, or ends; it never hangs and never answers twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.support.worker_client import ServeHandler, WorkerProcess

from bloomery.protocol.frames import Chunk, Request

# Evaluates the body, with these names at hand.
HANDLER = """
import asyncio, os, signal, sys, threading, time
from djl_python import Input, Output

class Panic(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Careless(Output):
    def __init__(self):
        self.code = 200

class Stubborn:
    def __iter__(self):
        return self
    def __next__(self):
        raise StopIteration
    def close(self):
        raise RuntimeError("will not close")

def fail(error):
    raise error

def broken(error, at=1):
    yield "first"
    raise error

def with_content(value, key="data"):
    output = Output()
    output.content.add(key, value)
    return output

def endless():
    value = []
    value.append(value)
    return value

def handle(inputs):
    if inputs.is_empty():
        return None
    result = eval(inputs.get_as_string(), globals(), {"inputs": inputs})
    return result if isinstance(result, Output) else Output().add_as_json(result)
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def worker(serve_handler: ServeHandler) -> WorkerProcess:
    return serve_handler(HANDLER)


def error_of(text: str) -> str:
    return str(json.loads(text)["error"])


def assert_serves_on(worker: WorkerProcess) -> None:
    assert worker.ask("'still here'").text == '"still here"'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("fail(Panic('a panic in Rust'))", "a panic in Rust"),
        ("fail(asyncio.CancelledError())", "CancelledError"),
        ("fail(GeneratorExit())", "GeneratorExit"),
        ("fail(Mute())", "Mute, whose text cannot be made (RuntimeError)"),
        ("fail(ValueError('\\udcff'))", "\udcff"),
        ("Careless()", "Careless.__init__ must call Output.__init__"),
        ("with_content(5)", "content part 'data' is a int, not bytes or text; use Output.add"),
        ("with_content({'a': 1})", "content part 'data' is a dict, not bytes or text; use Output.add"),
        ("Output().add_as_json(endless())", "Circular reference detected"),
        ("(lambda call: call(call))(lambda call: call(call))", "maximum recursion depth exceeded"),
        ("setattr(out := Output(), 'properties', None) or out", "'NoneType' object has no attribute 'items'"),
        ("Output(code='many')", "invalid literal for int() with base 10: 'many'"),
        ("Output().add_stream_content(5)", "'int' object is not iterable"),
        ("inputs.get_as_json('nothing')", "requested data for key:nothing is not found!"),
    ],
)
def test_what_a_handler_raises_or_returns_is_answered_424(worker: WorkerProcess, body: str, message: str) -> None:
    answer = worker.ask(body)
    assert answer.head.code == 424
    assert message in error_of(answer.text)
    assert_serves_on(worker)


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        ("Output().add_property('X-' + 'n' * 10**6, 'v' * 10**6)", {"X-" + "n" * 10**6: "v" * 10**6}),
        ("Output().add_property(7, None)", {"7": "None"}),
        ("Output().add_property('a\\r\\nb', 'c\\r\\nd')", {"a\r\nb": "c\r\nd"}),
    ],
)
def test_strange_headers_are_for_the_server_to_judge(
    worker: WorkerProcess, body: str, properties: dict[str, str]
) -> None:
    assert worker.ask(body).head.properties == properties
    assert_serves_on(worker)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("with_content('text')", b"text"),
        ("with_content(memoryview(__import__('array').array('i', [1, 2])))", b"\1\0\0\0\2\0\0\0"),
        ("with_content(b'x', key=7)", b"x"),
    ],
)
def test_content_that_is_filled_by_hand_arrives_whole(worker: WorkerProcess, body: str, expected: bytes) -> None:
    assert worker.ask(body).body == expected
    assert_serves_on(worker)


def test_a_stream_that_ends_with_no_exception_of_pythons_tells_its_text(worker: WorkerProcess) -> None:
    answer = worker.ask("Output().add_stream_content(broken(Panic('late')), None)")
    assert answer.chunks == [Chunk(b"first", last=False), Chunk(b"late", last=True)]
    assert_serves_on(worker)


def test_a_stream_whose_end_fails_is_an_error(worker: WorkerProcess) -> None:
    assert error_of(worker.ask("Output().add_stream_content(Stubborn(), None)").text) == "will not close"
    assert_serves_on(worker)


@pytest.mark.parametrize("body", ["sys.exit(5)", "Output().add_stream_content(broken(SystemExit(5)), None)"])
def test_sys_exit_ends_the_worker_with_its_code(worker: WorkerProcess, body: str) -> None:
    worker.send(Request({"handler": "handle"}, [("data", body.encode())]))
    assert worker.wait() == 5


def test_a_keyboard_interrupt_ends_the_worker(worker: WorkerProcess) -> None:
    worker.send(Request({"handler": "handle"}, [("data", b"fail(KeyboardInterrupt())")]))
    assert worker.wait() == 130


def test_a_handler_that_forks_answers_once(worker: WorkerProcess, tmp_path: Path) -> None:
    assert worker.ask("[os.fork() > 0]").text == "[\n  true\n]"
    assert_serves_on(worker)
    assert (tmp_path / "0" / "sock.pid").exists()


def test_a_forked_copy_that_leaves_takes_nothing_away(worker: WorkerProcess, tmp_path: Path) -> None:
    body = "(lambda pid: os.waitpid(pid, 0)[1] if pid else sys.exit(0))(os.fork())"
    assert worker.ask(body).text == "0"
    assert (tmp_path / "0" / "sock.pid").exists()
    assert_serves_on(worker)


def test_closed_standard_streams_change_no_answer(worker: WorkerProcess) -> None:
    assert worker.ask("[sys.stdout.close(), sys.stderr.close()]").head.code == 200
    assert error_of(worker.ask("fail(ValueError('unprinted'))").text) == "unprinted"
    assert_serves_on(worker)


def test_closed_descriptors_of_the_standard_streams_change_no_answer(worker: WorkerProcess) -> None:
    assert worker.ask("[os.close(1), os.close(2)]").head.code == 200
    assert error_of(worker.ask("fail(ValueError('unprinted'))").text) == "unprinted"
    assert_serves_on(worker)


def test_binary_garbage_on_the_standard_output_changes_no_answer(worker: WorkerProcess) -> None:
    assert worker.ask("sys.stdout.buffer.write(bytes(range(256)) * 100)").text == "25600"
    assert_serves_on(worker)


def test_another_current_directory_changes_no_answer(worker: WorkerProcess) -> None:
    assert worker.ask("os.chdir('/')").text == "null"
    assert_serves_on(worker)


def test_a_thread_that_never_ends_does_not_keep_the_worker(worker: WorkerProcess) -> None:
    assert worker.ask("threading.Thread(target=time.sleep, args=(3600,)).start()").text == "null"
    worker.close_connection()
    assert worker.wait() == 0


def test_a_replaced_signal_handler_does_not_keep_the_worker(worker: WorkerProcess) -> None:
    assert worker.ask("[signal.signal(signal.SIGTERM, signal.SIG_IGN)] and None").text == "null"
    worker.process.send_signal(signal.SIGTERM)
    assert_serves_on(worker)
    worker.close_connection()
    assert worker.wait() == 0


def test_metrics_lines_pass_as_they_are(worker: WorkerProcess) -> None:
    line = "[METRICS]Tokens.Count:7|#Level:Model|#hostname:h"
    worker.ask(f"print({line!r})")
    assert worker.wait_for_line(line) == line
