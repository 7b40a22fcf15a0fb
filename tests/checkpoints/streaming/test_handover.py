"""What ranks of one machine read together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints.streaming.landings import BytesLanding
from tests.support.counted_source import CountedSource

from bloomery.checkpoints.streaming.blocks import CHUNK_BYTES, Segment
from bloomery.checkpoints.streaming.handover import Handover, open_handover
from bloomery.checkpoints.streaming.neighbours import SLOTS
from bloomery.checkpoints.streaming.stream import Streamer
from bloomery.errors import CheckpointError

REPOSITORY = Path(__file__).parents[3]


class Meeting:
    """Where ranks that are threads tell each other what an engine's ranks tell each other by torch."""

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks, timeout=30)
        self._told: list[bytes] = [b""] * ranks

    def of(self, rank: int) -> Callable[[bytes], Sequence[bytes]]:
        def tell(text: bytes) -> list[bytes]:
            self._told[rank] = text
            self._barrier.wait()
            told = list(self._told)
            self._barrier.wait()
            return told

        return tell


def together(ranks: int, work: Callable[[int, Handover], Any]) -> list[Any]:
    """What ``work`` returns in each rank, or the CheckpointError that it raised."""
    meeting = Meeting(ranks)

    def run(rank: int) -> Any:
        handover, reason = open_handover(rank, meeting.of(rank))
        assert handover is not None, reason
        try:
            return work(rank, handover)
        except CheckpointError as error:
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two files, of which one does not fit into a ring."""
    (tmp_path / "large").write_bytes(os.urandom((SLOTS + 4) * CHUNK_BYTES + 12_345))
    (tmp_path / "small").write_bytes(os.urandom(1000))
    return tmp_path


def segments(source: CountedSource, file: str) -> tuple[BytesLanding, Segment]:
    entry = next(entry for entry in source.entries() if entry.name == file)
    landing = BytesLanding(entry.size)
    return landing, Segment(landing, entry, 0, 0, entry.size)


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_gets_all_and_each_byte_is_read_once(directory: Path, ranks: int) -> None:
    source = CountedSource(directory)

    def work(rank: int, handover: Handover) -> tuple[bytes, bytes, int, int]:
        stream = Streamer(source, connections=3, handover=handover)
        (large, first), (small, second) = segments(source, "large"), segments(source, "small")
        batches = [stream.read([], [first]), stream.read([], [second])]
        for batch in batches:
            batch.wait()
        handover.reports(b"")
        handover.verdict(b"" if rank == 0 else None)
        stream.close()
        return (
            bytes(large.data),
            bytes(small.data),
            sum(piece.length for piece in stream.pieces),
            handover.bytes_handed_in,
        )

    results = together(ranks, work)

    sizes = {entry.name: entry.size for entry in source.entries()}
    for large, small, read, handed in results:
        assert large == (directory / "large").read_bytes()
        assert small == (directory / "small").read_bytes()
        assert read + handed == sum(sizes.values())
        assert read < sum(sizes.values()) * 0.7
    assert sum(length for _, _, length in source.reads) == sum(sizes.values())


def test_a_broken_connection_hands_nothing_over_twice(directory: Path) -> None:
    source = CountedSource(directory, breaks=[100_001, 3, 0, 2_000_007, 77])

    def work(rank: int, handover: Handover) -> bytes:
        stream = Streamer(source, connections=3, handover=handover)
        landing, segment = segments(source, "large")
        stream.read([], [segment]).wait()
        assert landing.got == len(landing.data)
        handover.reports(b"")
        handover.verdict(b"" if rank == 0 else None)
        stream.close()
        return bytes(landing.data)

    assert together(2, work) == [(directory / "large").read_bytes()] * 2


def test_the_first_rank_hears_what_each_has_read_and_all_hear_its_word() -> None:
    long = os.urandom(100_000)

    def work(rank: int, handover: Handover) -> tuple[list[bytes] | None, bytes]:
        handover.start(lambda number, offset, data: None, lambda: None)
        reports = handover.reports(bytes([rank]) + long)
        verdict = handover.verdict(b"well done" if reports else None)
        handover.close()
        return reports, verdict

    results = together(3, work)

    assert results[0] == ([bytes([rank]) + long for rank in range(3)], b"well done")
    assert results[1] == results[2] == (None, b"well done")


def test_a_rank_that_gives_up_says_why_to_the_others(directory: Path) -> None:
    source = CountedSource(directory)

    def work(rank: int, handover: Handover) -> None:
        stream = Streamer(source, connections=3, handover=handover)
        if rank == 1:
            stream.close(CheckpointError("config.json is of another model"))
            return
        try:
            stream.read([], [segments(source, "large")[1]]).wait()
        finally:
            stream.close()

    error = together(2, work)[0]

    assert "rank 1 gave up" in str(error)
    assert "config.json is of another model" in str(error)


def test_a_rank_that_cannot_use_what_it_is_handed_is_no_hang(directory: Path) -> None:
    """Its landing may raise anything: a GPU's error, for instance."""
    source = CountedSource(directory)

    class Broken(BytesLanding):
        def land(self, position: int, data: memoryview) -> None:
            raise RuntimeError("the device is lost")

    def work(rank: int, handover: Handover) -> None:
        stream = Streamer(source, connections=3, handover=handover)
        _, segment = segments(source, "small")  # one block, which rank 0 reads
        broken = Segment(Broken(segment.length), segment.entry, 0, 0, segment.length)
        shared = [broken] if rank == 1 else [segment]
        try:
            stream.read([], shared).wait()
        except (CheckpointError, RuntimeError) as error:
            stream.close(error)
            raise CheckpointError(str(error)) from error
        stream.close()

    assert "what rank 0 handed over cannot be used: RuntimeError('the device is lost')" in str(together(2, work)[1])


