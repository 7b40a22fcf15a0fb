"""What UpdateEndpoint and UpdateEndpointWeightsAndCapacities take, refuse and show; nothing really runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import configured, status, variant
from tests.support.emulator import Emulator, until


@pytest.fixture
def sagemaker(control: Emulator) -> Any:
    return control.client("sagemaker")


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file that holds deployments back while it is there."""
    return tmp_path / "hold"


def serve(sagemaker: Any, name: str, count: int = 1, **environment: str) -> None:
    """An endpoint in service, and a second configuration ``name``-2 of two instances for it."""
    configured(sagemaker, name, **environment)
    second = variant(name, InitialInstanceCount=2, InitialVariantWeight=2.0)
    sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-2", ProductionVariants=[second])
    if count > 1:
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        many = variant(name, InitialInstanceCount=count)
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[many])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    at_rest(sagemaker, name)


def at_rest(sagemaker: Any, name: str) -> dict[str, Any]:
    until(lambda: status(sagemaker, name) not in ("Creating", "Updating", "RollingBack"), f"{name} is at rest")
    return dict(sagemaker.describe_endpoint(EndpointName=name))


def weigh(sagemaker: Any, name: str, variant: str = "AllTraffic", **wish: Any) -> None:
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": variant, **wish}]
    )


