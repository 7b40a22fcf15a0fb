"""What a machine of each instance type has. The sizes are those of EC2's product pages as we remember them, not checked
against the pages; a type that is not in the table is taken to be large enough for anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InstanceType:
    """``memory`` in MiB; ``accelerators``: GPUs, or Inferentia and Trainium devices."""

    vcpus: int
    memory: int
    accelerators: int


def _family(family: str, *sizes: tuple[str, int, int, int]) -> dict[str, InstanceType]:
    """``sizes``: name, vCPUs, GiB, accelerators."""
    return {f"ml.{family}.{size}": InstanceType(vcpus, gib * 1024, devices) for size, vcpus, gib, devices in sizes}


_ONE_TO_EIGHT = (("xlarge", 4, 1), ("2xlarge", 8, 1), ("4xlarge", 16, 1), ("8xlarge", 32, 1), ("16xlarge", 64, 1))
_GRAPHICS = (*_ONE_TO_EIGHT, ("12xlarge", 48, 4), ("24xlarge", 96, 4), ("48xlarge", 192, 8))


def _graphics(family: str, gib_per_vcpu: int) -> dict[str, InstanceType]:
    return _family(family, *((size, vcpus, vcpus * gib_per_vcpu, devices) for size, vcpus, devices in _GRAPHICS))


def _general(family: str, gib_per_vcpu: int, *sizes: tuple[str, int]) -> dict[str, InstanceType]:
    return _family(family, *((size, vcpus, vcpus * gib_per_vcpu, 0) for size, vcpus in sizes))


INSTANCE_TYPES: dict[str, InstanceType] = {
    **_graphics("g5", 4),
    **_graphics("g6", 4),
    **_graphics("g6e", 8),
    **_family(
        "g4dn",
        *((size, vcpus, vcpus * 4, devices) for size, vcpus, devices in _ONE_TO_EIGHT),
        ("12xlarge", 48, 192, 4),
    ),
    **_family("p3", ("2xlarge", 8, 61, 1), ("8xlarge", 32, 244, 4), ("16xlarge", 64, 488, 8)),
    **_family("p4d", ("24xlarge", 96, 1152, 8)),
    **_family("p4de", ("24xlarge", 96, 1152, 8)),
    **_family("p5", ("48xlarge", 192, 2048, 8)),
    **_family("p5e", ("48xlarge", 192, 2048, 8)),
    **_family("p5en", ("48xlarge", 192, 2048, 8)),
    **_family(
        "inf2", ("xlarge", 4, 16, 1), ("8xlarge", 32, 128, 1), ("24xlarge", 96, 384, 6), ("48xlarge", 192, 768, 12)
    ),
    **_family("trn1", ("2xlarge", 8, 32, 1), ("32xlarge", 128, 512, 16)),
    **_general(
        "m5", 4, ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("12xlarge", 48), ("24xlarge", 96)
    ),
    **_general(
        "c5", 2, ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("9xlarge", 36), ("18xlarge", 72)
    ),
    **_general(
        "r5", 8, ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("12xlarge", 48), ("24xlarge", 96)
    ),
}
