"""Mistakes that a newcomer makes, each as a command line, with what the answer has to say.

``scripts/mistakes`` runs this file: it makes them all on the real emulator, and prints docs/mistakes.md.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tests.support.emulator import REGION, REPOSITORY, ROLE, Emulator, emulating, environment

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


def _link(directory: Path, _: World) -> None:
    (directory / "code" / "weights").symlink_to("/home/me/.cache/huggingface/hub")


def _plain_tar(directory: Path, here: World) -> None:
    here.put("plain/model.tar.gz", _tar("w", "model.py"))


def _two_down(directory: Path, here: World) -> None:
    here.put("deep/model.tar.gz", _tar("w:gz", "project/code/model.py"))


def _tar(mode: Literal["w", "w:gz"], name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(HANDLER)
        tar.addfile(entry, io.BytesIO(HANDLER.encode()))
    return made.getvalue()


def _another_configuration(directory: Path, here: World) -> None:
    """Of the time before: for another instance type."""
    sagemaker = here.emulator.client("sagemaker")
    container = {"Image": "echo", "ModelDataUrl": here.archive}
    sagemaker.create_model(ModelName="earlier", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": "earlier", "InstanceType": "ml.m5.xlarge"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="earlier", ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )


def _running(directory: Path, here: World) -> None:
    """An endpoint that is there already."""
    answer = run(
        f"deploy running -t {TYPE} --image echo --model-data {here.archive} --no-wait", directory, here.emulator
    )
    assert answer.code == 0, answer.text


_DEPLOY = f"deploy bloom -t {TYPE} --model-data code"
_AWS = {"AWS_EC2_METADATA_DISABLED": "true"}  # there is none to be asked, and to find that out takes seconds
_NOBODY = "http://127.0.0.1:9"  # the port of "discard", where nobody listens

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
        alike=True,
    ),
    Mistake(
        "a handler that does not parse",
        "package code",
        ("model.py:2", "no valid Python"),
        {"code/model.py": "import os\ndef handle(inputs)\n    return None\n"},
        alike=True,
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
        alike=True,
    ),
    Mistake(
        "keys in the archive",
        "package code",
        ("model.py:3", "an AWS access key", "a role"),
        {"code/model.py": f"{HANDLER}KEY = 'AKIA{'QWERTYUIOPASDFGH'}'\n"},
        alike=True,
    ),
    Mistake(
        "a bucket that is not there",
        "package code --upload s3://modles/bloom/",
        ("s3://modles does not exist", "aws s3 mb"),
        {},
    ),
    Mistake(
        "a name with an underscore",
        f"deploy my_bloom -t {TYPE} --model-data code",
        ("'my_bloom'", "no underscore"),
        {},
    ),
    Mistake(
        "a directory that is not fit, given to deploy",
        _DEPLOY,
        ("nothing was made", "model.safetensors", "bloomery upload"),
        {"code/model.safetensors": bytes(2000)},
        alike=True,
    ),
    Mistake(
        "an archive in a bucket that is not there",
        f"deploy bloom -t {TYPE} --model-data s3://modles/bloom/model.tar.gz",
        ("there is no bucket modles", "correct its name"),
        {},
        alike=True,
    ),
    Mistake(
        "an archive that is not there",
        f"deploy bloom -t {TYPE} --model-data s3://models/boom/model.tar.gz",
        ("there is no s3://models/boom/model.tar.gz", "bloomery package"),
        {},
    ),
    Mistake(
        "an archive that is a tar without gzip",
        f"deploy bloom -t {TYPE} --model-data s3://models/plain/model.tar.gz",
        ("is no gzip", "a tar without gzip", "bloomery package"),
        {},
        prepare=_plain_tar,
        alike=True,
    ),
    Mistake(
        "an archive whose model.py is too far down",
        f"deploy bloom -t {TYPE} --model-data s3://models/deep/model.tar.gz",
        ("neither serving.properties nor model.py", "one directory below", "project/code/model.py"),
        {},
        prepare=_two_down,
    ),
    Mistake(
        "a time-out of 30 s",
        f"{_DEPLOY} --startup-timeout 30",
        ("startup timeout: 30", "at least 60"),
        {},
    ),
    Mistake(
        "an instance type that is misspelt",
        "deploy bloom -t ml.p4d.24xlarg --model-data code",
        ("'ml.p4d.24xlarg'", "did you mean ml.p4d.24xlarge"),
        {},
        alike=True,
    ),
    Mistake(
        "an instance type without a quota",
        "deploy bloom -t ml.p4d.24xlarge --model-data code",
        ("'ml.p4d.24xlarge for endpoint usage' is 0", "request-service-quota-increase"),
        {},
    ),
    Mistake(
        "a volume on a machine with disks of its own",
        f"{_DEPLOY} --volume 256",
        ("volume: ml.g5.xlarge has disks of its own", "leave it out"),
        {},
    ),
    Mistake(
        "more ranks than accelerators",
        f"{_DEPLOY} --tensor-parallel 8",
        ("8 ranks do not fit", "has 1 accelerator", "a larger type"),
        {},
    ),
    Mistake(
        "a role that is not there",
        f"{_DEPLOY} --role sagemaker-exection",
        ("has no role 'sagemaker-exection'", "aws iam list-roles"),
        {},
    ),
    Mistake(
        "a checkpoint on this machine",
        f"{_DEPLOY} --checkpoint /home/me/bloom",
        ("/home/me/bloom is a directory of this machine", "bloomery upload"),
        {},
        alike=True,
    ),
    Mistake(
        "a checkpoint that was never uploaded",
        f"{_DEPLOY} --checkpoint s3://models/bloom-176b/",
        ("there is nothing at s3://models/bloom-176b/", "aws s3 ls"),
        {},
    ),
    Mistake(
        "a configuration that is used again, and is for something else",
        f"deploy earlier -t {TYPE} --image echo --model-data {{archive}}",
        ("there is another endpoint configuration earlier", "InstanceType is ml.m5.xlarge, not ml.g5.xlarge", "delete"),
        {},
        prepare=_another_configuration,
    ),
    Mistake(
        "a name that is taken",
        f"deploy running -t {TYPE} --image echo --model-data {{archive}}",
        ("there is an endpoint running", "bloomery delete running", "another name"),
        {},
        prepare=_running,
    ),
    Mistake(
        "no emulator",
        f"{_DEPLOY} --target local --endpoint-url {_NOBODY}",
        ("no emulator answers at", "bloomery sagemaker-local"),
        {},
        local=False,
        code=2,
    ),
    Mistake(
        "no region",
        f"{_DEPLOY} --target aws",
        ("no region", "--region us-east-1"),
        {},
        variables=_AWS,
        local=False,
        code=2,
        alike=True,
    ),
    Mistake(
        "no credentials",
        f"{_DEPLOY} --target aws --region us-east-1",
        ("no credentials", "aws configure", "--target local"),
        {},
        variables=_AWS,
        local=False,
        code=2,
    ),
    Mistake(
        "a handler that raises when it loads",
        f"{_DEPLOY} --rollback",
        ("endpoint bloom failed", "no weights in /tmp/bloom", "model.py"),
        {"code/model.py": "def handle(inputs):\n    raise RuntimeError('no weights in /tmp/bloom')\n"},
        BY_EMULATOR,
    ),
    Mistake(
        "an image whose program ends at once",
        f"{_DEPLOY} --image echo --env DIE_AT_START=3 --rollback",
        ("endpoint bloom failed", "ping health check", "the container ended"),
        {},
        BY_EMULATOR,
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
                (root / str(number)).mkdir()
                answer = make(mistake, here, root / str(number))
                faults = [word for word in mistake.says if word not in answer.text]
                if faults or answer.code != mistake.code or answer.left:
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
        "| mistake | command | caught | seconds |\n|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\n## What is answered\n"
        + "".join(_said(mistake, answer) for mistake, answer in rows)
    )


def _said(mistake: Mistake, answer: Answer) -> str:
    """The answer; of what the container has printed before it, the lines that say what and why."""
    before, word, after = answer.text.partition("bloomery: ")
    kept = re.findall(r"(?m)^[\d:]+ +(?:what: |to do: |\[sagemaker-local\] ).*$", before)
    text = "\n".join([*kept, (word + after).strip()])
    command = mistake.command.format(archive="s3://models/good/code-…/model.tar.gz")
    return f"\n**{mistake.title[0].upper()}{mistake.title[1:]}**\n\n```\n$ bloomery {command}\n{text}\n```\n"


_INTRODUCTION = """# Mistakes that a newcomer makes

Each row is a command with a mistake in it, run against the emulator: the answer has to name the mistake and what to do,
and nothing may be left in the account. `scripts/mistakes` prints this page; the tests make the same mistakes. Seconds
are those of the whole command.
"""

if __name__ == "__main__":
    os.environ.pop("AWS_ENDPOINT_URL", None)
    sys.exit(main())
