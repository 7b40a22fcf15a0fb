"""What ``scripts/serve`` runs without arguments: the demonstration model over two DeepSpeed ranks, by HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.support.server import Reply, Server, finish, start

from bloomery.errors import WorkerError
from bloomery.processes.control import ControlClient
from bloomery.protocol.control import Status

PROMPT = "KING.\nMy lords,"
LONG = {"inputs": PROMPT, "parameters": {"max_new_tokens": 900, "ignore_eos": True}}
SAMPLED = {"inputs": PROMPT, "parameters": {"max_new_tokens": 24, "do_sample": True, "seed": 11}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    demonstration = start()
    try:
        demonstration.wait_ready(240)
        yield demonstration
    finally:
        finish(demonstration)


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def ranks(server: Server) -> list[psutil.Process]:
    """The worker processes, by rank."""
    found = {}
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("djl_python_engine.py" in part for part in process.cmdline()):
                found[int(process.environ()["RANK"])] = process
    return [found[rank] for rank in sorted(found)]


def status_of_rank_0(server: Server) -> Status:
    """What rank 0 says of itself over its control socket."""

    async def ask() -> Status:
        client = ControlClient(str(next((server.scratch / "tmp").glob("bloomery-*/control.0"))))
        try:
            return await client.ping()
        finally:
            await client.close()

    return asyncio.run(ask())


def decoding(server: Server) -> bool:
    """Whether rank 0 has made a token of a request that still runs."""
    with contextlib.suppress(WorkerError, StopIteration):
        before = status_of_rank_0(server)
        time.sleep(0.05)
        after = status_of_rank_0(server)
        return bool(after.request_id) and after.tokens > before.tokens
    return False


@contextlib.contextmanager
def long_request(server: Server) -> Iterator[Future[Reply]]:
    """A request that runs for a while, once the ranks decode it."""
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(
            server.request, "POST", "/invocations", json.dumps(LONG), {"Content-Type": "application/json"}, 120
        )
        until(lambda: decoding(server), "the ranks decode")
        yield reply


def generated(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.body
    return [answer["generated_text"] for answer in reply.json()]


def test_it_answers_in_words(server: Server) -> None:
    (text,) = generated(server.post({"inputs": PROMPT, "parameters": {"max_new_tokens": 48}}))
    assert text.startswith(PROMPT)
    words = text.removeprefix(PROMPT).split()
    assert len(words) > 15
    assert len({word.lower() for word in words}) > 5


def test_prompts_of_different_lengths_are_continued_as_each_alone(server: Server) -> None:
    prompts = [PROMPT, "To be, or not to be, that is the question:\nWhether 'tis nobler", "O"]
    parameters = {"max_new_tokens": 16}
    together = generated(server.post({"inputs": prompts, "parameters": parameters}))
    assert together == [generated(server.post({"inputs": p, "parameters": parameters}))[0] for p in prompts]


def test_a_client_that_goes_away_stops_its_generation_and_frees_the_group(server: Server) -> None:
    before = status_of_rank_0(server).tokens
    connection = server.connect()
    connection.request("POST", "/invocations", json.dumps({**LONG, "stream": True}))
    answer = connection.getresponse()
    assert answer.readline().startswith(b'{"outputs"')
    answer.close()
    connection.close()
    until(lambda: not status_of_rank_0(server).request_id, "the group is free")
    assert status_of_rank_0(server).tokens - before < 450


def test_sampling_stays_in_step_after_a_cancelled_request(server: Server) -> None:
    first = generated(server.post(SAMPLED))
    connection = server.connect()
    connection.request("POST", "/invocations", json.dumps({**LONG, "stream": True}))
    connection.getresponse().readline()
    connection.close()
    assert generated(server.post(SAMPLED)) == first


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "was killed by signal 9 (SIGKILL)"), (signal.SIGSTOP, "is stopped (process state T)")],
)
def test_a_lost_rank_fails_the_request_precisely_and_the_group_comes_back(
    server: Server, number: signal.Signals, words: str
) -> None:
    with long_request(server) as reply:
        victim = ranks(server)[1]
        victim.send_signal(number)
        lost = reply.result(60)
    assert lost.status == 503
    assert f"rank 1 (pid {victim.pid}) {words}" in lost.json()["message"]
    until(lambda: server.ping().status == 200, "the group is back")
    assert generated(server.post(SAMPLED))


def test_sigterm_delivers_the_answer_and_leaves_nothing_behind() -> None:
    server = start()
    try:
        server.wait_ready(240)
        processes = ranks(server)
        port = processes[0].environ()["MASTER_PORT"]
        with long_request(server) as reply:
            server.signal(signal.SIGTERM)
            assert generated(reply.result(60))
        assert server.wait() == 0
        assert not [process for process in processes if process.is_running()]
        assert [
            name for name in server.leftovers if name != f"torchinductor_{getpass.getuser()}"
        ] == []  # torch's cache
        assert not list(Path("/dev/shm").glob(f"*_{port}_*"))  # DeepSpeed's all-reduce buffers
    finally:
        finish(server)
