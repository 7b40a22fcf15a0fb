"""The worker loop: one request in, one answer out, in order."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator
from typing import Any

from bloomery.processes import rank
from bloomery.protocol.frames import Chunk, Dialect, Request, encode_chunk, response_buffers
from djl_python.connection import Connection, PeerClosedError
from djl_python.failures import EXITS, describe, failure_output, report_failure
from djl_python.inputs import Input
from djl_python.invocation import CANCELLED, begin_initialising, checked, prepare, seed, sends_body
from djl_python.outputs import Output, stream_chunks
from djl_python.service_loader import ModelService


class Worker:
    """Answers the requests of one connection with the functions of one handler."""

    def __init__(self, sock: socket.socket, service: ModelService, properties: dict[str, Any]) -> None:
        self._connection, self._service, self._properties = Connection(sock), service, properties
        self._sends_body = sends_body()

    def run(self) -> None:
        """Serve until the peer closes the connection."""
        with contextlib.suppress(PeerClosedError):
            while True:
                self._serve(self._connection.read_request())

    def _serve(self, request: Request) -> None:
        Output.dialect = self._connection.dialect or Dialect.INT32
        inputs, request_id = prepare(request, self._properties)
        rank.current.begin(request_id)
        try:
            answer = self._invoke(inputs)
            self._connection.send(answer.frame)
            if answer.chunks is not None:
                with contextlib.closing(answer):
                    self._stream(answer)
        finally:
            rank.current.end()
        answer.output.execute_finalize()

    def _invoke(self, inputs: Input) -> _Answer:
        """The handler's answer, or the one that tells of its failure."""
        initialising = self._service.initialises(inputs)
        try:
            function = self._service.function(inputs.function_name)
            inputs.properties.update(self._service.formatters)
            seed(inputs)
            if initialising:
                begin_initialising(inputs)
            answer = _Answer(checked(function(inputs)), self._sends_body)
        except EXITS:
            raise
        except BaseException as error:
            report_failure(error)
            answer = _Answer(failure_output(error, with_frames=initialising), self._sends_body)
        if initialising:
            self._service.finish_initialising(answer.output.code)
        return answer

    def _stream(self, answer: _Answer) -> None:
        """Send every chunk, then the last one, which holds the text of an error if there was one."""
        failure = ""
        while answer.next_chunk is not None:
            if self._sends_body:
                self._connection.send([encode_chunk(Chunk(answer.next_chunk, last=False))])
            # A handler that knows nothing of cancellation stops here; several ranks would lose each other.
            if rank.current.cancelled and rank.current.world_size == 1:
                failure = CANCELLED
                break
            try:
                answer.pull()
            except EXITS:
                raise
            except BaseException as error:
                report_failure(error)
                failure = describe(error)
                break
        self._connection.send([encode_chunk(Chunk(failure.encode("utf-8", "replace"), last=True))])


class _Answer:
    """An output whose frame is known to be encodable, and the first item of its stream.

    The first item is made before the frame is sent: when it fails, the answer's status can still say so.
    """

    def __init__(self, output: Output, sends_body: bool) -> None:
        self.output = output
        self.frame = response_buffers(output.response_head(sends_body), Output.dialect)
        self.chunks: Generator[bytes, None, None] | None = None
        self.next_chunk: bytes | None = None
        if output.stream_content is not None:
            self.chunks = stream_chunks(output)
            self.pull()

    def pull(self) -> None:
        """Make the next item; None when there is none."""
        self.next_chunk = None if self.chunks is None else next(self.chunks, None)

    def close(self) -> None:
        """Close the handler's generator. Its answer has left: what fails now is a matter for the log."""
        try:
            if self.chunks is not None:
                self.chunks.close()
        except EXITS:
            raise
        except BaseException as error:
            report_failure(error)
