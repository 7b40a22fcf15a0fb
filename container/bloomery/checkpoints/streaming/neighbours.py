"""The ranks of one machine find each other: a unix socket to each, and each one's ring of shared memory.

The rings are anonymous (memfd_create), so /dev/shm, which has 64 MB in a container, is not touched; their descriptors
travel over the sockets. The sockets' names are abstract and random: nothing lies about when a rank is killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bloomery.checkpoints.streaming.blocks import CHUNK_BYTES
from bloomery.errors import CheckpointError

SLOTS = 16  # of CHUNK_BYTES each, in a ring
TEXT_BYTES = 32 << 10
_HEAD = struct.Struct("=BHQQI")
_JOIN_SECONDS = 30.0

# Everybody's bytes, in the order of the ranks: what an engine can do once its ranks have met.
Meet = Callable[[bytes], Sequence[bytes]]


class Kind(IntEnum):
    """What a message says; see ``handover``."""

    HELLO = 0
    ANNOUNCE = 1
    CHUNK = 2
    FREE = 3
    REPORT = 4
    VERDICT = 5
    FAILED = 6
    BYE = 7


@dataclass(frozen=True)
class Message:
    """One packet. ``value``: an offset in a block, or a digest."""

    kind: Kind
    slot: int = 0
    number: int = 0
    value: int = 0
    length: int = 0
    text: bytes = b""

    def encode(self) -> bytes:
        """As it is sent."""
        return _HEAD.pack(self.kind, self.slot, self.number, self.value, self.length) + self.text[:TEXT_BYTES]

    @classmethod
    def decode(cls, packet: bytes) -> Message:
        """From a packet; raises OSError for one of somebody else."""
        try:
            kind, slot, number, value, length = _HEAD.unpack_from(packet)
            return cls(Kind(kind), slot, number, value, length, packet[_HEAD.size :])
        except (struct.error, ValueError) as error:
            raise OSError("the other end speaks another language") from error


class Neighbour:
    """Another rank of this machine."""

    def __init__(self, rank: int, connected: socket.socket, ring: mmap.mmap) -> None:
        self.rank, self.socket, self._ring = rank, connected, ring
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises CheckpointError when that rank is gone."""
        try:
            with self._sending:
                self.socket.sendall(message.encode())
        except OSError as error:
            raise self.died() from error

    def receive(self) -> Message:
        """The next message; waits for it. Raises CheckpointError when that rank is gone."""
        try:
            packet = self.socket.recv(_HEAD.size + TEXT_BYTES)
            if packet:
                return Message.decode(packet)
        except OSError as error:
            raise self.died() from error
        raise self.died()

    def slot(self, index: int, length: int) -> memoryview:
        """What that rank has put into a slot of its ring."""
        return slot_of(self._ring, index)[:length]

    def died(self) -> CheckpointError:
        """To be raised when it does not answer any more."""
        return CheckpointError(
            f"rank {self.rank} has died while the ranks read the checkpoint together; its own log says why"
        )

    def close(self) -> None:
        """Let go of the socket and the ring."""
        self.socket.close()
        unmap(self._ring)


def slot_of(ring: mmap.mmap, index: int) -> memoryview:
    """The memory of one slot."""
    return memoryview(ring)[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def unmap(ring: mmap.mmap) -> None:
    """Give the memory back, unless a thread that was given up still looks at it: then the process's end does."""
    with contextlib.suppress(BufferError):
        ring.close()


def join(rank: int, meet: Meet) -> tuple[list[Neighbour], mmap.mmap | None, str]:
    """The other ranks of this machine and this rank's own ring; nobody, and why, when ranks cannot reach each other.

    Every rank must call it: ``meet`` is called twice.
    """
    with contextlib.ExitStack() as opened:
        offer, listener, ring = _offer(opened)
        offers = [bytes(each) for each in meet(offer)]
        others = {other: each for other, each in enumerate(offers) if other != rank and offer and _near(each, offer)}
        neighbours, reason = [], ""
        if others and listener is not None:
            try:
                neighbours = _connect(rank, others, listener, ring)
            except OSError as error:
                reason = f"the ranks of this machine cannot reach each other: {error}"
        elif len(offers) > 1:
            reason = "no other rank is on this machine" if offer else "this system has no memfd_create or unix sockets"
        outcomes = meet(b"-" if others and not neighbours else b"+")
        if neighbours and any(outcomes[other] == b"-" for other in others):
            for neighbour in neighbours:
                neighbour.close()
            neighbours, reason = [], "another rank of this machine cannot be reached"
        return neighbours, mmap.mmap(ring, SLOTS * CHUNK_BYTES) if neighbours else None, reason


def _offer(opened: contextlib.ExitStack) -> tuple[bytes, socket.socket | None, int]:
    """Which machine this is and where this rank listens; empty where the system lacks what it takes."""
    try:
        ring = os.memfd_create("bloomery-handover")
        opened.callback(os.close, ring)
        os.ftruncate(ring, SLOTS * CHUNK_BYTES)
        listener = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        name = f"bloomery-handover-{secrets.token_hex(16)}"
        listener.bind(f"\0{name}")
        listener.listen()
        # An abstract name is known in its network namespace only.
        host = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/net')}"
    except (OSError, AttributeError):
        return b"", None, -1
    return f"{host}|{name}".encode(), listener, ring


def _near(one: bytes, other: bytes) -> bool:
    return one.partition(b"|")[0] == other.partition(b"|")[0]


def _connect(rank: int, others: Mapping[int, bytes], listener: socket.socket, ring: int) -> list[Neighbour]:
    """Call the lower ranks, and be called by the higher ones. Raises OSError."""
    deadline = time.monotonic() + _JOIN_SECONDS
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for lower in sorted(other for other in others if other < rank):
            sockets.append(opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)))
            sockets[-1].settimeout(_JOIN_SECONDS)
            sockets[-1].connect(b"\0" + others[lower].partition(b"|")[2])
        for _ in range(sum(other > rank for other in others)):
            listener.settimeout(max(0.1, deadline - time.monotonic()))
            sockets.append(opened.enter_context(listener.accept()[0]))
        neighbours = [_greet(rank, each, ring) for each in sockets]
        if sorted(neighbour.rank for neighbour in neighbours) != sorted(others):
            raise OSError("somebody else called")
        opened.pop_all()
        return neighbours


def _greet(rank: int, connected: socket.socket, ring: int) -> Neighbour:
    """Exchange rings. Who is at the other end is asked of the kernel: an abstract name has no permissions."""
    connected.settimeout(_JOIN_SECONDS)
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[1] != os.geteuid():
        raise OSError("a process of another user called")
    socket.send_fds(connected, [Message(Kind.HELLO, number=rank).encode()], [ring])
    packet, descriptors, _, _ = socket.recv_fds(connected, _HEAD.size, 1)
    with contextlib.ExitStack() as opened:
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
        message = Message.decode(packet)
        if message.kind is not Kind.HELLO or len(descriptors) != 1:
            raise OSError("the other end speaks another language")
        theirs = mmap.mmap(descriptors[0], SLOTS * CHUNK_BYTES)
    connected.settimeout(None)
    return Neighbour(message.number, connected, theirs)
