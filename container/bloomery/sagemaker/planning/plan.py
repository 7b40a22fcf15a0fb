"""``plan``: what a checkpoint needs, and what it fits on, from its headers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bloomery.checkpoints.source import Source
from bloomery.checkpoints.sources import open_source
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.planning.advice import advice
from bloomery.sagemaker.planning.facts import CheckpointFacts, read_facts
from bloomery.sagemaker.planning.form import Form, choose, kernel_injection
from bloomery.sagemaker.planning.licence import Licence, judged
from bloomery.sagemaker.planning.memory import cache_bytes
from bloomery.sagemaker.planning.options import Option, OptionMaker, Work, gpu_types, machine_of, ordered
from bloomery.sagemaker.planning.shape import ModelShape, shape_of
from bloomery.sagemaker.planning.weights import RankWeights, rank_weights
from bloomery.sagemaker.quotas import Quota, quota_name

_USUAL_LENGTH = 1024  # option.max_tokens, unless it is set


@dataclass(frozen=True)
class Plan:
    """What is planned. ``options``: what fits first, the best of it first; an instance type may be there with several
    degrees. ``ranks``: bytes of weights of each rank, with the degree of the first option. ``cache_per_token``: bytes
    of all ranks together."""

    facts: CheckpointFacts
    shape: ModelShape
    form: Form
    work: Work
    ranks: tuple[RankWeights, ...]
    cache_per_token: int
    options: tuple[Option, ...]
    licence: Licence
    advice: tuple[str, ...]
    quotas: Mapping[str, Quota] = field(default_factory=dict)

    @property
    def recommended(self) -> Option | None:
        """The first that fits."""
        return next((option for option in self.options if option.fits), None)

    def priced(self, prices: Mapping[str, float]) -> Plan:
        """The same with prices, USD per hour by instance type, and in their order."""
        priced = [replace(option, price=prices.get(option.instance_type)) for option in self.options]
        return replace(_assembled(self.facts, self.shape, self.form, self.work, priced), quotas=self.quotas)

    def environment(self, option: Option) -> dict[str, str]:
        """The container's variables for ``option``."""
        return {
            "TENSOR_PARALLEL_DEGREE": str(option.degree),
            "OPTION_DTYPE": self.form.dtype,
            "OPTION_KERNEL_INJECT": str(self.form.injected).lower(),
            "OPTION_MAX_TOKENS": str(self.work.length),
        }

    def best_of_each(self) -> list[Option]:
        """The first option of each instance type."""
        found: dict[str, Option] = {}
        for option in self.options:
            found.setdefault(option.instance_type, option)
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers as they are, bytes and seconds."""
        facts = self.facts
        available, remark = kernel_injection(facts.config)
        return {
            "checkpoint": facts.uri,
            "model_type": facts.model_type,
            "parameters": facts.parameters,
            "stored": {
                "format": facts.format,
                "bytes_by_dtype": dict(facts.stored_dtypes),
                "weight_bytes": facts.weight_bytes,
                "fetched_bytes": facts.fetched_bytes,
                "split_ranks": facts.split_ranks,
            },
            "dtype": self.form.dtype,
            "computed_in": self.form.computed,
            "batch": self.work.batch,
            "length": self.work.length,
            "positions": self.shape.positions,
            "attention_heads": self.shape.heads.query,
            "key_value_heads": self.shape.heads.key_value,
            "ranks": [{**asdict(rank), "total": rank.total} for rank in self.ranks],
            "cache_bytes_per_token": self.cache_per_token,
            "licence": asdict(self.licence),
            "kernel_injection": {"available": available, "remark": remark, "planned": self.form.injected},
            "options": [
                {**_option(option, self.quotas), "environment": self.environment(option)} for option in self.options
            ],
            "recommended": self.recommended.instance_type if self.recommended else None,
            "advice": list(self.advice),
        }


def plan(
    checkpoint: str,
    *,
    instance_types: Sequence[str] = (),
    tensor_parallel: int | None = None,
    dtype: str = "auto",
    batch: int = 1,
    length: int | None = None,
    kernel_inject: bool | None = None,
    prices: Mapping[str, float] | None = None,
    revision: str | None = None,
    source: Source | None = None,
) -> Plan:
    """Plan a deployment of the checkpoint at a URI: a directory, s3://…, https://… or a hub's id.

    Reads config.json, the model card and the headers of the weights, a few hundred KB; never the weights.

    instance_types: those to look at, by default all with GPUs. tensor_parallel: one degree, by default all that the
    model allows. dtype: fp16, bf16, int8, fp32, or auto, which is what the checkpoint says. batch, length: sequences
    at once and tokens of each, prompt and answer together; by default 1 and 1024, or the model's positions if these
    are fewer. kernel_inject: as option.kernel_inject; by default where it is right for the model. prices: USD per hour
    by instance type. source: in place of ``checkpoint``'s own.

    Raises CheckpointError, ConfigurationError and UnsupportedModelError.
    """
    prices = prices or {}
    _check(batch, length, tensor_parallel, prices)
    for name in instance_types:
        machine_of(name)
    facts = read_facts(source or open_source(checkpoint, revision=revision))
    shape = shape_of(facts.config)
    form = choose(dtype, kernel_inject, facts)
    work = Work(batch, length or min(_USUAL_LENGTH, shape.positions or _USUAL_LENGTH))
    maker = OptionMaker(facts, shape, form, work)
    found = [
        option
        for name in dict.fromkeys(instance_types or gpu_types())
        for option in maker.options(name, tensor_parallel, prices.get(name))
    ]
    if not found:
        raise ConfigurationError(
            f"tensor_parallel={tensor_parallel} is more than the GPUs of {', '.join(instance_types) or 'any instance'}"
        )
    return _assembled(facts, shape, form, work, found)


def _assembled(facts: CheckpointFacts, shape: ModelShape, form: Form, work: Work, found: Iterable[Option]) -> Plan:
    options, licence = ordered(found), judged(facts.licence)
    return Plan(
        facts=facts,
        shape=shape,
        form=form,
        work=work,
        ranks=rank_weights(facts, form, options[0].degree),
        cache_per_token=cache_bytes(shape, form, 1, 1),
        options=tuple(options),
        licence=licence,
        advice=advice(facts, shape, form, work, licence, options),
    )


def _check(batch: int, length: int | None, tensor_parallel: int | None, prices: Mapping[str, float]) -> None:
    for name, value in (("batch", batch), ("length", length), ("tensor_parallel", tensor_parallel)):
        if value is not None and value < 1:
            raise ConfigurationError(f"{name}={value}: it must be at least 1")
    for name, price in prices.items():
        if not (0 <= price < math.inf):
            raise ConfigurationError(f"price of {name}: {price} is not a number of USD per hour")


def _option(option: Option, quotas: Mapping[str, Quota]) -> dict[str, Any]:
    quota = quotas.get(option.instance_type)
    return {
        "instance_type": option.instance_type,
        "accelerators": option.accelerators,
        "accelerator": option.accelerator,
        "tensor_parallel": option.degree,
        "copies": option.copies,
        "fits": option.fits,
        "rank_bytes": {**asdict(option.memory), "total": option.memory.total},
        "usable_bytes": option.usable,
        "largest_batch": option.largest_batch,
        "largest_length": option.largest_length,
        "expected_load_seconds": round(option.load.expected, 1),
        "expected_load_seconds_streaming": round(option.load.expected_streaming, 1),
        "ModelDataDownloadTimeoutInSeconds": option.timeouts.download,
        "ContainerStartupHealthCheckTimeoutInSeconds": option.timeouts.startup,
        "VolumeSizeInGB": option.volume.size,
        "local_storage_gb": option.volume.local,
        "usd_per_hour": option.price,
        "quota": {"name": quota_name(option.instance_type), "value": quota.value if quota else None},
    }
