"""What a machine of each instance type has: accelerators, memory, disk, network.

Where the columns come from:

- vCPUs, memory, GPUs and their memory, local NVMe, network: EC2's DescribeInstanceTypes, as printed in Karpenter's
  reference (github.com/aws/karpenter-provider-aws, website/content/en/docs/reference/instance-types.md, commit 1d92708;
  p3 from the edition v1.0 of that page; read 2026-11-24). The network is what a machine always has, not what it may
  burst to.
- memory of Inferentia2 and Trainium: the architecture pages of AWS Neuron's documentation (32 GiB a chip).
- which types endpoints can have: the enumeration ProductionVariantInstanceType of botocore 1.44.

A type that is not in the table is taken to be large enough for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEURON = ("Inferentia2", "Trainium")
# g4dn, p4d, m5d and so on: what is in the machine. For types that the table does not have.
_LOCAL_STORAGE = re.compile(r"ml\.(g[567]|p5|p6|trn|[a-z]+\d+[a-z]*d)")


@dataclass(frozen=True)
class InstanceType:
    """``memory`` in MiB. ``accelerators``: GPUs, or Inferentia and Trainium chips, of one kind, each with
    ``accelerator_memory`` MiB. ``local_storage``: GB of NVMe in the machine. ``network``: Gbit/s."""

    vcpus: int
    memory: int
    accelerators: int
    accelerator: str
    accelerator_memory: int
    local_storage: int
    network: float

    @property
    def gpus(self) -> int:
        """The accelerators that CUDA programs run on."""
        return 0 if self.accelerator in _NEURON else self.accelerators


# Size, vCPUs, GiB of memory, accelerators, GB of local NVMe, Gbit/s.
_Size = tuple[str, int, int, int, int, float]


def _family(family: str, accelerator: str, accelerator_memory: int, *sizes: _Size) -> dict[str, InstanceType]:
    """``accelerator_memory``: MiB of each."""
    return {
        f"ml.{family}.{size}": InstanceType(
            vcpus, gib * 1024, devices, accelerator, accelerator_memory, local_storage, network
        )
        for size, vcpus, gib, devices, local_storage, network in sizes
    }


def _general(family: str, gib_per_vcpu: int, *sizes: tuple[str, int, float]) -> dict[str, InstanceType]:
    """Machines with neither accelerators nor disks. ``sizes``: name, vCPUs, Gbit/s."""
    return _family(
        family, "", 0, *((size, vcpus, vcpus * gib_per_vcpu, 0, 0, network) for size, vcpus, network in sizes)
    )


INSTANCE_TYPES: dict[str, InstanceType] = {
    **_family(
        "g4dn",
        "T4",
        16384,
        ("xlarge", 4, 16, 1, 125, 5),
        ("2xlarge", 8, 32, 1, 225, 10),
        ("4xlarge", 16, 64, 1, 225, 20),
        ("8xlarge", 32, 128, 1, 900, 50),
        ("12xlarge", 48, 192, 4, 900, 50),
        ("16xlarge", 64, 256, 1, 900, 50),
    ),
    **_family(
        "g5",
        "A10G",
        22888,
        ("xlarge", 4, 16, 1, 250, 2.5),
        ("2xlarge", 8, 32, 1, 450, 5),
        ("4xlarge", 16, 64, 1, 600, 10),
        ("8xlarge", 32, 128, 1, 900, 25),
        ("16xlarge", 64, 256, 1, 1900, 25),
        ("12xlarge", 48, 192, 4, 3800, 40),
        ("24xlarge", 96, 384, 4, 3800, 50),
        ("48xlarge", 192, 768, 8, 7600, 100),
    ),
    **_family(
        "g6",
        "L4",
        22888,
        ("xlarge", 4, 16, 1, 250, 2.5),
        ("2xlarge", 8, 32, 1, 450, 5),
        ("4xlarge", 16, 64, 1, 600, 10),
        ("8xlarge", 32, 128, 1, 900, 25),
        ("16xlarge", 64, 256, 1, 1880, 25),
        ("12xlarge", 48, 192, 4, 3760, 40),
        ("24xlarge", 96, 384, 4, 3760, 50),
        ("48xlarge", 192, 768, 8, 7520, 100),
    ),
    **_family(
        "g6e",
        "L40S",
        45776,
        ("xlarge", 4, 32, 1, 250, 2.5),
        ("2xlarge", 8, 64, 1, 450, 5),
        ("4xlarge", 16, 128, 1, 600, 20),
        ("8xlarge", 32, 256, 1, 900, 25),
        ("16xlarge", 64, 512, 1, 1900, 35),
        ("12xlarge", 48, 384, 4, 3800, 100),
        ("24xlarge", 96, 768, 4, 3800, 200),
        ("48xlarge", 192, 1536, 8, 7600, 400),
    ),
    **_family(
        "g7e",
        "RTX PRO 6000",
        98304,
        ("2xlarge", 8, 64, 1, 1900, 50),
        ("4xlarge", 16, 128, 1, 1900, 50),
        ("8xlarge", 32, 256, 1, 1900, 100),
        ("12xlarge", 48, 512, 2, 3800, 400),
        ("24xlarge", 96, 1024, 4, 7600, 800),
        ("48xlarge", 192, 2048, 8, 15200, 1600),
    ),
    **_family(
        "p3",
        "V100",
        16384,
        ("2xlarge", 8, 61, 1, 0, 2.5),
        ("8xlarge", 32, 244, 4, 0, 10),
        ("16xlarge", 64, 488, 8, 0, 25),
    ),
    **_family("p4d", "A100", 40960, ("24xlarge", 96, 1152, 8, 8000, 400)),
    **_family("p4de", "A100", 81920, ("24xlarge", 96, 1152, 8, 8000, 400)),
    **_family("p5", "H100", 81920, ("4xlarge", 16, 256, 1, 3800, 100), ("48xlarge", 192, 2048, 8, 30400, 3200)),
    **_family("p5e", "H200", 144384, ("48xlarge", 192, 2048, 8, 30400, 3200)),
    **_family("p5en", "H200", 144384, ("48xlarge", 192, 2048, 8, 30400, 3200)),
    **_family("p6-b200", "B200", 183359, ("48xlarge", 192, 2048, 8, 30400, 3200)),
    **_family("p6-b300", "B300", 275040, ("48xlarge", 192, 4096, 8, 30400, 6400)),
    **_family(
        "inf2",
        "Inferentia2",
        32768,
        ("xlarge", 4, 16, 1, 0, 2.083),
        ("8xlarge", 32, 128, 1, 0, 16.667),
        ("24xlarge", 96, 384, 6, 0, 50),
        ("48xlarge", 192, 768, 12, 0, 100),
    ),
    **_family("trn1", "Trainium", 32768, ("2xlarge", 8, 32, 1, 474, 3.125), ("32xlarge", 128, 512, 16, 7600, 800)),
    **_general(
        "m5",
        4,
        ("large", 2, 0.75),
        ("xlarge", 4, 1.25),
        ("2xlarge", 8, 2.5),
        ("4xlarge", 16, 5),
        ("12xlarge", 48, 12),
        ("24xlarge", 96, 25),
    ),
    **_general(
        "c5",
        2,
        ("large", 2, 0.75),
        ("xlarge", 4, 1.25),
        ("2xlarge", 8, 2.5),
        ("4xlarge", 16, 5),
        ("9xlarge", 36, 12),
        ("18xlarge", 72, 25),
    ),
    **_general(
        "r5",
        8,
        ("large", 2, 0.75),
        ("xlarge", 4, 1.25),
        ("2xlarge", 8, 2.5),
        ("4xlarge", 16, 5),
        ("12xlarge", 48, 12),
        ("24xlarge", 96, 25),
    ),
}


def has_local_storage(name: str) -> bool:
    """Whether a type of that name keeps /tmp on disks of its own, so that VolumeSizeInGB must not be set."""
    known = INSTANCE_TYPES.get(name)
    return known.local_storage > 0 if known else bool(_LOCAL_STORAGE.match(name))
