"""Other people's clients against the emulator, in an environment of their own that ``scripts/test --full`` prepares."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.sagemaker_local import REPOSITORY, Emulator, sagemaker_local

CLIENTS = REPOSITORY / ".venv-clients" / "bin"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.21.0-deepspeed0.8.3-cu117"
ROLE = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"


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
    with sagemaker_local(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator, tmp_path: Path) -> Client:
    environment = {name: value for name, value in emulator.environment().items() if name != "PYTHONPATH"}
    shim = REPOSITORY / "container" / "bloomery" / "sagemaker" / "sdk_shim"
    return Client(environment | {"PYTHONPATH": str(shim)}, tmp_path)
