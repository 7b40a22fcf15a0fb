"""The real ``bloomery sagemaker-local`` as a subprocess, and environments for its clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_READY = re.compile(r"ready: SageMaker on (http://\S+)")


@dataclass
class Emulator:
    """A running emulator. ``output``: what it printed."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path
    home: Path

    def environment(self) -> dict[str, str]:
        """For a client: what ``sagemaker-local env`` exports, and an empty home."""
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "bloomery", "sagemaker-local", "env", "--port", port, "--sdk"]
        printed = subprocess.run(command, env=clean_environment(self.home), capture_output=True, text=True, check=True)
        shell = printed.stdout + "\nenv -0"
        told = subprocess.run(
            ["sh", "-c", shell], env=clean_environment(self.home), capture_output=True, text=True, check=True
        )
        return dict(pair.split("=", 1) for pair in told.stdout.split("\0") if "=" in pair)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the machine's own AWS configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY / "container"),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def sagemaker_local(
    directory: Path, *arguments: str, variables: Mapping[str, str] | None = None, ready_within: float = 60
) -> Iterator[Emulator]:
    """Run one with its state below ``directory``, which may hold that of a former one."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    output = directory / "emulator.log"
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", "--port", "0", "--state", str(directory / "state")]
    environment = clean_environment(home) | dict(variables or {})
    with output.open("wb") as file:
        process = subprocess.Popen([*command, *arguments], stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        yield Emulator(process, _url(process, output, ready_within), output, home)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _url(process: subprocess.Popen[bytes], output: Path, patience: float) -> str:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found = _READY.search(output.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the emulator is not ready (exit code {process.poll()}):\n{output.read_text()}")
