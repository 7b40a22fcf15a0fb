"""The real emulator as a subprocess on a free port, and boto3 clients for it that know nothing of the machine's own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

REPOSITORY = Path(__file__).parents[2]
STAND_IN = REPOSITORY / "tests" / "support" / "stand_in_fleet.py"
REGION = "us-west-2"  # not the default, so that what depends on the region shows
ROLE = "arn:aws:iam::123456789012:role/service-role/SageMakerRole"


@dataclass
class Emulator:
    """A running emulator. ``clients`` are kept and closed with it."""

    process: subprocess.Popen[bytes]
    log_file: Path
    _clients: dict[str, Any]

    def log(self) -> str:
        """Everything it has printed so far."""
        return self.log_file.read_text()

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first match of ``pattern`` in the log."""
        deadline = time.monotonic() + seconds
        while True:
            text = self.log()
            if match := re.search(pattern, text):
                return match
            assert self.process.poll() is None, f"the emulator ended with {self.process.returncode}:\n{text}"
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds} s:\n{text}"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT, once it is ready."""
        return self.wait_for(r"(?m)^ready: SageMaker on (\S+) ")[1]

    def client(self, service: str, **config: Any) -> Any:
        """A boto3-like client; ``config`` as for ``botocore.config.Config``."""
        name = f"{service} {config}"
        if name not in self._clients:
            session = botocore.session.Session(session_vars={"config_file": (None, None, os.devnull, None)})
            self._clients[name] = session.create_client(
                service,
                region_name=REGION,
                endpoint_url=self.url,
                aws_access_key_id="key",
                aws_secret_access_key="secret",
                config=Config(**({"retries": {"total_max_attempts": 1}, "read_timeout": 70, "proxies": {}} | config)),
            )
        return self._clients[name]

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.log()}") from None


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's own, without anything of AWS, and with our packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    paths = os.pathsep.join([str(REPOSITORY / "container"), str(REPOSITORY)])
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **(env or {})}


@contextlib.contextmanager
def emulating(
    state: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stand_in: bool = False,
    log: Path | None = None,
) -> Iterator[Emulator]:
    """An emulator for the length of a ``with`` block. With ``stand_in`` no endpoint really runs: a test of the
    control plane says by a model's environment what becomes of it (``stand_in_fleet.py``)."""
    program = [str(STAND_IN)] if stand_in else ["-m", "bloomery", "sagemaker-local"]
    log = log or state.with_name(f"{state.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *program, "--port", "0", "--state", str(state), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(env),
            start_new_session=True,
        )
    emulator = Emulator(process, log, {})
    try:
        yield emulator
    finally:
        for client in emulator._clients.values():
            client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(answer: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (value := answer()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value
