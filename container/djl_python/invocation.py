"""From a request frame to a handler's checked answer: what the blocking and the asynchronous worker share."""

from __future__ import annotations

import inspect
import os
import random
import sys
from typing import Any

from bloomery.processes import rank
from bloomery.protocol import private
from bloomery.protocol.frames import Request
from djl_python.inputs import Input
from djl_python.model_source import localise
from djl_python.outputs import Output

CANCELLED = "the request was cancelled"


def sends_body() -> bool:
    """Whether this rank's answers have a body.

    Our server reads rank 0's only. A foreign one may read any rank's: DJLServing 0.27 answers with the last one's.
    """
    return rank.current.index == 0 or private.CONTROL_SOCKET not in os.environ


def prepare(request: Request, properties: dict[str, Any]) -> tuple[Input, str]:
    """The handler's input with the worker's own ``properties`` added, and the request's private identity."""
    inputs = Input.from_request(request)
    request_id = str(inputs.properties.pop(private.REQUEST_ID, ""))
    inputs.properties.update(properties)
    return inputs, request_id


def seed(inputs: Input) -> None:
    """Seed every random source that is loaded with the number that all ranks of a group got for this request."""
    text = inputs.properties.pop(private.SEED, None)
    if text is None:
        return
    number = int(text)
    random.seed(number)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(number % 2**63)


def begin_initialising(inputs: Input) -> None:
    """What comes before the handler's first call, which loads the model."""
    Output.adopt_compat(inputs.get_property("compat"))
    localise(inputs.properties)
    rank.current.report("loading model")


def checked(result: object) -> Output:
    """The handler's result as an Output; None means 204."""
    if result is None:
        return Output(204, "No content")
    if isinstance(result, Output):
        if "_finalizers" not in vars(result):
            raise TypeError(f"{type(result).__name__}.__init__ must call Output.__init__")
        return result
    hint = ""
    if inspect.iscoroutine(result):
        result.close()
        hint = "; a handler that is an async def needs option.async_mode=true"
    elif inspect.isasyncgen(result):
        hint = "; a handler that is an async generator needs option.async_mode=true"
    raise TypeError(f"Invalid output type: {type(result)}{hint}")
