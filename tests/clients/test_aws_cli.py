"""AWS's own command line: package, upload, create, wait, invoke, read the log, delete."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.clients.conftest import IMAGE, Client
from tests.support.emulator import REPOSITORY, ROLE

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def test_a_whole_life_of_an_endpoint(client: Client) -> None:
    (client.directory / "code").mkdir()
    (client.directory / "code" / "serving.properties").write_text(
        "engine=DeepSpeed\noption.tensor_parallel_degree=1\noption.s3url=s3://cli-bucket/checkpoint/\n"
    )
    tar = ["tar", "czf", "model.tar.gz", "-C", "code", "."]
    subprocess.run(tar, cwd=client.directory, check=True)

    def aws(*arguments: str) -> str:
        return client.run("aws", "--output", "json", *arguments)

    aws("s3", "mb", "s3://cli-bucket")
    aws("s3", "cp", "--recursive", str(REPOSITORY / "models" / "shakespeare-bloom"), "s3://cli-bucket/checkpoint/")
    aws("s3", "cp", "model.tar.gz", "s3://cli-bucket/code/model.tar.gz")
    container = json.dumps({"Image": IMAGE, "ModelDataUrl": "s3://cli-bucket/code/model.tar.gz"})
    aws("sagemaker", "create-model", "--model-name", "cli", "--execution-role-arn", ROLE,
        "--primary-container", container)  # fmt: skip
    variant = {"VariantName": "AllTraffic", "ModelName": "cli", "InstanceType": "ml.g5.12xlarge",
               "InitialInstanceCount": 1, "ContainerStartupHealthCheckTimeoutInSeconds": 240}  # fmt: skip
    aws("sagemaker", "create-endpoint-config", "--endpoint-config-name", "cli",
        "--production-variants", json.dumps([variant]))  # fmt: skip
    aws("sagemaker", "create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli")
    aws("sagemaker", "wait", "endpoint-in-service", "--endpoint-name", "cli")
    body = json.dumps({"inputs": "To be", "parameters": {"max_new_tokens": 4}})
    aws("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "cli", "--content-type", "application/json",
        "--body", body, "answer.json")  # fmt: skip
    assert "generated_text" in (client.directory / "answer.json").read_text()
    events = json.loads(aws("logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/Endpoints/cli"))["events"]
    assert any("ready" in event["message"] for event in events)

    aws("sagemaker", "delete-endpoint", "--endpoint-name", "cli")
    aws("sagemaker", "delete-endpoint-config", "--endpoint-config-name", "cli")
    aws("sagemaker", "delete-model", "--model-name", "cli")
    assert json.loads(aws("sagemaker", "list-models"))["Models"] == []
    aws("s3", "rm", "--recursive", "s3://cli-bucket")


def test_a_mistake_fails_as_it_would_there(client: Client) -> None:
    done = client.attempt("aws", "sagemaker", "describe-endpoint", "--endpoint-name", "nobody")
    assert done.returncode != 0
    assert "Could not find endpoint" in done.stderr
