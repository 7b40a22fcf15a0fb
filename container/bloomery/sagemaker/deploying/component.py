"""The model as an inference component: copies that share an endpoint's instances, and may be none at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.instances import INSTANCE_TYPES

_SHARE = 0.75  # of an instance's memory that copies get, unless told: the rest is SageMaker's and the system's


@dataclass(frozen=True)
class Component:
    """What one copy needs: ``accelerators`` (None: as many as ranks, or all there are) and ``memory`` in MiB (None: its
    share of the machine's). ``max_instances``: up to which SageMaker adds instances for copies; it removes all when
    there are no copies. None: the number of instances is fixed.
    """

    copies: int = 1
    accelerators: int | None = None
    memory: int | None = None
    max_instances: int | None = None

    def requirements(self, instance_type: str, ranks: int | None) -> dict[str, Any]:
        """ComputeResourceRequirements."""
        known = INSTANCE_TYPES.get(instance_type)
        accelerators = self.accelerators
        if accelerators is None:
            accelerators = min(ranks or known.accelerators, known.accelerators) if known else ranks or 0
        memory = self.memory
        if memory is None:
            share = accelerators / known.accelerators if known and known.accelerators else 1 / max(1, self.copies)
            memory = int(known.memory * _SHARE * share) if known else 1024
        needed: dict[str, Any] = {"MinMemoryRequiredInMb": memory}
        if accelerators:
            needed["NumberOfAcceleratorDevicesRequired"] = accelerators
        return needed

    def lacking(self, instance_type: str, ranks: int | None) -> Iterator[str]:
        """Why not even one copy fits an instance."""
        known = INSTANCE_TYPES.get(instance_type)
        needed = self.requirements(instance_type, ranks)
        if known is None:
            return
        if needed.get("NumberOfAcceleratorDevicesRequired", 0) > known.accelerators:
            yield (
                f"a copy needs {needed['NumberOfAcceleratorDevicesRequired']} accelerators, and {instance_type} has "
                f"{known.accelerators}"
            )
        if needed["MinMemoryRequiredInMb"] > known.memory:
            yield f"a copy needs {needed['MinMemoryRequiredInMb']} MiB, and {instance_type} has {known.memory}"
