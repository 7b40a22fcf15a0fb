"""How the ranks of one machine share what they read: each block is read by one of them and copied by the others.

Blocks lie in the slots of a rank's ring (``neighbours``). The messages:

    ANNOUNCE  "my tensors of the first ``number`` shared blocks may be filled", and a digest of what these blocks are;
              ``slot`` 1: there will be no more
    CHUNK     "``length`` bytes of shared block ``number``, from ``value``, lie in my ``slot``"
    FREE      "I have copied your ``slot``"
    REPORT    what a rank has read, for the first rank, after its last block; in pieces, the last one's ``number`` is 1
    VERDICT   the first rank's word on all of it: the text is empty when all is well
    FAILED    "I give up", and why
    BYE       the regular end

A block is read only when all ranks have announced it. So whatever lies in a slot is copied at once, slots are never
held, and no two ranks can wait for each other. A rank that ends without BYE is noticed by its socket.
"""

from __future__ import annotations

import contextlib
import mmap
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bloomery.checkpoints.streaming.neighbours import (
    SLOTS,
    TEXT_BYTES,
    Kind,
    Meet,
    Message,
    Neighbour,
    join,
    slot_of,
    unmap,
)
from bloomery.errors import CheckpointError

_LAST_WORDS_SECONDS = 1.0
Deliver = Callable[[int, int, memoryview], None]  # the number of a block, an offset in it, the bytes from there


@dataclass
class _Known:
    """What another rank has said so far."""

    announced: int = 0
    digests: dict[int, int] = field(default_factory=dict)
    complete: bool = False  # it will announce nothing more
    report: bytearray = field(default_factory=bytearray)
    reported: bool = False


