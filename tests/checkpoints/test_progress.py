from __future__ import annotations

import logging
import re
import threading

import pytest

from bloomery.checkpoints.progress import Progress, megabytes
from bloomery.processes import rank


class Clock:
    """Stands in for the machine's, which no test can hurry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("bloomery.checkpoints.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_log_says_bytes_rate_and_time_left_every_few_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("loading weights", 200_000_000)
    with caplog.at_level(logging.INFO):
        for _ in range(11):
            clock.now += 1
            progress.add(10_000_000)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "loading weights: 50.0 MB of 200.0 MB, 10.0 MB/s, 15 s left",
        "loading weights: 100.0 MB of 200.0 MB, 10.0 MB/s, 10 s left",
    ]


def test_silence_is_said(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("fetching", 100, what="s3://b/k")
    with caplog.at_level(logging.INFO):
        clock.now += 6
        progress.tell()
    assert caplog.messages == [
        "fetching s3://b/k: 0.0 MB of 0.0 MB, 0.0 MB/s, time left unknown; nothing has come for 6 s"
    ]


def test_what_is_read_once_more_is_expected_too(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("fetching", 100_000_000)
    with caplog.at_level(logging.INFO):
        progress.expect(100_000_000)
        clock.now += 10
        progress.add(150_000_000)
    assert caplog.messages == ["fetching: 150.0 MB of 200.0 MB, 15.0 MB/s, 3 s left"]


def test_what_was_there_before_counts_for_no_rate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("fetching", 3_000_000_000, done=1_000_000_000)
    with caplog.at_level(logging.INFO):
        clock.now += 10
        progress.add(1_000_000_000)
    assert caplog.messages == ["fetching: 2.00 GB of 3.00 GB, 100.0 MB/s, 10 s left"]
    assert progress.came == 1_000_000_000


def test_the_control_channel_hears_the_percentage_and_the_end(clock: Clock) -> None:
    seen: list[tuple[int, int]] = []
    progress = Progress("loading weights", 200, seen=lambda done, total: seen.append((done, total)))
    clock.now += 1
    progress.add(50)
    status = rank.current.status()
    assert (status.phase, status.percent) == ("loading weights", 25.0)
    progress.add(150)
    progress.finish()
    assert rank.current.status().percent == 100.0
    assert seen == [(50, 200), (200, 200)]


def test_all_that_came_is_less_than_a_hundred_percent_until_it_is_checked(clock: Clock) -> None:
    progress = Progress("fetching", 200)
    clock.now += 1
    progress.add(200)
    assert rank.current.status().percent == 99.9


def test_the_end_says_how_long_it_took(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("fetching", 10_000_000, what="s3://b/k")
    clock.now += 2
    progress.add(10_000_000)
    with caplog.at_level(logging.INFO):
        progress.finish()
    assert caplog.messages == ["fetching s3://b/k: 10.0 MB in 2.0 s (5.0 MB/s)"]


def test_threads_lose_no_count() -> None:
    progress = Progress("fetching", 400_000)

    def count() -> None:
        for _ in range(10_000):
            progress.add(10)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.came == 400_000


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 MB"), (1_500_000, "1.5 MB"), (2_340_000_000, "2.34 GB")])
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert megabytes(count) == text
    assert re.fullmatch(r"[\d.]+ [MG]B", text)
