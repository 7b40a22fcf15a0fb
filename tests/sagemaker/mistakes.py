"""The mistakes that newcomers make, one row each."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Literal

from tests.sagemaker.mistaken import BY_EMULATOR, HANDLER, TYPE, Mistake, World, run
from tests.support.emulator import ROLE


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
        f"deploy opt -t {TYPE} --model-data code --image echo --env DIE_AT_START=3 --rollback",
        ("endpoint opt failed", "ping health check", "the container ended"),
        {},
        BY_EMULATOR,
    ),
)  # fmt: skip
