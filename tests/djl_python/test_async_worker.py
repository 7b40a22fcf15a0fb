"""Asynchronous mode with an echo handler: many requests in flight on one connection."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.worker_client import ServeHandler, WorkerProcess

from bloomery.processes.control import ControlClient
from bloomery.protocol import private
from bloomery.protocol.frames import Dialect, Request, ResponseHead, decode_bytes, decode_pairs

# Echoes after the event that the request names was set by another request: the test decides the order.
ECHO = """
import asyncio, collections, sys
from djl_python import Input, Output

events = collections.defaultdict(asyncio.Event)

class Panic(BaseException):
    pass

async def handle(inputs):
    if inputs.is_empty():
        return None
    command, _, text = inputs.get_as_string().partition(" ")
    if command == "wait":
        await events[text].wait()
    elif command == "set":
        events[text].set()
    elif command == "raise":
        raise ValueError(text)
    elif command == "panic":
        raise Panic(text)
    elif command == "exit":
        sys.exit(int(text))
    elif command == "nothing":
        return None
    elif command == "stream":
        return Output().add_stream_content([text])
    return Output().add_property("echo", "yes").add(text)

async def words(inputs):
    text = inputs.get_as_string().split()
    try:
        for position, word in enumerate(text):
            if word == "raise":
                raise ValueError("in the middle")
            if word == "stop":
                return
            if word == "error":
                yield Output().error("enough", code=429)
            if word == "plain":
                yield Output().add("no pairs")
            yield Output().add(Output.binary_encode({"data": word, "last": position == len(text) - 1}))
            await asyncio.sleep(0)
    finally:
        print("words closed")

async def returned_words(inputs):
    return words(inputs)
"""

Start = Callable[..., WorkerProcess]


@pytest.fixture
def control_path(tmp_path: Path) -> str:
    return str(tmp_path / "control.0")


@pytest.fixture
def start(serve_handler: ServeHandler, control_path: str) -> Start:
    """Start the echo handler with bloomery's server as its peer."""

    def started(**options: object) -> WorkerProcess:
        return serve_handler(ECHO, "--async-mode", env={private.CONTROL_SOCKET: control_path}, **options)

    return started


def send(worker: WorkerProcess, number: int, command: str, handler: str = "handle") -> None:
    properties = {"handler": handler, "request_tracking_id": str(number), private.REQUEST_ID: f"r{number}"}
    worker.send(Request(properties, [("data", command.encode())]))


def number_of(head: ResponseHead) -> int:
    return int(head.properties["request_tracking_id"])


def body_of(head: ResponseHead) -> bytes:
    assert head.content
    return bytes(head.content[0][1])


def text_of(head: ResponseHead) -> str:
    return body_of(head).decode()


@pytest.mark.parametrize("dialect", list(Dialect))
def test_answers_come_in_the_order_they_are_ready(start: Start, dialect: Dialect) -> None:
    worker = start(dialect=dialect)
    assert worker.initialise().head.code == 204
    send(worker, 1, "wait go")
    send(worker, 2, "say hello")
    assert (number_of(head := worker.read_head()), text_of(head)) == (2, "hello")
    send(worker, 3, "set go")
    assert sorted(number_of(worker.read_head()) for _ in range(2)) == [1, 3]


def test_an_answer_keeps_its_own_properties(start: Start) -> None:
    worker = start()
    send(worker, 1, "say hello")
    head = worker.read_head()
    assert (head.code, text_of(head)) == (200, "hello")
    assert head.properties == {"echo": "yes", "request_tracking_id": "1"}


@pytest.mark.parametrize("handler", ["words", "returned_words"])
def test_a_generators_pieces_arrive_one_by_one(start: Start, handler: str) -> None:
    worker = start()
    send(worker, 1, "a b c", handler=handler)
    heads = [worker.read_head() for _ in range(3)]
    assert [number_of(head) for head in heads] == [1] * 3
    payloads = [decode_bytes(decode_pairs(Dialect.INT32), body_of(head))[0] for head in heads]
    assert [payload["data"] for payload in payloads] == ["a", "b", "c"]
    assert [payload["last"] for payload in payloads] == ["False", "False", "True"]
    send(worker, 2, "say next")
    assert number_of(worker.read_head()) == 2


def test_a_generator_is_closed_after_its_last_piece(start: Start) -> None:
    worker = start()
    send(worker, 1, "only", handler="words")
    worker.read_head()
    worker.wait_for_line("words closed")


def test_a_generator_that_yields_nothing_is_204(start: Start) -> None:
    worker = start()
    send(worker, 1, "", handler="words")
    assert worker.read_head().code == 204


def test_a_generator_that_never_says_last_ends_with_an_error(start: Start) -> None:
    worker = start()
    send(worker, 1, "a stop", handler="words")
    first, second = worker.read_head(), worker.read_head()
    assert (first.code, second.code) == (200, 424)
    assert "ended without an Output whose payload says last" in text_of(second)


