from __future__ import annotations

import json
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.emulator import REGION, REPOSITORY, ROLE, Emulator, emulating, until

from bloomery.sagemaker.session import Session

ECHO = ("--image", f"^echo={sys.executable} {REPOSITORY / 'tests' / 'support' / 'echo_container.py'}")
TYPE, PRICE = "ml.g5.12xlarge", 7.2


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for the whole room: each test has names of its own."""
    directory = tmp_path_factory.mktemp("operating")
    tables = directory / "tables.json"
    tables.write_text(json.dumps({"prices": {TYPE: {REGION: PRICE}}}))
    with emulating(directory / "state", *ECHO, "--scaler-period", "0.35", "--tables", str(tables)) as running:
        yield running


@pytest.fixture(scope="session")
def session(emulator: Emulator) -> Iterator[Session]:
    with Session.open("local", endpoint_url=emulator.url, region=REGION, environment={}) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return f"n{uuid.uuid4().hex[:12]}"


@pytest.fixture
def sagemaker(session: Session) -> Any:
    return session.client("sagemaker")


def model(sagemaker: Any, name: str, **container: Any) -> str:
    given = {"Image": "echo", **container}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=given)
    return name


def endpoint(
    sagemaker: Any,
    name: str,
    *,
    model_name: str | None = None,
    environment: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    variant: dict[str, Any] | None = None,
    components: bool = False,
    wait: bool = True,
    **config: Any,
) -> str:
    """Model, configuration and endpoint, all called ``name``; with ``components`` an endpoint without a model."""
    if model_name is None and not components:
        model_name = model(sagemaker, name, Environment=environment or {})
    given: dict[str, Any] = {"VariantName": "V", "InstanceType": TYPE, "InitialInstanceCount": 1, **(variant or {})}
    given |= {"ModelName": model_name} if model_name else {}
    config |= {"ExecutionRoleArn": ROLE} if components else {}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[given], **config)
    pairs = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=pairs)
    if wait:
        in_status(sagemaker, name, "InService")
    return name


def component(sagemaker: Any, endpoint: str, name: str, copies: int = 1, **container: Any) -> str:
    """An inference component in service."""
    sagemaker.create_inference_component(
        InferenceComponentName=name,
        EndpointName=endpoint,
        VariantName="V",
        Specification={
            "Container": {"Image": "echo", **container},
            "ComputeResourceRequirements": {
                "NumberOfAcceleratorDevicesRequired": 1,
                "MinMemoryRequiredInMb": 1024,
            },
        },
        RuntimeConfig={"CopyCount": copies},
    )
    until(
        lambda: (
            sagemaker.describe_inference_component(InferenceComponentName=name)["InferenceComponentStatus"]
            == "InService"
        ),
        f"{name} is in service",
    )
    return name


def in_status(sagemaker: Any, name: str, status: str, seconds: float = 60) -> None:
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == status, status, seconds)


def there(sagemaker: Any, name: str) -> set[str]:
    """All that SageMaker has whose name begins so, as "kind name"."""
    listings: dict[str, Callable[..., Any]] = {
        "Endpoint": sagemaker.list_endpoints,
        "EndpointConfig": sagemaker.list_endpoint_configs,
        "Model": sagemaker.list_models,
        "InferenceComponent": sagemaker.list_inference_components,
    }
    return {
        f"{kind} {each[f'{kind}Name']}"
        for kind, call in listings.items()
        for each in call(MaxResults=100, NameContains=name)[f"{kind}s"]
    }


def fault(emulator: Emulator, **rule: Any) -> None:
    """Something goes wrong from now on."""
    request = urllib.request.Request(f"{emulator.url}/_bloomery/faults", json.dumps(rule).encode(), method="POST")
    with urllib.request.urlopen(request):
        pass
