"""Makes the Outputs that a handler of the asynchronous mode returns or yields."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

from djl_python.outputs import Output

logger = logging.getLogger("djl_python.async_utils")


def create_non_stream_output(
    data: str | Mapping[str, Any],
    properties: Mapping[str, Any] | None = None,
    error: str | None = None,
    code: int | None = None,
) -> Output:
    """A whole answer, or a failure with its status."""
    return _output(data, True, "application/json", properties, error, code)


def create_stream_chunk_output(
    data: str | Mapping[str, Any], last_chunk: bool, error: str | None = None, code: int | None = None
) -> Output:
    """One piece of a streamed answer."""
    return _output(data, last_chunk, "application/jsonlines", None, error, code)


async def handle_streaming_response(
    response: AsyncIterator[Any],
    stream_output_formatter: Callable[..., Any],
    accumulate_chunks: bool = False,
    **kwargs: Any,
) -> AsyncGenerator[Output, None]:
    """Outputs of what ``response`` yields.

    The formatter makes ``(text, last)`` of a chunk; with ``accumulate_chunks`` it gets ``history`` and returns it as a
    third value. When it fails, the answer ends with the error.
    """
    history: Any = []
    async for chunk in response:
        try:
            if accumulate_chunks:
                data, last, history = stream_output_formatter(chunk, history=history, **kwargs)
            else:
                data, last = stream_output_formatter(chunk, **kwargs)
        except Exception as error:
            logger.exception("the formatter of a stream failed")
            yield create_stream_chunk_output("", True, error=str(error), code=424)
            return
        yield create_stream_chunk_output(data, last)
        if last:
            return


def _output(
    data: str | Mapping[str, Any],
    last: bool,
    content_type: str,
    properties: Mapping[str, Any] | None,
    error: str | None,
    code: int | None,
) -> Output:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    line = f"{text}\n" if text or not error else ""  # clients read line by line
    step: dict[str, Any] = {"data": line, "last": last}
    step |= {name: value for name, value in (("error", error), ("code", code)) if value}
    output = Output().add_property("Content-Type", content_type)
    for name, value in (properties or {}).items():
        output.add_property(name, value)
    return output.add(Output.binary_encode(step))
