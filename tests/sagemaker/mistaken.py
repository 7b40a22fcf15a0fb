"""A mistake as a command line, made in a user's directory on the real emulator."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tests.support.emulator import REGION, REPOSITORY, Emulator, emulating, environment

Caught = Literal["before anything is created", "by the emulator"]
BEFORE: Caught = "before anything is created"
BY_EMULATOR: Caught = "by the emulator"
HANDLER = "def handle(inputs):\n    return None\n"
TYPE = "ml.g5.xlarge"
QUOTAS = '{"quotas": {"ml.p4d.24xlarge": 0}}'
ECHO = REPOSITORY / "tests" / "support" / "echo_container.py"


@dataclass
class World:
    """An account on the emulator: a bucket with a good archive, and what else a mistake prepares."""

    emulator: Emulator
    archive: str  # s3://… of a good one

    def put(self, key: str, data: bytes) -> str:
        """An object in the bucket; its URI."""
        self.emulator.client("s3").put_object(Bucket="models", Key=key, Body=data)
        return f"s3://models/{key}"

    def there(self) -> set[str]:
        """Everything in the account that SageMaker knows."""
        sagemaker = self.emulator.client("sagemaker")
        return {
            *(f"model {each['ModelName']}" for each in sagemaker.list_models()["Models"]),
            *(f"config {each['EndpointConfigName']}" for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]),
            *(f"endpoint {each['EndpointName']}" for each in sagemaker.list_endpoints()["Endpoints"]),
        }


@dataclass(frozen=True)
class Mistake:
    """``command``: of bloomery, run where ``files`` lie beside a good model directory ``code``; {archive} is a good
    archive's URI. ``says``: words for the mistake, and for what to do. ``prepare`` changes directory and account."""

    title: str
    command: str
    says: tuple[str, ...]
    files: dict[str, str | bytes | None]
    caught: Caught = BEFORE
    prepare: Callable[[Path, World], None] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    local: bool = True  # AWS_ENDPOINT_URL leads to the emulator
    code: int = 1
    alike: bool = False  # to another one, so that the ordinary tests leave it out


@dataclass(frozen=True)
class Answer:
    """What a command said. ``left``: what is in the account and was not before."""

    code: int
    text: str
    seconds: float
    left: tuple[str, ...] = ()


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """The emulator, with a bucket and a good archive in it."""
    (directory / "tables.json").write_text(QUOTAS)
    options = ["--tables", str(directory / "tables.json"), "--image", f"echo={sys.executable} {ECHO} serve"]
    with emulating(directory / "state", *options) as emulator:
        emulator.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": REGION})
        made = World(emulator, "")
        _code(directory)
        run("package code --upload s3://models/good/", directory, emulator)
        (key,) = (each["Key"] for each in emulator.client("s3").list_objects_v2(Bucket="models")["Contents"])
        made.archive = f"s3://models/{key}"
        yield made


def make(mistake: Mistake, here: World, directory: Path) -> Answer:
    """Make the mistake in ``directory``, which is empty."""
    _code(directory)
    for name, content in mistake.files.items():
        path = directory / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    if mistake.prepare:
        mistake.prepare(directory, here)
    before = here.there()
    command = mistake.command.format(archive=here.archive)
    answer = run(command, directory, here.emulator if mistake.local else None, mistake.variables)
    text = answer.text.replace(f"{directory}/", "").replace(str(directory), ".")
    return replace(answer, text=text, left=tuple(sorted(here.there() - before)))


def run(command: str, directory: Path, emulator: Emulator | None, variables: Mapping[str, str] | None = None) -> Answer:
    """A command of bloomery as a user gives it; with the emulator's address, or what ``variables`` say of AWS."""
    address = {"AWS_ENDPOINT_URL": emulator.url, "AWS_REGION": REGION} if emulator else {}
    env = environment({"HOME": str(directory), **address, **(variables or {})})
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bloomery", *command.split()],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return Answer(done.returncode, done.stdout + done.stderr, time.monotonic() - started)


def _code(directory: Path) -> None:
    (directory / "code").mkdir()
    (directory / "code" / "model.py").write_text(HANDLER)
    (directory / "code" / "serving.properties").write_text("engine=Python\n")