def refusal(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    return str(error["Message"])


def test_what_is_on_its_way_is_shown_beside_what_serves(sagemaker: Any, name: str, hold: Path) -> None:
    serve(sagemaker, name, HOLD=str(hold))
    hold.touch()
    answer = sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
    found = sagemaker.describe_endpoint(EndpointName=name)
    assert answer["EndpointArn"] == found["EndpointArn"]
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("Updating", name)
    (serving,) = found["ProductionVariants"]
    assert (serving["CurrentInstanceCount"], serving["DesiredInstanceCount"], serving["CurrentWeight"]) == (1, 1, 1.0)
    summary = found["PendingDeploymentSummary"]
    assert summary["EndpointConfigName"] == f"{name}-2"
    (pending,) = summary["ProductionVariants"]
    assert (pending["CurrentInstanceCount"], pending["DesiredInstanceCount"]) == (0, 2)
    assert (pending["InstanceType"], pending["VariantStatus"][0]["Status"]) == ("ml.p4d.24xlarge", "Creating")
    hold.unlink()
    found = at_rest(sagemaker, name)
    assert (found["EndpointConfigName"], "PendingDeploymentSummary" in found) == (f"{name}-2", False)
    (serving,) = found["ProductionVariants"]
    assert (serving["CurrentInstanceCount"], serving["CurrentWeight"]) == (2, 2.0)


def test_while_something_is_going_on_nothing_else_can_begin(sagemaker: Any, name: str, hold: Path) -> None:
    serve(sagemaker, name, HOLD=str(hold))
    hold.touch()
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
    words = f'Cannot update in-progress endpoint "arn:aws:sagemaker:us-west-2:123456789012:endpoint/{name}".'
    assert refusal(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name) == words
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        weigh(sagemaker, name, DesiredWeight=2)
    hold.unlink()
    at_rest(sagemaker, name)


def test_an_endpoint_that_is_created_or_has_failed_cannot_be_updated(sagemaker: Any, name: str, hold: Path) -> None:
    hold.touch()
    configured(sagemaker, name, HOLD=str(hold), FAILURE="a reason")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert "in-progress" in refusal(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name)
    hold.unlink()
    at_rest(sagemaker, name)
    assert "DeleteEndpoint is the only" in refusal(
        sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name
    )


def test_a_failed_update_tells_its_reason_and_changes_nothing(sagemaker: Any, name: str) -> None:
    serve(sagemaker, name)
    configured(sagemaker, f"{name}-3", FAILURE="a reason")
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-3")
    found = at_rest(sagemaker, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", name)
    assert found["FailureReason"] == "a reason"
    weigh(sagemaker, name, DesiredWeight=2)
    assert "FailureReason" not in at_rest(sagemaker, name)


def test_a_fault_of_the_emulator_is_rolled_back_and_logged(control: Emulator, sagemaker: Any, name: str) -> None:
    serve(sagemaker, name)
    configured(sagemaker, f"{name}-3", FAULT=f"a bug in {name}")
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-3")
    found = at_rest(sagemaker, name)
    assert found["EndpointStatus"] == "InService"
    assert "contact customer support" in found["FailureReason"]
    control.wait_for(f"RuntimeError: a bug in {name}")
    control.wait_for(f"withdrawn {name}")


def test_a_fault_while_the_old_instances_end_is_told(control: Emulator, sagemaker: Any, name: str) -> None:
    serve(sagemaker, name, STUCK=f"a bug in {name}")
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
    found = at_rest(sagemaker, name)
    assert found["EndpointStatus"] == "Failed"
    assert "contact customer support" in found["FailureReason"]
    control.wait_for(f"RuntimeError: a bug in {name}")


def test_an_update_outlives_its_configuration(sagemaker: Any, name: str, hold: Path) -> None:
    serve(sagemaker, name, HOLD=str(hold))
    hold.touch()
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
    sagemaker.delete_endpoint_config(EndpointConfigName=f"{name}-2")
    hold.unlink()
    assert at_rest(sagemaker, name)["EndpointConfigName"] == f"{name}-2"


def test_deleted_while_updating(control: Emulator, sagemaker: Any, name: str, hold: Path) -> None:
    serve(sagemaker, name, HOLD=str(hold))
    hold.touch()
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
    sagemaker.delete_endpoint(EndpointName=name)
    control.wait_for(f"endpoint {name}: deleted")
    assert f"promoted {name}" not in control.log()


@pytest.mark.parametrize(
    ("excluded", "count", "weight"),
    [
        ([], 3, 5.0),
        (["DesiredInstanceCount"], 2, 5.0),
        (["DesiredWeight", "DataCaptureConfig"], 3, 2.0),
    ],
)
def test_what_is_retained(sagemaker: Any, name: str, excluded: list[str], count: int, weight: float) -> None:
    serve(sagemaker, name)
    weigh(sagemaker, name, DesiredInstanceCount=3, DesiredWeight=5.0)
    at_rest(sagemaker, name)
    sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=f"{name}-2",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": each} for each in excluded],
    )
    (serving,) = at_rest(sagemaker, name)["ProductionVariants"]
    assert (serving["CurrentInstanceCount"], serving["CurrentWeight"]) == (count, weight)


def test_counts_are_desired_until_they_are_there(control: Emulator, sagemaker: Any, name: str, hold: Path) -> None:
    serve(sagemaker, name, HOLD=str(hold))
    hold.touch()
    weigh(sagemaker, name, DesiredInstanceCount=3, DesiredWeight=4.0)
    control.wait_for(f"weights of {name}: {{'AllTraffic': 4.0}}")
    found = sagemaker.describe_endpoint(EndpointName=name)
    (serving,) = found["ProductionVariants"]
    assert (found["EndpointStatus"], serving["VariantStatus"][0]["Status"]) == ("Updating", "Updating")
    assert (serving["CurrentInstanceCount"], serving["DesiredInstanceCount"]) == (1, 3)
    assert (serving["CurrentWeight"], serving["DesiredWeight"]) == (4.0, 4.0)
    hold.unlink()
    (serving,) = at_rest(sagemaker, name)["ProductionVariants"]
    assert (serving["CurrentInstanceCount"], serving["DesiredInstanceCount"]) == (3, 3)


def test_counts_that_cannot_be_reached_are_rolled_back(control: Emulator, sagemaker: Any, name: str) -> None:
    serve(sagemaker, name, REFUSED="3")
    weigh(sagemaker, name, DesiredInstanceCount=3, DesiredWeight=4.0)
    found = at_rest(sagemaker, name)
    assert (found["EndpointStatus"], found["FailureReason"]) == ("InService", "no room for 3 instances")
    (serving,) = found["ProductionVariants"]
    assert (serving["CurrentInstanceCount"], serving["CurrentWeight"]) == (1, 1.0)
    control.wait_for(f"scaled {name} AllTraffic to 1")


def test_weights_and_counts_that_cannot_be(sagemaker: Any, name: str) -> None:
    serve(sagemaker, name)
    for wish, words in (
        ({"variant": "absent"}, 'The variant name(s) "absent" is/are not present within endpoint configuration'),
        ({"variant": "absent", "ServerlessUpdateConfig": {"MaxConcurrency": 3}}, "The variant name(s)"),
        ({"DesiredWeight": 0}, "The sum of the variants' weights must be greater than 0."),
        ({"DesiredInstanceCount": 0}, "DesiredInstanceCount 0 is for asynchronous endpoints"),
    ):
        with pytest.raises(ClientError) as caught:
            weigh(sagemaker, name, **({"DesiredWeight": 1} | wish))
        assert words in caught.value.response["Error"]["Message"]
    assert status(sagemaker, name) == "InService"


def test_a_serverless_variant_gets_another_concurrency(sagemaker: Any, name: str) -> None:
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "image"})
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    given = variant(name, InstanceType=None, InitialInstanceCount=None, ServerlessConfig=serverless)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[given])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    at_rest(sagemaker, name)
    weigh(sagemaker, name, ServerlessUpdateConfig={"MaxConcurrency": 7})
    (found,) = at_rest(sagemaker, name)["ProductionVariants"]
    assert found["CurrentServerlessConfig"] == serverless | {"MaxConcurrency": 7}


