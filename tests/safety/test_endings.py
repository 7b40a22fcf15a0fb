"""However a server ends, nothing of it stays behind; and what it is to its neighbours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.server import LABORATORY, REPOSITORY, Server, finish, model_directory, serving, start
from tests.support.traces import Traces

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")

LOADS = """
import subprocess, time
from pathlib import Path

def handle(inputs):
    subprocess.Popen(["sleep", "600"])  # a helper of the handler's, as compilers and data loaders are
    Path(inputs.get_property("loading")).touch()
    time.sleep(600)
"""
MODEL = REPOSITORY / "models" / "shakespeare-bloom"


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def asking(server: Server, document: object) -> Iterator[socket.socket]:
    """A request on its way; its answer is left to the test."""
    body = json.dumps(document).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        yield connection


@contextlib.contextmanager
def idle(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    with serving(LABORATORY, env=traces.env) as server:
        yield server


@contextlib.contextmanager
def loading(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    loads = model_directory(tmp_path / "loads", LOADS, f"engine=Python\noption.loading={tmp_path / 'loading'}\n")
    with serving(loads, env=traces.env, ready=False) as server:
        until((tmp_path / "loading").exists, "the handler loads")
        yield server


@contextlib.contextmanager
def in_an_upload(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    with (
        serving(LABORATORY, env=traces.env | {"SERVING_SHUTDOWN_GRACE": "0.5"}) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as client,
    ):
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nthe beginning")
        assert server.ping().status == 200  # by then the head has been read
        yield server


@contextlib.contextmanager
def in_a_request(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    order = {"do": "wait", "started": str(tmp_path / "started"), "release": str(tmp_path / "never")}
    with serving(LABORATORY, env=traces.env | {"SERVING_SHUTDOWN_GRACE": "0.5"}) as server, asking(server, order):
        until((tmp_path / "started").exists, "the handler has the request")
        yield server


@contextlib.contextmanager
def in_a_stream(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    order = {"do": "stream", "endless": True}
    with (
        serving(LABORATORY, env=traces.env | {"SERVING_SHUTDOWN_GRACE": "0.5"}) as server,
        asking(server, order) as client,
    ):
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        yield server


@contextlib.contextmanager
def in_a_generation_of_two_ranks(tmp_path: Path, traces: Traces) -> Iterator[Server]:
    question = {"inputs": "To be", "stream": True, "parameters": {"max_new_tokens": 200, "ignore_eos": True}}
    options = ("-o", "engine=DeepSpeed", "-o", "option.tensor_parallel_degree=2")
    environment = traces.env | {"SERVING_SHUTDOWN_GRACE": "0.5"}
    with serving(MODEL, *options, env=environment) as server, asking(server, question) as client:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        yield server


SITUATIONS = [idle, loading, in_an_upload, in_a_request, in_a_stream, in_a_generation_of_two_ranks]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_sigterm_ends_it_with_0_and_leaves_nothing(
    tmp_path: Path, situation: Callable[[Path, Traces], contextlib.AbstractContextManager[Server]]
) -> None:
    traces = Traces()
    with situation(tmp_path, traces) as server:
        assert len(traces.processes()) >= 2
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert traces.processes() == {}
        assert traces.shared_memory() == set()
        # torch's own cache of compiled code is there to be found by the next one.
        assert [name for name in server.leftovers if not name.startswith("torchinductor_")] == []


@pytest.mark.parametrize("situation", [idle, loading, in_a_stream])
def test_sigkill_takes_the_ranks_along_within_two_seconds(
    tmp_path: Path, situation: Callable[[Path, Traces], contextlib.AbstractContextManager[Server]]
) -> None:
    traces = Traces()
    with situation(tmp_path, traces) as server:
        ranks = psutil.Process(server.process.pid).children()
        server.signal(signal.SIGKILL)
        server.process.wait()
        _, alive = psutil.wait_procs(ranks, timeout=2)
        assert alive == []
        for pid in traces.processes():  # a handler's own helper is nobody's business; this test's it is
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_two_servers_of_one_model_and_one_temporary_directory_share_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    temporary = tmp_path_factory.mktemp("t")  # short: sockets lie in it
    first, second = (start(LABORATORY, env={"TMPDIR": str(temporary)}) for _ in range(2))
    try:
        first.wait_ready()
        second.wait_ready()
        theirs = set(temporary.iterdir())
        assert len(theirs) == 2
        first.signal(signal.SIGKILL)
        first.process.wait()
        third = start(LABORATORY, env={"TMPDIR": str(temporary)})
        try:
            third.wait_ready()
            assert second.post({"do": "answer", "body": "alive"}).body == b"alive"
            assert third.stop() == 0
        finally:
            finish(third)
        assert set(temporary.iterdir()) == theirs  # nobody cleans up after others
        assert second.post({"do": "answer", "body": "alive"}).body == b"alive"
        assert second.stop() == 0
        assert len(theirs - set(temporary.iterdir())) == 1
    finally:
        finish(first)
        finish(second)
