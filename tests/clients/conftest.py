"""Other people's clients against the emulator, in an environment of their own that ``scripts/test --full`` prepares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.emulator import REPOSITORY, Emulator, emulating, environment

CLIENTS = REPOSITORY / ".venv-clients" / "bin"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.21.0-deepspeed0.8.3-cu117"
REGION = "us-east-1"


@dataclass(frozen=True)
class Client:
    """Runs programs of .venv-clients with the emulator's environment."""

    environment: dict[str, str]
    directory: Path

    def run(self, program: str, *arguments: str, timeout: float = 240) -> str:
        """What it printed; its whole output in the failure when its exit code is not 0."""
        done = self.attempt(program, *arguments, timeout=timeout)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(self, program: str, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run it, whatever its exit code."""
        command: Sequence[str] = [str(CLIENTS / program), *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.directory, capture_output=True, text=True, timeout=timeout
        )


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    assert CLIENTS.is_dir(), f"{CLIENTS.parent} is missing: scripts/test --full makes it"
    with emulating(tmp_path_factory.mktemp("emulator") / "state") as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator, tmp_path: Path) -> Client:
    home = tmp_path / "home"
    home.mkdir()
    clean = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
    return Client(exported(emulator.url, clean), tmp_path)


def exported(url: str, clean: dict[str, str]) -> dict[str, str]:
    """What a shell's environment is after ``eval "$(bloomery sagemaker-local env --sdk)"``."""
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", "env", "--port", port, "--sdk"]
    shell_lines = subprocess.run(
        command, env=environment() | {"PYTHONPATH": str(REPOSITORY / "container")}, stdout=subprocess.PIPE, check=True
    ).stdout
    found = subprocess.run(["sh", "-c", shell_lines + b"\nenv -0"], env=clean, stdout=subprocess.PIPE, check=True)
    return dict(pair.split("=", 1) for pair in found.stdout.decode().split("\0") if "=" in pair)
