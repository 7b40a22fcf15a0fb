from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.emulator import ROLE, Emulator, emulating


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose endpoints are a stand-in's: what the API says is real, what runs is nothing."""
    with emulating(tmp_path_factory.mktemp("control") / "state", stand_in=True) as emulator:
        yield emulator


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return f"n{uuid.uuid4().hex[:12]}"


def variant(model: str | None, **changes: Any) -> dict[str, Any]:
    """A production variant as the notebooks have it; None leaves a member out."""
    given = {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "InstanceType": "ml.p4d.24xlarge",
        "InitialInstanceCount": 1,
        "ModelDataDownloadTimeoutInSeconds": 2400,
        "ContainerStartupHealthCheckTimeoutInSeconds": 2400,
        **changes,
    }
    return {key: value for key, value in given.items() if value is not None}


def configured(sagemaker: Any, name: str, **environment: str) -> None:
    """A model without data and a configuration, both called ``name``; ``environment`` is the stand-in's script."""
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "image", "Environment": environment}
    )
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant(name)])


def status(sagemaker: Any, name: str) -> str:
    """Of an endpoint."""
    answer: str = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    return answer
