"""Until an endpoint has scaled."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sagemaker.operating.conftest import component, endpoint

from bloomery.errors import SageMakerError
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.operating.waiting import until_count
from bloomery.sagemaker.session import Session


def test_instances_are_awaited(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    seen: list[str] = []
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "V", "DesiredInstanceCount": 2}]
    )
    until_count(session, name, 2, patience=60, seen=seen.append)
    assert seen[-1].startswith(f"{name}: 2 instances, 2 wanted")
    with pytest.raises(SageMakerError, match="has 2 instances, not 3, after 0 s: `bloomery autoscale"):
        until_count(session, name, 3, patience=0)
    remove(session, name)


def test_copies_are_awaited(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, components=True)
    component(sagemaker, name, f"{name}-c")
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName=f"{name}-c", DesiredRuntimeConfig={"CopyCount": 2}
    )
    until_count(session, name, 2, patience=60)
    remove(session, name)


def test_a_component_that_fails_is_not_awaited(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, components=True)
    sagemaker.create_inference_component(
        InferenceComponentName=f"{name}-c",
        EndpointName=name,
        VariantName="V",
        Specification={
            "Container": {"Image": "echo", "Environment": {"DIE_AT_START": "3"}},
            "ComputeResourceRequirements": {"NumberOfAcceleratorDevicesRequired": 1, "MinMemoryRequiredInMb": 1024},
        },
        RuntimeConfig={"CopyCount": 1},
    )
    with pytest.raises(SageMakerError, match=r"inference component .* has failed"):
        until_count(session, name, 1, patience=60)
    remove(session, name)


def test_an_endpoint_that_is_not_there(session: Session) -> None:
    with pytest.raises(SageMakerError, match="there is no endpoint 'nobody'"):
        until_count(session, "nobody", 1)
