"""The request socket of one rank, as the server sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bloomery.errors import ProtocolError, WorkerError
from bloomery.protocol import frames


class LostConnectionError(WorkerError):
    """A rank hung up. Why, its exit tells a moment later."""


class Connection:
    """Frames to and from one rank. Whatever goes wrong on it is a WorkerError: the rank is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rank: int) -> None:
        self.rank = rank
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, address: Path, rank: int) -> Connection:
        """Connect; the rank already listens."""
        try:
            reader, writer = await asyncio.open_unix_connection(address, limit=2**20)
        except OSError as error:
            raise LostConnectionError(f"rank {rank} does not accept a connection on {address}: {error}") from error
        return cls(reader, writer, rank)

    async def send(self, frame: bytes) -> None:
        """Write one request frame."""
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except OSError as error:
            raise self._lost(error) from error

    async def read_head(self) -> frames.ResponseHead:
        """One answer, up to where its stream begins."""
        return await self._read(frames.decode_response())

    async def read_chunk(self) -> frames.Chunk:
        """One chunk of a stream."""
        return await self._read(frames.decode_chunk())

    async def _read(self, decoder: frames.Decoder[frames.Value]) -> frames.Value:
        try:
            return await frames.read_async(decoder, self._reader.readexactly)
        except asyncio.IncompleteReadError as error:
            raise LostConnectionError(f"rank {self.rank} closed its connection") from error
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolError as error:
            raise WorkerError(f"rank {self.rank} answered garbage: {error}") from error

    def _lost(self, error: OSError) -> WorkerError:
        return LostConnectionError(f"rank {self.rank} lost its connection: {error.strerror or error}")

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
