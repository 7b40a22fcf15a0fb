"""Settings that are right one by one and do not go together, or not with where they are likely to be used."""

from __future__ import annotations

from collections.abc import Iterator

from bloomery.settings.engine import BUILT_IN
from bloomery.settings.layers import Layer
from bloomery.settings.model import ModelSettings

# SageMaker's own limits: an InvokeEndpoint call, and the largest ContainerStartupHealthCheckTimeoutInSeconds.
_INVOCATION_SECONDS = 60
_STARTUP_SECONDS = 3600


def notices(model: ModelSettings, found: Layer) -> Iterator[str]:
    """Settings of which one makes another pointless; ``--strict`` makes them fatal."""
    if model.rolling_batch and model.async_mode:
        yield f"{_said(found, 'option.async_mode')} contradicts option.rolling_batch: the rolling batch is not used"
    for key in ("option.max_rolling_batch_size", "option.max_rolling_batch_prefill_tokens"):
        if not model.rolling_batch and key in found:
            yield (
                f"{_said(found, key)} has no effect without a handler of your own and option.rolling_batch; batch_size "
                "joins requests"
            )
    if model.batch_size > 1:
        yield from _of_batches(model, found)
    yield from _of_other_engines(model, found)


def _of_batches(model: ModelSettings, found: Layer) -> Iterator[str]:
    stated = _said(found, "batch_size")
    if model.async_mode:
        yield f"{stated} has no effect: with option.async_mode the handler joins requests"
    elif model.rolling_batch:
        yield f"{stated} has no effect: the rolling batch joins requests by itself"
    elif model.batch_size > model.job_queue_size:
        yield f"{stated} is never reached: job_queue_size={model.job_queue_size} is all that may wait"
    streaming = found.get("option.enable_streaming")
    if streaming and streaming.text.strip().lower() != "false":
        yield f"{_said(found, 'option.enable_streaming')} contradicts {stated}: the answers of a batch are not streamed"


def _of_other_engines(model: ModelSettings, found: Layer) -> Iterator[str]:
    """Options that another engine's built-in handler would read."""
    if model.entry_point not in BUILT_IN:
        return
    if model.entry_point == "djl_python.deepspeed" and "option.device_map" in found:
        yield f"{_said(found, 'option.device_map')} has no effect: engine DeepSpeed splits the layers by itself"
    if model.entry_point == "djl_python.huggingface":
        for key in ("option.kernel_inject", "option.injection_policy", "option.allreduce"):
            if key in found:
                yield f"{_said(found, key)} has no effect: it is of engine=DeepSpeed, and this is {model.engine}"


def remarks(model: ModelSettings, found: Layer) -> Iterator[str]:
    """What is right as it is and may surprise."""
    plain = model.engine == "Python" and model.entry_point in BUILT_IN
    if plain and model.tensor_parallel_degree > 1 and "option.device_map" not in found:
        yield (
            f"{_said(found, 'option.tensor_parallel_degree')} with engine=Python: one process puts whole layers on one "
            "device after another and computes with one at a time (device_map=auto; on CPUs it changes nothing); "
            "engine=DeepSpeed splits each layer over all of them"
        )
    if "option.predict_timeout" in found and model.predict_timeout > _INVOCATION_SECONDS:
        yield (
            f"{_said(found, 'option.predict_timeout')}: SageMaker's InvokeEndpoint gives up after "
            f"{_INVOCATION_SECONDS} s; stream, or use an asynchronous endpoint"
        )
    if "option.model_loading_timeout" in found and model.model_loading_timeout > _STARTUP_SECONDS:
        yield (
            f"{_said(found, 'option.model_loading_timeout')}: SageMaker waits {_STARTUP_SECONDS} s at most "
            "(ContainerStartupHealthCheckTimeoutInSeconds)"
        )


def _said(found: Layer, key: str) -> str:
    return f"{found[key].origin}: {key}={found[key].text.strip()}"
