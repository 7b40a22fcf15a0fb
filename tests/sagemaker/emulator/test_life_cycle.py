"""Endpoints through the API alone: boto3's calls as AWS's examples make them, against the real emulator."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError
from tests.support.emulator import REPOSITORY, ROLE, Emulator, emulating, until

ECHO = REPOSITORY / "tests" / "support" / "echo_container.py"
ECHO_IMAGE = ("--image", f"^echo={sys.executable} {ECHO}")
DJL_IMAGE = "763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.19.0-deepspeed0.7.3-cu113"


def create(emulator: Emulator, model: dict[str, Any], **variant: Any) -> str:
    """Model, configuration and endpoint, all of one name."""
    sagemaker, name = emulator.client("sagemaker"), f"test-{uuid.uuid4().hex[:12]}"
    config = variant.pop("AsyncInferenceConfig", None)
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=model)
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": name,
                "InstanceType": "ml.g5.24xlarge",
                "InitialInstanceCount": 1,
                **variant,
            }
        ],
        **({"AsyncInferenceConfig": config} if config else {}),
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return name


def status(emulator: Emulator, name: str) -> str:
    """The endpoint's status; empty when there is no such endpoint."""
    try:
        return str(emulator.client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"])
    except ClientError as error:
        if "Could not find endpoint" not in str(error):
            raise
        return ""


def settled(emulator: Emulator, name: str, seconds: float = 60) -> dict[str, Any]:
    """What becomes of it."""
    until(lambda: status(emulator, name) != "Creating", f"{name} is created or fails", seconds)
    return dict(emulator.client("sagemaker").describe_endpoint(EndpointName=name))


def in_service(emulator: Emulator, name: str, seconds: float = 60) -> None:
    found = settled(emulator, name, seconds)
    assert found["EndpointStatus"] == "InService", "\n".join([emulator.log(), *logged(emulator, name)])


def invoke(emulator: Emulator, name: str, document: object, **more: Any) -> Any:
    answer = emulator.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="application/json", Body=json.dumps(document), **more
    )
    return json.load(answer["Body"])


def logged(emulator: Emulator, name: str) -> list[str]:
    with contextlib.suppress(ClientError):  # the group is not there yet
        found = emulator.client("logs").filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{name}")
        return [event["message"] for event in found["events"]]
    return []


def own_image(directory: Path) -> tuple[str, str]:
    """The echo container as a program of this test alone, so that its processes can be told from other tests'."""
    program = directory / ECHO.name
    shutil.copy(ECHO, program)
    return "--image", f"^echo={sys.executable} {program}"


def containers(directory: Path) -> list[int]:
    """Processes of ``own_image``, whoever is their parent by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(directory / ECHO.name) in process.cmdline():
                found.append(process.pid)
    return found


@pytest.fixture
def no_orphans(tmp_path: Path) -> Callable[[], None]:
    """Asserts that no container of this test's emulators runs."""
    return lambda: until(lambda: not containers(tmp_path), "all containers have ended", 20)


