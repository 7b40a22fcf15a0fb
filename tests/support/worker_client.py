"""Starts a real worker process and speaks its protocol, blocking."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bloomery.protocol.frames import (
    Chunk,
    Dialect,
    Request,
    ResponseHead,
    decode_chunk,
    decode_response,
    encode_request,
    read_blocking,
)

CONTAINER = Path(__file__).parents[2] / "container"
STARTED = "Python engine started."
DEADLINE = 60.0


@dataclass
class Answer:
    """One whole answer: its head, and the chunks when it was a stream."""

    head: ResponseHead
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The first content part's data, or the stream's without the last chunk."""
        if self.head.content is None:
            return b"".join(chunk.data for chunk in self.chunks if not chunk.last)
        return bytes(self.head.content[0][1]) if self.head.content else b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class WorkerProcess:
    """One worker and one connection to it."""

    def __init__(self, process: subprocess.Popen[str], dialect: Dialect) -> None:
        self.process, self.dialect = process, dialect
        self.lines: list[str] = []
        self.received = b""  # every byte of the current answer
        self._ended = False  # its output has; the process itself may end before its last line is read here
        self._arrived = threading.Condition()
        self._socket: socket.socket | None = None
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with self._arrived:
                    self.lines.append(line.rstrip("\n"))
                    self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    @property
    def output(self) -> str:
        """Everything the worker printed."""
        return "\n".join(self.lines)

    def wait_for_line(self, text: str) -> str:
        """The first printed line that contains ``text``."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: any(text in line for line in self.lines) or self._ended, DEADLINE)
            line = next((line for line in self.lines if text in line), None)
        assert found, f"no line with {text!r} within {DEADLINE} s:\n{self.output}"
        assert line is not None, f"the worker ended with {self.process.poll()} without {text!r}:\n{self.output}"
        return line

    def connect(self, address: str | tuple[str, int]) -> None:
        """Take the one connection."""
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(address)

    @property
    def socket(self) -> socket.socket:
        """The connection, for tests that send bytes of their own."""
        assert self._socket is not None
        return self._socket

    def receive(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        data = b""
        while len(data) < count:
            received = self.socket.recv(count - len(data))
            if not received:
                raise EOFError(f"the worker closed the connection ({self.process.poll()}):\n{self.output}")
            data += received
        self.received += data
        return data

    def send(self, request: Request) -> None:
        """Send one request."""
        self.socket.sendall(encode_request(request, self.dialect))

    def read_head(self) -> ResponseHead:
        """Read an answer up to where a stream begins."""
        self.received = b""
        return read_blocking(decode_response(self.dialect), self.receive)

    def read_chunk(self) -> Chunk:
        """Read one chunk of a stream."""
        return read_blocking(decode_chunk(), self.receive)

    def read_answer(self) -> Answer:
        """Read one whole answer."""
        answer = Answer(self.read_head())
        while answer.head.content is None and not (answer.chunks and answer.chunks[-1].last):
            answer.chunks.append(self.read_chunk())
        return answer

    def ask(self, body: bytes | str = b"", **properties: str) -> Answer:
        """Send one inference request and read its answer. ``_`` in a property's name stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in properties.items()}
        data = body.encode() if isinstance(body, str) else body
        self.send(Request({"handler": "handle", **named}, [("data", data)]))
        return self.read_answer()

    def initialise(self, **properties: str) -> Answer:
        """Make the initialise call: properties, no content."""
        self.send(Request({"handler": "handle", **properties}, []))
        return self.read_answer()

    def close_connection(self) -> None:
        """End the conversation."""
        self.socket.close()

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(DEADLINE)

    def stop(self) -> None:
        """Close the connection and make sure that the process is gone."""
        if self._socket is not None:
            self._socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


ServeHandler = Callable[..., WorkerProcess]  # a fixture that starts a worker for the source of a model.py


def start_worker(
    model_dir: Path,
    private_dir: Path,
    *arguments: str,
    entry_point: str = "model.py",
    dialect: Dialect = Dialect.INT32,
    env: Mapping[str, str] | None = None,
    tcp: bool = False,
    suffix: str = "",
    connect: bool = True,
) -> WorkerProcess:
    """Start a worker for ``model_dir`` whose sockets are in ``private_dir``; it has printed its line and is connected.

    ``suffix`` is what the worker appends to the socket's path (``.r`` of rank r).
    """
    sock = private_dir / "sock"
    where = ["--sock-type", "tcp", "--port", "0"] if tcp else ["--sock-type", "unix", "--sock-name", str(sock)]
    command = [sys.executable, "-u", str(CONTAINER / "djl_python_engine.py"), *where, "--model-dir", str(model_dir)]
    command += ["--entry-point", entry_point, "--device-id", "-1", *arguments]
    path = os.pathsep.join([str(CONTAINER), str(model_dir)])
    process = subprocess.Popen(
        command,
        cwd=model_dir,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    worker = WorkerProcess(process, dialect)
    try:
        line = worker.wait_for_line(STARTED)
        if connect:
            port = line.split(". " + STARTED)[0].rpartition(":")[2]
            worker.connect(("127.0.0.1", int(port)) if tcp else f"{sock}{suffix}")
    except BaseException:
        worker.stop()
        raise
    return worker


@contextlib.contextmanager
def running_worker(model_dir: Path, private_dir: Path, *arguments: str, **options: object) -> Iterator[WorkerProcess]:
    """``start_worker`` with its end."""
    worker = start_worker(model_dir, private_dir, *arguments, **options)  # type: ignore[arg-type]
    try:
        yield worker
    finally:
        worker.stop()


def write_model(directory: Path, source: str, name: str = "model.py") -> Path:
    """A model directory whose handler is ``source``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(source)
    return directory


def wait_until(condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Poll ``condition()`` until it is true."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.01)
