"""The control channel: a rank answers questions while its main thread computes; its parent asks them.

The rank's side is ``serve``, a daemon thread; the parent's side is ``ControlClient``. The messages are
``protocol.control``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from dataclasses import replace

from bloomery.errors import ProtocolError, WorkerError
from bloomery.processes import rank
from bloomery.protocol.control import Ask, Status, decode_ask, decode_status, encode

MAX_LINE = 16 * 2**20  # a stack dump of many threads is long, but not endless


def serve(path: str) -> None:
    """Answer questions on the unix socket ``path`` until the process ends, each connection in its own thread."""
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_accept, args=(listener,), name="bloomery-control", daemon=True).start()


def _accept(listener: socket.socket) -> None:
    # The kernel may hand SIGTERM to any thread that does not block it, and then the main thread, which alone runs
    # Python's handlers, sleeps on in its system call. The peers' threads inherit this.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=_converse, args=(connection,), name="bloomery-control-peer", daemon=True).start()


def _converse(connection: socket.socket) -> None:
    with connection, connection.makefile("rwb") as stream:
        try:
            for line in stream:
                stream.write(encode(_answer(decode_ask(line))))
                stream.flush()
        except ProtocolError as error:
            print(f"control channel: {error}; closing the connection", file=sys.stderr)
        except OSError:
            pass  # the asker went away before it read the answer


def _answer(ask: Ask) -> Status:
    if ask.op == "cancel":
        rank.current.cancel(ask.request_id)
    status = rank.current.status()
    return replace(status, stack=stack()) if ask.op == "stack" else status


def stack() -> str:
    """Every thread's Python stack, the asking thread's own left out."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    return "\n".join(
        f"Thread {names.get(ident, 'unknown')} ({ident}):\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != own
    )


class ControlClient:
    """Asks one rank. It connects at the first question, and again after a failure.

    Every failure is a WorkerError that names the socket: no such rank, no answer in ``timeout`` seconds, garbage.
    """

    def __init__(self, path: str, timeout: float = 5.0) -> None:
        self.path, self.timeout = path, timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def ping(self) -> Status:
        """How the rank is: phase, progress, and what it works on."""
        return await self._ask(Ask("ping"))

    async def cancel(self, request_id: str) -> Status:
        """Ask the rank to stop that request; nothing happens when it works on another one."""
        return await self._ask(Ask("cancel", request_id))

    async def stack(self) -> Status:
        """The same as ping, with every thread's stack."""
        return await self._ask(Ask("stack"))

    async def close(self) -> None:
        """Close the connection. The client stays usable."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _ask(self, ask: Ask) -> Status:
        async with self._lock:  # answers carry no number: one question at a time
            answered = False
            try:
                async with asyncio.timeout(self.timeout):
                    status = await self._exchange(ask)
                answered = True
                return status
            except TimeoutError as error:
                raise WorkerError(f"no answer to {ask.op!r} within {self.timeout:g} s on {self.path}") from error
            except (OSError, ValueError, ProtocolError) as error:
                raise WorkerError(f"{ask.op!r} failed on {self.path}: {error}") from error
            finally:
                if not answered:  # whatever the reason: a late answer must not meet the next question
                    await self.close()

    async def _exchange(self, ask: Ask) -> Status:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self.path, limit=MAX_LINE)
        reader, writer = self._streams
        writer.write(encode(ask))
        await writer.drain()
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ProtocolError("the rank closed the connection")
        return decode_status(line)
