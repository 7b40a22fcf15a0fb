"""Scaling as it is asked for, against the emulator's scaler, which really scales."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.operating.conftest import component, endpoint
from tests.support.emulator import until

from bloomery.errors import SageMakerError, ScalingRefusedError
from bloomery.sagemaker.operating.autoscaling import ending, planned, put_in_force, shown
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.operating.scaling_requests import Bounds
from bloomery.sagemaker.session import Session

FAST = {"scale_in_cooldown": 0, "scale_out_cooldown": 0}
TO_ZERO = {"ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}}


@pytest.fixture(scope="module")
def plain(session: Session) -> Iterator[str]:
    """An endpoint with a model."""
    yield endpoint(session.client("sagemaker"), "scaled")
    remove(session, "scaled")


@contextlib.contextmanager
def traffic(session: Session, clients: int, **names: str) -> Iterator[None]:
    """So many requests at any time."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            with contextlib.suppress(ClientError):
                session.runtime.invoke_endpoint(**names, Body=json.dumps({"do": {"sleep": 0.1}}))["Body"].read()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_instances_follow_the_requests_in_flight(session: Session, plain: str) -> None:
    plan = planned(session, plain, Bounds(1, 2, 1.0, **FAST))
    assert [each.operation for each in plan.requests()] == ["RegisterScalableTarget", "PutScalingPolicy"]
    put_in_force(session, plan)
    with traffic(session, 4, EndpointName=plain):
        until(lambda: shown(session, plain)[0].count == 2, "two instances", 60)
    (scaled,) = shown(session, plain)
    assert scaled.target.resource == "endpoint/scaled/variant/V"
    assert (scaled.target.least, scaled.target.most) == (1, 2)
    (policy,) = scaled.target.policies
    followed = policy.config["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert followed == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    assert "Setting desired instance count to 2." in [each.what for each in scaled.activities]
    for request in ending(session, plain):
        session.send(request)
    assert shown(session, plain) == []
    assert ending(session, plain) == []


def test_copies_go_to_nothing_and_an_alarm_wakes_them(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, components=True, variant=TO_ZERO)
    component(sagemaker, name, f"{name}-c")
    put_in_force(session, planned(session, name, Bounds(0, 2, 5.0, scale_in_cooldown=0)))

    def copies() -> int:
        return shown(session, name)[0].count

    until(lambda: copies() == 0, "no copy", 60)
    (alarm,) = session.call("cloudwatch", "DescribeAlarms", AlarmNamePrefix=f"{name}-c-bloomery-wake")["MetricAlarms"]
    policies = {each.name: each for each in shown(session, name)[0].target.policies}
    assert alarm["AlarmActions"] == [policies["bloomery-wake"].arn]
    assert policies["bloomery-wake"].alarms == (alarm["AlarmName"],)

    def awake() -> bool:
        with contextlib.suppress(ClientError):
            session.runtime.invoke_endpoint(EndpointName=name, InferenceComponentName=f"{name}-c", Body=b"x")
            return True
        return False

    until(awake, "a copy that answers", 60)
    # With at least one copy nothing has to be woken any more.
    plan = planned(session, name, Bounds(1, 2, 5.0))
    assert [each.operation for each in plan.requests()] == [
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "DeleteScalingPolicy",
        "DeleteAlarms",
    ]
    put_in_force(session, plan)
    assert [each.name for each in shown(session, name)[0].target.policies] == ["bloomery-concurrency"]
    remove(session, name)


def test_an_asynchronous_endpoint_follows_its_backlog_and_wakes(session: Session, sagemaker: Any, name: str) -> None:
    s3 = session.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": session.region})
    output = {"OutputConfig": {"S3OutputPath": f"s3://{name}/out"}}
    endpoint(sagemaker, name, AsyncInferenceConfig=output)
    plan = planned(session, name, Bounds(0, 1, 4.0))
    follow = plan.scalings[0].follow.parameters["TargetTrackingScalingPolicyConfiguration"]
    assert follow["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert plan.requests()[-1].parameters["AlarmActions"] == ["{PolicyARN}"]
    put_in_force(session, plan)
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "V", "DesiredInstanceCount": 0}]
    )
    until(lambda: shown(session, name)[0].count == 0, "no instance", 60)
    s3.put_object(Bucket=name, Key="in", Body=b"hello")
    session.runtime.invoke_endpoint_async(EndpointName=name, InputLocation=f"s3://{name}/in")
    until(lambda: s3.list_objects_v2(Bucket=name, Prefix="out/").get("Contents"), "the answer", 60)
    remove(session, name)


def test_what_cannot_scale_to_nothing_is_refused_with_the_way(session: Session, plain: str) -> None:
    with pytest.raises(ScalingRefusedError, match=r"at least one instance.*Use --min 1; or deploy"):
        planned(session, plain, Bounds(0, 2, 1.0))


def test_copies_without_managed_instances_are_refused(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, components=True)
    component(sagemaker, name, f"{name}-c")
    with pytest.raises(ScalingRefusedError, match=r"would stay and cost: the ManagedInstanceScaling .* is absent"):
        planned(session, name, Bounds(0, 2, 1.0))
    (scaling,) = planned(session, name, Bounds(1, 2, 1.0)).scalings
    assert scaling.resource == f"inference-component/{name}-c"
    remove(session, name)


def test_another_policy_is_named(session: Session, plain: str) -> None:
    identity = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{plain}/variant/V",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling = session.client("application-autoscaling")
    scaling.register_scalable_target(**identity, MinCapacity=1, MaxCapacity=2)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **identity,
        PolicyName="theirs",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 100, "PredefinedMetricSpecification": metric},
    )
    plan = planned(session, plain, Bounds(1, 2, 1.0))
    assert plan.notes == ("endpoint/scaled/variant/V follows policy theirs, too: the larger count wins",)
    assert plan.outdated == ()
    scaling.deregister_scalable_target(**identity)


@pytest.mark.parametrize(
    ("bounds", "only", "told"),
    [
        (Bounds(3, 2, 1.0), None, "--min 3 --max 2"),
        (Bounds(0, 0, 1.0), None, "bloomery delete"),
        (Bounds(1, 2, 0.0), None, "--concurrency 0"),
        (Bounds(1, 2, 1.0), "absent", "no variant 'absent' that could scale; there is: V"),
    ],
)
def test_a_wrong_wish_is_refused(session: Session, plain: str, bounds: Bounds, only: str | None, told: str) -> None:
    with pytest.raises(ScalingRefusedError, match=told):
        planned(session, plain, bounds, only)


def test_an_endpoint_that_is_not_there(session: Session) -> None:
    with pytest.raises(SageMakerError, match="there is no endpoint 'absent' in us-west-2"):
        planned(session, "absent", Bounds(1, 2, 1.0))