def test_a_rank_that_stops_early_keeps_nobody_waiting(directory: Path) -> None:
    source = CountedSource(directory)

    def work(rank: int, handover: Handover) -> None:
        stream = Streamer(source, connections=3, handover=handover)
        try:
            if rank == 0:
                stream.read([], [segments(source, "large")[1]]).wait()
        finally:
            stream.close()

    assert "rank 1 has stopped to load" in str(together(2, work)[0])


@pytest.mark.parametrize("other", ["another tensor", "fewer tensors"])
def test_ranks_that_load_different_things_are_told_so(directory: Path, other: str) -> None:
    source = CountedSource(directory)

    def work(rank: int, handover: Handover) -> None:
        stream = Streamer(source, connections=3, handover=handover)
        try:
            files = ["large", "small"] if rank == 0 else ["small", "large"] if other == "another tensor" else ["large"]
            for file in files:
                stream.read([], [segments(source, file)[1]]).wait()
            handover.reports(b"")
            handover.verdict(b"" if rank == 0 else None)
        except CheckpointError as error:
            stream.close(error)
            raise
        stream.close()

    results = together(2, work)

    assert any("load different tensors" in str(error) for error in results)
    assert all(isinstance(error, CheckpointError) for error in results)


DIES = """
import os, signal, sys, time
from pathlib import Path
from tests.checkpoints.streaming.test_handover import segments
from tests.support.counted_source import CountedSource
from bloomery.checkpoints.streaming.handover import open_handover
from bloomery.checkpoints.streaming.stream import Streamer

rank, place = int(sys.argv[1]), Path(sys.argv[2])
meetings = 0

def tell(text):
    global meetings
    meetings += 1
    (place / f"part-{meetings}-{rank}").write_bytes(text)
    (place / f"part-{meetings}-{rank}").rename(place / f"{meetings}-{rank}")
    told = [place / f"{meetings}-{other}" for other in range(2)]
    while not all(path.exists() for path in told):
        time.sleep(0.01)
    return [path.read_bytes() for path in told]

handover, reason = open_handover(rank, tell)
source = CountedSource(place / "files")
stream = Streamer(source, connections=2, handover=handover)
if rank == 1:
    handover.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # in the middle of the first block
stream.read([], [segments(source, "large")[1]]).wait()
"""


def test_a_rank_that_is_killed_is_an_error_that_names_it_and_no_hang(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "meeting" / "files").mkdir(parents=True)
    for file in ("large", "small"):
        (directory / file).rename(tmp_path / "meeting" / "files" / file)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'container'}:{REPOSITORY}"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", DIES, str(rank), str(tmp_path / "meeting")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()

    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].returncode == 1
    assert "CheckpointError: rank 1 has died while the ranks read the checkpoint together" in outputs[0]


def test_without_shared_memory_each_rank_is_told_to_read_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    meeting = Meeting(2)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda rank: open_handover(rank, meeting.of(rank)), range(2)))

    assert results == [(None, "this system has no memfd_create or unix sockets")] * 2


def test_ranks_of_other_machines_are_left_alone() -> None:
    meeting = Meeting(2)

    def elsewhere(rank: int) -> Callable[[bytes], Sequence[bytes]]:
        tell = meeting.of(rank)
        return lambda text: tell(text.replace(b"|", b"-%d|" % rank, 1))

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda rank: open_handover(rank, elsewhere(rank)), range(2)))

    assert results == [(None, "no other rank is on this machine")] * 2
