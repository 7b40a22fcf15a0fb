"""The real server as a subprocess: started on a free port, spoken to over HTTP, and surely ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).parents[2]
LABORATORY = REPOSITORY / "tests" / "data" / "laboratory"  # a model directory whose handler does what it is told
# Variables that the server reads; a test gets only those it names.
_READ_BY_SERVER = re.compile(
    r"(OPTION|SERVING|HF|SAGEMAKER|SM|DJL)_|TENSOR_PARALLEL_DEGREE|PREDICT_TIMEOUT|MODEL_LOADING_TIMEOUT|PYTHON_EXECUTABLE"
)


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    status: int
    reason: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running ``bloomery serve``. ``scratch`` is its whole temporary directory."""

    process: subprocess.Popen[bytes]
    scratch: Path
    out: Path
    err: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def leftovers(self) -> list[str]:
        """What lies in its directory for temporary files: nothing, once it has ended."""
        return sorted(path.name for path in (self.scratch / "tmp").iterdir())

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT, known as soon as the port is open."""
        line = self.wait_for(r"listening on (http://\S+);", self.out)
        return line[1]

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def log(self) -> str:
        """Everything it has printed so far."""
        return self.out.read_text() + self.err.read_text()

    def wait_for(self, pattern: str, file: Path | None = None, seconds: float = 60) -> re.Match[str]:
        """The first match of ``pattern`` in the log (or ``file``)."""
        deadline = time.monotonic() + seconds
        while True:
            text = file.read_text() if file else self.log()
            if match := re.search(pattern, text):
                return match
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds} s:\n{self.log()}"
            time.sleep(0.02)

    def wait_ready(self, seconds: float = 60) -> None:
        """Until the model can answer."""
        self.wait_for(r"(?m)^ready: ", self.out, seconds)

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        """A connection of the test's own; the caller closes it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Reply:
        """One request over a connection of its own."""
        with contextlib.closing(self.connect(timeout)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answer.reason, found, answer.read())

    def post(self, body: object, path: str = "/invocations", **headers: str) -> Reply:
        """POST a JSON document."""
        return self.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})

    def ping(self) -> Reply:
        return self.request("GET", "/ping")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """The exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.log()}") from None

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(seconds)


def start(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    command: str = "serve",
    port: tuple[str, ...] = ("--port", "0"),
) -> Server:
    """Start ``bloomery serve ARGUMENTS --port 0``; the caller ends it with ``finish``."""
    # Not pytest's tmp_path: unix sockets lie below it, and their paths may have 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="bl-"))
    (scratch / "tmp").mkdir()
    environment = {name: value for name, value in os.environ.items() if not _READ_BY_SERVER.match(name)}
    environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch / "tmp"), "HF_HUB_OFFLINE": "1", **(env or {})}
    before = (env or {}).get("PYTHONPATH")  # of the test's own, in front
    environment["PYTHONPATH"] = os.pathsep.join([*([before] if before else []), str(REPOSITORY / "container")])
    out, err = scratch / "out", scratch / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "bloomery", command, *map(str, arguments), *port],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=scratch,
            start_new_session=True,
        )
    return Server(process, scratch, out, err)


def finish(server: Server) -> None:
    """End it, by force if need be (its ranks die with it), and remove its files."""
    if server.process.poll() is None:
        server.signal(signal.SIGTERM)
        try:
            server.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
    shutil.rmtree(server.scratch, ignore_errors=True)


@contextlib.contextmanager
def serving(*arguments: str | Path, env: Mapping[str, str] | None = None, ready: bool = True) -> Iterator[Server]:
    """A server for the length of a ``with`` block; ``ready`` waits until its model can answer."""
    server = start(*arguments, env=env)
    try:
        if ready:
            server.wait_ready()
        yield server
    finally:
        finish(server)


def model_directory(path: Path, model: str, properties: str = "engine=Python\n") -> Path:
    """A model directory with this model.py and serving.properties."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.py").write_text(model)
    (path / "serving.properties").write_text(properties)
    return path
