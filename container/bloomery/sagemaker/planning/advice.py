"""What a plan has to say beyond its numbers, each as one sentence with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from bloomery.sagemaker.planning.facts import CheckpointFacts
from bloomery.sagemaker.planning.form import Form, kernel_injection
from bloomery.sagemaker.planning.licence import Licence
from bloomery.sagemaker.planning.load_time import LARGEST_VOLUME, LONGEST
from bloomery.sagemaker.planning.options import Option, Work
from bloomery.sagemaker.planning.shape import ModelShape
from bloomery.sharding import FAMILIES

_WITHOUT_BF16 = ("T4", "V100")  # emulated, several times slower than fp16
_STORED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number
_WANTED = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def advice(
    facts: CheckpointFacts,
    shape: ModelShape,
    form: Form,
    work: Work,
    licence: Licence,
    options: Sequence[Option],
) -> tuple[str, ...]:
    """In the order in which it matters. ``options``: the first is the one that is recommended."""
    said = [*_of_checkpoint(facts, form, options[0].degree if options else 1), *_of_model(facts, shape, work, licence)]
    if not options:
        return tuple(said)
    first = options[0]
    if not first.fits:
        said.append(_too_small(form, facts))
        return tuple(said)
    if form.int8 and kernel_injection(facts.config)[0]:
        said.append("int8 takes option.kernel_inject=false: the layers of DeepSpeed's own kernels stay fp16 on a GPU")
    elif form.dtype == "int8" and form.injected:
        said.append("int8 does nothing to the layers of DeepSpeed's own kernels on a GPU: give --no-kernel-inject")
    if form.computed == "bf16" and first.accelerator in _WITHOUT_BF16:
        said.append(f"{first.accelerator} has no bf16 arithmetic: give --dtype fp16")
    if not first.volume.enough:
        room = first.volume.local or LARGEST_VOLUME
        said.append(
            f"{facts.fetched_bytes / 1e9:.0f} GB have no room on the {room} GB of {first.instance_type}: set "
            "option.load_format=stream, which needs no disk"
        )
    if first.timeouts.short:
        said.append(_slow(first))
    return tuple(said)


def _of_checkpoint(facts: CheckpointFacts, form: Form, degree: int) -> list[str]:
    said = []
    if quantisation := facts.config.get("quantization_config"):
        method = quantisation.get("quant_method", "?") if isinstance(quantisation, dict) else quantisation
        said.append(
            f"the checkpoint is quantised ({method}), which bloomery's engines do not read: plan and deploy the "
            "checkpoint that it was made of, with --dtype int8 if memory is short"
        )
    if facts.format == "bin":
        said.append(
            "the weights are pickles (.bin), which are fetched whole and cannot be streamed: convert them once with "
            f"`bloomery shard {facts.uri} DST --tensor-parallel 1`"
        )
    stored = next(iter(facts.stored_dtypes), "")
    if facts.format != "split" and _STORED.get(stored, 0) > _WANTED[form.dtype]:
        said.append(
            f"the files hold {stored}, and {form.dtype} is wanted: `bloomery shard {facts.uri} DST --dtype "
            f"{form.dtype} --tensor-parallel {degree}` makes them smaller to keep and faster to load"
        )
    return said


def _of_model(facts: CheckpointFacts, shape: ModelShape, work: Work, licence: Licence) -> list[str]:
    said = []
    if licence.commercial is False:
        said.append(f"licence {licence.name}: {licence.remark}")
    if facts.model_type not in FAMILIES:
        said.append(
            f"there is no tensor-parallel table for model_type {facts.model_type!r}, so only degree 1 is planned; "
            f"there is one for {', '.join(FAMILIES)}"
        )
    if shape.positions is not None and work.length > shape.positions:
        said.append(f"--length {work.length} is more than the {shape.positions} positions that this model knows")
    return said


def _too_small(form: Form, facts: CheckpointFacts) -> str:
    ways = ["a shorter --length or a smaller --batch"]
    if _WANTED[form.dtype] > 2:
        ways.insert(0, "--dtype fp16")
    if form.dtype != "int8" and facts.model_type in FAMILIES:
        ways.insert(0, "--dtype int8")
    return f"nothing of this fits: try {', '.join(ways)}, or another instance type"


def _slow(option: Option) -> str:
    load = option.load
    head = (
        f"a load is expected to take {load.expected / 60:.0f} min on {option.instance_type}; with the usual safety the "
        f"time-out would be {option.timeouts.needed} s, and SageMaker takes {LONGEST} at most"
    )
    return (
        f"{head}: stream it (option.load_format=stream, about {load.expected_streaming / 60:.0f} min), or split it "
        f"ahead of time (`bloomery shard … --tensor-parallel {option.degree}`)"
    )
