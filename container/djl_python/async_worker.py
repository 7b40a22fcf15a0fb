"""The asynchronous worker loop (``option.async_mode=true``): many requests in flight, answers in any order.

``async def handle(inputs)`` returns an Output, or is an async generator of Outputs whose content is the
``binary_encode`` of {"data", "last"}. Every frame of an answer names its request in ``request_tracking_id``; an
answer ends with the first frame whose payload is no such piece, or says ``last``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
from typing import Any

from bloomery.errors import ProtocolError
from bloomery.processes import rank
from bloomery.protocol.frames import (
    TRACKING_ID,
    Request,
    decode_bytes,
    decode_pairs,
    decode_request,
    read_async,
    response_buffers,
)
from djl_python.connection import PeerClosedError
from djl_python.failures import EXITS, failure_output, report_failure
from djl_python.inputs import Input
from djl_python.invocation import CANCELLED, begin_initialising, checked, prepare, seed, sends_body
from djl_python.outputs import Output
from djl_python.service_loader import ModelService


class AsyncWorker:
    """Answers the requests of one connection concurrently."""

    def __init__(self, sock: socket.socket, service: ModelService, properties: dict[str, Any]) -> None:
        self._socket, self._service, self._properties = sock, service, properties
        self._sends_body = sends_body()
        self._tasks: dict[asyncio.Task[None], str] = {}  # requests in flight and their private identity

    def run(self) -> None:
        """Serve until the peer closes the connection; what is in flight then is cancelled."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._socket.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        loop = asyncio.get_running_loop()
        rank.current.on_cancel = lambda request_id: loop.call_soon_threadsafe(lambda: self._cancel(request_id))
        try:
            while True:
                await self._accept(await self._read(reader))
        except PeerClosedError:
            pass
        finally:
            rank.current.on_cancel = None
            self._writer.transport.abort()  # nobody is left to read what is in flight

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        begun = False

        async def receive(count: int) -> bytes:
            nonlocal begun
            data = await reader.readexactly(count)
            begun = True
            return data

        try:
            request, Output.dialect = await read_async(decode_request(), receive)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            if begun or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                raise ProtocolError(f"the peer closed the connection within a frame: {error}") from error
            raise PeerClosedError from error
        return request

    async def _accept(self, request: Request) -> None:
        inputs, request_id = prepare(request, self._properties)
        task = asyncio.create_task(self._serve(inputs))
        self._tasks[task] = request_id
        task.add_done_callback(functools.partial(self._done, inputs))
        if self._service.initialises(inputs):
            await asyncio.wait([task])  # nothing else can be answered before

    def _cancel(self, request_id: str) -> None:
        for task, identity in self._tasks.items():
            if request_id and identity == request_id:
                task.cancel()

    def _done(self, inputs: Input, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if self._writer.is_closing():
            return
        if task.cancelled():  # told here and not in the task: it may have been cancelled before its first step
            self._writer.writelines(self._frame(inputs, Output().error(CANCELLED)))
        elif (error := task.exception()) is not None and not isinstance(error, (PeerClosedError, *EXITS)):
            report_failure(error)

    async def _serve(self, inputs: Input) -> None:
        initialising = self._service.initialises(inputs)
        try:
            output = await self._invoke(inputs, initialising)
            frame = self._frame(inputs, output)
        except (PeerClosedError, asyncio.CancelledError, *EXITS):
            raise
        except BaseException as error:
            report_failure(error)
            output = failure_output(error, with_frames=initialising)
            frame = self._frame(inputs, output)
        if initialising:
            self._service.finish_initialising(output.code)
        await self._write(frame)
        output.execute_finalize()

    async def _invoke(self, inputs: Input, initialising: bool) -> Output:
        """Call the handler and send what its generator makes; what is returned ends the answer."""
        function = self._service.function(inputs.function_name)
        inputs.properties.update(self._service.formatters)
        seed(inputs)
        if initialising:
            begin_initialising(inputs)
        result = function(inputs)
        if inspect.isawaitable(result):
            result = await result
        if not inspect.isasyncgen(result):
            return checked(result)
        output = None
        async with contextlib.aclosing(result):
            async for item in result:
                output = checked(item)
                if _is_last(output):
                    return output
                await self._write(self._frame(inputs, output))
                output.execute_finalize()
        if output is not None:
            raise RuntimeError("the handler's generator ended without an Output whose payload says last: True")
        return checked(None)

    def _frame(self, inputs: Input, output: Output) -> list[bytes]:
        if output.stream_content is not None:
            raise TypeError("add_stream_content has no place in async mode; yield Outputs from an async generator")
        tracking_id = inputs.get_property(TRACKING_ID)
        if tracking_id is not None:
            output.add_property(TRACKING_ID, tracking_id)
        return response_buffers(output.response_head(self._sends_body), Output.dialect)

    async def _write(self, frame: list[bytes]) -> None:
        """Write one frame, whole or not at all: another request's frame may follow at once."""
        if self._writer.is_closing():
            raise PeerClosedError
        self._writer.writelines(frame)
        rank.current.step()
        try:
            await self._writer.drain()
        except ConnectionError as error:  # the handler may raise one of its own, which is not this one
            raise PeerClosedError from error


def _is_last(output: Output) -> bool:
    """Whether this piece of a generator's answer ends it: by its payload, or because it tells of a failure."""
    if output.code != 200:
        return True
    try:
        pairs, _rest = decode_bytes(decode_pairs(Output.dialect), b"".join(output.content.values))
        return pairs["last"].lower() == "true"
    except (ProtocolError, KeyError) as error:
        raise TypeError(
            "an async generator must yield Outputs whose content is "
            "Output.binary_encode({'data': text, 'last': True or False})"
        ) from error
