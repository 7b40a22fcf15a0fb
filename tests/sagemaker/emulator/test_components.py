"""Inference components by boto3's calls, against the real emulator with real containers."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.emulator import REPOSITORY, ROLE, Emulator, emulating, until

ECHO = ("--image", f"^echo={sys.executable} {REPOSITORY / 'tests' / 'support' / 'echo_container.py'}")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("components") / "state", *ECHO) as running:
        yield running


def hosting(emulator: Emulator, name: str, instance_type: str = "ml.g5.12xlarge", **variant: Any) -> str:
    """An endpoint of that name without a model, in service."""
    sagemaker = emulator.client("sagemaker")
    given = {"VariantName": "AllTraffic", "InstanceType": instance_type, "InitialInstanceCount": 1, **variant}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[given])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService", "the endpoint")
    return name


def specification(accelerators: int = 1, environment: dict[str, str] | None = None, image: str = "echo") -> Any:
    return {
        "Container": {"Image": image, "Environment": environment or {}},
        "ComputeResourceRequirements": {
            "NumberOfAcceleratorDevicesRequired": accelerators,
            "MinMemoryRequiredInMb": 1024,
        },
        "StartupParameters": {
            "ModelDataDownloadTimeoutInSeconds": 60,
            "ContainerStartupHealthCheckTimeoutInSeconds": 60,
        },
    }


def create(emulator: Emulator, endpoint: str, name: str, copies: int = 1, **given: Any) -> str:
    emulator.client("sagemaker").create_inference_component(
        InferenceComponentName=name,
        EndpointName=endpoint,
        VariantName="AllTraffic",
        RuntimeConfig={"CopyCount": copies},
        **{"Specification": specification(), **given},
    )
    return name


def described(emulator: Emulator, name: str) -> Any:
    return emulator.client("sagemaker").describe_inference_component(InferenceComponentName=name)


def settled(emulator: Emulator, name: str) -> Any:
    """Its description, once nothing is going on with it."""
    until(
        lambda: described(emulator, name)["InferenceComponentStatus"] in ("InService", "Failed"), f"{name} is at rest"
    )
    return described(emulator, name)


def ask(emulator: Emulator, endpoint: str, component: str, do: Any) -> Any:
    answer = emulator.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, InferenceComponentName=component, Body=json.dumps({"do": do})
    )
    return json.load(answer["Body"])


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Message"])


def test_two_components_share_an_endpoint(emulator: Emulator, name: str) -> None:
    sagemaker, runtime = emulator.client("sagemaker"), emulator.client("sagemaker-runtime")
    hosting(emulator, name)
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "echo", "Environment": {"WHO": "model"}}
    )
    by_model = {key: value for key, value in specification().items() if key != "Container"} | {"ModelName": name}
    create(emulator, name, f"{name}-a", copies=2, Specification=specification(environment={"WHO": "container"}))
    create(emulator, name, f"{name}-b", Specification=by_model)
    for component, copies in ((f"{name}-a", 2), (f"{name}-b", 1)):
        found = settled(emulator, component)
        assert found["InferenceComponentStatus"] == "InService", found
        assert found["RuntimeConfig"] == {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
        assert found["EndpointName"] == name
    assert described(emulator, f"{name}-b")["Specification"]["ModelName"] == name
    container = described(emulator, f"{name}-a")["Specification"]["Container"]
    assert container["DeployedImage"]["SpecifiedImage"] == "echo"
    assert ask(emulator, name, f"{name}-a", {"environment": True})["WHO"] == "container"
    assert ask(emulator, name, f"{name}-b", {"environment": True})["WHO"] == "model"
    assert len({ask(emulator, name, f"{name}-a", {"environment": True})["HOME"] for _ in range(40)}) == 2
    events = runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, InferenceComponentName=f"{name}-b", Body=json.dumps({"do": {"stream": ["a", "b"]}})
    )["Body"]
    assert b"".join(event["PayloadPart"]["Bytes"] for event in events) == b"ab"
    listed = sagemaker.list_inference_components(EndpointNameEquals=name, SortBy="Name", SortOrder="Ascending")
    assert [each["InferenceComponentName"] for each in listed["InferenceComponents"]] == [f"{name}-a", f"{name}-b"]
    assert refused(sagemaker.delete_endpoint, EndpointName=name).startswith("Cannot delete endpoint")
    with urllib.request.urlopen(f"{emulator.url}/_bloomery/endpoints") as page:
        (shown,) = [each for each in json.load(page)["endpoints"] if each["name"] == name]
    assert [(each["name"], each["status"], each["copies"]) for each in shown["components"]] == [
        (f"{name}-a", "InService", 2),
        (f"{name}-b", "InService", 1),
    ]
    assert 'asked to {"environment": true}' in shown["components"][0]["log"]
    for component in (f"{name}-a", f"{name}-b"):
        sagemaker.delete_inference_component(InferenceComponentName=component)
    until(lambda: not sagemaker.list_inference_components(EndpointNameEquals=name)["InferenceComponents"], "gone")
    sagemaker.delete_endpoint(EndpointName=name)


def test_what_invocations_are_told(emulator: Emulator, name: str) -> None:
    runtime = emulator.client("sagemaker-runtime")
    hosting(emulator, name)
    assert refused(runtime.invoke_endpoint, EndpointName=name, Body=b"x").startswith(
        "Inference Component Name header is required for endpoints to which you plan to deploy inference components."
    )
    absent = refused(runtime.invoke_endpoint, EndpointName=name, InferenceComponentName="absent", Body=b"x")
    assert "Inference Component absent of endpoint" in absent


def test_copies_are_added_and_removed_down_to_none(emulator: Emulator, name: str) -> None:
    sagemaker, runtime = emulator.client("sagemaker"), emulator.client("sagemaker-runtime")
    create(emulator, hosting(emulator, name), name)
    settled(emulator, name)
    for copies in (3, 0):
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName=name, DesiredRuntimeConfig={"CopyCount": copies}
        )
        updating = described(emulator, name)
        if updating["InferenceComponentStatus"] == "Updating":
            assert updating["RuntimeConfig"]["DesiredCopyCount"] == copies
        assert settled(emulator, name)["RuntimeConfig"] == {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
    told = refused(runtime.invoke_endpoint, EndpointName=name, InferenceComponentName=name, Body=b"x")
    assert told.startswith("Inference Component has no capacity to process this request.")


def test_instances_have_so_much_room(emulator: Emulator, name: str) -> None:
    sagemaker = emulator.client("sagemaker")
    hosting(emulator, name)  # four GPUs
    create(emulator, name, f"{name}-a", Specification=specification(3))
    assert settled(emulator, f"{name}-a")["InferenceComponentStatus"] == "InService"
    create(emulator, name, f"{name}-b", Specification=specification(2))
    failed = settled(emulator, f"{name}-b")
    assert failed["InferenceComponentStatus"] == "Failed"
    assert failed["FailureReason"].startswith("There is not enough hardware resources on the instances")
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName=f"{name}-a", DesiredRuntimeConfig={"CopyCount": 2}
    )
    kept = settled(emulator, f"{name}-a")
    assert (kept["InferenceComponentStatus"], kept["RuntimeConfig"]["CurrentCopyCount"]) == ("InService", 1)
    assert kept["FailureReason"].startswith("There is not enough hardware resources")
    told = refused(create, emulator=emulator, endpoint=name, name=f"{name}-c", Specification=specification(5))
    assert "5 accelerator devices (it has 4)" in told


def test_managed_instances_come_and_go_with_the_copies(emulator: Emulator, name: str) -> None:
    sagemaker = emulator.client("sagemaker")
    scaling = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    hosting(emulator, name, ManagedInstanceScaling=scaling)

    def instances() -> int:
        (found,) = sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
        return int(found["CurrentInstanceCount"])

    def scaled(copies: int) -> Any:
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName=name, DesiredRuntimeConfig={"CopyCount": copies}
        )
        return settled(emulator, name)

    create(emulator, name, name, Specification=specification(3))
    settled(emulator, name)
    assert instances() == 1
    scaled(2)
    assert instances() == 2
    assert "not enough hardware" in scaled(3)["FailureReason"]
    scaled(0)
    assert instances() == 0


def test_a_container_that_fails_fails_its_component(emulator: Emulator, name: str) -> None:
    sagemaker = emulator.client("sagemaker")
    hosting(emulator, name)
    create(emulator, name, name, Specification=specification(environment={"DIE_AT_START": "3"}))
    failed = settled(emulator, name)
    assert failed["InferenceComponentStatus"] == "Failed"
    assert "check CloudWatch logs for this inference component" in failed["FailureReason"]
    group = f"/aws/sagemaker/InferenceComponents/{name}"
    events = emulator.client("logs").filter_log_events(logGroupName=group)["events"]
    assert "cannot find the weights" in [event["message"] for event in events]
    assert "has failed" in refused(
        sagemaker.update_inference_component_runtime_config,
        InferenceComponentName=name,
        DesiredRuntimeConfig={"CopyCount": 1},
    )
    sagemaker.delete_inference_component(InferenceComponentName=name)
    until(lambda: not sagemaker.list_inference_components(NameContains=name)["InferenceComponents"], "it is gone")


def test_an_update_moves_on_or_stays(emulator: Emulator, name: str) -> None:
    sagemaker = emulator.client("sagemaker")
    create(emulator, hosting(emulator, name), name, copies=2, Specification=specification(environment={"WHO": "old"}))
    settled(emulator, name)
    rolling = {
        "RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": 0}
    }
    sagemaker.update_inference_component(
        InferenceComponentName=name,
        Specification=specification(environment={"WHO": "new"}),
        DeploymentConfig=rolling,
    )
    assert "in-progress" in refused(
        sagemaker.update_inference_component, InferenceComponentName=name, RuntimeConfig={"CopyCount": 1}
    )
    done = settled(emulator, name)
    assert "FailureReason" not in done
    assert done["LastDeploymentConfig"] == rolling
    assert {ask(emulator, name, name, {"environment": True})["WHO"] for _ in range(10)} == {"new"}
    sagemaker.update_inference_component(
        InferenceComponentName=name, Specification=specification(environment={"DIE_AT_START": "1"})
    )
    kept = settled(emulator, name)
    assert kept["InferenceComponentStatus"] == "InService"
    assert "ping health check" in kept["FailureReason"]
    assert kept["RuntimeConfig"]["CurrentCopyCount"] == 2
    assert {ask(emulator, name, name, {"environment": True})["WHO"] for _ in range(10)} == {"new"}


def test_invocations_are_counted_by_component(emulator: Emulator, name: str) -> None:
    create(emulator, hosting(emulator, name), name, copies=2)
    settled(emulator, name)
    for _ in range(4):
        ask(emulator, name, name, {})
    now = datetime.now(UTC)

    def total(metric: str, dimension: str) -> float:
        points = emulator.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[{"Name": dimension, "Value": name}]
            + ([{"Name": "VariantName", "Value": "AllTraffic"}] if dimension == "EndpointName" else []),
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=7200,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    until(lambda: total("Invocations", "InferenceComponentName") == 4, "the metrics are there")
    assert total("InvocationsPerCopy", "InferenceComponentName") == 2
    assert total("Invocations", "EndpointName") == 4
    assert total("InvocationsPerInstance", "InferenceComponentName") == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"EndpointName": "absent"}, "Could not find endpoint"),
        ({"VariantName": "Other"}, "has no production variant Other"),
        ({"Specification": {"ModelName": "absent", **specification()}}, "either a ModelName or a Container"),
        ({"Specification": {"BaseInferenceComponentName": "base"}}, "no adapter inference components"),
        ({"RuntimeConfig": {"CopyCount": 0}}, "copy count an integer larger than 0"),
    ],
)
def test_mistakes_are_told(emulator: Emulator, name: str, given: dict[str, Any], told: str) -> None:
    hosting(emulator, name)
    wanted = {
        "InferenceComponentName": name,
        "EndpointName": name,
        "VariantName": "AllTraffic",
        "Specification": specification(),
        "RuntimeConfig": {"CopyCount": 1},
    }
    assert told in refused(emulator.client("sagemaker").create_inference_component, **(wanted | given))


def test_they_are_back_after_a_kill(tmp_path: Path, name: str) -> None:
    with emulating(tmp_path / "state", *ECHO) as first:
        create(first, hosting(first, name), name, copies=2)
        settled(first, name)
        assert ask(first, name, name, {})["did"] == {}
        first.kill()
    with emulating(tmp_path / "state", *ECHO, log=tmp_path / "second.log") as second:
        assert settled(second, name)["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
        assert ask(second, name, name, {})["did"] == {}