class Handover:
    """This rank's end. ``members`` are the ranks that share, this one among them; ``index`` is its place there."""

    def __init__(self, rank: int, ring: mmap.mmap, neighbours: Sequence[Neighbour]) -> None:
        self.members = sorted([rank, *(neighbour.rank for neighbour in neighbours)])
        self.index = self.members.index(rank)
        # Notified of announcements, free slots, reports and failures.
        self.changed = threading.Condition()
        self.failure: CheckpointError | None = None  # why nothing more will come from the others
        self.bytes_handed_in = 0  # copied from other ranks' rings
        self._rank, self._ring = rank, ring
        self._neighbours = sorted(neighbours, key=lambda neighbour: neighbour.rank)
        self._known = {neighbour.rank: _Known() for neighbour in neighbours}
        self._copying = [0] * SLOTS  # how many others have not copied a slot yet
        self._free = list(range(SLOTS))
        self._digests: list[int] = []  # of the first 1, 2, 3, ... shared blocks
        self._verdict: bytes | None = None
        self._reporting = self._closing = False
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()

    def start(self, deliver: Deliver, announced: Callable[[], object]) -> None:
        """Serve the others' messages from now on: ``deliver`` gets what they have read, and ``announced`` is called
        when more blocks may have become ``ready``."""
        self._thread = threading.Thread(target=self._serve, args=(deliver, announced), name="handover", daemon=True)
        self._thread.start()

    def announce(self, digests: Sequence[int]) -> None:
        """More shared blocks may come: for each the digest of what it and all before it are."""
        with self.changed:
            self._digests += digests
            self._compare()
        self._to_all(Message(Kind.ANNOUNCE, number=len(self._digests), value=self._digests[-1]))

    def ready(self, number: int) -> bool:
        """Whether every other rank waits for the shared block ``number``."""
        return all(known.announced > number for known in self._known.values())

    def slot(self) -> tuple[int, memoryview]:
        """A free slot and its memory; waits for one. Raises CheckpointError when the others have failed."""
        with self.changed:
            self.changed.wait_for(lambda: self._free or self.failure or self._closing)
            self._raise_failure()
            if self._closing:
                raise CheckpointError("the load was given up")
            slot = self._free.pop()
        return slot, slot_of(self._ring, slot)

    def publish(self, slot: int, number: int, offset: int, length: int) -> None:
        """Let the others copy what is in ``slot``; it is free again when they and this rank have (``copied``)."""
        with self.changed:
            self._copying[slot] = 1 + len(self._neighbours)
        self._to_all(Message(Kind.CHUNK, slot, number, offset, length))

    def copied(self, slot: int) -> None:
        """One more has copied what is in ``slot``."""
        with self.changed:
            self._copying[slot] -= 1
            if not self._copying[slot]:
                self._free.append(slot)
                self.changed.notify_all()

    def give_up(self, reason: str) -> None:
        """Tell the others that this rank has failed."""
        self._leave(Message(Kind.FAILED, text=reason.encode()))

    def reports(self, own: bytes) -> list[bytes] | None:
        """In the first rank: what every rank reports, its ``own`` first. In others, which send theirs: None."""
        self._reporting = True
        self._to_all(Message(Kind.ANNOUNCE, 1, len(self._digests), self._digests[-1] if self._digests else 0))
        if self.index == 0:
            with self.changed:
                self.changed.wait_for(lambda: self.failure or all(known.reported for known in self._known.values()))
                self._raise_failure()
            return [own, *(bytes(self._known[neighbour.rank].report) for neighbour in self._neighbours)]
        starts = range(0, max(len(own), 1), TEXT_BYTES)
        for start in starts:
            last = int(start == starts[-1])
            self._send(self._neighbours[0], Message(Kind.REPORT, number=last, text=own[start : start + TEXT_BYTES]))
        return None

    def verdict(self, own: bytes | None = None) -> bytes:
        """The first rank's word, which it gives as ``own`` and the others wait for."""
        if own is not None:
            self._to_all(Message(Kind.VERDICT, text=own))
            return own
        with self.changed:
            self.changed.wait_for(lambda: self.failure or self._verdict is not None)
            self._raise_failure()
            return self._verdict or b""

    def wait_no_more(self) -> None:
        """Nobody gets a slot from now on, and who waits for one gets an error."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()

    def close(self) -> None:
        """Say goodbye, and let go of sockets and rings. No slot may be in use any more."""
        self._leave(Message(Kind.BYE))
        self._wake.close()
        if self._thread is not None:
            self._thread.join()
        for neighbour in self._neighbours:
            neighbour.close()
        self._woken.close()
        unmap(self._ring)

    def _leave(self, message: Message) -> None:
        """Last words, for whoever is still there."""
        for neighbour in self._neighbours:
            with contextlib.suppress(CheckpointError):
                neighbour.send(message)

    def _to_all(self, message: Message) -> None:
        for neighbour in self._neighbours:
            self._send(neighbour, message)

    def _send(self, neighbour: Neighbour, message: Message) -> None:
        try:
            neighbour.send(message)
        except CheckpointError as error:
            with self.changed:  # its last words may still lie in our socket
                self.changed.wait_for(lambda: self.failure, _LAST_WORDS_SECONDS)
            self._fail(error)
            raise (self.failure or error) from error

    def _serve(self, deliver: Deliver, announced: Callable[[], object]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for neighbour in self._neighbours:
                selector.register(neighbour.socket, selectors.EVENT_READ, neighbour)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    try:
                        message = key.data.receive()
                        goes_on = self._obey(key.data, message, deliver)
                        if message.kind is Kind.ANNOUNCE:
                            announced()
                    except CheckpointError as error:
                        self._fail(error)
                        goes_on = False
                    except Exception as error:  # of whoever puts the bytes into place; else all ranks would wait
                        failure = CheckpointError(f"what rank {key.data.rank} handed over cannot be used: {error!r}")
                        failure.__cause__ = error
                        self._fail(failure)
                        goes_on = False
                    if not goes_on:
                        selector.unregister(key.fileobj)

    def _obey(self, neighbour: Neighbour, message: Message, deliver: Deliver) -> bool:
        """Do what a message asks for; whether more will come from there."""
        match message.kind:
            case Kind.CHUNK:
                deliver(message.number, message.value, neighbour.slot(message.slot, message.length))
                self.bytes_handed_in += message.length
                with contextlib.suppress(CheckpointError):  # why it is gone comes as its next message
                    neighbour.send(Message(Kind.FREE, message.slot))
            case Kind.FREE:
                self.copied(message.slot)
            case Kind.FAILED:
                reason = message.text.decode(errors="replace")
                raise CheckpointError(f"rank {neighbour.rank} gave up while the ranks read the checkpoint: {reason}")
            case Kind.BYE:
                if not self._reporting:
                    raise CheckpointError(f"rank {neighbour.rank} has stopped to load the checkpoint; its log says why")
                return False
            case _:
                with self.changed:
                    self._note(self._known[neighbour.rank], message)
                    self.changed.notify_all()
        return True

    def _note(self, known: _Known, message: Message) -> None:
        if message.kind is Kind.ANNOUNCE:
            known.announced, known.complete = message.number, bool(message.slot)
            if message.number:
                known.digests[message.number] = message.value
            self._compare()
        elif message.kind is Kind.REPORT:
            known.report += message.text
            known.reported = bool(message.number)
        elif message.kind is Kind.VERDICT:
            self._verdict = message.text

    def _compare(self) -> None:
        """Whether all ranks mean the same by the numbers of their blocks. The lock is held."""
        for rank, known in self._known.items():
            common = [number for number in known.digests if number <= len(self._digests)]
            differ = any(known.digests.pop(number) != self._digests[number - 1] for number in common)
            if differ or (known.complete and known.announced < len(self._digests)):
                raise CheckpointError(
                    f"ranks {self._rank} and {rank} load different tensors: give all ranks the same model, "
                    "settings and checkpoint"
                )

    def _fail(self, error: CheckpointError) -> None:
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def _raise_failure(self) -> None:
        if self.failure:
            raise self.failure


def open_handover(rank: int, meet: Meet) -> tuple[Handover | None, str]:
    """This rank's end, once the ranks have met; None, and why, when it must read for itself. All ranks must call it."""
    neighbours, ring, reason = join(rank, meet)
    return (Handover(rank, ring, neighbours) if ring is not None else None), reason
