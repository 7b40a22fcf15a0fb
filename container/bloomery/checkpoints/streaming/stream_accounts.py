"""At the end of a stream: what the ranks have read together, and whether it is what the source vouches for.

Each rank remembers the CRC64NVME of every block that it has read. The first rank gets them all, joins them in the
order of the file, and compares the sum with the source's. Small gaps, tensors that the model does not want, are read
for this purpose; where more is missing, a file stays unchecked and the log says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from awscrt import checksums

from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.streaming.blocks import Segment
from bloomery.checkpoints.streaming.stream import Piece, Streamer
from bloomery.errors import CheckpointError

_SMALL_GAPS = 1 / 8  # of a file's size


@dataclass(frozen=True)
class Account:
    """``read``: bytes that this rank has read; ``by_all``: that the ranks of this machine have; ``size``: of the
    files. ``checked``: files whose checksum is right; ``unchecked``: the others, with the reason."""

    read: int
    handed_in: int
    by_all: int
    size: int
    checked: int
    unchecked: tuple[str, ...]

    def __str__(self) -> str:
        mib = 2**20
        handed = f", got {self.handed_in / mib:.0f} MiB from other ranks" if self.handed_in else ""
        unchecked = f"; not checked: {'; '.join(self.unchecked[:3])}" if self.unchecked else ""
        return (
            f"this rank read {self.read / mib:.0f} MiB{handed}; all ranks of this machine together read "
            f"{self.by_all / max(self.size, 1):.2f} times the checkpoint's {self.size / mib:.0f} MiB; checksums of "
            f"{self.checked} files are right{unchecked}"
        )


@dataclass(frozen=True)
class _Verdict:
    """The first rank's word."""

    error: str
    by_all: int
    checked: int
    unchecked: list[str]


def conclude(stream: Streamer, entries: Sequence[Entry], headers: Sequence[Piece]) -> Account:
    """All batches have been waited for. Raises CheckpointError, in every rank, when a file is damaged.

    ``headers``: what this rank read before the stream.
    """
    mine = [*headers, *stream.pieces]
    own = json.dumps([[piece.file, piece.start, piece.length, piece.crc] for piece in mine]).encode()
    reports = stream.handover.reports(own) if stream.handover else [own]
    if reports is None and stream.handover:
        verdict = _Verdict(**json.loads(stream.handover.verdict()))
    else:
        every = [[Piece(*piece) for piece in json.loads(report)] for report in reports or ()]
        verdict = _judge(stream, entries, every)
        if stream.handover:
            stream.handover.verdict(json.dumps(asdict(verdict)).encode())
    if verdict.error:
        raise CheckpointError(verdict.error)
    return Account(
        sum(piece.length for piece in mine),
        stream.handover.bytes_handed_in if stream.handover else 0,
        verdict.by_all,
        sum(entry.size for entry in entries),
        verdict.checked,
        tuple(verdict.unchecked),
    )


def _judge(stream: Streamer, entries: Sequence[Entry], reports: Sequence[Sequence[Piece]]) -> _Verdict:
    checked, unchecked, error, before = 0, [], "", len(stream.pieces)
    for entry in entries:
        # Every rank has read the headers; everything else has been read by one.
        pieces = {piece.start: piece for report in reports for piece in report if piece.file == entry.name}
        try:
            reason = _doubt(stream, entry, pieces)
        except CheckpointError as damage:
            error = str(damage)
            break
        if reason:
            unchecked.append(f"{entry.name}, {reason}")
        checked += not reason
    read = [piece.length for report in (*reports, stream.pieces[before:]) for piece in report]
    return _Verdict(error, sum(read), checked, unchecked)


def _doubt(stream: Streamer, entry: Entry, pieces: dict[int, Piece]) -> str:
    """Why a file cannot be checked; empty when its checksum is right. Raises CheckpointError when it is wrong."""
    if entry.crc64nvme is None:
        return "of which no CRC64NVME is known"
    gaps, end = [], 0
    for piece in sorted(pieces.values(), key=lambda piece: piece.start):
        if piece.start < end:
            return "of which some bytes were read twice"
        if piece.start > end:
            gaps.append((end, piece.start - end))
        end = piece.start + piece.length
    if end < entry.size:
        gaps.append((end, entry.size - end))
    missing = sum(length for _, length in gaps)
    if missing > entry.size * _SMALL_GAPS:
        return f"of which {missing} bytes were not read here"
    whole = {**pieces, **{piece.start: piece for piece in _read(stream, entry, gaps)}}
    crc = 0
    for _, piece in sorted(whole.items()):
        crc = checksums.combine_crc64nvme(crc, piece.crc, piece.length)
    if crc == entry.crc64nvme:
        return ""
    raise CheckpointError(_damage(stream, entry, whole, crc))


def _damage(stream: Streamer, entry: Entry, pieces: dict[int, Piece], crc: int) -> str:
    """Where a file is damaged, by a second reading."""
    again = _read(stream, entry, [(piece.start, piece.length) for piece in pieces.values()])
    differ = [piece for piece in again if piece.start in pieces and piece.crc != pieces[piece.start].crc]
    where = (
        f"bytes {differ[0].start} to {differ[0].start + differ[0].length - 1} came damaged, and are different when "
        "they are read again: load it once more"
        if differ
        else "the same bytes come again, so what is stored is damaged: upload it anew"
    )
    known = f"its CRC64NVME is {crc:016x}, not {entry.crc64nvme:016x}"
    return f"{entry.name} of {stream.source.uri} is damaged: {known}; {where}"


def _read(stream: Streamer, entry: Entry, ranges: Sequence[tuple[int, int]]) -> list[Piece]:
    """Read ranges (first byte, length) for their checksums only."""
    before = len(stream.pieces)
    for batch in [stream.read([Segment(_Nowhere(), entry, start, 0, length)]) for start, length in ranges]:
        batch.wait()
    return stream.pieces[before:]


class _Nowhere:
    """A landing for bytes that nobody wants."""

    def memory(self, position: int, length: int) -> memoryview | None:
        return None

    def land(self, position: int, data: memoryview) -> None:
        pass

    def arrived(self, count: int) -> None:
        pass
