from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError
from tests.sagemaker.emulator.conftest import configured, status, variant
from tests.support.emulator import Emulator, until


@pytest.fixture
def sagemaker(control: Emulator) -> Any:
    return control.client("sagemaker")


def is_gone(sagemaker: Any, name: str) -> bool:
    try:
        sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        return "Could not find endpoint" in str(error)
    return False


def wait_in_service(sagemaker: Any, name: str) -> None:
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})


def test_from_creating_to_in_service_to_nothing(sagemaker: Any, name: str, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    configured(sagemaker, name, HOLD=str(hold), STOPPING="0.5")
    created = sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    creating = sagemaker.describe_endpoint(EndpointName=name)
    assert creating["EndpointStatus"] == "Creating"
    assert creating["EndpointArn"] == created["EndpointArn"]
    assert "ProductionVariants" not in creating
    hold.unlink()
    wait_in_service(sagemaker, name)
    serving = sagemaker.describe_endpoint(EndpointName=name)
    assert serving["EndpointConfigName"] == name
    assert serving["LastModifiedTime"] > serving["CreationTime"]
    (each,) = serving["ProductionVariants"]
    assert each["VariantName"] == "AllTraffic"
    assert (each["CurrentInstanceCount"], each["DesiredInstanceCount"], each["CurrentWeight"]) == (1, 1, 1.0)
    assert each["DeployedImages"][0]["SpecifiedImage"] == "image"
    sagemaker.delete_endpoint(EndpointName=name)
    assert status(sagemaker, name) == "Deleting"
    sagemaker.delete_endpoint(EndpointName=name)  # once more changes nothing
    until(lambda: is_gone(sagemaker, name), "the endpoint is gone")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)  # its name is free again


def test_a_failure_is_told_and_the_waiter_gives_up(sagemaker: Any, name: str) -> None:
    reason = "The primary container for production variant AllTraffic did not pass the ping health check."
    configured(sagemaker, name, FAILURE=reason)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    with pytest.raises(WaiterError, match="terminal failure"):
        wait_in_service(sagemaker, name)
    failed = sagemaker.describe_endpoint(EndpointName=name)
    assert (failed["EndpointStatus"], failed["FailureReason"]) == ("Failed", reason)
    sagemaker.delete_endpoint(EndpointName=name)
    until(lambda: is_gone(sagemaker, name), "the failed endpoint is gone")


def test_a_fault_of_the_emulator_ends_the_endpoint_and_is_logged(control: Emulator, sagemaker: Any, name: str) -> None:
    configured(sagemaker, name, FAULT="a bug")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: status(sagemaker, name) == "Failed", "the endpoint has failed")
    assert "contact customer support" in sagemaker.describe_endpoint(EndpointName=name)["FailureReason"]
    control.wait_for(f"stopped {name}")
    control.wait_for("RuntimeError: a bug")


def test_deleted_while_creating(control: Emulator, sagemaker: Any, name: str, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    configured(sagemaker, name, HOLD=str(hold))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.delete_endpoint(EndpointName=name)
    until(lambda: is_gone(sagemaker, name), "the endpoint is gone")
    control.wait_for(f"stopped {name}")
    assert f"endpoint {name}: InService" not in control.log()


def test_an_endpoint_outlives_its_model_and_its_configuration(sagemaker: Any, name: str, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    configured(sagemaker, name, HOLD=str(hold))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)
    hold.unlink()
    wait_in_service(sagemaker, name)
    assert sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] == name


def test_a_name_is_unique_without_regard_to_case(sagemaker: Any, name: str) -> None:
    configured(sagemaker, name)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint(EndpointName=name.upper(), EndpointConfigName=name)
    arn = f"arn:aws:sagemaker:us-west-2:123456789012:endpoint/{name}"
    assert caught.value.response["Error"]["Message"] == f'Cannot create already existing endpoint "{arn}".'


def test_a_configuration_that_is_not_there_is_named(sagemaker: Any, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="absent")
    arn = "arn:aws:sagemaker:us-west-2:123456789012:endpoint-config/absent"
    assert caught.value.response["Error"]["Message"] == f'Could not find endpoint configuration "{arn}".'


def test_a_configuration_whose_model_is_gone_makes_no_endpoint(sagemaker: Any, name: str) -> None:
    configured(sagemaker, name)
    sagemaker.delete_model(ModelName=name)
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def test_a_serverless_variant_says_so(sagemaker: Any, name: str) -> None:
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "image"})
    given = variant(name, InstanceType=None, InitialInstanceCount=None, ServerlessConfig=serverless)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[given])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_in_service(sagemaker, name)
    (each,) = sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
    assert each["CurrentServerlessConfig"] == serverless
    assert "CurrentInstanceCount" not in each
