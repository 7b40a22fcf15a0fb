"""One step of the rolling batch protocol: from the server's request to the answer that it expects."""

from __future__ import annotations

from typing import Any

from djl_python.input_parser import ParsedInput
from djl_python.inputs import Input
from djl_python.outputs import Output
from djl_python.rolling_batch.rolling_batch import RollingBatch


def rolling_batch_inference(
    parsed_input: ParsedInput, inputs: Input, outputs: Output, rolling_batch: RollingBatch
) -> Output:
    """Compute a step, and add an entry per request of ``inputs`` to ``outputs``.

    A request that could not be parsed gets its error as its last entry and never enters the batch.
    """
    results = iter(rolling_batch.inference(parsed_input.requests))
    for index in range(inputs.get_batch_size()):
        error = parsed_input.errors.get(index)
        result = {"data": "", "last": True, "code": 424, "error": error} if error else next(results, None)
        if result is None:
            raise RuntimeError(
                f"the rolling batch has a result for {index} requests, and the server waits for "
                f"{inputs.get_batch_size()}: inference must return one per active request, in their order"
            )
        add_step(outputs, index, result)
    if next(results, None) is not None:
        raise RuntimeError(f"the rolling batch has results for more than {inputs.get_batch_size()} requests")
    return outputs


def add_step(outputs: Output, index: int, result: dict[str, Any]) -> None:
    """Add the entry of the request at ``index``: ``data`` and ``last``, and what else there is to say."""
    names = ("data", "last", "step_token_num", "code", "error", "request_id")
    entry = {name: result[name] for name in names if result.get(name) is not None}
    outputs.add(Output.binary_encode(entry), batch_index=index)
    content_type = result.get("content_type")
    if content_type:
        outputs.add_property(f"batch_{index}_Content-Type", content_type)
