"""The table of instance types."""

from __future__ import annotations

import botocore.session
import pytest

from bloomery.sagemaker.instances import INSTANCE_TYPES, has_local_storage


def test_endpoints_can_have_every_type_in_the_table() -> None:
    shapes = botocore.session.get_session().get_service_model("sagemaker")
    assert set(INSTANCE_TYPES) <= set(shapes.shape_for("ProductionVariantInstanceType").enum)


@pytest.mark.parametrize(
    ("name", "gpus", "gib_each"), [("ml.p4d.24xlarge", 8, 40), ("ml.g5.12xlarge", 4, 22.35), ("ml.p5.48xlarge", 8, 80)]
)
def test_published_machines_have_their_gpus(name: str, gpus: int, gib_each: float) -> None:
    found = INSTANCE_TYPES[name]
    assert found.gpus == gpus
    assert found.accelerator_memory / 1024 == pytest.approx(gib_each, rel=0.01)


def test_chips_of_neuron_are_no_gpus() -> None:
    found = INSTANCE_TYPES["ml.inf2.48xlarge"]
    assert (found.accelerators, found.gpus) == (12, 0)


def test_accelerators_have_a_name_and_memory_or_are_none() -> None:
    for name, found in INSTANCE_TYPES.items():
        assert bool(found.accelerators) == bool(found.accelerator) == bool(found.accelerator_memory), name


@pytest.mark.parametrize("name", ["ml.p4d.24xlarge", "ml.g5.xlarge", "ml.g4dn.xlarge", "ml.g7.2xlarge", "ml.m5d.large"])
def test_local_disks(name: str) -> None:
    assert has_local_storage(name)


@pytest.mark.parametrize("name", ["ml.p3.8xlarge", "ml.m5.large", "ml.inf2.xlarge", "ml.c7i.large", "ml.t2.medium"])
def test_no_local_disks(name: str) -> None:
    assert not has_local_storage(name)
