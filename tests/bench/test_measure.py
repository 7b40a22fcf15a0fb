"""Percentiles, memory peaks and the processor time of others."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.bench.measure import PeakMemory, ProcessorTime, anonymous_bytes, in_order, percentile, share_of_others

_BURN = "import time\nend = time.monotonic() + 30\nprint('on', flush=True)\nwhile time.monotonic() < end: pass"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values_with_enough_of_them_at_or_below(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_percentiles_of_a_hundred_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]


def test_who_goes_after_whom_changes_from_round_to_round() -> None:
    rounds = [in_order("abc", turn) for turn in range(4)]
    assert rounds == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"], ["c", "b", "a"]]


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_the_peak_is_seen_after_the_memory_was_given_back() -> None:
    before = anonymous_bytes(os.getpid())
    with PeakMemory([os.getpid()], interval=0.005) as memory:
        block = bytearray(os.urandom(1)) * (64 << 20)
        deadline = time.monotonic() + 10
        while memory.peaks[0] < before + (60 << 20):
            assert time.monotonic() < deadline, "the peak was not seen"
            time.sleep(0.005)
        del block
    assert memory.peaks[0] >= before + (60 << 20)
    assert anonymous_bytes(os.getpid()) < memory.peaks[0] - (50 << 20)


def test_a_process_that_is_gone_has_no_memory() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert anonymous_bytes(gone.pid) == 0


def test_a_busy_process_counts_as_another_unless_it_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", _BURN], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            mine = [os.getpid(), busy.pid]
            first, first_mine = ProcessorTime.now([os.getpid()]), ProcessorTime.now(mine)
            _spin_until_used(busy.pid, 0.4)
            last, last_mine = ProcessorTime.now([os.getpid()]), ProcessorTime.now(mine)
        finally:
            busy.kill()
    assert share_of_others(first, last) > share_of_others(first_mine, last_mine)
    used = (last_mine.ours - last.ours) - (first_mine.ours - first.ours)
    assert used >= 0.3


def test_the_share_is_of_all_cores() -> None:
    before = ProcessorTime(wall=0, everybody=100, ours=10)
    after = ProcessorTime(wall=10, everybody=112, ours=15)
    assert share_of_others(before, after, cores=2) == pytest.approx(7 / 20)


def _spin_until_used(pid: int, seconds: float) -> None:
    start = ProcessorTime.now([pid]).ours
    deadline = time.monotonic() + 20
    while ProcessorTime.now([pid]).ours < start + seconds:
        assert time.monotonic() < deadline
        time.sleep(0.02)