def test_a_generator_that_yields_no_pieces_is_told_what_to_yield(start: Start) -> None:
    worker = start()
    send(worker, 1, "plain a", handler="words")
    head = worker.read_head()
    assert head.code == 424
    assert "Output.binary_encode" in text_of(head)


def test_an_error_yielded_by_a_generator_ends_its_answer(start: Start) -> None:
    worker = start()
    send(worker, 1, "a error", handler="words")
    assert [worker.read_head().code for _ in range(2)] == [200, 429]
    send(worker, 2, "say next")
    assert number_of(worker.read_head()) == 2


def test_frames_of_two_generators_interleave(start: Start) -> None:
    worker = start()
    words = " ".join(["w"] * 200)
    for number in (1, 2):
        send(worker, number, words, handler="words")
    order = [number_of(worker.read_head()) for _ in range(400)]
    assert order.count(1) == order.count(2) == 200
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)


def test_a_failure_is_its_own_requests_failure(start: Start) -> None:
    worker = start()
    send(worker, 1, "wait go")
    send(worker, 2, "raise went wrong")
    head = worker.read_head()
    assert (number_of(head), head.code, json.loads(text_of(head))["error"]) == (2, 424, "went wrong")
    send(worker, 3, "set go")
    assert {worker.read_head().code for _ in range(2)} == {200}


def test_a_generator_that_fails_ends_with_the_error(start: Start) -> None:
    worker = start()
    send(worker, 1, "a raise", handler="words")
    first, second = worker.read_head(), worker.read_head()
    assert (first.code, second.code) == (200, 424)
    assert json.loads(text_of(second))["error"] == "in the middle"


def test_nothing_is_204(start: Start) -> None:
    worker = start()
    send(worker, 1, "nothing")
    assert worker.read_head().code == 204


def test_stream_content_is_refused_with_what_works_instead(start: Start) -> None:
    worker = start()
    send(worker, 1, "stream x")
    head = worker.read_head()
    assert head.code == 424
    assert "yield Outputs from an async generator" in text_of(head)


async def test_a_cancelled_request_ends_and_the_others_go_on(start: Start, control_path: str) -> None:
    worker = start()
    send(worker, 1, "wait never")
    send(worker, 2, "wait go")
    send(worker, 3, "say here")  # its answer says that the ones before have started
    assert number_of(worker.read_head()) == 3
    client = ControlClient(control_path)
    await client.cancel("r1")
    head = worker.read_head()
    assert (number_of(head), head.code) == (1, 424)
    assert json.loads(text_of(head))["error"] == "the request was cancelled"
    send(worker, 4, "set go")
    assert sorted(number_of(worker.read_head()) for _ in range(2)) == [2, 4]
    await client.close()


def test_a_load_error_arrives_with_its_frames(serve_handler: ServeHandler) -> None:
    worker = serve_handler("def load():\n    raise ValueError('no weights')\nload()\n", "--async-mode")
    answer = worker.initialise()
    assert answer.head.code == 424
    assert "in load" in json.loads(answer.text)["error"]


async def test_the_rank_is_ready_after_the_initialise_call(start: Start, control_path: str) -> None:
    worker = start()
    worker.initialise()
    client = ControlClient(control_path)
    assert (await client.ping()).phase == "ready"
    await client.close()


def test_sys_exit_in_a_handler_ends_the_process_with_its_code(start: Start) -> None:
    worker = start()
    send(worker, 1, "exit 7")
    assert worker.wait() == 7


def test_the_end_of_the_connection_ends_the_worker_with_requests_in_flight(start: Start) -> None:
    worker = start()
    send(worker, 1, "wait never")
    send(worker, 2, "say here")
    worker.read_head()
    worker.close_connection()
    assert worker.wait() == 0
    assert "Traceback" not in worker.output


def test_sigterm_ends_the_worker_with_requests_in_flight(start: Start) -> None:
    worker = start()
    send(worker, 1, "wait never")
    send(worker, 2, "say here")
    worker.read_head()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("data", [struct.pack(">h", -5), struct.pack(">hi", 1, 20) + b"cut", b"\0"])
def test_a_broken_request_ends_the_worker_with_a_message(start: Start, data: bytes) -> None:
    worker = start()
    worker.socket.sendall(data)
    worker.close_connection()
    assert worker.wait() == 1
    worker.wait_for_line("request stream is broken")


@pytest.mark.parametrize("size", [0, 2**16 + 1, 3 * 2**20])
def test_bodies_of_any_size_come_back_whole(start: Start, size: int) -> None:
    worker = start()
    body = os.urandom(size // 2).hex()
    send(worker, 1, f"say {body}")
    assert text_of(worker.read_head()) == body


def test_what_is_no_exception_of_pythons_is_a_failure_as_well(start: Start) -> None:
    worker = start()
    send(worker, 1, "panic in Rust")
    head = worker.read_head()
    assert (number_of(head), head.code, json.loads(text_of(head))["error"]) == (1, 424, "in Rust")
    send(worker, 2, "say still here")
    assert text_of(worker.read_head()) == "still here"
