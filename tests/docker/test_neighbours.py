"""The image beside other services: an S3 server under docker-compose, and the emulator of SageMaker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.support.containers import Container, answer_of
from tests.support.emulator import ROLE, emulating
from tests.support.hosting import packed
from tests.support.server import REPOSITORY

QUESTION = {"inputs": "To be", "parameters": {"max_new_tokens": 8}}


@contextlib.contextmanager
def composed(image: str, s3_image: str) -> Iterator[Container]:
    """The server of docker/compose.yaml, at a free port."""
    project = f"bloomery-{uuid.uuid4().hex[:8]}"
    command = ["docker-compose", "-f", str(REPOSITORY / "docker" / "compose.yaml"), "-p", project]
    env = {**os.environ, "IMAGE": image, "S3_IMAGE": s3_image, "ADDRESS": "127.0.0.1:", "TENSOR_PARALLEL_DEGREE": "1"}

    def compose(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        compose("up", "--detach")
        yield Container(compose("ps", "--quiet", "bloomery").strip())
    finally:
        compose("down", "--volumes")


def test_environment_variables_alone_serve_a_checkpoint_from_the_s3_server_beside_it(image: str, s3_image: str) -> None:
    with composed(image, s3_image) as container:
        container.wait_ready()
        assert answer_of(container.request("POST", "/invocations", QUESTION)).startswith("To be")
        assert "s3://models/shakespeare-bloom/" in container.log()
        assert container.run("sh", "-c", "ls -A /opt/ml/model") == ""


def test_the_emulator_of_sagemaker_runs_an_endpoint_from_the_image(image: str, tmp_path: Path) -> None:
    variables = {"OPTION_MODEL_ID": "/opt/bloomery/models/shakespeare-bloom", "TENSOR_PARALLEL_DEGREE": "1"}
    with emulating(tmp_path / "state", "--image", f"bloomery=docker:{image}") as emulator:
        s3, sagemaker = emulator.client("s3"), emulator.client("sagemaker")
        s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        code = {path.name: path.read_bytes() for path in (REPOSITORY / "code").iterdir() if path.is_file()}
        s3.put_object(Bucket="models", Key="model.tar.gz", Body=packed(code))
        registry = f"123456789012.dkr.ecr.us-west-2.amazonaws.com/{image}"
        container = {"Image": registry, "ModelDataUrl": "s3://models/model.tar.gz", "Environment": variables}
        sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName="e", WaiterConfig={"Delay": 1, "MaxAttempts": 240}
        )
        answer = emulator.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="e", ContentType="application/json", Body=json.dumps(QUESTION)
        )
        assert json.loads(answer["Body"].read())[0]["generated_text"].startswith("To be")
        sagemaker.delete_endpoint(EndpointName="e")