def package(path: Path) -> Path:
    """The model directory of this project, one level down in an archive, as AWS's notebooks pack it."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(REPOSITORY / "code", "code_bloom")
    return path


def test_the_life_cycle_of_awss_notebooks_with_the_demonstration_model(tmp_path: Path) -> None:
    with emulating(tmp_path / "state") as emulator:
        s3, runtime = emulator.client("s3"), emulator.client("sagemaker-runtime")
        bucket = f"sagemaker-us-west-2-{uuid.uuid4().hex[:8]}"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        archive = package(tmp_path / "model.tar.gz")
        s3.put_object(Bucket=bucket, Key="bloom/model.tar.gz", Body=archive.read_bytes())
        for path in (REPOSITORY / "models" / "shakespeare-bloom").iterdir():
            s3.put_object(Bucket=bucket, Key=f"weights/{path.name}", Body=path.read_bytes())
        name = create(
            emulator,
            {
                "Image": DJL_IMAGE,
                "ModelDataUrl": f"s3://{bucket}/bloom/model.tar.gz",
                "Environment": {
                    "TENSOR_PARALLEL_DEGREE": "1",
                    "OPTION_MODEL_ID": f"s3://{bucket}/weights/",
                    "OMP_NUM_THREADS": "1",
                },
            },
            InstanceType="ml.p4d.24xlarge",
            ModelDataDownloadTimeoutInSeconds=2400,
            ContainerStartupHealthCheckTimeoutInSeconds=2400,
        )
        in_service(emulator, name, 240)

        asked = {"inputs": ["KING.\nMy lords,"] * 4, "parameters": {"max_new_tokens": 8}}
        answers = [answer["generated_text"] for answer in invoke(emulator, name, asked)]
        assert len(answers) == 4
        assert all(answer.startswith("KING.\nMy lords,") and len(answer) > 16 for answer in answers)
        streamed = runtime.invoke_endpoint_with_response_stream(
            EndpointName=name,
            ContentType="application/json",
            Body=json.dumps(asked | {"inputs": "KING.\nMy lords,", "stream": True}),
        )
        with contextlib.closing(streamed["Body"]) as events:
            pieces = [json.loads(event["PayloadPart"]["Bytes"])["outputs"][0] for event in events]
        assert len(pieces) > 1
        assert answers[0] == "KING.\nMy lords," + "".join(pieces)
        with pytest.raises(runtime.exceptions.ModelError) as caught:
            invoke(emulator, name, {"inputs": 7})
        assert caught.value.response["OriginalStatusCode"] == 400
        until(lambda: any("ready" in line for line in logged(emulator, name)), "the server's log is in CloudWatch")
        assert "torch" not in Path(f"/proc/{emulator.process.pid}/maps").read_text()

        sagemaker = emulator.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)
        until(lambda: not status(emulator, name), "the endpoint is gone", 60)
        assert not [
            process
            for process in psutil.Process(emulator.process.pid).children(recursive=True)
            if "djl_python_engine" in " ".join(process.cmdline())
        ]


def test_an_asynchronous_invocation(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", *ECHO_IMAGE) as emulator:
        s3 = emulator.client("s3")
        bucket = f"bucket-{uuid.uuid4()}"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        output = {"S3OutputPath": f"s3://{bucket}/out", "S3FailurePath": f"s3://{bucket}/failed"}
        name = create(emulator, {"Image": "echo"}, AsyncInferenceConfig={"OutputConfig": output})
        in_service(emulator, name)
        s3.put_object(Bucket=bucket, Key="in", Body=b"to be")
        told = emulator.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName=name, InputLocation=f"s3://{bucket}/in"
        )
        key = told["OutputLocation"].removeprefix(f"s3://{bucket}/")
        found = until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"), "the answer is in S3")
        assert [entry["Key"] for entry in found] == [key]
        with s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
            assert body.read() == b"to be"


def test_a_failing_container_says_why_and_leaves_nothing(tmp_path: Path, no_orphans: Callable[[], None]) -> None:
    with emulating(tmp_path / "state", *own_image(tmp_path)) as emulator:
        name = create(emulator, {"Image": "echo", "Environment": {"DIE_AT_START": "3"}})
        found = settled(emulator, name)
        assert found["EndpointStatus"] == "Failed"
        assert found["FailureReason"] == (
            "The primary container for production variant AllTraffic did not pass the ping health check. Please check "
            "CloudWatch logs for this endpoint."
        )
        until(lambda: "cannot find the weights" in logged(emulator, name), "its last words are in CloudWatch")
        no_orphans()
        emulator.client("sagemaker").delete_endpoint(EndpointName=name)
        until(lambda: not status(emulator, name), "a failed endpoint can be deleted")


def test_an_endpoint_can_be_deleted_while_it_is_created(tmp_path: Path, no_orphans: Callable[[], None]) -> None:
    with emulating(tmp_path / "state", *own_image(tmp_path)) as emulator:
        name = create(emulator, {"Image": "echo", "Environment": {"SLOW_START": "1000"}})
        until(lambda: logged(emulator, name), "its container runs")
        emulator.client("sagemaker").delete_endpoint(EndpointName=name)
        until(lambda: not status(emulator, name), "it is gone")
        no_orphans()


def test_endpoints_come_back_after_kill_9_and_nothing_is_orphaned(
    tmp_path: Path, no_orphans: Callable[[], None]
) -> None:
    with emulating(tmp_path / "state", *own_image(tmp_path)) as emulator:
        serving = create(emulator, {"Image": "echo"}, InitialInstanceCount=2)
        in_service(emulator, serving)
        starting = create(emulator, {"Image": "echo", "Environment": {"SLOW_START": "3"}})
        until(lambda: logged(emulator, starting), "its container runs")
        assert len(containers(tmp_path)) >= 3
        emulator.kill()
        no_orphans()
    with emulating(tmp_path / "state", *own_image(tmp_path)) as emulator:
        for name in (serving, starting):
            in_service(emulator, name)
            assert invoke(emulator, name, {"do": {}})["did"] == {}
        assert len(list((tmp_path / "state").rglob("instances/*.json"))) == 3
        assert emulator.stop() == 0
    no_orphans()
    assert not list((tmp_path / "state").rglob("instances/*.json"))


@pytest.mark.full
def test_the_time_that_the_api_allows_is_exact(tmp_path: Path, no_orphans: Callable[[], None]) -> None:
    with emulating(tmp_path / "state", *own_image(tmp_path)) as emulator:
        began = time.monotonic()
        name = create(
            emulator,
            {"Image": "echo", "Environment": {"SLOW_START": "1000", "IGNORE_TERM": "1"}},
            ContainerStartupHealthCheckTimeoutInSeconds=60,
        )
        found = settled(emulator, name, 120)
        assert 60 <= time.monotonic() - began < 75
        assert "did not pass the ping health check" in found["FailureReason"]
        no_orphans()
