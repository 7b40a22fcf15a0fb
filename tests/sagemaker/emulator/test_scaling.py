"""Application Auto Scaling by boto3's calls, with real containers and a scaler that looks three times a second."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.test_components import ECHO, create, described, hosting, settled, specification
from tests.support.emulator import ROLE, Emulator, emulating
from tests.support.emulator import until as soon

COPIES = "sagemaker:inference-component:DesiredCopyCount"
INSTANCES = "sagemaker:variant:DesiredInstanceCount"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("scaling") / "state", *ECHO, "--scaler-period", "0.35") as running:
        yield running


def until(answer: Any, what: str, seconds: float = 90) -> Any:
    """A busy machine misses looks, and each has to come in a row."""
    return soon(answer, what, seconds)


def serving(emulator: Emulator, name: str, **config: Any) -> str:
    """An endpoint with a model of its own, in service; the resource id of its variant."""
    sagemaker = emulator.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "echo"})
    variant = {"VariantName": "V", "ModelName": name, "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService", "the endpoint")
    return f"endpoint/{name}/variant/V"


def target(resource: str) -> dict[str, str]:
    dimension = COPIES if resource.startswith("inference-component") else INSTANCES
    return {"ServiceNamespace": "sagemaker", "ResourceId": resource, "ScalableDimension": dimension}


def register(emulator: Emulator, resource: str, least: int, most: int) -> Any:
    scaling = emulator.client("application-autoscaling")
    scaling.register_scalable_target(**target(resource), MinCapacity=least, MaxCapacity=most)
    return scaling


def tracking(metric: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "PolicyName": "track",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": value,
            "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
            "ScaleOutCooldown": 0,
            "ScaleInCooldown": 0,
            **more,
        },
    }


def stepping(adjustment: int, kind: str = "ChangeInCapacity") -> dict[str, Any]:
    return {
        "PolicyName": "step",
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": kind,
            "MetricAggregationType": "Maximum",
            "Cooldown": 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": adjustment}],
        },
    }


def alarm(emulator: Emulator, policy: str, metric: str, dimensions: dict[str, str]) -> None:
    """On as soon as the metric is 1."""
    emulator.client("cloudwatch").put_metric_alarm(
        AlarmName=f"{metric}-{policy[-20:]}",
        AlarmActions=[policy],
        MetricName=metric,
        Namespace="AWS/SageMaker",
        Statistic="Maximum",
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
    )


def instances(emulator: Emulator, name: str) -> int:
    (variant,) = emulator.client("sagemaker").describe_endpoint(EndpointName=name).get("ProductionVariants", [{}])
    return int(variant.get("CurrentInstanceCount", -1))


@contextlib.contextmanager
def traffic(emulator: Emulator, clients: int, **endpoint: str) -> Iterator[None]:
    """So many requests at any time."""
    runtime, done = emulator.client("sagemaker-runtime", max_pool_connections=clients), threading.Event()

    def ask() -> None:
        while not done.is_set():
            with contextlib.suppress(ClientError):
                runtime.invoke_endpoint(**endpoint, Body=json.dumps({"do": {"sleep": 0.1}}))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.full
def test_instances_follow_their_invocations(emulator: Emulator, name: str) -> None:
    resource = serving(emulator, name)
    scaling = register(emulator, resource, 1, 2)
    scaling.put_scaling_policy(**target(resource), **tracking("SageMakerVariantInvocationsPerInstance", 60))
    with traffic(emulator, 4, EndpointName=name):
        until(lambda: instances(emulator, name) == 2, "a second instance")
    until(lambda: instances(emulator, name) == 1, "one instance again")
    done = scaling.describe_scaling_activities(**target(resource))["ScalingActivities"]
    until(
        lambda: (
            [
                each["StatusCode"]
                for each in scaling.describe_scaling_activities(**target(resource))["ScalingActivities"]
            ]
            == ["Successful", "Successful"]
        ),
        "both activities have ended",
    )
    assert [each["Description"] for each in done] == [
        "Setting desired instance count to 1.",
        "Setting desired instance count to 2.",
    ]
    assert "AlarmHigh in state ALARM triggered policy track" in done[1]["Cause"]


def test_copies_follow_their_concurrency_down_to_none_and_wake_by_an_alarm(emulator: Emulator, name: str) -> None:
    runtime = emulator.client("sagemaker-runtime")
    managed = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    create(emulator, hosting(emulator, name, ManagedInstanceScaling=managed), name, Specification=specification(4))
    settled(emulator, name)
    resource = f"inference-component/{name}"
    scaling = register(emulator, resource, 0, 2)
    metric = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    scaling.put_scaling_policy(**target(resource), **tracking(metric, 1))

    def copies() -> int:
        return int(described(emulator, name)["RuntimeConfig"]["CurrentCopyCount"])

    with traffic(emulator, 4, EndpointName=name, InferenceComponentName=name):
        until(lambda: copies() == 2, "two copies")
    assert instances(emulator, name) == 2
    until(lambda: copies() == 0, "no copy")
    until(lambda: instances(emulator, name) == 0, "no instance")
    policy = scaling.put_scaling_policy(**target(resource), **stepping(1))["PolicyARN"]
    alarm(emulator, policy, "NoCapacityInvocationFailures", {"InferenceComponentName": name})

    def ask() -> None:
        runtime.invoke_endpoint(EndpointName=name, InferenceComponentName=name, Body=b"x")

    def awake() -> bool:
        with contextlib.suppress(ClientError):
            ask()
            return True
        return False

    with pytest.raises(ClientError, match="Inference Component has no capacity to process this request"):
        ask()
    until(awake, "a copy that answers")


def test_an_asynchronous_endpoint_follows_its_backlog_to_nothing_and_back(emulator: Emulator, name: str) -> None:
    s3, runtime = emulator.client("s3"), emulator.client("sagemaker-runtime")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    output = {"OutputConfig": {"S3OutputPath": f"s3://{name}/out"}}
    resource = serving(emulator, name, AsyncInferenceConfig=output)
    scaling = register(emulator, resource, 0, 1)
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": name}],
        "Statistic": "Average",
    }
    track = tracking("", 4.0, CustomizedMetricSpecification=backlog)
    del track["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]
    scaling.put_scaling_policy(**target(resource), **track)
    until(lambda: instances(emulator, name) == 0, "no instance, for nothing waits")
    policy = scaling.put_scaling_policy(**target(resource), **stepping(1))["PolicyARN"]
    alarm(emulator, policy, "HasBacklogWithoutCapacity", {"EndpointName": name})
    s3.put_object(Bucket=name, Key="in", Body=b"hello")
    runtime.invoke_endpoint_async(EndpointName=name, InputLocation=f"s3://{name}/in")
    until(lambda: s3.list_objects_v2(Bucket=name, Prefix="out/").get("Contents"), "the answer")
    assert instances(emulator, name) == 1


def test_cooldowns_limits_and_suspension_are_kept(emulator: Emulator, name: str) -> None:
    resource = serving(emulator, name)
    scaling = register(emulator, resource, 2, 3)
    until(lambda: instances(emulator, name) == 2, "the minimum")
    (activity,) = scaling.describe_scaling_activities(**target(resource))["ScalingActivities"]
    assert activity["Cause"] == "minimum capacity was set to 2"
    scaling.register_scalable_target(**target(resource), SuspendedState={"DynamicScalingOutSuspended": True})
    policy = scaling.put_scaling_policy(**target(resource), **stepping(5))["PolicyARN"]
    alarm(emulator, policy, "Invocations", {"EndpointName": name, "VariantName": "V"})
    cloudwatch = emulator.client("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName=f"Invocations-{policy[-20:]}", StateValue="ALARM", StateReason="a test")
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: instances(emulator, name) != 2, "a suspended scaling", seconds=1.5)
    scaling.register_scalable_target(**target(resource), SuspendedState={"DynamicScalingOutSuspended": False})
    until(lambda: instances(emulator, name) == 3, "the maximum")
    scaling.register_scalable_target(**target(resource), MaxCapacity=5)
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: instances(emulator, name) != 3, "a scaling within the cooldown of 60 s", seconds=1.5)


def test_what_is_registered_is_described_and_removed(emulator: Emulator, name: str) -> None:
    resource = serving(emulator, name)
    scaling = register(emulator, resource, 1, 4)
    (found,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
        "ScalableTargets"
    ]
    assert (found["MinCapacity"], found["MaxCapacity"]) == (1, 4)
    wanted = tracking("SageMakerVariantInvocationsPerInstance", 70)
    arns = {scaling.put_scaling_policy(**target(resource), **wanted)["PolicyARN"] for _ in range(2)}
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)["ScalingPolicies"]
    assert arns == {policy["PolicyARN"]}
    member = "TargetTrackingScalingPolicyConfiguration"
    assert policy[member] == wanted[member]
    scaling.delete_scaling_policy(**target(resource), PolicyName="track")
    with pytest.raises(scaling.exceptions.ObjectNotFoundException):
        scaling.delete_scaling_policy(**target(resource), PolicyName="track")
    scaling.put_scaling_policy(**target(resource), **wanted)
    scaling.deregister_scalable_target(**target(resource))
    assert not scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)["ScalingPolicies"]
    with pytest.raises(scaling.exceptions.ObjectNotFoundException):
        scaling.put_scaling_policy(**target(resource), **wanted)
    register(emulator, resource, 1, 1)
    emulator.client("sagemaker").delete_endpoint(EndpointName=name)
    until(
        lambda: (
            not scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
                "ScalableTargets"
            ]
        ),
        "a target goes with its endpoint",
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ServiceNamespace": "ecs"}, "scales sagemaker alone"),
        ({"ResourceId": "endpoint/absent/variant/V"}, "does not exist"),
        ({"ResourceId": "absent"}, "Unsupported resource absent"),
        ({"ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}, "not sagemaker:variant:DesiredProv"),
        ({"MinCapacity": 3}, "cannot be less than minimum"),
        ({"MinCapacity": 0}, "must be at least 1"),
    ],
)
def test_a_target_that_is_wrong_is_refused(emulator: Emulator, shared: str, given: dict[str, Any], told: str) -> None:
    scaling = emulator.client("application-autoscaling")
    with pytest.raises(scaling.exceptions.ValidationException, match=told):
        scaling.register_scalable_target(**{**target(shared), "MinCapacity": 1, "MaxCapacity": 2, **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"PolicyType": "PredictiveScaling"}, "no PredictiveScaling policies"),
        ({"PolicyType": "StepScaling"}, "needs a StepScalingPolicyConfiguration"),
        (tracking("SageMakerInferenceComponentInvocationsPerCopy", 5), "is no metric of sagemaker:variant"),
        (tracking("SageMakerVariantInvocationsPerInstance", 0), "must be greater than 0"),
        (
            tracking("SageMakerVariantInvocationsPerInstance", 5, CustomizedMetricSpecification={"MetricName": "m"}),
            "either a Predefined",
        ),
    ],
)
def test_a_policy_that_is_wrong_is_refused(emulator: Emulator, shared: str, given: dict[str, Any], told: str) -> None:
    scaling = register(emulator, shared, 1, 1)
    with pytest.raises(scaling.exceptions.ValidationException, match=told):
        scaling.put_scaling_policy(**target(shared), **{"PolicyName": "p", **given})


@pytest.fixture(scope="module")
def shared(emulator: Emulator) -> str:
    return serving(emulator, "shared")
