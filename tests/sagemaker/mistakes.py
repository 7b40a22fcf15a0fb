"""Mistakes that a newcomer makes, each as a command line, with what the answer has to say.

``scripts/mistakes`` runs this file: it makes them all on the real emulator, and prints docs/mistakes.md.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.emulator import REGION, REPOSITORY, ROLE, Emulator, emulating, environment

Caught = Literal["before anything is created", "by the emulator"]
BEFORE: Caught = "before anything is created"
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

    def there(self) -> dict[str, list[str]]:
        """Everything in the account that SageMaker knows."""
        sagemaker = self.emulator.client("sagemaker")
        return {
            "models": [each["ModelName"] for each in sagemaker.list_models()["Models"]],
            "configs": [each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
            "endpoints": [each["EndpointName"] for each in sagemaker.list_endpoints()["Endpoints"]],
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
    variables: dict[str, str | None] | None = None
    local: bool = True  # the command talks to the emulator
    code: int = 1


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    text: str
    seconds: float


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """The emulator, with a bucket and a good archive in it."""
    (directory / "tables.json").write_text(QUOTAS)
    options = ["--tables", str(directory / "tables.json"), "--image", f"echo=exec {sys.executable} {ECHO} serve"]
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
    command = mistake.command.format(archive=here.archive, role=ROLE, type=TYPE)
    return run(command, directory, here.emulator if mistake.local else None, mistake.variables or {})


def run(
    command: str, directory: Path, emulator: Emulator | None, variables: dict[str, str | None] | None = None
) -> Answer:
    """A command of bloomery as a user gives it, with the emulator's address."""
    env: dict[str, Any] = environment({"AWS_REGION": REGION, "HOME": str(directory), **(variables or {})})  # type: ignore[dict-item]
    if emulator is not None:
        env["AWS_ENDPOINT_URL"] = emulator.url
    env = {name: value for name, value in env.items() if value is not None}
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


def _link(directory: Path, _: World) -> None:
    (directory / "code" / "weights").symlink_to("/home/me/.cache/huggingface/hub")


_DEPLOY = "deploy bloom --role {role} --instance-type {type}"

MISTAKES = (
    Mistake(
        "an archive without model.py",
        "package code",
        ("no model.py", "handle(inputs)", "option.model_id"),
        {"code/model.py": None, "code/serving.properties": None, "code/handler.py": HANDLER},
    ),
    Mistake(
        "weights in the archive",
        "package code",
        ("code is not packaged", "model.safetensors", "bloomery upload", "ModelDataSource"),
        {"code/model.safetensors": bytes(2000)},
    ),
    Mistake(
        "an option that is misspelt, in a strict look",
        "package code --strict",
        ("serving.properties:2", "did you mean option.tensor_parallel_degree?"),
        {"code/serving.properties": "engine=DeepSpeed\noption.tensor_paralel_degree=8\n"},
    ),
    Mistake(
        "an engine that this container does not have",
        "package code",
        ("serving.properties:1", "engine=vllm", "engine=DeepSpeed"),
        {"code/serving.properties": "engine=vllm\n"},
    ),
    Mistake(
        "a handler that does not parse",
        "package code",
        ("model.py:2", "no valid Python"),
        {"code/model.py": "import os\ndef handle(inputs)\n    return None\n"},
    ),
    Mistake(
        "a handler without handle",
        "package code",
        ("no function 'handle'", "def handle(inputs)", "predict"),
        {"code/model.py": "def predict(inputs):\n    return None\n"},
    ),
    Mistake(
        "an import that the container does not have",
        "package code",
        ("model.py:1", "nowhere_to_be_found", "requirements.txt"),
        {"code/model.py": f"import nowhere_to_be_found\n{HANDLER}"},
    ),
    Mistake(
        "a link into a cache",
        "package code",
        ("code is not packaged", "weights", "it is a link to /home/me/.cache/huggingface/hub", "cp -rL"),
        {},
        prepare=_link,
    ),
    Mistake(
        "keys in the archive",
        "package code",
        ("model.py:3", "an AWS access key", "a role"),
        {"code/model.py": f"{HANDLER}KEY = 'AKIA{'QWERTYUIOPASDFGH'}'\n"},
    ),
    Mistake(
        "a bucket that is not there",
        "package code --upload s3://modles/bloom/",
        ("s3://modles does not exist", "aws s3 mb"),
        {},
    ),
)  # fmt: skip


def main() -> int:
    """Make them all, and print the page of the documentation."""
    root = Path(tempfile.mkdtemp(prefix="bloomery-mistakes-"))
    rows, missed = [], []
    try:
        (root / "world").mkdir()
        with world(root / "world") as here:
            for number, mistake in enumerate(MISTAKES):
                before = here.there()
                (root / str(number)).mkdir()
                answer = make(mistake, here, root / str(number))
                faults = [word for word in mistake.says if word not in answer.text]
                if faults or answer.code != mistake.code or here.there() != before:
                    missed.append(f"{mistake.title}: {answer}, without {faults}")
                rows.append((mistake, answer))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(page(rows), end="")
    for each in missed:
        print(each, file=sys.stderr)
    return 1 if missed else 0


def page(rows: list[tuple[Mistake, Answer]]) -> str:
    """Markdown."""
    early = [answer for mistake, answer in rows if mistake.caught == BEFORE]
    times = sorted(answer.seconds for answer in early)
    lines = [
        f"| {mistake.title} | `bloomery {mistake.command.split()[0]}` | {mistake.caught} | {answer.seconds:.1f} |"
        for mistake, answer in rows
    ]
    return (
        f"{_INTRODUCTION}\n{len(early)} of {len(rows)} are caught before anything is created, in "
        f"{times[len(times) // 2]:.1f} s (median; the longest takes {times[-1]:.1f} s).\n\n"
        "| mistake | command | caught | seconds |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


_INTRODUCTION = """# Mistakes that a newcomer makes

Each row is a command with a mistake in it, run against the emulator: the answer has to name the mistake and what to do,
and nothing may be left in the account. `scripts/mistakes` prints this page; the tests make the same mistakes.
"""

if __name__ == "__main__":
    os.environ.pop("AWS_ENDPOINT_URL", None)
    sys.exit(main())