def size(kind: str, value: int) -> dict[str, Any]:
    return {"Type": kind, "Value": value}


def traffic(kind: str, **sizes: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 0, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


def rolling(value: int) -> dict[str, Any]:
    batch = size("CAPACITY_PERCENT", value)
    return {"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": 0}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (traffic("CANARY"), "CanarySize goes with the traffic routing type CANARY"),
        (traffic("ALL_AT_ONCE", LinearStepSize=size("INSTANCE_COUNT", 1)), "LinearStepSize goes with"),
        (traffic("CANARY", CanarySize=size("INSTANCE_COUNT", 2)), "2 instances is not between 0% and 50% of the 2"),
        (traffic("LINEAR", LinearStepSize=size("CAPACITY_PERCENT", 9)), "9 % is not between 10% and 50%"),
        (rolling(51), "RollingUpdatePolicy.MaximumBatchSize of 51 % is not between 5% and 50%"),
        (traffic("ALL_AT_ONCE") | rolling(50), "Only one update policy should be used"),
    ],
)
def test_deployment_configs_that_cannot_be(sagemaker: Any, name: str, config: dict[str, Any], words: str) -> None:
    serve(sagemaker, name)
    call = {"EndpointName": name, "EndpointConfigName": f"{name}-2", "DeploymentConfig": config}
    assert words in refusal(sagemaker.update_endpoint, **call)
    assert status(sagemaker, name) == "InService"


def test_what_is_excluded_must_be_retained(sagemaker: Any, name: str) -> None:
    serve(sagemaker, name)
    excluded = [{"VariantPropertyType": "DesiredWeight"}]
    call = {"EndpointName": name, "EndpointConfigName": name, "ExcludeRetainedVariantProperties": excluded}
    assert "when RetainAllVariantProperties is true" in refusal(sagemaker.update_endpoint, **call)


def test_an_alarm_that_is_not_there_ends_the_update_before_it_begins(
    control: Emulator, sagemaker: Any, name: str
) -> None:
    serve(sagemaker, name)
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": f"absent-{name}"}]}}
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2", DeploymentConfig=rollback)
    assert f"absent-{name}" in at_rest(sagemaker, name)["FailureReason"]
    assert f"of {name}: 1" not in control.log()


def test_old_instances_that_had_gone_come_back(control: Emulator, sagemaker: Any, name: str) -> None:
    serve(sagemaker, name, count=2)
    configured(sagemaker, f"{name}-3", REFUSED="2")
    sagemaker.delete_endpoint_config(EndpointConfigName=f"{name}-3")
    two = variant(f"{name}-3", InitialInstanceCount=2)
    sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-3", ProductionVariants=[two])
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-3", DeploymentConfig=rolling(50))
    found = at_rest(sagemaker, name)
    assert (found["EndpointStatus"], found["FailureReason"]) == ("InService", "no room for 2 instances")
    log = control.log()
    came = [log.index(line) for line in (f"scaled {name} AllTraffic to 1", f"scaled {name} AllTraffic to 2")]
    assert came == sorted(came)
    assert log.index(f"withdrawn {name}") > came[1]


def test_a_rollback_that_fails_serves_a_mix_until_the_next_update(control: Emulator, sagemaker: Any, name: str) -> None:
    serve(sagemaker, name, count=2, REFUSED="2")  # neither a second new one nor a second old one
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2", DeploymentConfig=rolling(50))
    found = at_rest(sagemaker, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("UpdateRollbackFailed", name)
    assert "no room for 2 instances" in found["FailureReason"]
    with pytest.raises(ClientError, match="use UpdateEndpoint first"):
        weigh(sagemaker, name, DesiredWeight=2)
    assert f"withdrawn {name}" not in control.log()
    configured(sagemaker, f"{name}-3")
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-3")
    found = at_rest(sagemaker, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", f"{name}-3")
    control.wait_for(f"withdrawn {name}")
