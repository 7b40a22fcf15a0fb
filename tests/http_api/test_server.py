"""A server's life: the port before the model, drains, failures, neighbours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.server import LABORATORY, REPOSITORY, Reply, Server, finish, model_directory, serving, start

SLOW_LOAD = """
import os, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        deadline = time.monotonic() + 60
        while not os.path.exists(inputs.get_property("gate")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return None
    return Output().add("served")
"""


def eventually(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def loading(tmp_path: Path, name: str = "slow") -> Iterator[tuple[Server, Path]]:
    """A server whose model loads until the file comes to be."""
    gate = tmp_path / f"{name}-gate"
    directory = model_directory(tmp_path / name, SLOW_LOAD, f"engine=Python\noption.gate={gate}\n")
    with serving(directory, ready=False) as server:
        yield server, gate


class Waiting:
    """A request that the handler holds until ``release`` is called."""

    def __init__(self, server: Server, tmp_path: Path) -> None:
        self._release = tmp_path / "release"
        self.reply: Reply | Exception | None = None
        order = {"do": "wait", "started": str(tmp_path / "started"), "release": str(self._release)}
        self._thread = threading.Thread(target=self._run, args=(server, order))
        self._thread.start()
        eventually((tmp_path / "started").exists, "the handler has the request")

    def _run(self, server: Server, order: dict[str, str]) -> None:
        try:
            self.reply = server.post(order)
        except Exception as error:
            self.reply = error

    def release(self) -> None:
        self._release.touch()

    def join(self) -> Reply | Exception | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.reply


def test_the_port_answers_within_a_second_while_the_model_loads(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, _):
        assert server.ping().status == 503
        elapsed = time.monotonic() - server.started
        # The second figure: nanoseconds it was ready to run and other processes had the processor.
        waited = int(Path(f"/proc/{server.process.pid}/schedstat").read_text().split()[1]) / 1e9
        assert elapsed - waited < 1, (elapsed, waited)


def test_while_loading_ping_tells_phase_percent_and_elapsed(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, gate):
        reply = server.ping()
        state = reply.json()["slow"]
        assert (reply.status, state["status"], state["state"]) == (503, "Unhealthy", "loading")
        assert isinstance(state["phase"], str)
        assert 0 <= state["percent"] <= 100
        assert state["elapsed"] >= 0
        gate.touch()
        server.wait_ready()
        assert server.ping().status == 200


def test_while_loading_inference_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, _):
        reply = server.post({})
        assert (reply.status, reply.json()["type"]) == (503, "ServiceUnavailableException")
        assert "loading" in reply.json()["message"]
        assert int(reply.headers["retry-after"]) > 0
        (model,) = server.request("GET", "/models").json()["models"]
        assert model["status"] == "loading"


def test_sigterm_while_loading_exits_0_and_leaves_nothing(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, _):
        eventually(lambda: psutil.Process(server.process.pid).children(), "a rank has been started")
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
        assert server.leftovers == []
        assert not [child for child in children if child.is_running()]


def test_sigterm_as_soon_as_the_port_is_open_exits_0(tmp_path: Path) -> None:
    server = start(LABORATORY)
    try:
        assert server.url  # printed before most of the server has been imported
        assert server.stop() == 0
        assert server.leftovers == []
    finally:
        finish(server)


def test_sigterm_during_a_request_delivers_the_answer_and_exits_0(tmp_path: Path) -> None:
    with serving(LABORATORY) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        waiting = Waiting(server, tmp_path)
        server.signal(signal.SIGTERM)
        server.wait_for("(?m)^stopping: ")
        waiting.release()
        reply = waiting.join()
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (200, b"released")
        assert server.wait() == 0
        assert server.leftovers == []
        assert not [child for child in children if child.is_running()]


def test_while_draining_new_connections_are_refused(tmp_path: Path) -> None:
    with serving(LABORATORY) as server:
        port = server.port
        waiting = Waiting(server, tmp_path)
        server.signal(signal.SIGTERM)
        server.wait_for("(?m)^stopping: ")

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(refused, "the port is closed")
        waiting.release()
        assert isinstance(waiting.join(), Reply)
        assert server.wait() == 0


def test_a_request_longer_than_the_grace_is_told_why_it_ends_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with serving(LABORATORY, env={"SERVING_SHUTDOWN_GRACE": "0.5"}) as server:
        waiting = Waiting(server, tmp_path)
        assert server.stop() == 0
        reply = waiting.join()
        assert isinstance(reply, Reply)
        assert reply.status == 503
        assert "shutting down" in reply.json()["message"]
        assert server.leftovers == []


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    with serving(LABORATORY) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        waiting = Waiting(server, tmp_path)
        server.signal(signal.SIGINT)
        server.wait_for("(?m)^stopping: ")
        server.signal(signal.SIGINT)
        assert server.wait(15) == 130
        reply = waiting.join()
        assert isinstance(reply, Exception) or (reply is not None and reply.status == 503)
        assert server.leftovers == []
        assert not [child for child in children if child.is_running()]


def test_an_idle_keep_alive_connection_does_not_hold_up_the_end() -> None:
    with serving(LABORATORY) as server, contextlib.closing(server.connect()) as connection:
        connection.request("GET", "/ping")
        connection.getresponse().read()
        assert server.stop(15) == 0


def test_a_model_that_cannot_load_ends_the_server_with_1_and_one_report(tmp_path: Path) -> None:
    model = "def handle(inputs):\n    raise RuntimeError('the weights are made of cheese')\n"
    directory = model_directory(tmp_path / "cheese", model, "engine=Python\noption.api_key=hush-hush\n")
    server = start(directory)
    try:
        assert server.wait() == 1
        text = server.err.read_text()
        (report,) = [block for block in text.split("\n\n") if "could not be loaded" in block]
        assert f"cheese in {directory}" in report
        assert "RuntimeError: the weights are made of cheese" in report
        assert "to do: " in report
        assert "hush" not in server.log()
        assert server.leftovers == []
    finally:
        finish(server)


def test_while_a_killed_rank_is_replaced_ping_is_a_503_and_then_healthy_again(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, gate):
        gate.touch()
        server.wait_ready()
        gate.unlink()  # the next load waits
        (rank, *_) = psutil.Process(server.process.pid).children()
        rank.kill()
        eventually(lambda: server.ping().status == 503, "/ping has noticed")
        state = server.ping().json()["slow"]
        assert (state["status"], state["state"]) == ("Unhealthy", "restarting")
        eventually(lambda: server.ping().json()["slow"]["elapsed"] > state["elapsed"], "the time of the loss grows")
        gate.touch()
        eventually(lambda: server.ping().status == 200, "the group is back")
        assert server.post({}).body == b"served"


def test_a_client_that_does_not_read_loses_its_own_stream_and_holds_up_nobody() -> None:
    with (
        serving(LABORATORY, env={"SERVING_CHUNKED_READ_TIMEOUT": "3"}) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow,
    ):
        body = json.dumps({"do": "stream", "flood": 2**18}).encode()
        slow.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        reply = server.post({"do": "answer", "body": "somebody else"})  # waits until the one group is free
        assert reply.body == b"somebody else"
        server.wait_for("a client took nothing of its stream for 3 s")
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := slow.recv(2**20):
                received = received[-10:] + piece
        assert not received.endswith(b"0\r\n\r\n")  # cut off, not complete


def test_two_servers_live_beside_each_other() -> None:
    with serving(LABORATORY) as first:
        with serving(LABORATORY) as second:
            assert first.port != second.port
            assert second.post({"do": "answer", "body": "second"}).body == b"second"
            assert second.stop() == 0
        assert first.post({"do": "answer", "body": "first"}).body == b"first"


def test_a_directory_of_model_directories_serves_each_of_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        model_directory(
            tmp_path / "store" / name,
            f"from djl_python import Output\n\ndef handle(inputs):\n    return Output().add({name!r})\n",
        )
    with serving(tmp_path / "store", ready=False) as server:
        eventually(lambda: server.ping().status == 200, "both are ready")
        assert server.request("POST", "/predictions/one", b"").body == b"one"
        assert server.request("POST", "/models/two/invoke", b"").body == b"two"
        reply = server.request("POST", "/invocations", b"")
        assert (reply.status, reply.json()["message"]) == (400, "Parameter model_name is required.")
        assert server.request("POST", "/invocations?model_name=two", b"").body == b"two"
        page = server.request("GET", "/models?limit=1").json()
        assert (len(page["models"]), page["nextPageToken"]) == (1, "1")


def test_the_serving_process_loads_no_engine_and_no_cloud_library() -> None:
    script = (
        "import json, sys\n"
        "import uvloop, bloomery.cli.serving, bloomery.http_api.server, bloomery.serving.model\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", script], env=environment)))
    assert "aiohttp" in loaded
    assert not loaded & {"torch", "transformers", "deepspeed", "boto3", "botocore", "numpy", "grpc", "accelerate"}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_a_running_server_has_no_library_of_an_engine_mapped() -> None:
    with serving(LABORATORY) as server:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "aiohttp" in maps
        for name in ("/torch/", "/numpy/", "/deepspeed/", "libcuda"):
            assert name not in maps
        assert psutil.Process(server.process.pid).memory_info().rss < 150 * 2**20


def test_the_server_is_imported_in_less_than_a_second_of_processor_time() -> None:
    script = "import bloomery.http_api.server, bloomery.cli.serving, uvloop, resource as r; "
    script += "u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    assert float(subprocess.check_output([sys.executable, "-c", script], env=environment)) < 1
