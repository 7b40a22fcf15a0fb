from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from bloomery.checkpoints.retry import Attempts, Brake, RetryPolicy, retry_after
from bloomery.checkpoints.source import TransientError, UnreachableError
from bloomery.checkpoints.sources.reading import persistently
from bloomery.errors import CheckpointError

BROKEN = TransientError("s3://b/k, bytes 0-9: reset")
BUSY = TransientError("s3://b/k, bytes 0-9: SlowDown", slow_down=True, after=7.0)


class TestPause:
    def test_it_is_drawn_from_a_span_that_doubles_up_to_a_cap(self) -> None:
        policy = RetryPolicy(base=0.1, cap=5.0)
        longest = [policy.pause(failures, BROKEN, lambda: 1.0) for failures in (1, 2, 3, 10, 1000)]
        assert longest == pytest.approx([0.2, 0.4, 0.8, 5.0, 5.0])
        assert policy.pause(3, BROKEN, lambda: 0.0) == 0.0

    def test_a_servers_wish_is_honoured_and_still_spread(self) -> None:
        assert RetryPolicy().pause(1, BUSY, lambda: 0.0) == 7.0
        assert RetryPolicy().pause(1, BUSY, lambda: 1.0) > 7.0

    def test_a_wish_for_an_hour_is_not(self) -> None:
        assert RetryPolicy().pause(1, TransientError("x", after=3600.0), lambda: 0.0) == 60.0


class TestAttempts:
    def test_so_many_failures_in_a_row_are_enough(self) -> None:
        attempts = Attempts(RetryPolicy(attempts=3), 0.0, lambda: 0.0)
        attempts.failed(BROKEN, 1.0)
        attempts.failed(BROKEN, 2.0)
        with pytest.raises(CheckpointError, match=r"reset; given up after 3 attempts and 3 s without progress$"):
            attempts.failed(BROKEN, 3.0)

    def test_bytes_between_them_begin_the_count_anew(self) -> None:
        attempts = Attempts(RetryPolicy(attempts=2, patience=10.0), 0.0, lambda: 0.0)
        for now in (5.0, 10.0, 15.0, 20.0):
            attempts.failed(BROKEN, now)
            attempts.came(now)

    def test_patience_ends_before_a_pause_that_would_exceed_it(self) -> None:
        attempts = Attempts(RetryPolicy(patience=60.0), 0.0, lambda: 0.0)
        assert attempts.failed(BUSY, 53.0) == 7.0
        with pytest.raises(CheckpointError, match="given up after 2 attempts and 54 s"):
            attempts.failed(BUSY, 54.0)

    def test_what_is_raised_is_not_tried_again(self) -> None:
        with pytest.raises(CheckpointError) as caught:
            Attempts(RetryPolicy(attempts=1), 0.0).failed(BROKEN, 0.0)
        assert not isinstance(caught.value, TransientError)
        assert caught.value.__cause__ is BROKEN


class TestBrake:
    def test_nothing_brakes_before_somebody_is_asked_to(self) -> None:
        brake = Brake()
        assert [brake.turn(0.0) for _ in range(5)] == [0.0] * 5

    def test_requests_of_all_connections_come_one_after_the_other(self) -> None:
        brake = Brake(first_gap=0.5)
        brake.slow_down(TransientError("x", slow_down=True), 10.0)
        assert [brake.turn(10.0) for _ in range(3)] == pytest.approx([0.5, 1.0, 1.5])

    def test_all_wait_for_the_time_that_one_was_told(self) -> None:
        brake = Brake(first_gap=0.5)
        brake.slow_down(BUSY, 10.0)
        assert brake.turn(11.0) == pytest.approx(6.0)

    def test_many_complaints_of_one_moment_count_once(self) -> None:
        once, often = Brake(), Brake()
        once.slow_down(TransientError("x"), 10.0)
        for _ in range(16):
            often.slow_down(TransientError("x"), 10.01)
        assert often.turn(10.01) == pytest.approx(once.turn(10.0))

    def test_repeated_complaints_double_the_gap_up_to_a_longest(self) -> None:
        brake, gaps = Brake(first_gap=0.1, longest_gap=1.0), []
        for now in range(10, 100, 10):
            brake.slow_down(TransientError("x"), float(now))
            gaps.append(brake.turn(float(now)))
        assert gaps[:3] == pytest.approx([0.1, 0.2, 0.4])
        assert gaps[-1] == pytest.approx(1.0)

    def test_success_releases_it(self) -> None:
        brake = Brake(first_gap=0.1)
        brake.slow_down(TransientError("x"), 10.0)
        brake.succeeded()
        brake.turn(20.0)
        assert brake.turn(20.0) == 0.0

    def test_waiting_ends_when_it_is_cancelled(self) -> None:
        brake, cancelled = Brake(), threading.Event()
        brake.slow_down(TransientError("x", after=50.0), time.monotonic())
        threading.Timer(0.05, cancelled.set).start()
        began = time.monotonic()
        brake.wait(cancelled)
        assert time.monotonic() - began < 20


def test_what_is_asked_for_in_vain_is_unreachable() -> None:
    def attempt() -> None:
        tried.append(1)
        raise BROKEN

    tried: list[int] = []
    with pytest.raises(UnreachableError, match="reset; given up after 3 attempts"):
        persistently(attempt, RetryPolicy(attempts=3, base=0.001))
    assert len(tried) == 3


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("12") == 12.0
    assert retry_after("-3") == 0.0
    then = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert then is not None
    assert 20 < then < 31
    assert [retry_after(text) for text in (None, "", "soon")] == [None] * 3
