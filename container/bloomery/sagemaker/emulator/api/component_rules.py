"""What SageMaker asks of the requests that create and update inference components."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bloomery.sagemaker.emulator.api.rule import Parameters, Rule, when
from bloomery.sagemaker.emulator.api.words import Words


def specifications(parameters: Parameters) -> list[Mapping[str, Any]]:
    """Those of an inference component."""
    one = parameters.get("Specification")
    return [one] if one else list(parameters.get("Specifications") or ())


def _any(wrong: Callable[[Mapping[str, Any]], bool]) -> Callable[[Parameters], Iterator[dict[str, object]]]:
    return when(lambda p: any(wrong(each) for each in specifications(p)))


def _memory_crossed(requirements: Mapping[str, Any]) -> bool:
    most = requirements.get("MaxMemoryRequiredInMb")
    return most is not None and most < requirements["MinMemoryRequiredInMb"]


_SPECIFICATION = (
    Rule(
        Words("You can specify either Specification or Specifications, but not both.", "documented"),
        when(lambda p: bool(p.get("Specification")) and bool(p.get("Specifications"))),
    ),
    Rule(
        Words(
            "This emulator has no adapter inference components (BaseInferenceComponentName): give each adapter a "
            "component of its own, or serve adapters from the base model's container.",
            "ours",
        ),
        _any(lambda s: bool(s.get("BaseInferenceComponentName"))),
    ),
    Rule(
        Words("This emulator has no accelerator partitions (AcceleratorPartitionType): ask for whole devices.", "ours"),
        _any(lambda s: "AcceleratorPartitionType" in (s.get("ComputeResourceRequirements") or {})),
    ),
    Rule(
        Words("A specification has either a ModelName or a Container with an Image.", "guessed"),
        _any(lambda s: bool(s.get("ModelName")) == bool((s.get("Container") or {}).get("Image"))),
    ),
    Rule(
        Words("A specification needs ComputeResourceRequirements.", "guessed"),
        _any(lambda s: "ComputeResourceRequirements" not in s),
    ),
    Rule(
        Words("MaxMemoryRequiredInMb is below MinMemoryRequiredInMb.", "guessed"),
        _any(lambda s: _memory_crossed(s["ComputeResourceRequirements"])),
    ),
)

CREATE_INFERENCE_COMPONENT = (
    Rule(
        Words("Either Specification or Specifications is required.", "guessed"),
        when(lambda p: not specifications(p)),
    ),
    *_SPECIFICATION,
    Rule(
        Words("VariantName and RuntimeConfig are required for an inference component that is no adapter.", "guessed"),
        when(lambda p: "VariantName" not in p or "RuntimeConfig" not in p),
    ),
    Rule(
        Words("Inference components copy count an integer larger than 0", "reported"),
        when(lambda p: p["RuntimeConfig"]["CopyCount"] < 1),
    ),
)

UPDATE_INFERENCE_COMPONENT = (
    Rule(
        Words("Nothing is to be updated: give a Specification, Specifications or a RuntimeConfig.", "guessed"),
        when(lambda p: not specifications(p) and "RuntimeConfig" not in p),
    ),
    *_SPECIFICATION,
)
