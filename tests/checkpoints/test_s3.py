"""The S3 source over a server that can fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment

from bloomery.checkpoints.reading import read_bytes
from bloomery.checkpoints.s3 import S3Source
from bloomery.checkpoints.source import ChangedError, Connection, Entry, TransientError
from bloomery.checkpoints.transport import Transport
from bloomery.errors import CheckpointError

WEIGHTS = bytes(range(256)) * 4096
FAST = Transport(stall_timeout=0.4)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A server with one model, s3://bucket/model."""
    model = tmp_path / "bucket" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "empty.txt").touch()
    for name in (*FOREIGN, "AWS_REQUEST_PAYER", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    with FaultyS3(tmp_path) as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def source(s3: FaultyS3) -> S3Source:
    return S3Source("s3://bucket/model", transport=FAST)


@pytest.fixture
def weights(source: S3Source) -> Entry:
    return next(entry for entry in source.entries() if entry.name == "model.safetensors")


@pytest.fixture
def connection(source: S3Source) -> Iterator[Connection]:
    connection = source.connect()
    yield connection
    connection.close()


def once(connection: Connection, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
    """What one attempt brings."""
    length = entry.size if length is None else length
    data = bytearray(length)
    left = memoryview(data)
    with connection.read(entry, start, length) as body:
        while count := body.readinto(left):
            left = left[count:]
    return bytes(data[: length - len(left)])


class TestListing:
    def test_a_prefix_is_its_objects(self, source: S3Source) -> None:
        assert [(entry.name, entry.size) for entry in source.entries()] == [
            ("config.json", 2),
            ("empty.txt", 0),
            ("model.safetensors", len(WEIGHTS)),
        ]

    def test_one_object_may_be_named(self, s3: FaultyS3) -> None:
        source = S3Source("s3://bucket/model/config.json")
        entry = source.entries()[0]
        assert entry.name == "config.json"
        with closing(source.connect()) as connection:
            assert read_bytes(connection, entry) == b"{}"

    def test_s3s_checksum_of_the_whole_object_is_known(self, source: S3Source) -> None:
        from awscrt.checksums import crc64nvme

        known = {entry.name: entry.crc64nvme for entry in source.checksummed(source.entries())}
        assert known["model.safetensors"] == crc64nvme(WEIGHTS)


class TestReading:
    def test_a_range_is_read_into_memory(self, connection: Connection, weights: Entry) -> None:
        assert once(connection, weights, 1000, 50_000) == WEIGHTS[1000:51_000]

    def test_ranges_come_over_one_connection(self, connection: Connection, weights: Entry) -> None:
        for start in range(0, 100_000, 10_000):
            assert once(connection, weights, start, 10_000) == WEIGHTS[start : start + 10_000]
        assert connection._http._channel is not None  # type: ignore[attr-defined]

    def test_an_empty_object_needs_no_request(self, s3: FaultyS3, source: S3Source, connection: Connection) -> None:
        empty = next(entry for entry in source.entries() if not entry.size)
        s3.forget()
        assert once(connection, empty) == b""
        assert s3.requests() == []

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (Fault("reset", after_bytes=5000), "after 5000 of 1048576 bytes: Connection reset by peer"),
            (Fault("reset"), "Connection reset by peer"),
            (Fault("truncate", after_bytes=5000), "after 5000 of 1048576 bytes: the connection was closed too early"),
            (Fault("stall", after_bytes=5000), r"after 5000 of 1048576 bytes: no byte came for 0\.4 s"),
            (Fault("stall"), r"no byte came for 0\.4 s"),
            (Fault("error"), "S3 answered 503 SlowDown"),
            (Fault("error", status=500, code="InternalError"), "S3 answered 500 InternalError"),
        ],
    )
    def test_what_may_pass_is_transient_and_names_object_and_range(
        self, s3: FaultyS3, connection: Connection, weights: Entry, fault: Fault, message: str
    ) -> None:
        s3.inject(fault)
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"^s3://bucket/model/model.safetensors, bytes 0-1048575: " + message):
            once(connection, weights)
        assert time.monotonic() - began < 10
        s3.heal()
        assert once(connection, weights) == WEIGHTS

    def test_a_wish_for_rest_is_told(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("error", retry_after=7))
        with pytest.raises(TransientError) as caught:
            once(connection, weights)
        assert (caught.value.slow_down, caught.value.after) == (True, 7)

    def test_a_replaced_object_is_noticed(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("replace", times=1))
        once(connection, weights, 0, 100)
        with pytest.raises(ChangedError, match=r"model\.safetensors, bytes 100-199: the object was replaced"):
            once(connection, weights, 100, 100)

    def test_another_region_is_followed(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("wrong_region", region="eu-west-1", status=400))
        assert once(connection, weights, 5, 5) == WEIGHTS[5:10]

    def test_expired_credentials_are_said(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("expire"))
        with pytest.raises(CheckpointError, match="the session token has expired: get new credentials"):
            once(connection, weights)
