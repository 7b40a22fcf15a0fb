"""What a removal takes with it, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sagemaker.operating.conftest import component, endpoint, fault, in_status, model, there
from tests.support.emulator import Emulator

from bloomery.errors import AccessError, CallError, RemovalError
from bloomery.sagemaker.operating.removal import Removal, Step, perform, remove, take
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session


def test_endpoint_configuration_and_model_go_together(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    lines: list[str] = []
    done = remove(session, name, seen=lines.append)
    assert done.removed == (f"endpoint {name}", f"endpoint configuration {name}", f"model {name}")
    assert lines == [f"{each}: removed" for each in done.removed]
    assert there(sagemaker, name) == set()


def test_a_dry_run_shows_the_requests_and_changes_nothing(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    plan = remove(session, name, dry_run=True)
    assert [step.request.operation for step in plan.steps] == ["DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"]
    assert plan.steps[0].request.to_dict() == {
        "service": "sagemaker",
        "operation": "DeleteEndpoint",
        "parameters": {"EndpointName": name},
    }
    assert plan.removed == ()
    assert there(sagemaker, name) == {f"Endpoint {name}", f"EndpointConfig {name}", f"Model {name}"}
    remove(session, name)


def test_what_another_endpoint_uses_is_kept_and_said(session: Session, sagemaker: Any, name: str) -> None:
    shared = model(sagemaker, f"{name}-model")
    endpoint(sagemaker, name, model_name=shared)
    endpoint(sagemaker, f"{name}-other", model_name=shared)
    sagemaker.create_endpoint(EndpointName=f"{name}-third", EndpointConfigName=name)
    in_status(sagemaker, f"{name}-third", "InService")
    done = remove(session, name)
    assert done.removed == (f"endpoint {name}",)
    assert [(each.what, each.why) for each in done.kept] == [
        (f"endpoint configuration {name}", f"used by {name}-third"),
        (f"model {shared}", f"used by {name}-third, {name}-other"),
    ]
    remove(session, f"{name}-third")
    assert remove(session, f"{name}-other").removed[-1] == f"model {shared}"
    assert there(sagemaker, name) == set()


def test_components_go_before_their_endpoint_with_scaling_and_alarms(
    session: Session, sagemaker: Any, name: str
) -> None:
    endpoint(sagemaker, name, components=True)
    for each in ("a", "b"):
        component(sagemaker, name, f"{name}-{each}")
    resource = f"inference-component/{name}-a"
    identity = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource,
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    }
    scaling, cloudwatch = session.client("application-autoscaling"), session.client("cloudwatch")
    scaling.register_scalable_target(**identity, MinCapacity=1, MaxCapacity=2)
    steps = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": [{"ScalingAdjustment": 1}]}
    policy = scaling.put_scaling_policy(
        **identity, PolicyName="step", PolicyType="StepScaling", StepScalingPolicyConfiguration=steps
    )["PolicyARN"]
    alarm = {
        "MetricName": "NoCapacityInvocationFailures",
        "Namespace": "AWS/SageMaker",
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    }
    cloudwatch.put_metric_alarm(AlarmName=f"{name}-ours", AlarmActions=[policy], **alarm)
    pager = "arn:aws:sns:us-west-2:123456789012:pager"
    cloudwatch.put_metric_alarm(AlarmName=f"{name}-theirs", AlarmActions=[policy, pager], **alarm)
    done = remove(session, name)
    assert done.removed == (
        f"scaling of {resource}",
        f"alarms of {resource}",
        f"inference component {name}-a",
        f"inference component {name}-b",
        f"endpoint {name}",
        f"endpoint configuration {name}",
    )
    assert [each.what for each in done.kept] == [f"alarm {name}-theirs"]
    assert there(sagemaker, name) == set()
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    assert [each["AlarmName"] for each in alarms] == [f"{name}-theirs"]
    cloudwatch.delete_alarms(AlarmNames=[f"{name}-theirs"])


def test_a_removal_that_broke_off_is_finished_by_the_next(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    remove(session, name, keep_model=True)
    model(sagemaker, f"{name}-2")
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {"VariantName": "V", "ModelName": name, "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
        ],
    )
    assert remove(session, name).removed == (f"endpoint configuration {name}", f"model {name}")
    assert remove(session, name).steps == ()
    sagemaker.delete_model(ModelName=f"{name}-2")


def test_a_configuration_that_is_gone_does_not_hide_the_model(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    assert remove(session, name).removed == (f"endpoint {name}", f"model {name}")


def test_a_failed_endpoint_can_be_removed(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, environment={"DIE_AT_START": "3"}, wait=False)
    remove(session, name)
    assert there(sagemaker, name) == set()


def test_two_models_of_one_endpoint_go(session: Session, sagemaker: Any, name: str) -> None:
    variants = [
        {
            "VariantName": each,
            "ModelName": model(sagemaker, f"{name}-{each}"),
            "InstanceType": "ml.m5.xlarge",
            "InitialInstanceCount": 1,
        }
        for each in ("a", "b")
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    in_status(sagemaker, name, "InService")
    assert remove(session, name).removed[-2:] == (f"model {name}-a", f"model {name}-b")


class Refusing:
    """A session whose endpoint cannot be deleted while it is Creating, as it is believed of AWS. The emulator allows
    that, so it cannot stand in here."""

    is_emulator = True

    def __init__(self, *statuses: str) -> None:
        self.statuses, self.sent = list(statuses), 0

    def send(self, request: Request) -> Any:
        self.sent += 1
        if self.statuses[0] in ("Creating", "Updating"):
            raise CallError("refused", "ValidationException", 'Cannot update in-progress endpoint "arn".')

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        status = self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0)
        if status == "gone":
            raise CallError("gone", "ValidationException", 'Could not find endpoint "arn".')
        return {"EndpointStatus": status, "FailureReason": "the network"}


STEP = Step("endpoint n", Request("sagemaker", "DeleteEndpoint"), Request("sagemaker", "DescribeEndpoint"))


def test_an_endpoint_that_is_creating_is_waited_for() -> None:
    lines: list[str] = []
    session: Any = Refusing("Creating", "Creating", "InService", "Deleting", "gone")
    assert take(session, STEP, 1e12, True, lines.append)
    assert session.sent > 1
    (line,) = lines
    assert line.startswith("endpoint n is Creating, and SageMaker does not delete it now: waiting")


def test_without_waiting_it_is_on_its_way() -> None:
    session: Any = Refusing("Deleting")
    assert take(session, STEP, 1e12, False, print)


def test_without_waiting_the_refusal_is_told() -> None:
    session: Any = Refusing("Creating")
    with pytest.raises(CallError, match="refused"):
        take(session, STEP, 1e12, False, print)


def test_a_deletion_that_fails_says_why() -> None:
    session: Any = Refusing("InService", "Deleting", "Failed")
    with pytest.raises(CallError, match="its deletion has failed: the network"):
        take(session, STEP, 1e12, True, print)


def test_scaling_that_may_not_be_touched_does_not_keep_the_endpoint() -> None:
    class Scaling(Refusing):
        def send(self, request: Request) -> Any:
            if request.service == "application-autoscaling":
                raise AccessError("not allowed", "AccessDeniedException")
            return super().send(request)

    session: Any = Scaling("InService", "gone")
    scaling = Step("scaling of r", Request("application-autoscaling", "DeregisterScalableTarget"))
    done = perform(session, Removal("n", (scaling, STEP)))
    assert done.removed == ("endpoint n",)
    assert not done.complete
    assert done.notes == ("scaling of r could not be removed: not allowed",)


def test_patience_ends() -> None:
    session: Any = Refusing("Deleting")
    with pytest.raises(CallError, match="still Deleting"):
        take(session, STEP, 0, True, print)


def test_what_is_left_after_a_refusal_is_named(session: Session, sagemaker: Any, name: str, emulator: Emulator) -> None:
    endpoint(sagemaker, name)
    fault(emulator, kind="ResourceLimitExceeded", operation="DeleteEndpointConfig", times=1)
    with pytest.raises(RemovalError) as caught:
        remove(session, name)
    told = str(caught.value)
    assert told.startswith(f"endpoint configuration {name} cannot be removed: ")
    assert told.endswith(f"; removed: endpoint {name}; left: endpoint configuration {name}, model {name}")
    assert remove(session, name).removed == (f"endpoint configuration {name}", f"model {name}")
