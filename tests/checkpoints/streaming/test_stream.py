"""Bytes straight from a source into memory, by one rank alone; what several do together is in test_handover."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.checkpoints.streaming.landings import BytesLanding
from tests.support.counted_source import CountedSource

from bloomery.checkpoints.retry import RetryPolicy
from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.streaming.blocks import Segment
from bloomery.checkpoints.streaming.stream import Streamer
from bloomery.checkpoints.streaming.stream_accounts import Account, conclude
from bloomery.checkpoints.streaming.stream_headers import Tensors, read_headers
from bloomery.checkpoints.transfer import POLICY
from bloomery.errors import CheckpointError

SIZE = 3 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    return tmp_path


@contextmanager
def streaming(source: CountedSource, policy: RetryPolicy = POLICY) -> Iterator[Streamer]:
    stream = Streamer(source, connections=4, policy=policy)
    try:
        yield stream
    finally:
        stream.close()


def segment(source: CountedSource, landing: BytesLanding, start: int, position: int = 0) -> Segment:
    return Segment(landing, source.entries()[0], start, position, len(landing.data) - position)


@pytest.mark.parametrize("direct", [True, False], ids=["straight", "through a buffer"])
def test_bytes_arrive_where_they_belong(directory: Path, direct: bool) -> None:
    source = CountedSource(directory)
    landings = [BytesLanding(SIZE // 2 - 24, direct), BytesLanding(1600, direct), BytesLanding(24, direct)]
    starts = [0, SIZE // 2, SIZE - 24]

    with streaming(source) as stream:
        stream.read([segment(source, landing, start) for landing, start in zip(landings, starts, strict=True)]).wait()

    data = (directory / "model.bin").read_bytes()
    for landing, start in zip(landings, starts, strict=True):
        assert landing.data == data[start : start + len(landing.data)]
        assert landing.got == len(landing.data)


@pytest.mark.parametrize("direct", [True, False], ids=["straight", "through a buffer"])
def test_a_broken_connection_costs_no_byte_a_second_time(directory: Path, direct: bool) -> None:
    """However oddly it breaks: between two bytes of an element, too."""
    source = CountedSource(directory, breaks=[0, 1, 99_991, 500_003, 0, 12_345])
    landing = BytesLanding(SIZE, direct)

    with streaming(source) as stream:
        stream.read([segment(source, landing, 0)]).wait()

    assert landing.data == (directory / "model.bin").read_bytes()
    assert set(source.times_read(source.entries()[0])) == {1}


def test_batches_are_waited_for_one_by_one(directory: Path) -> None:
    source = CountedSource(directory)
    first, second = BytesLanding(1000), BytesLanding(1000)

    with streaming(source) as stream:
        batches = [stream.read([segment(source, first, 0)]), stream.read([segment(source, second, 2000)])]
        batches[1].wait()
        assert second.got == 1000
        batches[0].wait()
        assert first.got == 1000


def test_an_empty_batch_is_there_at_once(directory: Path) -> None:
    with streaming(CountedSource(directory)) as stream:
        stream.read([]).wait()


def test_who_waits_hears_what_went_wrong(directory: Path) -> None:
    source = CountedSource(directory, breaks=[0] * 1000)

    with (
        streaming(source, RetryPolicy(attempts=3)) as stream,
        pytest.raises(CheckpointError, match=r"model\.bin: the connection broke.*given up"),
    ):
        stream.read([segment(source, BytesLanding(100), 0)]).wait()


def test_nothing_that_has_been_filled_is_held(directory: Path) -> None:
    """The threads wait for more, and a tensor that was repacked meanwhile must go."""
    source = CountedSource(directory)
    landing = BytesLanding(SIZE)
    gone = weakref.ref(landing)

    with streaming(source) as stream:
        stream.read([segment(source, landing, 0)]).wait()
        del landing
        gc.collect()
        assert gone() is None


class TestChecksums:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        random = np.random.default_rng(1)
        for name in ("a", "b"):
            tensors = {f"{name}.{index}": random.random((200, 40), np.float32) for index in range(20)}
            save_file(tensors, tmp_path / f"{name}.safetensors")
        return tmp_path

    def test_a_file_that_was_read_whole_is_compared_with_what_the_source_vouches_for(self, weights: Path) -> None:
        account = read_all(CountedSource(weights))

        assert (account.checked, account.unchecked) == (2, ())
        assert account.read == account.by_all == account.size

    def test_each_byte_is_read_once_headers_included(self, weights: Path) -> None:
        source = CountedSource(weights)

        read_all(source)

        assert all(set(source.times_read(entry)) == {1} for entry in source.entries())

    def test_tensors_that_nobody_wants_are_read_for_the_checksum_when_they_are_few(self, weights: Path) -> None:
        assert read_all(CountedSource(weights), without=("a.3", "b.0", "b.19")).checked == 2

    def test_what_cannot_be_checked_is_said_with_the_reason(self, weights: Path) -> None:
        few = tuple(f"a.{index}" for index in range(10))

        account = read_all(CountedSource(weights), without=few)

        assert account.checked == 1
        assert "a.safetensors, of which 320000 bytes were not read here" in str(account)

    def test_a_source_without_checksums_is_said_to_have_none(self, weights: Path) -> None:
        source = CountedSource(weights)

        account = read_all(source, files=tuple(source.entries()))

        assert "a.safetensors, of which no CRC64NVME is known" in str(account)

    def test_a_byte_that_came_wrong_once_is_found_and_placed(self, weights: Path) -> None:
        with pytest.raises(CheckpointError, match=r"\.safetensors of s3.* is damaged: .*came damaged") as error:
            read_all(CountedSource(weights, flips=100_000))

        first, last = map(int, str(error.value).partition("bytes ")[2].partition(" came")[0].split(" to "))
        assert first <= 100_000 <= last

    def test_what_is_stored_wrong_is_told_from_what_came_wrong(self, weights: Path) -> None:
        with pytest.raises(CheckpointError, match=r"the same bytes come again, so what is stored is damaged"):
            read_all(CountedSource(weights, flips=100_000, flip_times=1000))


def test_a_file_that_is_no_safetensors_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)

    with pytest.raises(CheckpointError, match=r"a\.safetensors is damaged, or no safetensors file"):
        headers(CountedSource(tmp_path))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"w": np.zeros(3)}, tmp_path / f"{name}.safetensors")

    with pytest.raises(CheckpointError, match=r"holds w twice: in a\.safetensors and in b\.safetensors"):
        headers(CountedSource(tmp_path))


def headers(source: CountedSource, files: tuple[Entry, ...] | None = None) -> Tensors:
    return read_headers(source, files or source.safetensors(), 4)


def read_all(source: CountedSource, without: tuple[str, ...] = (), files: tuple[Entry, ...] | None = None) -> Account:
    """Read all tensors but some, and conclude."""
    files = files or source.safetensors()
    tensors = headers(source, files)
    wanted = [place for name, place in tensors.found.items() if name not in without]
    with streaming(source) as stream:
        stream.read(
            [Segment(BytesLanding(info.length), entry, info.start, 0, info.length) for entry, info in wanted]
        ).wait()
        return conclude(stream, files, tensors.headers)
