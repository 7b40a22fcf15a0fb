from __future__ import annotations

import random

import pytest

from bloomery.bench.endpoint import statistics


@pytest.mark.parametrize(
    ("count", "quantile", "expected"),
    [
        (10, 0.5, (2, 9)),  # P(1 < B <= 8) = 1 - 2 * 11/1024
        (30, 0.5, (10, 21)),  # as tables of the median's interval have it
        (5, 0.5, (None, None)),  # 2 * 0.5**5 = 6 %: five calls say nothing with 95 %
        (6, 0.5, (1, 6)),  # 2 * 0.5**6 = 3 %
        (30, 0.99, (28, None)),
        (368, 0.99, (360, 368)),  # at most 9 of 368 above it: 98.5 %; at most 8: 96.4 %
    ],
)
def test_ranks_enclose_the_quantile(count: int, quantile: float, expected: tuple[int | None, int | None]) -> None:
    assert statistics.ranks(count, quantile, 0.95) == expected


def test_p99_has_an_upper_bound_from_so_many_calls_on() -> None:
    needed = statistics.calls_needed(99)
    assert statistics.ranks(needed, 0.99, 0.95)[1] == needed
    assert statistics.ranks(needed - 1, 0.99, 0.95)[1] is None


def test_intervals_hold_the_true_quantile_as_often_as_they_say() -> None:
    numbers = random.Random(5)
    inside = 0
    for _ in range(400):
        found = statistics.quantile([numbers.expovariate(1) for _ in range(60)], 90)
        low, high = found.low or 0.0, found.high or float("inf")
        inside += low <= 2.302585 <= high  # ln 10
    assert inside / 400 >= 0.95


def test_figures_of_a_distribution_in_milliseconds() -> None:
    told = statistics.described([value / 1000 for value in range(1, 101)])
    assert told is not None
    assert (told["p50"], told["p90"], told["p99"], told["max"], told["mean"]) == (50, 90, 99, 100, 50.5)
    assert told["p50_interval"] == [40, 61]
    assert told["p99_interval"][1] is None


def test_gaps_have_no_interval_because_they_depend_on_each_other() -> None:
    told = statistics.described([0.001, 0.002], independent=False)
    assert told is not None
    assert "p50_interval" not in told


def test_a_curve_begins_and_ends_with_the_extremes() -> None:
    values = [random.Random(1).random() for _ in range(5000)]
    curve = statistics.curve(values, points=100, scale=1)
    assert len(curve) == 100
    assert curve == sorted(curve)
    assert (curve[0], curve[-1]) == (round(min(values), 3), round(max(values), 3))
