"""The control channel of real rank processes, and the client against servers that misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.worker_client import WorkerProcess, start_worker, wait_until, write_model

from bloomery.errors import WorkerError
from bloomery.processes.control import ControlClient
from bloomery.protocol import private
from bloomery.protocol.control import Status, encode
from bloomery.protocol.frames import Chunk, Request

# "open" blocks in a named pipe until the test writes to it; "spin" computes until it is cancelled.
HANDLER = """
from bloomery.processes import rank
from djl_python import Input, Output

def wait_in_the_kernel(path):
    return open(path).read()

def compute_until_cancelled():
    rank.current.report("computing")
    while not rank.current.cancelled:
        rank.current.step(tokens=1)

def endless():
    while True:
        yield "x"

def handle(inputs):
    if inputs.is_empty():
        return None
    command = inputs.get_as_string()
    if command == "spin":
        compute_until_cancelled()
    elif command == "endless":
        return Output().add_stream_content(endless())
    else:
        wait_in_the_kernel(command)
    return Output().add("done")
"""


@pytest.fixture
def control_path(tmp_path: Path) -> str:
    return str(tmp_path / "control.0")


@pytest.fixture
def worker(tmp_path: Path, control_path: str) -> Iterator[WorkerProcess]:
    write_model(tmp_path / "model", HANDLER)
    running = start_worker(tmp_path / "model", tmp_path, env={private.CONTROL_SOCKET: control_path})
    yield running
    running.stop()


@pytest.fixture
async def client(control_path: str) -> AsyncIterator[ControlClient]:
    asking = ControlClient(control_path)
    yield asking
    await asking.close()


def send(worker: WorkerProcess, command: str, request_id: str = "r1") -> None:
    worker.send(Request({"handler": "handle", private.REQUEST_ID: request_id}, [("data", command.encode())]))


async def status_when(client: ControlClient, condition: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(30):
        while not condition(status := await client.ping()):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.01)
    return status


def computing(status: Status) -> bool:
    return status.phase == "computing"


async def test_a_rank_answers_before_its_model_is_imported(worker: WorkerProcess, client: ControlClient) -> None:
    assert (await client.ping()).phase == "starting"


async def test_a_rank_is_ready_after_the_initialise_call(worker: WorkerProcess, client: ControlClient) -> None:
    worker.initialise()
    status = await client.ping()
    assert (status.phase, status.percent, status.request_id) == ("ready", 100.0, "")


async def test_a_rank_whose_load_failed_says_so(tmp_path: Path, worker: WorkerProcess, client: ControlClient) -> None:
    write_model(tmp_path / "model", "raise ValueError('no')")
    worker.initialise()
    assert (await client.ping()).phase == "failed"


async def test_a_computing_rank_answers_and_shows_progress(worker: WorkerProcess, client: ControlClient) -> None:
    send(worker, "spin")
    first = await status_when(client, computing)
    assert first.request_id == "r1"
    await status_when(client, lambda status: status.tokens > first.tokens and status.steps > first.steps)
    await client.cancel("r1")


async def test_cancel_reaches_a_handler_that_looks(worker: WorkerProcess, client: ControlClient) -> None:
    send(worker, "spin")
    await status_when(client, computing)
    await client.cancel("r1")
    assert worker.read_answer().text == "done"


async def test_cancelling_another_request_leaves_this_one_alone(worker: WorkerProcess, client: ControlClient) -> None:
    send(worker, "spin")
    await status_when(client, computing)
    before = await client.cancel("r0")
    await status_when(client, lambda status: status.tokens > before.tokens)
    await client.cancel("r1")
    assert worker.read_answer().text == "done"


async def test_cancel_stops_a_stream_whose_handler_knows_nothing_of_it(
    worker: WorkerProcess, client: ControlClient
) -> None:
    send(worker, "endless")
    assert worker.read_head().code == 200
    await client.cancel("r1")
    while not (chunk := worker.read_chunk()).last:
        pass
    assert chunk == Chunk(b"the request was cancelled", last=True)


async def test_the_stack_names_the_function_that_waits(
    tmp_path: Path, worker: WorkerProcess, client: ControlClient
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    send(worker, str(gate))
    async with asyncio.timeout(30):
        while "in wait_in_the_kernel" not in (stack := (await client.stack()).stack):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "Thread MainThread" in stack
    assert "in handle" in stack
    gate.write_text("")
    assert worker.read_answer().text == "done"


async def test_several_clients_can_ask_at_once_and_one_after_another(worker: WorkerProcess, control_path: str) -> None:
    clients = [ControlClient(control_path) for _ in range(3)]
    assert [status.phase for status in await asyncio.gather(*(each.ping() for each in clients))] == ["starting"] * 3
    for each in clients:
        await each.close()
        assert (await each.ping()).phase == "starting"  # it connects again
        await each.close()


async def test_questions_asked_at_once_of_one_client_are_answered_one_by_one(
    worker: WorkerProcess, client: ControlClient
) -> None:
    answers = await asyncio.gather(client.ping(), client.stack(), client.ping())
    assert [bool(answer.stack) for answer in answers] == [False, True, False]


async def test_nonsense_on_the_channel_ends_that_conversation_only(
    worker: WorkerProcess, client: ControlClient, control_path: str
) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(control_path)
        raw.sendall(b"nonsense\n")
        assert raw.recv(100) == b""
    assert "not JSON" in worker.wait_for_line("control channel")
    assert (await client.ping()).phase == "starting"


async def test_no_rank_is_a_worker_error_that_names_the_socket(client: ControlClient, control_path: str) -> None:
    with pytest.raises(WorkerError, match=f"'ping' failed on {control_path}"):
        await client.ping()


async def test_a_rank_that_died_is_a_worker_error(worker: WorkerProcess, client: ControlClient) -> None:
    await client.ping()
    worker.process.kill()
    worker.wait()
    with pytest.raises(WorkerError, match="'ping' failed"):
        await client.ping()


async def test_a_stopped_rank_is_a_worker_error_after_the_timeout(worker: WorkerProcess, client: ControlClient) -> None:
    await client.ping()
    client.timeout = 0.2
    worker.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(worker.process.pid).status() == psutil.STATUS_STOPPED, "the rank stops")
    with pytest.raises(WorkerError, match=r"no answer to 'ping' within 0\.2 s"):
        await client.ping()
    worker.process.send_signal(signal.SIGCONT)
    client.timeout = 30
    assert (await client.ping()).phase == "starting"


async def test_a_late_answer_does_not_meet_the_next_question(client: ControlClient, control_path: str) -> None:
    asked = 0

    async def late_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readline():
            asked += 1
            if asked > 1:
                writer.write(encode(Status("second", 0, 0, 0, "")))
                await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(late_once, control_path):
        client.timeout = 0.1
        with pytest.raises(WorkerError, match="no answer"):
            await client.ping()
        client.timeout = 10
        assert (await client.ping()).phase == "second"
        await client.close()


async def test_an_answer_that_is_none_is_a_worker_error(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"babble\n")
        await writer.drain()
        writer.close()

    path = str(tmp_path / "control")
    async with await asyncio.start_unix_server(babble, path):
        with pytest.raises(WorkerError, match="not JSON"):
            await ControlClient(path).ping()
