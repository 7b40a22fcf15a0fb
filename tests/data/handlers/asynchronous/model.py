"""The asynchronous mode: answers overlap, streams are generators of Outputs, adapters come and go."""

import asyncio

from djl_python import Input, Output
from djl_python.async_utils import create_non_stream_output, create_stream_chunk_output

adapters = {}


def register_adapter(inputs: Input) -> Output:
    name = inputs.get_property("name")
    if not inputs.get_property("src"):
        raise ValueError(f"Invalid source of adapter {name}")
    adapters[name] = inputs.get_property("src")
    return Output(message=f"Adapter {name} registered")


async def unregister_adapter(inputs: Input) -> Output:
    del adapters[inputs.get_property("name")]
    return Output(message=f"Adapter {inputs.get_property('name')} unregistered")


async def handle(inputs: Input):
    if inputs.is_empty():
        return None
    request = inputs.get_as_json()
    if request.get("stream"):
        return words(request["text"])
    await asyncio.sleep(0)
    return create_non_stream_output({"text": request["text"], "adapters": sorted(adapters)})


async def words(text):
    parts = text.split()
    for index, part in enumerate(parts):
        await asyncio.sleep(0)
        yield create_stream_chunk_output({"token": part}, index == len(parts) - 1)
