"""Docker containers of the tests: started, spoken to over HTTP or by exec, and surely removed."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.server import Reply

START_SECONDS = 240.0  # two ranks import torch on busy cores
# As a careful operator runs it.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--pids-limit", "512", "--memory", "3g", "--memory-swap", "3g"),
)
_REQUEST = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
connection.request("POST", "/invocations", sys.argv[1], {"Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.reason, answer.read().decode()]))
"""


def docker(*arguments: str, data: bytes | None = None, seconds: float = 120) -> str:
    """What the command prints. Raises AssertionError with its message when it fails."""
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, timeout=seconds)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode()


def until(condition: Callable[[], Any], what: Callable[[], str], seconds: float = START_SECONDS) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)
    return value


@dataclass(frozen=True)
class Container:
    """A container that was started; ``name`` is its id or its name."""

    name: str

    def inspect(self, template: str) -> str:
        return docker("inspect", "--format", template, self.name).strip()

    def log(self) -> str:
        """Everything it has printed so far, on both streams."""
        done = subprocess.run(
            ["docker", "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
        )
        return done.stdout.decode(errors="replace")

    def run(self, *command: str) -> str:
        """What a command prints inside."""
        return docker("exec", self.name, *command)

    @property
    def is_running(self) -> bool:
        return self.inspect("{{.State.Running}}") == "true"

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> str:
        """The log, once it has ``text``."""

        def found() -> str:
            ended = not self.is_running  # asked first: what it printed last counts
            log = self.log()
            assert text in log or not ended, f"it ended without {text!r}:\n{log}"
            return log if text in log else ""

        return str(until(found, lambda: f"{text!r} in the log:\n{self.log()}", seconds))

    def wait_healthy(self) -> None:
        """Until its HEALTHCHECK says so, which docker asks by itself."""
        until(lambda: self.inspect("{{.State.Health.Status}}") == "healthy", self.log, 60)

    def wait_ready(self) -> None:
        self.wait_for("\nready: ")

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit code."""
        return int(docker("wait", self.name, seconds=seconds))

    def stop(self, seconds: int = 10) -> tuple[int, float]:
        """SIGTERM, after ``seconds`` SIGKILL; the exit code, and how long it took."""
        started = time.monotonic()
        docker("stop", "--time", str(seconds), self.name)
        return int(self.inspect("{{.State.ExitCode}}")), time.monotonic() - started

    def request(self, method: str, path: str, body: object = None, port: int = 8080) -> Reply:
        """One request to the published ``port``; a JSON body. Raises OSError while nobody listens."""
        host, _, number = docker("port", self.name, f"{port}/tcp").split()[0].rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(number), timeout=60)) as connection:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answer.reason, found, answer.read())

    def ask_inside(self, body: object) -> Reply:
        """POST /invocations over the container's own loopback interface, which it has without any network too."""
        status, reason, text = json.loads(self.run("python", "-c", _REQUEST, json.dumps(body)))
        return Reply(status, reason, {}, text.encode())

    def processes(self) -> dict[int, str]:
        """The command lines of its processes, by their ids inside; a zombie's is empty, and that of one just gone."""
        script = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' 2>/dev/null <$p/cmdline); done"
        lines = (line.partition(" ") for line in self.run("sh", "-c", script).splitlines())
        return {int(pid): command for pid, _, command in lines if "tr " not in command and "/proc/" not in command}


@contextlib.contextmanager
def running(image: str, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Container]:
    """``docker run --detach OPTIONS IMAGE serve`` for the length of a ``with`` block."""
    variables = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
    container = Container(docker("run", "--detach", *options, *variables, image, "serve").strip())
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.name)


def answer_of(reply: Reply) -> Any:
    """The text that was generated. Raises AssertionError with the answer when it is another one."""
    assert reply.status == 200, reply
    return reply.json()[0]["generated_text"]
